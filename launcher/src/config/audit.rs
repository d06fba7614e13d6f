//! `audit`: further targets of each step's record, beside the log.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::values::{Absolute, YesOrNo};

/// Records of each step that the site keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Keys")]
pub struct Audit {
    /// File that gets one line for each step and node.
    pub file: Option<Absolute>,
    /// True if a step is refused when its record cannot be written.
    pub required: bool,
    /// True if Slurm's comment of a job names its image.
    pub comment: bool,
    /// Target of the records that users may read of their own steps.
    pub users: UserRecords,
}

/// Directory of [`UserRecords::Usual`], which the installation creates.
pub const USER_RECORDS: &str = "/var/lib/coracle/records";

/// Directory, owned by root, with one file for each user: the records of that user's steps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PathBuf")]
pub enum UserRecords {
    /// [`USER_RECORDS`], on nodes that have it.
    #[default]
    Usual,
    /// No such records.
    None,
    /// This directory, which must exist.
    In(PathBuf),
}

impl UserRecords {
    /// The directory, if this node has one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::In(path) => Some(path),
            Self::Usual => Some(Path::new(USER_RECORDS)).filter(|path| path.is_dir()),
        }
    }
}

impl TryFrom<PathBuf> for UserRecords {
    type Error = String;
    fn try_from(path: PathBuf) -> Result<Self, String> {
        match path.to_str() {
            Some("none") => Ok(Self::None),
            _ if path.is_absolute() => Ok(Self::In(path)),
            _ => Err(format!("`users` is an absolute path or none, not {path:?} (audit)")),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    file: Option<Absolute>,
    #[serde(default)]
    required: YesOrNo,
    #[serde(default)]
    comment: YesOrNo,
    #[serde(default)]
    users: UserRecords,
}

impl TryFrom<Keys> for Audit {
    type Error = String;
    fn try_from(keys: Keys) -> Result<Self, String> {
        let Keys { file, required: YesOrNo(required), comment: YesOrNo(comment), users } = keys;
        match (&file, required) {
            (None, true) => Err("`required` needs `file` (audit)".into()),
            _ => Ok(Self { file, required, comment, users }),
        }
    }
}
