//! Reads manifests and indexes: OCI's (image-spec, manifest.md, image-index.md) and Docker's (schema 2).
#![forbid(unsafe_code)]

use coracle::report::Kind;
use serde::Deserialize;

use super::fault::Fault;
use crate::sources::digest::Digest;
use crate::sources::json::null_is_default;
use crate::sources::platform::{Platform, Processor};

/// Accepted media types.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// Limit of a manifest, in bytes: the size that registries must accept (distribution-spec, "Pushing Manifests").
pub const LONGEST: u64 = 4 << 20;
/// Limit of a configuration, in bytes.
pub const LONGEST_CONFIG: u64 = 16 << 20;
/// Limit of the images without a platform that are examined in an index.
const MOST_SILENT: usize = 16;
/// Media types of layers of a root file system.
const LAYERS: [&str; 9] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];
/// Media types of configurations of images.
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Blob: its digest and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Digest of the bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// Manifest of an image, or index.
#[derive(Debug)]
pub enum Manifest {
    /// One image.
    Image {
        /// Configuration.
        config: Part,
        /// Layers, the lowest first.
        layers: Vec<Part>,
    },
    /// Several images, for different processors.
    Index(Index),
}

/// Images of an index.
#[derive(Debug)]
pub struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default, deserialize_with = "null_is_default")]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

impl Descriptor {
    fn part(&self) -> Result<Part, Fault> {
        Ok(Part { digest: Digest::parse(&self.digest).map_err(damaged)?, size: self.size })
    }
}

fn damaged(cause: String) -> Fault {
    Fault::new(Kind::ImageFormat, format!("its manifest: {cause}"))
}

impl Manifest {
    /// Parses a manifest or an index.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if raw.schema_version == Some(1) {
            let cause =
                "its manifest is of Docker's first scheme, which has no digests of layers that could be checked";
            return Err(Fault::new(Kind::ImageFormat, cause).hint("push the image again, with any newer program"));
        }
        match raw {
            Raw { schema_version: Some(2), config: Some(config), layers, manifests: None } => {
                // Go writes null for an image without layers.
                Self::image(&config, &layers.unwrap_or_default())
            }
            Raw { schema_version: Some(2), config: None, layers: None, manifests: Some(manifests) } => {
                Ok(Self::Index(Index { manifests }))
            }
            // A document with both would be two images: one program could check one, and another run the other
            // (CVE-2021-41190).
            _ => Err(damaged("it is neither that of an image nor an index".into())),
        }
    }

    fn image(config: &Descriptor, layers: &[Descriptor]) -> Result<Self, Fault> {
        if !CONFIGS.contains(&config.media_type.as_str()) {
            return Err(Fault::new(Kind::ImageFormat, format!("no image of a file system: {:?}", config.media_type)));
        }
        for layer in layers {
            if layer.media_type.ends_with("+encrypted") {
                return Err(Fault::new(Kind::ImageEncrypted, "its layers are encrypted"));
            }
            if !LAYERS.contains(&layer.media_type.as_str()) {
                return Err(Fault::new(
                    Kind::ImageFormat,
                    format!("a layer of an unknown kind: {:?}", layer.media_type),
                ));
            }
        }
        let config = config.part()?;
        if config.size > LONGEST_CONFIG {
            return Err(damaged(format!("a configuration of {} bytes", config.size)));
        }
        let layers: Vec<Part> = layers.iter().map(Descriptor::part).collect::<Result<_, _>>()?;
        if layers.iter().try_fold(config.size, |sum, layer| sum.checked_add(layer.size)).is_none() {
            return Err(damaged("more bytes than can be counted".into()));
        }
        Ok(Self::Image { config, layers })
    }
}

impl Index {
    /// Image for a processor: the one with its platform, or else those without a platform.
    pub fn choose(&self, wanted: &Processor) -> Result<Vec<Part>, Fault> {
        let platforms: Vec<_> = self.manifests.iter().map(|manifest| manifest.platform.clone()).collect();
        if let Some(manifest) = wanted.choose(&platforms).and_then(|place| self.manifests.get(place)) {
            return Ok(vec![manifest.part()?]);
        }
        let silent = self
            .manifests
            .iter()
            .filter(|manifest| manifest.platform.as_ref().is_none_or(|platform| platform.architecture.is_empty()));
        let parts = silent.take(MOST_SILENT).map(Descriptor::part).collect::<Result<Vec<Part>, Fault>>()?;
        if parts.is_empty() { Err(self.nothing_for(wanted)) } else { Ok(parts) }
    }

