//! Where the parts of an installation are: beside this program, whatever the prefix is.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Our program that runs inside containers.
pub fn helper() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let prefix = own.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    prefix.join("lib/coracle/coracle-inside")
}
