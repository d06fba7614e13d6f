//! An image as OCI has it (image-spec, v1.1): a configuration and layers, wherever they lie.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

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

/// A tar file, compressed or not: a file, or a part of one.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The file.
    pub file: PathBuf,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is as it lies there, in bytes.
    pub size: u64,
    /// The digest of the tar file when it is not compressed, if the configuration says it: `sha256:` and hexadecimal
    /// digits. It is checked while the layer is applied.
    pub diff_id: Option<String>,
}

/// What a configuration says (image-spec, config.md), as far as it matters for a SIF.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Config {
    /// The processor, as Go calls it: amd64, arm64 …
    #[serde(default)]
    pub architecture: String,
    /// What a container of it runs with.
    #[serde(default)]
    pub config: Execution,
    /// What the layers are.
    #[serde(default)]
    pub rootfs: RootFs,
}

/// What a container of an image runs with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Execution {
    /// The user, and maybe group.
    pub user: Option<String>,
    /// NAME=VALUE
    pub env: Option<Vec<String>>,
    /// What is started.
    pub entrypoint: Option<Vec<String>>,
    /// Its arguments, or what is started if nothing else is said.
    pub cmd: Option<Vec<String>>,
    /// Where.
    pub working_dir: Option<String>,
    /// Whatever its makers wanted to say.
    pub labels: Option<BTreeMap<String, String>>,
}

/// What the layers are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// The digests of the tar files when they are not compressed.
    pub diff_ids: Vec<String>,
}
