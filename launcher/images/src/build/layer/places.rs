//! Resolution of an entry's name in an image's root file system.
//!
//! The directories above it are looked up with the image as the root of all (openat2(2), RESOLVE_IN_ROOT): `/lib/x` is
//! in `/usr/lib` where `/lib` is a link to it, and nothing is outside. What is noted of a file is noted under the path
//! that it then has, without links.
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

/// Greatest depth of directories in each other: those who remove them hold every one open.
const DEPTH: usize = 500;
/// The longest path that Linux takes (PATH_MAX), and what it leaves for the one to the image.
const PATH: usize = 4096 - 256;
/// The longest name that Linux takes (NAME_MAX).
const NAME: usize = 255;

/// The parts of an entry's name: relative to the root, without `.` and `..`.
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
        return Err(format!("more than {DEPTH} folders in each other"));
    }
    Ok(())
}

/// A directory of the image.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Open, for look-ups only.
    pub fd: Rc<OwnedFd>,
    /// Its path from the root, in which no part is a link.
    pub path: PathBuf,
}

impl Directory {
    /// The path of what is called `name` in it.
    pub fn join(&self, name: &OsStr) -> PathBuf {
        self.path.join(name)
    }
}

/// A name in a directory.
#[derive(Debug, Clone)]
pub struct Place {
    /// The directory.
    pub directory: Directory,
    /// The name; `.` for the root itself.
    pub name: OsString,
    /// The path of both.
    pub path: PathBuf,
}

/// Outcome of a look-up.
#[derive(Debug)]
pub enum Found {
    /// This directory.
    Directory(Directory),
    /// Nothing is there.
    Nothing,
    /// Something on the way is no directory.
    Blocked,
    /// It leads to no directory; why.
    Wrong(String),
    /// The look-up failed.
    Failed(sys::Error),
}

/// The directory that was looked up last: entries of one directory mostly follow each other.
#[derive(Debug, Default)]
pub struct Directories {
    last: Option<(PathBuf, Directory)>,
}

impl Directories {
    /// Finds `path`, links followed.
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

    /// Forgets what it knows: something that could be on the way was removed.
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
