//! An image as OCI has it (image-spec, v1.1): a configuration and layers, wherever they lie.
#![forbid(unsafe_code)]

mod docker;
mod layout;
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

/// The longest manifest, index or configuration that is read: registries take none of more than 4 MiB.
const MAX_JSON: u64 = 4 << 20;
/// The most layers of an image: more than any tool makes.
const MAX_LAYERS: usize = 1024;
/// Processors, as Go and as Rust call them.
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

/// An image that lies on this machine, with every digest checked.
#[derive(Debug)]
pub struct Image {
    /// The configuration, as it is.
    pub config: Vec<u8>,
    /// The digest of its manifest, if it has one: `sha256:` and hexadecimal digits.
    pub digest: Option<String>,
    /// From the lowest on.
    pub layers: Vec<Layer>,
}

impl Image {
    /// One of `layers`, by what its configuration says.
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
            check_digest(what, id)?;
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
    /// The processor that the image is for, as the images of this program name it; this machine's, if it does not say.
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

/// The hexadecimal digits of a digest, which must be of SHA-256: they become a part of a path.
fn check_digest<'a>(what: &str, digest: &'a str) -> Result<&'a str, Refusal> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| is_hex(hex));
    let cause = || format!("{:?} is no digest of SHA-256", digest.chars().take(100).collect::<String>());
    hex.ok_or_else(|| Refusal::new(Kind::ImageFormat, what, cause()))
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Compares what was read with its digest.
fn check_bytes(what: &str, digest: &str, bytes: &[u8]) -> Result<(), Refusal> {
    let wanted = check_digest(what, digest)?;
    let found = Digest::sha256(bytes);
    if found.digits() == wanted {
        return Ok(());
    }
    Err(Refusal::new(Kind::Digest, what, format!("{found} is called {digest}")))
}

/// Configuration of an image (image-spec, config.md), as far as it matters for a SIF.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Config {
    /// The processor, as Go calls it: amd64, arm64 …
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// Settings that a container of it runs with.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: Execution,
    /// Layers of the root file system.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
}

/// Settings that a container of an image runs with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    /// The user, and maybe group.
    pub user: Option<String>,
    /// NAME=VALUE
    pub env: Option<Vec<String>>,
    /// Command that is started.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or what is started if nothing else is said.
    pub cmd: Option<Vec<String>>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Whatever its makers wanted to say.
    #[serde(deserialize_with = "without_nulls")]
    pub labels: Option<BTreeMap<String, String>>,
}

/// Layers of the root file system.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// The digests of the tar files when they are not compressed.
    #[serde(deserialize_with = "null_is_default")]
    pub diff_ids: Vec<String>,
}
