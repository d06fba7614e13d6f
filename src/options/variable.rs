//! Reads `--container-env`: variables that pass or are set.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::{Error, list};

/// One item of `--container-env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// The host's value of this variable passes; with a `*` at its end, those of all variables with this prefix.
    Keep(OsString),
    /// The variable gets this value.
    Set(OsString, OsString),
}

/// Prefixes of variables of Slurm, of its PMI or of Coracle itself.
pub const FACTS: [&str; 4] = ["SLURM_", "SLURMD_", "PMI", "CORACLE_"];

/// Bytes of a value that have a backslash in front.
const SPECIAL: &[u8] = b",";

impl Variable {
    /// Reads a list such as `HOME_OF,OMP_*,MODE=fast`; a backslash before a comma makes it part of the value.
    /// Skips empty items.
    pub fn parse_list(text: &OsStr) -> Result<Vec<Self>, Error> {
        let items = list::split(text, b',').into_iter().filter(|item| !item.is_empty());
        items.map(|item| Self::parse(&list::unescaped(&item, SPECIAL))).collect()
    }

    /// Reads one item: `NAME`, `NAME*` or `NAME=VALUE`.
    pub fn parse(item: &OsStr) -> Result<Self, Error> {
        let wrong = || Error::Variable(item.to_owned());
        let bytes = item.as_bytes();
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
            None => (bytes.strip_suffix(b"*").unwrap_or(bytes), None),
        };
        let starred = value.is_none() && bytes.ends_with(b"*");
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if (name.is_empty() && !starred) || !name.iter().all(plain) || name.first().is_some_and(u8::is_ascii_digit) {
            return Err(wrong());
        }
        if value.is_some() && FACTS.iter().any(|fact| name.starts_with(fact.as_bytes())) {
            return Err(Error::OurVariable(OsStr::from_bytes(name).to_owned()));
        }
        Ok(match value {
            Some(value) => Self::Set(OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value).to_owned()),
            None => Self::Keep(item.to_owned()),
        })
    }

    /// Returns a list with this item only, as [`Variable::parse_list`] reads it.
    pub(super) fn word(&self) -> OsString {
        list::escaped(&self.to_text(), SPECIAL)
    }

    /// Returns the name, with a `=` behind it if it is set.
    pub(super) fn name_only(&self) -> String {
        match self {
            Self::Keep(name) => name.to_string_lossy().into_owned(),
            Self::Set(name, _) => format!("{}=", name.to_string_lossy()),
        }
    }

    /// Returns the item in the form that [`Variable::parse`] reads.
    pub fn to_text(&self) -> OsString {
        match self {
            Self::Keep(name) => name.clone(),
            Self::Set(name, value) => [name.as_os_str(), OsStr::new("="), value.as_os_str()].into_iter().collect(),
        }
    }
}
