//! Checks the manifests of registries: media types and sizes, before anything is downloaded.
#![forbid(unsafe_code)]

use coracle::report::Kind;

use super::fault::Fault;
use crate::sources::digest::Digest;
use crate::sources::oci::manifest::Descriptor;

/// Accepted media types.
pub const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// Limit of a configuration, in bytes.
pub const LONGEST_CONFIG: u64 = 16 << 20;
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

impl Part {
    /// Checks the digest of a descriptor.
    pub fn of(descriptor: &Descriptor) -> Result<Self, Fault> {
        Ok(Self { digest: Digest::parse(&descriptor.digest).map_err(damaged)?, size: descriptor.size })
    }
}

fn damaged(cause: String) -> Fault {
    Fault::new(Kind::ImageFormat, format!("its manifest: {cause}"))
}

/// Configuration and layers of an image.
pub fn parts(config: &Descriptor, layers: &[Descriptor]) -> Result<(Part, Vec<Part>), Fault> {
    if !CONFIGS.contains(&config.media_type.as_str()) {
        return Err(Fault::new(Kind::ImageFormat, format!("no image of a file system: {:?}", config.media_type)));
    }
    if let Some(layer) = layers.iter().find(|layer| !LAYERS.contains(&layer.media_type.as_str())) {
        return Err(Fault::new(Kind::ImageFormat, format!("a layer of an unknown kind: {:?}", layer.media_type)));
    }
    let config = Part::of(config)?;
    if config.size > LONGEST_CONFIG {
        return Err(damaged(format!("a configuration of {} bytes", config.size)));
    }
    let layers: Vec<Part> = layers.iter().map(Part::of).collect::<Result<_, _>>()?;
    if layers.iter().try_fold(config.size, |sum, layer| sum.checked_add(layer.size)).is_none() {
        return Err(damaged("more bytes than can be counted".into()));
    }
    Ok((config, layers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::oci::manifest::Manifest;

    const OCI: &str = "application/vnd.oci.image";

    fn image(config: &str, layer: &str) -> String {
        let descriptor =
            |kind: &str| format!(r#"{{"mediaType":"{kind}","size":7,"digest":"sha256:{}"}}"#, "a".repeat(64));
        format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, descriptor(config), descriptor(layer))
    }

    fn read(text: &str) -> Result<(Part, Vec<Part>), Fault> {
        let Manifest::Image { config, layers } = Manifest::parse("x", text.as_bytes())? else { panic!() };
        parts(&config, &layers)
    }

    #[test]
    fn an_image_has_a_configuration_and_layers_of_known_kinds_and_sizes() {
        let good = image(&format!("{OCI}.config.v1+json"), &format!("{OCI}.layer.v1.tar+zstd"));
        let (config, layers) = read(&good).unwrap();
        assert_eq!((config.size, layers.len()), (7, 1));
        for (text, cause) in [
            (image("application/vnd.cncf.helm.config.v1+json", "x"), "helm"),
            (image(&format!("{OCI}.config.v1+json"), "application/wasm"), "wasm"),
            (image(&format!("{OCI}.config.v1+json"), ""), "unknown kind: \"\""),
            (good.replace(":7", ":-1"), "invalid value"),
            (good.replace(":7", ":18446744073709551615"), "18446744073709551615 bytes"),
            (good.replacen(":7", ":9", 1).replace(":7", ":18446744073709551615"), "more bytes than can be counted"),
            (good.replace("sha256", "md5"), "md5"),
        ] {
            let refusal = read(&text).unwrap_err().refusal("x");
            assert!(refusal.kind == Kind::ImageFormat && refusal.cause.contains(cause), "{text}: {refusal}");
        }
    }
}
