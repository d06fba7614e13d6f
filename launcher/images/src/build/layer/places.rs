//! Resolves an entry's name in an image's root file system.
//!
//! Directories are looked up with the image as root (openat2(2), RESOLVE_IN_ROOT): `/lib/x` is in `/usr/lib` if `/lib`
//! is a link to it, and no path leads out. Notes about a file are kept under the resulting path, without links.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use coracle::sys::{self, Lookup};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::build::root::Root;

/// Limit of the depth of directories: programs that remove them keep each one open.
const DEPTH: usize = 500;
/// Limit of a path in the image: that of Linux (PATH_MAX), less the path to the image.
const PATH: usize = 4096 - 256;
/// Limit of a name in Linux (NAME_MAX).
const NAME: usize = 255;

/// Components of an entry's name: relative to the root, without `.` and `..`.
pub fn parts(name: &[u8]) -> Result<PathBuf, String> {
    let mut path = PathBuf::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("a name with .. in it".into()),
            part if part.contains(&0) => return Err("a name with a NUL in it".into()),
            part if part.len() > NAME => return Err(format!("a name of {} bytes", part.len())),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    check(&path)?;
    Ok(path)
}

fn check(path: &Path) -> Result<(), String> {
    if path.as_os_str().len() > PATH {
        return Err(format!("a path of {} bytes", path.as_os_str().len()));
    }
    if path.components().count() > DEPTH {
        return Err(format!("more than {DEPTH} directories in each other"));
    }
    Ok(())
}

/// Directory of the image.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Descriptor for look-ups only.
    pub fd: Rc<OwnedFd>,
    /// Path from the root; no component is a link.
    pub path: PathBuf,
}

impl Directory {
    /// Path of `name` in this directory.
    pub fn join(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }
}

/// Name in a directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// Directory.
    pub directory: Directory,
    /// Name; `.` for the root itself.
    pub name: OsString,
    /// Path of directory and name.
    pub path: PathBuf,
}

/// Outcome of a look-up.
#[derive(Debug)]
pub enum Found {
    /// Directory that was found.
    Directory(Directory),
    /// No file of that name.
    Nothing,
    /// A component of the path is no directory.
    Blocked,
    /// The path leads to no directory, for this reason.
    Wrong(String),
    /// The look-up failed.
    Failed(sys::Error),
}

/// Directory of the last look-up: successive entries are mostly in the same directory.
#[derive(Debug, Default)]
pub struct Directories {
    last: Option<(PathBuf, Directory)>,
}

impl Directories {
    /// Looks up `path` and follows links.
    pub fn find(&mut self, root: &Root, path: &Path) -> Found {
        if let Some((known, directory)) = &self.last
            && known == path
        {
            return Found::Directory(directory.clone());
        }
        let found = look_up(root, path);
        if let Found::Directory(directory) = &found {
            self.last = Some((path.to_owned(), directory.clone()));
        }
        found
    }

    /// Drops the last look-up: a file on its way may have been removed.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

fn look_up(root: &Root, path: &Path) -> Found {
    let below = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let open = |lookup| sys::open_in_root(root.directory(), below, OFlag::O_PATH | OFlag::O_DIRECTORY, lookup);
    let (opened, has_links) = match open(Lookup::NoLinks) {
        Err(error) if error.errno() == Errno::ELOOP => (open(Lookup::Links), true),
        opened => (opened, false),
    };
    let fd = match opened {
        Ok(fd) => fd,
        Err(error) => {
            return match error.errno() {
                Errno::ENOENT => Found::Nothing,
                Errno::ENOTDIR => Found::Blocked,
                Errno::ELOOP => Found::Wrong("is behind links that lead nowhere".into()),
                Errno::ENAMETOOLONG => Found::Wrong("has a path that is too long".into()),
                _ => Found::Failed(error),
            };
        }
    };
    let real = if has_links { sys::hint_beneath(root.directory(), &fd) } else { Some(path.to_owned()) };
    let Some(real) = real else { return Found::Wrong("is behind links to where nobody can say".into()) };
    match check(&real) {
        Ok(()) => Found::Directory(Directory { fd: Rc::new(fd), path: real }),
        Err(cause) => Found::Wrong(format!("is behind links, which makes {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_relative_and_have_no_way_up() {
        let of = |name: &str| parts(name.as_bytes());
        assert_eq!(of("./a//b/./c/"), Ok("a/b/c".into()));
        assert_eq!(of("/etc/passwd"), Ok("etc/passwd".into()));
        assert_eq!(of("./"), Ok("".into()));
        assert_eq!(of("a..b/..."), Ok("a..b/...".into()));
        for name in ["..", "../a", "a/../b", "a/..", "/..", "a\0b"] {
            assert!(of(name).is_err(), "{name:?}");
        }
        assert!(of(&"a".repeat(256)).unwrap_err().contains("256"));
        assert!(of(&"a/".repeat(DEPTH + 1)).unwrap_err().contains("in each other"));
        assert!(of(&"abcdefghi/".repeat(400)).unwrap_err().contains("a path of"));
    }
}
