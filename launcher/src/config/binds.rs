//! `binds` of coracle.yaml: directories and files of the node that every container shows.
#![forbid(unsafe_code)]

use std::path::Path;

use serde::Deserialize;

use super::values::{Absolute, Target};
use coracle::request::Access;

/// Directory or file of the node that every container shows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteBind {
    /// Path on the node.
    pub source: Absolute,
    /// Path inside; `source` if unset.
    target: Option<Target>,
    /// `ro` or `rw`.
    #[serde(default)]
    mode: Mode,
    /// True if a node without `source` refuses to start containers.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

impl SiteBind {
    /// Path inside.
    pub fn target(&self) -> &Path {
        self.target.as_ref().map_or(&self.source.0, |target| &target.0)
    }

    /// Access that the bind gives.
    pub fn access(&self) -> Access {
        match self.mode {
            Mode::Ro => Access::ReadOnly,
            Mode::Rw => Access::ReadWrite,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Ro,
    #[default]
    Rw,
}
