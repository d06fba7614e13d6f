//! Holds the root file system of an image while it is made.
//!
//! Its files are in a directory, with the owners that the process can give them
//! ([`Owners`](crate::build::workshop::Owners)). Owners in the image, and its devices, are in a ledger, from which they
//! are packed. So an image does not depend on the user who makes it. Every path is looked up with that directory as its
//! root: no link of an image, and no name such as `../../etc`, leads out of it.
#![forbid(unsafe_code)]

mod entries;
mod ledger;
mod tree;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Lookup};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

pub use ledger::{Definitions, Ledger};
pub use tree::{check_readable, clamp};

use crate::output::unwritable;
use crate::sources::archive::Owner;

/// Directory of the files, with the attributes that it cannot hold.
#[derive(Debug)]
pub struct Root {
    directory: File,
    path: PathBuf,
    /// Attributes that the files of the directory cannot have themselves.
    pub ledger: Ledger,
    /// True if files have extended attributes that belong to the image.
    pub has_attributes: bool,
    /// True if root owns all files, whatever the directory and the ledger say.
    pub all_root: bool,
    /// True if root owns the files without a ledger entry: without a user namespace, their owner on disk is the user.
    pub rest_is_root: bool,
}

impl Root {
    /// Makes an empty root file system at `path`.
    pub fn create(path: &Path) -> Result<Self, Refusal> {
        let made = std::fs::create_dir(path)
            .and_then(|()| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)));
        made.map_err(|error| unwritable(&path.display().to_string(), &error))?;
        Self::of(path)
    }

    /// Uses an existing directory.
    pub fn of(path: &Path) -> Result<Self, Refusal> {
        let refuse = |kind, cause: String| Refusal::new(kind, path.display().to_string(), cause);
        let directory =
            sys::open_untrusted(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map_err(|error| match error.errno() {
                Errno::EACCES | Errno::EPERM => refuse(Kind::ImageUnreadable, "you may not read it".into()),
                _ => refuse(Kind::of_reading(&error), error.to_string()),
            })?;
        // Other programs get this path, and would take a name with a dash for an option.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self {
            directory: directory.into(),
            path: absolute,
            ledger: Ledger::default(),
            has_attributes: false,
            all_root: false,
            rest_is_root: false,
        })
    }

    /// Notes root as owner of the files without a ledger entry, if `rest_is_root`. Call it when all files are there.
    pub fn note_rest(&mut self) -> Result<(), Refusal> {
        if !self.rest_is_root {
            return Ok(());
        }
        let mut directories = vec![PathBuf::new()];
        if !self.ledger.knows(Path::new("")) {
            self.ledger.own(Path::new(""), Owner::default(), 0o755);
        }
        while let Some(directory) = directories.pop() {
            let failed = |error: std::io::Error| inside(&directory, &sys::Error::from_io("readdir()", &error));
            for entry in self.path.join(&directory).read_dir().map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let (path, found) = (directory.join(entry.file_name()), entry.metadata().map_err(failed)?);
                if !self.ledger.knows(&path) {
                    let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777;
                    self.ledger.own(&path, Owner::default(), mode);
                }
                if found.is_dir() {
                    directories.push(path);
                }
            }
        }
        Ok(())
    }

    /// Path for other programs.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Descriptor of the directory.
    pub fn directory(&self) -> &File {
        &self.directory
    }

    /// Opens `path` in the image, with links followed inside it. `None` if it does not exist.
    pub fn open(&self, path: &Path, flags: OFlag) -> Result<Option<OwnedFd>, Refusal> {
        match sys::open_in_root(&self.directory, path, flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, Lookup::Links) {
            Ok(found) => Ok(Some(found)),
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(inside(path, &error)),
        }
    }

    /// Contents of the regular file `path` of the image, at most `limit` bytes. `None` if it is no regular file.
    pub fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Refusal> {
        let Some(file) = self.open(path, OFlag::O_RDONLY)?.map(File::from) else { return Ok(None) };
        let refuse = |error: std::io::Error| inside(path, &sys::Error::from_io("read()", &error));
        if !file.metadata().map_err(refuse)?.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(refuse)?;
        if bytes.len() as u64 > limit {
            return Err(Refusal::new(
                Kind::ImageFormat,
                path.display().to_string(),
                format!("longer than {limit} bytes"),
            ));
        }
        Ok(Some(bytes))
    }

    /// Opens the directory `path` of the image, and makes it and its parents if they do not exist.
    pub fn make_directory(&self, path: &Path, mode: u32) -> Result<OwnedFd, Refusal> {
        let wrap = |error: sys::Error| inside(path, &error);
        let mut at = PathBuf::from("/");
        let mut directory =
            sys::open_in_root(&self.directory, &at, OFlag::O_PATH | OFlag::O_DIRECTORY, Lookup::Links).map_err(wrap)?;
        for part in path.components() {
            let std::path::Component::Normal(name) = part else { continue };
            at.push(name);
            match nix::sys::stat::mkdirat(&directory, name, Mode::from_bits_truncate(mode)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(wrap(sys::Error::new(format!("mkdirat({at:?})"), errno))),
            }
            directory = sys::open_in_root(&self.directory, &at, OFlag::O_PATH | OFlag::O_DIRECTORY, Lookup::Links)
                .map_err(wrap)?;
        }
        Ok(directory)
    }

    /// Writes the file `path` of the image in place of an existing one, and makes the directories above it.
    pub fn write(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Refusal> {
        let wrap = |call: &str, errno| inside(path, &sys::Error::new(call, errno));
        let name = path.file_name().ok_or_else(|| wrap("write()", Errno::EISDIR))?;
        let directory = self.make_directory(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        self.forget(&directory, name);
        // A link of that name would be followed, and a hard link is another file's, too.
        match nix::unistd::unlinkat(&directory, name, nix::unistd::UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(wrap("unlinkat()", errno)),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&directory, name, flags, Mode::from_bits_truncate(0o600))
            .map_err(|errno| wrap("openat()", errno))?;
        let mut file = File::from(file);
        file.write_all(bytes)
            .and_then(|()| file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)))
            .map_err(|error| inside(path, &sys::Error::from_io("write()", &error)))
    }
}

