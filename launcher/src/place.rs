//! Paths of the parts of an installation: beside this program, whatever the prefix is.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// Our program that runs inside containers.
pub fn helper() -> PathBuf {
    part("coracle-inside")
}

/// Our program that makes images.
pub fn images() -> PathBuf {
    part("coracle-images")
}

/// The directory of our own programs: below the prefix, or absolute if it is elsewhere. `make install` sets
/// `CORACLE_LIBDIR` for another LIBDIR than PREFIX/lib.
const LIBDIR: &str = match option_env!("CORACLE_LIBDIR") {
    Some(path) => path,
    None => "lib",
};

fn part(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let prefix = own.parent().and_then(Path::parent).unwrap_or(Path::new("/usr"));
    prefix.join(LIBDIR).join("coracle").join(name)
}
