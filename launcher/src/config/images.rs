//! `user_images`, `directories` and `image_paths` of coracle.yaml: images that may run.
#![forbid(unsafe_code)]

use std::fmt;

use serde::Deserialize;

use super::rule::Fingerprint;
use super::values::Absolute;

/// Handling of user images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum UserImages {
    /// The kernel mounts it.
    Kernel,
    /// A process of the user reads it, and the kernel asks that process (fuse(4)).
    Fuse,
    /// Refused.
    Deny,
}

impl TryFrom<String> for UserImages {
    type Error = String;
    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "kernel" => Ok(Self::Kernel),
            "deny" => Ok(Self::Deny),
            "fuse" => Ok(Self::Fuse),
            other => Err(format!("`user_images` is kernel, fuse or deny, not {other:?}")),
        }
    }
}

/// Policy on directories of the node as images. `user_images` and `image_paths` hold for them as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Directories {
    /// Refused.
    Deny,
    /// Allowed.
    Allow,
}

impl TryFrom<String> for Directories {
    type Error = String;
    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "deny" => Ok(Self::Deny),
            "allow" => Ok(Self::Allow),
            other => Err(format!("`directories` is deny or allow, not {other:?}")),
        }
    }
}

impl fmt::Display for UserImages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Kernel => "kernel",
            Self::Fuse => "fuse",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Directories {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        })
    }
}

/// Directory whose images are trusted, because only their owner can write them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePath {
    /// The directory; images may lie anywhere below it.
    pub path: Absolute,
    /// Required owner of the image files: a user's name or user id.
    #[serde(default)]
    pub owner: Owner,
    /// Signers of which one must also have signed all objects of an image below `path`.
    pub signers: Option<Vec<Fingerprint>>,
}

/// User, by name or user id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "`owner` is a user's name or number")]
pub enum Owner {
    /// A user id.
    Number(u32),
    /// A user's name.
    Name(String),
}

impl Default for Owner {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(0) => out.write_str("root"),
            Self::Number(uid) => write!(out, "user {uid}"),
            Self::Name(name) => out.write_str(name),
        }
    }
}
