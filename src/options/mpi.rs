//! Reads `--container-mpi`: the MPI library that programs get.
#![forbid(unsafe_code)]

use std::ffi::OsStr;

use super::{Error, StoredName};

/// The name of a profile, or one of two words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mpi(StoredName);

impl Mpi {
    /// The image's own.
    pub const NONE: &'static str = "none";
    /// The first profile that fits.
    pub const AUTO: &'static str = "auto";

    /// Reads a name; the node checks that there is such a profile.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        StoredName::parse(text).map(Self).map_err(|_| Error::Mpi(text.to_owned()))
    }

    /// Returns the name as typed.
    pub fn word(&self) -> &str {
        self.0.as_str()
    }
}
