//! Reads images in OCI's form (image-spec, v1.1): a configuration and layers, from any place.
#![forbid(unsafe_code)]

mod docker;
mod layout;
pub mod manifest;
mod place;
mod recognize;

use std::collections::BTreeMap;

use coracle::report::{Kind, Refusal};
use serde::Deserialize;

use crate::sources::archive::Layer;
use crate::sources::digest::Digest;
use crate::sources::json::{null_is_default, without_nulls};

pub use docker::from_docker_archive;
pub use layout::{from_layout, from_layout_archive};
pub use recognize::{Form, of_archive, of_directory};

/// Limit of a manifest or index, and of a configuration on this host, in bytes: registries need not take longer
/// manifests (distribution-spec, "Pushing Manifests").
pub const MAX_JSON: u64 = 4 << 20;
/// Limit of the layers of an image: more than any program makes.
const MAX_LAYERS: usize = 1024;
/// Processors with Go's and Rust's names.
const PROCESSORS: [(&str, &str); 9] = [
    ("amd64", "x86_64"),
    ("arm64", "aarch64"),
    ("386", "x86"),
    ("arm", "arm"),
    ("ppc64le", "powerpc64le"),
    ("ppc64", "powerpc64"),
    ("s390x", "s390x"),
    ("riscv64", "riscv64"),
    ("loong64", "loongarch64"),
];

/// Image on this host; all its digests are checked.
#[derive(Debug)]
pub struct Image {
    /// Configuration, as bytes.
    pub config: Vec<u8>,
    /// Digest of its manifest, if it has one: `sha256:` and hexadecimal digits.
    pub digest: Option<String>,
    /// Layers, the lowest first.
    pub layers: Vec<Layer>,
}

impl Image {
    /// Makes an image of `layers`, checked with its configuration.
    fn of(what: &str, config: Vec<u8>, digest: Option<String>, layers: Vec<Layer>) -> Result<Self, Refusal> {
        let refuse = |cause: String| Refusal::new(Kind::ImageFormat, what, cause);
        let said: Config = json(what, "its configuration", &config)?;
        let wanted = said.rootfs.diff_ids;
        if layers.len() > MAX_LAYERS {
            return Err(refuse(format!("more than {MAX_LAYERS} layers")));
        }
        if wanted.len() != layers.len() {
            return Err(refuse(format!("{} layers, and its configuration says {}", layers.len(), wanted.len())));
        }
        for id in &wanted {
            parse_digest(what, id)?;
        }
        let with_id = |(layer, id)| Layer { diff_id: Some(id), ..layer };
        Ok(Self { config, digest, layers: layers.into_iter().zip(wanted).map(with_id).collect() })
    }

    /// Parsed configuration.
    pub fn config(&self) -> Result<Config, Refusal> {
        json("image", "its configuration", &self.config)
    }
}

impl Config {
    /// Processor of the image, as images of this program name it; this host's, if the image names none.
    pub fn processor(&self) -> Result<String, Refusal> {
        if self.architecture.is_empty() {
            return Ok(std::env::consts::ARCH.to_owned());
        }
        let known = PROCESSORS.iter().find(|(go, _)| *go == self.architecture).map(|(_, rust)| (*rust).to_owned());
        known.ok_or_else(|| Refusal::new(Kind::ImageArch, &self.architecture, "no processor that a SIF can name"))
    }
}

fn json<'a, T: Deserialize<'a>>(what: &str, which: &str, bytes: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::new(Kind::ImageFormat, what, format!("{which} cannot be read: {error}")))
}

/// Parses a SHA-256 digest: its digits become part of a path.
fn parse_digest(what: &str, text: &str) -> Result<Digest, Refusal> {
    let cause = || format!("{:?} is no digest of SHA-256", text.chars().take(100).collect::<String>());
    let digest = Digest::parse(text).ok().filter(|digest| digest.algorithm() == "sha256");
    digest.ok_or_else(|| Refusal::new(Kind::ImageFormat, what, cause()))
}

/// Compares bytes with their digest.
fn check_bytes(what: &str, digest: &Digest, bytes: &[u8]) -> Result<(), Refusal> {
    let found = digest.of_same_kind(bytes);
    if found == *digest {
        return Ok(());
    }
    Err(Refusal::new(Kind::Digest, what, format!("{found} is called {digest}")))
}

/// Configuration of an image (image-spec, config.md), as far as a SIF needs it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Config {
    /// Processor, with Go's name: amd64, arm64 …
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// Settings of its containers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Execution,
    /// Layers of the root file system.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
}

/// Settings of an image's containers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    /// User, and maybe group.
    pub user: Option<String>,
    /// NAME=VALUE
    pub env: Option<Vec<String>>,
    /// Command to start.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments of the command, or the command if the user gives none.
    pub cmd: Option<Vec<String>>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Labels, as the image's author wrote them.
    #[serde(deserialize_with = "without_nulls")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Layers of the root file system.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Digests of the uncompressed tar files.
    #[serde(deserialize_with = "null_is_default")]
    pub diff_ids: Vec<String>,
}
