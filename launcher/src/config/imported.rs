//! `registry_images:` of coracle.yaml: what `--container=docker://…` means.
#![forbid(unsafe_code)]

use std::fmt;

use serde::Deserialize;

/// Handling of an image of a registry that somebody asks for instead of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RegistryImages {
    /// It is refused, with the command that makes a file of it.
    Deny,
    /// It becomes a file of the user's, once, where the job is submitted.
    File,
    /// It becomes an image in the user's part of the store, once, where the job is submitted.
    Store,
}

impl TryFrom<String> for RegistryImages {
    type Error = String;
    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "deny" => Ok(Self::Deny),
            "file" => Ok(Self::File),
            "store" => Ok(Self::Store),
            other => Err(format!("`registry_images` is deny, file or store, not {other:?}")),
        }
    }
}

impl fmt::Display for RegistryImages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Deny => "deny",
            Self::File => "file",
            Self::Store => "store",
        })
    }
}
