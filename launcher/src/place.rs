//! Paths of the parts of an installation: beside this program, whatever the prefix is.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// The command that people type. It is in PREFIX/bin, of the PREFIX that this program is below.
pub fn command() -> PathBuf {
    command_of(&std::env::current_exe().unwrap_or_default())
}

fn command_of(own: &Path) -> PathBuf {
    let directory = own.parent().unwrap_or(Path::new("/usr/bin"));
    // All of LIBDIR/coracle, of which LIBDIR is below PREFIX as a rule.
    let depth = Path::new(LIBDIR).components().count() + 1;
    let prefix = directory.ancestors().nth(depth).filter(|prefix| prefix.join(LIBDIR).join("coracle") == directory);
    prefix.unwrap_or(Path::new("/usr")).join("bin/coracle")
}

/// The program that builds the containers of steps.
pub fn launcher() -> PathBuf {
    part("coracle-launcher")
}

/// Our program that runs inside containers.
pub fn helper() -> PathBuf {
    part("coracle-inside")
}

/// The program that looks at the bytes of images.
pub fn verifier() -> PathBuf {
    part("coracle-verify")
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
    beside(&std::env::current_exe().unwrap_or_default(), name)
}

/// Path of the program `name` of the installation that `own` is of: all are in one directory, but for `coracle` itself.
fn beside(own: &Path, name: &str) -> PathBuf {
    let directory = own.parent().unwrap_or(Path::new("/usr/bin"));
    if own.file_name().is_some_and(|own| own != "coracle") {
        return directory.join(name);
    }
    directory.parent().unwrap_or(Path::new("/usr")).join(LIBDIR).join("coracle").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_beside_each_other() {
        for own in ["/usr/bin/coracle", "/usr/lib/coracle/coracle-launcher", "/usr/lib/coracle/coracle-images"] {
            assert_eq!(beside(Path::new(own), "coracle-verify"), Path::new("/usr/lib/coracle/coracle-verify"), "{own}");
        }
        assert_eq!(beside(Path::new("/opt/c/bin/coracle"), "x"), Path::new("/opt/c/lib/coracle/x"));
        for (own, command) in
            [("/usr/lib/coracle/x", "/usr/bin/coracle"), ("/opt/c/lib/coracle/x", "/opt/c/bin/coracle")]
        {
            assert_eq!(command_of(Path::new(own)), Path::new(command));
        }
        assert_eq!(command_of(Path::new("/elsewhere/x")), Path::new("/usr/bin/coracle"));
    }
}
