//! Reads and changes the entries of an image's directories: names, links and files.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use coracle::report::Refusal;
use coracle::sys::{self, Lookup};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag};
use nix::unistd::UnlinkatFlags;

use super::{Root, inside};
use crate::sources::archive::Owner;

impl Root {
    /// Names in the directory `path` of the image, sorted. Empty if it does not exist.
    pub fn names(&self, path: &Path) -> Result<Vec<OsString>, Refusal> {
        let Some(directory) = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)? else { return Ok(Vec::new()) };
        let wrap = |error: &std::io::Error| inside(path, &sys::Error::from_io("getdents()", error));
        let mut names = Vec::new();
        for entry in
            std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd())).map_err(|error| wrap(&error))?
        {
            names.push(entry.map_err(|error| wrap(&error))?.file_name());
        }
        names.sort();
        Ok(names)
    }

    /// Status of `path` in the image itself; links are not followed. `None` if it does not exist.
    pub fn status(&self, path: &Path) -> Result<Option<FileStat>, Refusal> {
        let Some((directory, name)) = self.parent(path)? else { return Ok(None) };
        match nix::sys::stat::fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(inside(path, &sys::Error::new("fstatat()", errno))),
        }
    }

    /// Makes the directory `path` with this mode, unless the name exists.
    pub fn provide_directory(&mut self, path: &Path, mode: u32) -> Result<(), Refusal> {
        let wrap = |call: &str, errno| inside(path, &sys::Error::new(call, errno));
        let Some((directory, name)) = self.parent_made(path)? else { return Ok(()) };
        match nix::sys::stat::mkdirat(&directory, name, Mode::S_IRWXU) {
            Ok(()) => {
                self.forget(&directory, name);
                nix::sys::stat::fchmodat(&directory, name, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink)
                    .map_err(|errno| wrap("fchmodat()", errno))
            }
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(wrap("mkdirat()", errno)),
        }
    }

    /// Makes root the owner of `path`, with read access for all users, if it is a directory.
    pub fn open_to_all(&mut self, path: &Path) -> Result<(), Refusal> {
        let Some((directory, name)) = self.parent(path)? else { return Ok(()) };
        let is_directory =
            self.status(path)?.is_some_and(|found| SFlag::from_bits_truncate(found.st_mode) == SFlag::S_IFDIR);
        if let (true, Some(place)) = (is_directory, sys::hint_beneath(self.directory(), &directory)) {
            self.ledger.own(&place.join(name), Owner::default(), 0o755);
        }
        Ok(())
    }

    /// Writes the file `path`, unless the name exists.
    pub fn provide_file(&mut self, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Refusal> {
        if self.status(path)?.is_some() { Ok(()) } else { self.write(path, mode, bytes) }
    }

    /// Makes the link `path`, unless the name exists.
    pub fn provide_link(&mut self, path: &Path, target: &Path) -> Result<(), Refusal> {
        let Some((directory, name)) = self.parent_made(path)? else { return Ok(()) };
        match nix::unistd::symlinkat(target, &directory, name) {
            Ok(()) => {
                self.forget(&directory, name);
                Ok(())
            }
            Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(inside(path, &sys::Error::new("symlinkat()", errno))),
        }
    }

    /// Writes all of `source` into the new file `path`, and makes directories above it.
    pub fn write_from(&mut self, path: &Path, mode: u32, source: &mut File) -> Result<(), Refusal> {
        let Some((directory, name)) = self.parent_made(path)? else { return Ok(()) };
        self.forget(&directory, name);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&directory, name, flags, Mode::from_bits_truncate(0o600))
            .map_err(|errno| inside(path, &sys::Error::new("openat()", errno)))?;
        let mut file = File::from(file);
        std::io::copy(source, &mut file)
            .and_then(|_| file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode)))
            .map_err(|error| inside(path, &sys::Error::from_io("write()", &error)))
    }

    /// Removes the file `path`. The target of a link stays.
    pub fn remove(&mut self, path: &Path) -> Result<(), Refusal> {
        let Some((directory, name)) = self.parent(path)? else { return Ok(()) };
        self.forget(&directory, name);
        match nix::unistd::unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(inside(path, &sys::Error::new("unlinkat()", errno))),
        }
    }

    /// Renames `from` to `to`.
    pub fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Refusal> {
        let (Some((old, old_name)), Some((new, new_name))) = (self.parent(from)?, self.parent_made(to)?) else {
            return Ok(());
        };
        self.forget(&old, old_name);
        self.forget(&new, new_name);
        nix::fcntl::renameat(&old, old_name, &new, new_name)
            .map_err(|errno| inside(from, &sys::Error::new("renameat()", errno)))
    }

    /// Directory of `path`, and its name there. `None` if the directory does not exist.
    pub fn parent<'a>(&self, path: &'a Path) -> Result<Option<(OwnedFd, &'a OsStr)>, Refusal> {
        let Some(name) = path.file_name() else { return Ok(None) };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("/"));
        match sys::open_in_root(self.directory(), parent, OFlag::O_PATH | OFlag::O_DIRECTORY, Lookup::Links) {
            Ok(directory) => Ok(Some((directory, name))),
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(inside(path, &error)),
        }
    }

    fn parent_made<'a>(&self, path: &'a Path) -> Result<Option<(OwnedFd, &'a OsStr)>, Refusal> {
        let Some(name) = path.file_name() else { return Ok(None) };
        let directory = self.make_directory(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        Ok(Some((directory, name)))
    }
}
