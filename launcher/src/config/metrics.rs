//! `metrics`: counters of each node's steps, for whoever collects them.
#![forbid(unsafe_code)]

use serde::Deserialize;

use super::values::Absolute;

/// File with counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// The file, which is replaced at the end of each step; a local one, in a directory of root's alone.
    pub file: Option<Absolute>,
}