    fn nothing_for(&self, wanted: &Processor) -> Fault {
        let mut offered: Vec<String> = self
            .manifests
            .iter()
            .filter_map(|manifest| manifest.platform.as_ref())
            // Builders put their attestations under this architecture.
            .filter(|platform| platform.architecture != "unknown")
            .map(Platform::to_string)
            .collect();
        offered.dedup();
        let offered = if offered.is_empty() { "none that says so".into() } else { offered.join(", ") };
        Fault::new(Kind::ImageArch, format!("none of its images is for {wanted}; there are: {offered}"))
            .hint("--arch takes another one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI: &str = "application/vnd.oci.image";

    fn descriptor(kind: &str, rest: &str) -> String {
        format!(r#"{{"mediaType":"{kind}","size":7,"digest":"sha256:{}"{rest}}}"#, "a".repeat(64))
    }

    fn image(config: &str, layer: &str, rest: &str) -> String {
        let (config, layer) = (descriptor(config, ""), descriptor(layer, ""));
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{rest}}}"#)
    }

    #[test]
    fn an_image_has_a_configuration_and_layers() {
        let text = image(&format!("{OCI}.config.v1+json"), &format!("{OCI}.layer.v1.tar+zstd"), "");
        let Manifest::Image { config, layers } = Manifest::parse(text.as_bytes()).unwrap() else { panic!() };
        assert_eq!((config.size, layers.len()), (7, 1));
        for (text, kind, cause) in [
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), Kind::ImageFormat, "first scheme"),
            ("{}".into(), Kind::ImageFormat, "neither"),
            ("[".into(), Kind::ImageFormat, "EOF"),
            (
                image(&format!("{OCI}.config.v1+json"), &format!("{OCI}.layer.v1.tar"), r#","manifests":[]"#),
                Kind::ImageFormat,
                "neither",
            ),
            (
                image(&format!("{OCI}.config.v1+json"), &format!("{OCI}.layer.v1.tar+gzip+encrypted"), ""),
                Kind::ImageEncrypted,
                "encrypted",
            ),
            (image("application/vnd.cncf.helm.config.v1+json", "x", ""), Kind::ImageFormat, "helm"),
            (image(&format!("{OCI}.config.v1+json"), "application/wasm", ""), Kind::ImageFormat, "wasm"),
            (
                image(&format!("{OCI}.config.v1+json"), &format!("{OCI}.layer.v1.tar"), "").replace(":7", ":-1"),
                Kind::ImageFormat,
                "invalid value",
            ),
            (
                image(&format!("{OCI}.config.v1+json"), &format!("{OCI}.layer.v1.tar"), "")
                    .replace(":7", ":18446744073709551615"),
                Kind::ImageFormat,
                "18446744073709551615 bytes",
            ),
            (
                image(&format!("{OCI}.config.v1+json"), &format!("{OCI}.layer.v1.tar"), "").replace("sha256", "md5"),
                Kind::ImageFormat,
                "md5",
            ),
        ] {
            let refusal = Manifest::parse(text.as_bytes()).unwrap_err().refusal("x");
            assert!(refusal.kind == kind && refusal.cause.contains(cause), "{text}: {refusal}");
        }
    }

    #[test]
    fn an_index_without_the_processor_says_which_it_has() {
        let entry = |rest: &str| descriptor("x", &format!(r#","platform":{rest}"#));
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#,
            entry(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#),
            entry(r#"{"os":"unknown","architecture":"unknown"}"#),
            entry(r#"{"os":"windows","architecture":"amd64"}"#),
        );
        let Manifest::Index(index) = Manifest::parse(text.as_bytes()).unwrap() else { panic!() };
        assert_eq!(index.choose(&Processor::of(Some("aarch64")).unwrap()).unwrap()[0].size, 7);
        let refusal = index.choose(&Processor::of(Some("amd64")).unwrap()).unwrap_err().refusal("x");
        assert_eq!(refusal.cause, "none of its images is for amd64; there are: arm64/v8, windows/amd64");
        let silent = descriptor("x", "");
        for more in
            [silent.clone(), descriptor("x", r#","platform":null"#), entry(r#"{"os":null,"architecture":null}"#)]
        {
            let text = text.replacen('[', &format!("[{more},"), 1);
            let Manifest::Index(index) = Manifest::parse(text.as_bytes()).unwrap() else { panic!() };
            assert_eq!(index.choose(&Processor::of(Some("amd64")).unwrap()).unwrap().len(), 1, "{more}");
        }
    }
}
