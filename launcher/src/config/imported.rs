//! `registry_images:` of coracle.yaml: meaning of `--container=docker://…`.
#![forbid(unsafe_code)]

use std::fmt;

use serde::Deserialize;

/// Handling of a registry image that a user requests in place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum RegistryImages {
    /// Refused, with a hint that names the command which makes a file of it.
    Deny,
    /// Becomes a file of the user, once, on the submit host.
    File,
    /// Becomes an image in the user's directory of the store, once, on the submit host.
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