impl Root {
    /// Removes the ledger entries of `name` in `directory`: it is replaced by a file of root.
    fn forget(&mut self, directory: &OwnedFd, name: &OsStr) {
        if let Some(place) = sys::hint_beneath(&self.directory, directory) {
            self.ledger.forget(&place.join(name));
        }
    }
}

/// Error with a path of the image.
fn inside(path: &Path, error: &sys::Error) -> Refusal {
    let shown = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    if matches!(error.errno(), Errno::ENOSPC | Errno::EDQUOT) {
        return unwritable(&shown, &std::io::Error::from_raw_os_error(error.errno() as i32))
            .hint("CORACLE_TMPDIR names the directory in which images are made");
    }
    if matches!(error.errno(), Errno::ENOTDIR | Errno::EISDIR | Errno::ELOOP | Errno::ENXIO) {
        let cause = "a directory is where a file should be in the image, or the reverse, or a link that leads nowhere";
        return Refusal::new(Kind::ImageFormat, shown, cause);
    }
    Refusal::new(Kind::System, shown, format!("of the image: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_noted_is_roots_if_it_is_to_be() {
        let top = tempfile::tempdir().unwrap();
        let mut root = Root::create(&top.path().join("root")).unwrap();
        root.write(Path::new("/d/known"), 0o644, b"").unwrap();
        root.write(Path::new("/d/new"), 0o755, b"").unwrap();
        root.ledger.own(Path::new("d/known"), Owner { uid: 5, gid: 6 }, 0o600);
        root.note_rest().unwrap();
        assert!(!root.ledger.knows(Path::new("d/new")));
        root.rest_is_root = true;
        root.note_rest().unwrap();
        let lines = String::from_utf8(root.ledger.definitions(|_, _, _| true).lines).unwrap();
        assert_eq!(lines, "\"d\" m 755 0 0\n\"d/known\" m 600 5 6\n\"d/new\" m 755 0 0\n");
    }

    #[test]
    fn no_link_of_an_image_leads_out_of_it() {
        let top = tempfile::tempdir().unwrap();
        let outside = top.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "host").unwrap();
        let mut root = Root::create(&top.path().join("root")).unwrap();
        std::os::unix::fs::symlink(&outside, root.path().join("absolute")).unwrap();
        std::os::unix::fs::symlink("../outside", root.path().join("relative")).unwrap();
        std::os::unix::fs::symlink(outside.join("file"), root.path().join("linked")).unwrap();
        for name in ["/absolute/file", "/relative/file", "/../outside/file", "/linked"] {
            let path = Path::new(name);
            assert_eq!(root.read(path, 100).unwrap(), None, "{name}");
        }
        assert!(root.write(Path::new("/absolute/new"), 0o644, b"x").is_err());
        root.write(Path::new("/../new"), 0o644, b"x").unwrap();
        root.write(Path::new("/linked"), 0o755, b"image").unwrap();
        assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"host");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        assert_eq!(root.read(Path::new("/linked"), 100).unwrap().unwrap(), b"image");
        assert_eq!(root.read(Path::new("/new"), 100).unwrap().unwrap(), b"x");
        assert!(root.read(Path::new("/linked"), 2).unwrap_err().cause.contains("longer"));
    }
}
