//! `audit`: where the record of each step goes beside the log, and who else is told.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

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
    /// Target of what a user may read of their own steps.
    pub users: UserRecords,
}

/// Directory of [`UserRecords::Usual`], which an installation makes.
pub const USER_RECORDS: &str = "/var/lib/coracle/records";

/// Directory of root's with the records of each user's own steps, a file for each user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PathBuf")]
pub enum UserRecords {
    /// [`USER_RECORDS`], on nodes that have it.
    #[default]
    Usual,
    /// There are none.
    None,
    /// This one, and it must be there.
    In(PathBuf),
}

impl UserRecords {
    /// The directory, if there are such files on this node.
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
