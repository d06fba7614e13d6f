//! `metrics`: counters of each node's steps, for a collector.
#![forbid(unsafe_code)]

use serde::Deserialize;

use super::values::Absolute;

/// File with counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    /// Local file in a directory that only root can write; it is replaced at the end of each step.
    pub file: Option<Absolute>,
}
