//! Reads manifests and indexes: OCI's (image-spec, manifest.md, image-index.md) and Docker's (schema 2).
//!
//! Layouts and registries have the same documents. What is optional here is left out, or null, in documents of common
//! programs (docs/decisions.md, 71).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use coracle::report::{Kind, Refusal};
use serde::Deserialize;

use crate::sources::json::{null_is_default, without_nulls};
use crate::sources::platform::{Platform, Processor};

/// Key of an image's name in the index of a layout.
const NAME: &str = "org.opencontainers.image.ref.name";

/// Manifest of an image, or index.
#[derive(Debug)]
pub enum Manifest {
    /// One image.
    Image {
        /// Configuration.
        config: Descriptor,
        /// Layers, the lowest first.
        layers: Vec<Descriptor>,
    },
    /// Several images, for different processors.
    Index(Index),
}

/// Images of an index.
#[derive(Debug)]
pub struct Index {
    /// Manifests, or further indexes.
    pub manifests: Vec<Descriptor>,
}

/// Images of an index that may be the one for a processor.
#[derive(Debug)]
pub enum Choice<'a> {
    /// The image whose platform fits best.
    Fitting(&'a Descriptor),
    /// Images without a platform, if no platform fits. There may be none.
    Silent(Vec<&'a Descriptor>),
}

/// Reference to a blob (image-spec, descriptor.md). Its digest is not checked yet.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type.
    #[serde(default, deserialize_with = "null_is_default")]
    pub media_type: String,
    /// Digest, as the document has it.
    pub digest: String,
    /// Length in bytes.
    pub size: u64,
    /// Platform of an image in an index.
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "without_nulls")]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: Option<u64>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// Parses a manifest or an index of the image `what`.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Self, Refusal> {
        let refuse = |kind, cause: String| Refusal::new(kind, what, cause);
        let damaged = |cause: String| refuse(Kind::ImageFormat, format!("its manifest: {cause}"));
        let document: Document = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if document.schema_version == Some(1) {
            let cause =
                "its manifest is of Docker's first scheme, which has no digests of layers that could be checked";
            return Err(refuse(Kind::ImageFormat, cause.into()).hint("push the image again, with any newer program"));
        }
        match document {
            Document { schema_version: Some(2), config: Some(config), layers, manifests: None } => {
                // Go writes null for an image without layers.
                let layers = layers.unwrap_or_default();
                if layers.iter().any(|layer| layer.media_type.ends_with("+encrypted")) {
                    return Err(refuse(Kind::ImageEncrypted, "its layers are encrypted".into()));
                }
                Ok(Self::Image { config, layers })
            }
            Document { schema_version: Some(2), config: None, layers: None, manifests: Some(manifests) } => {
                Ok(Self::Index(Index { manifests }))
            }
            // A document with both would be two images: one program could check one, and another run the other
            // (CVE-2021-41190).
            _ => Err(damaged("it is neither that of an image nor an index".into())),
        }
    }
}

impl Index {
    /// Images for a processor.
    pub fn choose(&self, processor: &Processor) -> Choice<'_> {
        let platforms: Vec<_> = self.manifests.iter().map(|manifest| manifest.platform.clone()).collect();
        match processor.choose(&platforms).and_then(|place| self.manifests.get(place)) {
            Some(manifest) => Choice::Fitting(manifest),
            None => Choice::Silent(
                self.manifests
                    .iter()
                    .filter(|manifest| manifest.platform.as_ref().is_none_or(Platform::is_silent))
                    .collect(),
            ),
        }
    }

    /// Platforms of the images.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        self.manifests.iter().filter_map(|manifest| manifest.platform.as_ref())
    }
}

impl Descriptor {
    /// Name of an image in a layout.
    pub fn name(&self) -> Option<&str> {
        self.annotations.as_ref().and_then(|all| all.get(NAME)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI: &str = "application/vnd.oci.image";

    fn descriptor(kind: &str, rest: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","size":7,"digest":"sha256:{}"{rest}}}"#, "a".repeat(64))
    }

    fn image(layer: &str, rest: &str) -> String {
        let (config, layer) = (descriptor(&format!("{OCI}.config.v1+json"), ""), descriptor(layer, ""));
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{rest}}}"#)
    }

    #[test]
    fn a_document_is_an_image_or_an_index() {
        let tar = format!("{OCI}.layer.v1.tar");
        for (text, kind, cause) in [
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), Kind::ImageFormat, "first scheme"),
            ("{}".into(), Kind::ImageFormat, "neither"),
            ("[".into(), Kind::ImageFormat, "its manifest: EOF"),
            (image(&tar, r#","manifests":[]"#), Kind::ImageFormat, "neither"),
            (image(&tar, "").replace(":2", ":3"), Kind::ImageFormat, "neither"),
            (image(&tar, "").replace(":7", ":-1"), Kind::ImageFormat, "invalid value"),
            (image(&tar, "").replace("\"digest\"", "\"none\""), Kind::ImageFormat, "missing field `digest`"),
            (image(&format!("{tar}+gzip+encrypted"), ""), Kind::ImageEncrypted, "encrypted"),
        ] {
            let refusal = Manifest::parse("x", text.as_bytes()).unwrap_err();
            assert!(refusal.kind == kind && refusal.cause.contains(cause), "{text}: {refusal}");
        }
    }

    #[test]
    fn what_programs_leave_out_or_write_as_null_is_read() {
        let good = image(&format!("{OCI}.layer.v1.tar"), "");
        for text in [
            good.replace("mediaType", "other"),
            good.replace(&format!("\"{OCI}.config.v1+json\""), "null"),
            format!(r#"{{"schemaVersion":2,"config":{},"layers":null}}"#, descriptor("x", "")),
            format!(r#"{{"schemaVersion":2,"config":{}}}"#, descriptor("x", r#","annotations":null"#)),
            format!(r#"{{"schemaVersion":2,"config":{}}}"#, descriptor("x", r#","annotations":{"a":null}"#)),
        ] {
            assert!(matches!(Manifest::parse("x", text.as_bytes()), Ok(Manifest::Image { .. })), "{text}");
        }
    }

    #[test]
    fn of_an_index_the_platform_counts_before_silence() {
        let entry = |rest: &str| descriptor("x", &format!(r#","platform":{rest}"#));
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            entry(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#).replace(":7", ":8"),
            entry(r#"{"os":"unknown","architecture":"unknown"}"#),
            entry(r#"{"os":"windows","architecture":"amd64"}"#),
        );
        let read = |text: &str| match Manifest::parse("x", text.as_bytes()) {
            Ok(Manifest::Index(index)) => index,
            other => panic!("{other:?}"),
        };
        let processor = |name: &str| Processor::of(Some(name)).unwrap();
        let silent = |text: &str| match read(text).choose(&processor("amd64")) {
            Choice::Silent(found) => found.len(),
            Choice::Fitting(found) => panic!("{found:?}"),
        };
        let index = read(&text);
        assert!(matches!(index.choose(&processor("aarch64")), Choice::Fitting(found) if found.size == 8));
        assert_eq!(index.platforms().count(), 3);
        assert_eq!(silent(&text), 0);
        for (more, count) in [
            (descriptor("x", ""), 1),
            (descriptor("x", r#","platform":null"#), 1),
            (entry(r#"{"os":null,"architecture":null}"#), 1),
            (entry(r#"{"os":"windows"}"#), 0),
        ] {
            assert_eq!(silent(&text.replacen('[', &format!("[{more},"), 1)), count, "{more}");
        }
    }
}
