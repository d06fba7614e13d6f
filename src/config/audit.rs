//! `audit`: where the record of each step goes beside the log, and who else is told.
#![forbid(unsafe_code)]

use serde::Deserialize;

use super::values::{Absolute, YesOrNo};

/// Records that the site wants to be kept of each step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Keys")]
pub struct Audit {
    /// The file that a line is appended to for each step and node.
    pub file: Option<Absolute>,
    /// True if a step is refused when that cannot be done.
    pub required: bool,
    /// True if a job's comment names its image.
    pub comment: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    file: Option<Absolute>,
    #[serde(default)]
    required: YesOrNo,
    #[serde(default)]
    comment: YesOrNo,
}

impl TryFrom<Keys> for Audit {
    type Error = String;
    fn try_from(keys: Keys) -> Result<Self, String> {
        let Keys { file, required: YesOrNo(required), comment: YesOrNo(comment) } = keys;
        match (&file, required) {
            (None, true) => Err("`required` needs `file` (audit)".into()),
            _ => Ok(Self { file, required, comment }),
        }
    }
}
