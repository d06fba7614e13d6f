//! Makes files of a root file system from the entries of archives.
//!
//! The root's ledger notes attributes that the file system cannot hold. The applier compares each file on disk with the
//! image, so a file system that drops a bit of a mode is noticed, too.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;
mod whiteouts;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use coracle::report::{Kind as Fault, Refusal};
use coracle::sys;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

use crate::build::layer::places::{Directories, Directory, Found, Place, parts};
use crate::build::root::{Root, clamp};
use crate::build::workshop::Owners;
use crate::output::unwritable;
use crate::sources::archive::{Budget, Entry, Kind, Named, Owner, Time};

/// Mode of directories without an entry.
const DIRECTORY: u32 = 0o755;
/// Number of lost attributes that are remembered.
const LOST: usize = 10;
/// Space of a directory on most file systems.
const BLOCK: u64 = 4096;
const COPIED: usize = 256 << 10;
/// Number of nested links that are followed, as in the kernel (path_resolution(7)).
const LINKS: u32 = 40;
/// Extended attribute of file capabilities in Linux.
const CAPABILITY: &[u8] = b"security.capability";

/// Interpretation of a tar file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Complete tree of files.
    Tree,
    /// Changes of the layers below; whiteouts remove files.
    Changes,
}

/// Applies entries to a root file system.
pub struct Applier<'a> {
    root: &'a mut Root,
    owners: Owners,
    budget: Budget,
    named: Named,
    meaning: Meaning,
    directories: Directories,
    times: BTreeMap<PathBuf, Time>,
    newest: Time,
    /// Paths of this layer, if there are layers below.
    fresh: Option<HashSet<PathBuf>>,
    layers: u64,
    followed: u32,
    lost: BTreeSet<String>,
    buffer: Vec<u8>,
}

impl<'a> Applier<'a> {
    /// Makes an applier for `root`, with the owners that are available.
    pub fn new(root: &'a mut Root, owners: Owners) -> Self {
        root.rest_is_root = owners == Owners::Own;
        Self {
            root,
            owners,
            budget: Budget::new(),
            named: Named::default(),
            meaning: Meaning::Tree,
            directories: Directories::default(),
            times: BTreeMap::new(),
            newest: 0,
            fresh: None,
            layers: 0,
            followed: 0,
            lost: BTreeSet::new(),
            buffer: vec![0; COPIED],
        }
    }

    /// Names the archive of the following entries.
    pub fn begin(&mut self, named: Named, meaning: Meaning) {
        (self.named, self.meaning) = (named, meaning);
        self.fresh = (meaning == Meaning::Changes && self.layers > 0).then(HashSet::new);
        self.layers += 1;
    }

    /// Sets the times of directories, after the last file was made in them. Returns the lost extended attributes.
    pub fn finish(mut self) -> Result<BTreeSet<String>, Refusal> {
        // An archive need not have an entry for the root.
        let newest = self.newest;
        self.times.entry(PathBuf::new()).or_insert(newest);
        for (path, time) in self.times.iter().rev() {
            let below = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            set_time(self.root.directory(), below, *time).map_err(|errno| self.failed(path, "utimensat()", errno))?;
        }
        Ok(self.lost)
    }

    /// Makes the file of `entry` with contents `data`.
    pub fn entry(&mut self, entry: &Entry, data: &mut impl Read) -> Result<(), Refusal> {
        let link = match &entry.kind {
            Kind::Link(target) | Kind::Symlink(target) => target.len(),
            _ => 0,
        };
        self.take(entry.path.len() + link)?;
        let path = parts(&entry.path).map_err(|cause| self.bad(&entry.path, &format!("is {cause}")))?;
        self.newest = self.newest.max(clamp(entry.time));
        let Some(name) = path.file_name() else {
            if entry.kind != Kind::Directory {
                return Err(self.bad(&entry.path, "is the root, and no directory"));
            }
            let directory = self.directory(&path, entry)?;
            let place = Place { directory, name: ".".into(), path: PathBuf::new() };
            return self.settle_directory(&place, entry);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.meaning == Meaning::Changes && name.as_bytes().starts_with(whiteouts::WHITEOUT) {
            return self.whiteout(parent, name, entry);
        }
        let directory = self.directory(parent, entry)?;
        let place = Place { path: directory.join(name), name: name.to_owned(), directory };
        // Behind links, the path may be far longer than that of the entry.
        self.budget.name(place.path.as_os_str().len()).map_err(|cause| self.too_much(&cause))?;
        self.mark(&place.path);
        if entry.kind != Kind::File {
            self.budget.file(if entry.kind == Kind::Directory { BLOCK } else { 0 }, self.root.directory())?;
        }
        match &entry.kind {
            Kind::Directory => self.make_directory(&place, entry),
            Kind::File => self.make_file(&place, entry, data),
            Kind::Link(target) => self.make_link(&place, entry, target),
            Kind::Symlink(target) => self.make_symlink(&place, entry, target),
            Kind::Fifo | Kind::Socket => {
                let kind = if entry.kind == Kind::Fifo { SFlag::S_IFIFO } else { SFlag::S_IFSOCK };
                self.make(&place, |fd, name| mknodat(fd, name, kind, Mode::from_bits_truncate(0o600), 0))?;
                self.settle(&place, entry, entry.mode)
            }
            Kind::Device(device) => {
                self.clear(&place)?;
                self.root.ledger.device(&place.path, entry.owner, entry.mode, *device);
                Ok(())
            }
        }
    }

    /// Directory `path`, which is made with its parents if it does not exist.
    fn directory(&mut self, path: &Path, entry: &Entry) -> Result<Directory, Refusal> {
        match self.directories.find(self.root, path) {
            Found::Directory(directory) => Ok(directory),
            Found::Wrong(cause) => Err(self.bad(&entry.path, &cause)),
            Found::Failed(error) => Err(self.failed(path, &error.to_string(), error.errno())),
            Found::Blocked if self.meaning == Meaning::Tree => {
                Err(self.bad(&entry.path, "is in something that is no directory"))
            }
            Found::Nothing | Found::Blocked => self.provide(path, entry),
        }
    }

    /// Makes the directory `path`. Follows links on the way, also to missing targets. Replaces a file of a lower layer
    /// that is in the way.
    fn provide(&mut self, path: &Path, entry: &Entry) -> Result<Directory, Refusal> {
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return Err(self.bad(&entry.path, "has no directory to be in"));
        };
        let directory = self.directory(parent, entry)?;
        let place = Place { path: directory.join(name), name: name.to_owned(), directory };
        let found = self.stat(&place)?;
        if found.as_ref().is_some_and(|found| is(found, SFlag::S_IFLNK)) {
            // The tree of a real file system has no entries behind a link.
            return match self.meaning {
                Meaning::Changes => self.follow(&place, entry),
                Meaning::Tree => Err(self.bad(&entry.path, "is behind a link that leads nowhere")),
            };
        }
        if !found.as_ref().is_some_and(|found| is(found, SFlag::S_IFDIR)) {
            self.take(place.path.as_os_str().len())?;
            self.budget.file(BLOCK, self.root.directory())?;
            self.mark(&place.path);
            if found.is_some() {
                self.clear(&place)?;
            }
            mkdirat(&*place.directory.fd, name, Mode::from_bits_truncate(0o700))
                .map_err(|errno| self.failed(path, "mkdirat()", errno))?;
            self.root.ledger.forget(&place.path);
            let implied = Entry::directory(DIRECTORY, entry.time);
            self.settle_directory(&place, &implied)?;
        }
        match self.directories.find(self.root, path) {
            Found::Directory(directory) => Ok(directory),
            found => Err(self.bad(&entry.path, &format!("has a directory that is not there: {found:?}"))),
        }
    }

    /// Directory to which the link `place` leads within the image; it is made if it does not exist.
    fn follow(&mut self, place: &Place, entry: &Entry) -> Result<Directory, Refusal> {
        // The kernel counts links only up to the first missing name.
        if self.followed >= LINKS {
            return Err(self.bad(&entry.path, "is behind links that lead nowhere"));
        }
        let target = nix::fcntl::readlinkat(&*place.directory.fd, place.name.as_os_str())
            .map_err(|errno| self.failed(&place.path, "readlinkat()", errno))?;
        self.followed += 1;
        let mut at = place.directory.path.clone();
        for part in Path::new(&target).components() {
            match part {
                Component::Normal(name) => at = self.directory(&at.join(name), entry)?.path,
                Component::ParentDir => {
                    at.pop();
                }
                Component::RootDir => at = PathBuf::new(),
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        self.followed -= 1;
        self.directory(&at, entry)
    }

    fn make_directory(&mut self, place: &Place, entry: &Entry) -> Result<(), Refusal> {
        if !self.stat(place)?.is_some_and(|found| is(&found, SFlag::S_IFDIR)) {
            self.make(place, |fd, name| mkdirat(fd, name, Mode::from_bits_truncate(0o700)))?;
        }
        self.settle_directory(place, entry)
    }

    fn make_file(&mut self, place: &Place, entry: &Entry, data: &mut impl Read) -> Result<(), Refusal> {
        self.budget.file(entry.stored, self.root.directory())?;
        let holes = entry.size.saturating_sub(entry.stored);
        self.budget.holes(holes).map_err(|cause| self.too_much(&cause))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        let file = File::from(self.make(place, |fd, name| nix::fcntl::openat(fd, name, flags, mode))?);
        let mut buffer = std::mem::take(&mut self.buffer);
        let filled = self.fill(&file, place, entry, data, &mut buffer);
        self.buffer = buffer;
        filled?;
        self.attributes(&file, entry, |name| name.starts_with(b"user."));
        self.settle(place, entry, self.on_disk(entry, 0o600))?;
        // A change of the owner would remove it (capabilities(7)).
        self.attributes(&file, entry, |name| name == CAPABILITY);
        Ok(())
    }

    fn fill(
        &self,
        file: &File,
        place: &Place,
        entry: &Entry,
        data: &mut impl Read,
        buffer: &mut [u8],
    ) -> Result<(), Refusal> {
        let full = |error: io::Error| self.failed(&place.path, "write()", errno_of(&error));
        let whole = [(0, entry.stored)];
        if entry.pieces.is_some() {
            file.set_len(entry.size).map_err(full)?;
        }
        for (offset, size) in entry.pieces.as_deref().unwrap_or(&whole) {
            let mut done = 0;
            while done < *size {
                let most = usize::try_from(size - done).unwrap_or(usize::MAX).min(buffer.len());
                let part = &mut buffer[..most];
                data.read_exact(part).map_err(|error| self.named.refuse(&error))?;
                file.write_all_at(part, offset + done).map_err(full)?;
                done += most as u64;
            }
        }
        Ok(())
    }

    fn make_symlink(&mut self, place: &Place, entry: &Entry, target: &[u8]) -> Result<(), Refusal> {
        if target.is_empty() || target.contains(&0) {
            return Err(self.bad(&entry.path, "is a link to nothing"));
        }
        self.make(place, |fd, name| symlinkat(OsStr::from_bytes(target), fd, name))?;
        self.settle(place, entry, 0o777)
    }

    /// Makes a hard link. Other fields of the entry repeat those of the file.
    fn make_link(&mut self, place: &Place, entry: &Entry, target: &[u8]) -> Result<(), Refusal> {
        let shown = || format!("is a link to {}", shown(target));
        let path = parts(target).map_err(|cause| self.bad(&entry.path, &format!("{}, {cause}", shown())))?;
        let missing = self.bad(&entry.path, &format!("{}, which is no file", shown()));
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Err(missing) };
        let directory = match self.directories.find(self.root, parent) {
            Found::Directory(directory) => directory,
            Found::Failed(error) => return Err(self.failed(parent, &error.to_string(), error.errno())),
            Found::Nothing | Found::Blocked | Found::Wrong(_) => return Err(missing),
        };
        let of = Place { path: directory.join(name), name: name.to_owned(), directory };
        if of.path == place.path {
            return if self.stat(&of)?.is_some() { Ok(()) } else { Err(missing) };
        }
        if self.root.ledger.is_device(&of.path) {
            self.clear(place)?;
            self.root.ledger.link(&of.path, &place.path);
            return Ok(());
        }
        if self.stat(&of)?.is_none_or(|found| is(&found, SFlag::S_IFDIR)) {
            return Err(missing);
        }
        self.clear(place)?;
        // The target may have been in the removed directory.
        if self.stat(&of)?.is_none() {
            return Err(self.bad(&entry.path, &format!("{}, whose place it takes", shown())));
        }
        // Without AT_SYMLINK_FOLLOW, the new name is one of the link itself.
        linkat(&*of.directory.fd, of.name.as_os_str(), &*place.directory.fd, place.name.as_os_str(), AtFlags::empty())
            .map_err(|errno| self.failed(&place.path, "linkat()", errno))?;
        self.root.ledger.link(&of.path, &place.path);
        Ok(())
    }

    /// Makes a file in place of an existing one.
    fn make<T>(
        &mut self,
        place: &Place,
        how: impl Fn(&std::os::fd::OwnedFd, &OsStr) -> nix::Result<T>,
    ) -> Result<T, Refusal> {
        let made = match how(&place.directory.fd, &place.name) {
            Err(Errno::EEXIST) => {
                self.clear(place)?;
                how(&place.directory.fd, &place.name)
            }
            made => {
                self.root.ledger.forget(&place.path);
                made
            }
        };
        made.map_err(|errno| self.failed(&place.path, "openat()", errno))
    }

    /// Removes the file or directory at `place`, with all files below it.
    fn clear(&mut self, place: &Place) -> Result<(), Refusal> {
        let Some(found) = self.stat(place)? else {
            self.root.ledger.forget(&place.path);
            return Ok(());
        };
        if is(&found, SFlag::S_IFREG) {
            self.root.ledger.forget(&place.path);
        } else {
            self.forget(&place.path);
        }
        let removed = if is(&found, SFlag::S_IFDIR) {
            // This path has no links in it, and no other process makes any here.
            std::fs::remove_dir_all(self.root.path().join(&place.path)).map_err(|error| errno_of(&error))
        } else {
            unlinkat(&*place.directory.fd, place.name.as_os_str(), UnlinkatFlags::NoRemoveDir)
        };
        removed.map_err(|errno| self.failed(&place.path, "unlinkat()", errno))
    }

    fn forget(&mut self, path: &Path) {
        self.root.ledger.forget(path);
        self.directories.forget();
        let below: Vec<PathBuf> = self
            .times
            .range(path.to_owned()..)
            .map(|(path, _)| path)
            .take_while(|known| known.starts_with(path))
            .cloned()
            .collect();
        for path in below {
            self.times.remove(&path);
        }
    }

    fn settle_directory(&mut self, place: &Place, entry: &Entry) -> Result<(), Refusal> {
        self.times.insert(place.path.clone(), clamp(entry.time));
        self.settle(place, entry, self.on_disk(entry, 0o700))?;
        if entry.attributes.is_empty() {
            return Ok(());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::openat(&*place.directory.fd, place.name.as_os_str(), flags, Mode::empty())
            .map_err(|errno| self.failed(&place.path, "openat()", errno))?;
        self.attributes(&File::from(directory), entry, |name| name.starts_with(b"user."));
        Ok(())
    }

    /// Mode on disk that an unprivileged user needs to continue with the file.
    fn on_disk(&self, entry: &Entry, needed: u32) -> u32 {
        if self.owners == Owners::Own { entry.mode | needed } else { entry.mode }
    }

    /// Sets owner, mode and time of a new file, and notes in the ledger what the disk has otherwise.
    fn settle(&mut self, place: &Place, entry: &Entry, mode: u32) -> Result<(), Refusal> {
        let (fd, name) = (&*place.directory.fd, place.name.as_os_str());
        let failed = |call: &'static str| move |errno| (call, errno);
        let settled = || -> Result<FileStat, (&'static str, Errno)> {
            let found = fstatat(fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed("fstatat()"))?;
            let Owner { uid, gid } = entry.owner;
            if (found.st_uid, found.st_gid) != (uid, gid) && matches!(self.owners, Owners::All | Owners::Range) {
                // An owner without a number in this namespace is noted.
                let _ = fchownat(
                    fd,
                    name,
                    Some(Uid::from_raw(uid)),
                    Some(Gid::from_raw(gid)),
                    AtFlags::AT_SYMLINK_NOFOLLOW,
                );
            }
            if !is(&found, SFlag::S_IFLNK) {
                let mode = Mode::from_bits_truncate(mode);
                // The file is no link: this process has just made it.
                fchmodat(fd, name, mode, FchmodatFlags::FollowSymlink).map_err(failed("fchmodat()"))?;
            }
            if !is(&found, SFlag::S_IFDIR) {
                set_time(fd, Path::new(name), entry.time).map_err(failed("utimensat()"))?;
            }
            fstatat(fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed("fstatat()"))
        };
        let found = settled().map_err(|(call, errno)| self.failed(&place.path, call, errno))?;
        let wanted = if is(&found, SFlag::S_IFLNK) { 0o777 } else { entry.mode };
        if (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (entry.owner.uid, entry.owner.gid, wanted) {
            self.root.ledger.remove(&place.path);
        } else {
            self.root.ledger.own(&place.path, entry.owner, wanted);
        }
        Ok(())
    }

    fn attributes(&mut self, file: &File, entry: &Entry, wanted: impl Fn(&[u8]) -> bool) {
        for (name, value) in entry.attributes.iter().filter(|(name, _)| wanted(name)) {
            let flags = rustix::fs::XattrFlags::empty();
            match rustix::fs::fsetxattr(file, name.as_slice(), value, flags) {
                Ok(()) => self.root.has_attributes = true,
                Err(_) if self.lost.len() < LOST => {
                    self.lost.insert(shown(name));
                }
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, name: usize) -> Result<(), Refusal> {
        self.budget.entry(name).map_err(|cause| self.too_much(&cause))
    }

    fn too_much(&self, cause: &str) -> Refusal {
        self.named.refusal(Fault::ImageFormat, &format!("has {cause}"))
    }

    fn stat(&self, place: &Place) -> Result<Option<FileStat>, Refusal> {
        match fstatat(&*place.directory.fd, place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.failed(&place.path, "fstatat()", errno)),
        }
    }

    fn bad(&self, path: &[u8], cause: &str) -> Refusal {
        self.named.refusal(Fault::ImageFormat, &format!("{} {cause}", shown(path)))
    }

    fn failed(&self, path: &Path, call: &str, errno: Errno) -> Refusal {
        if matches!(errno, Errno::ENOSPC | Errno::EDQUOT) {
            let refusal = unwritable("workshop", &io::Error::from_raw_os_error(errno as i32));
            return refusal.hint("CORACLE_TMPDIR names the directory in which images are made");
        }
        let path = shown(path.as_os_str().as_bytes());
        self.named.refusal(Fault::System, &format!("{path}: {}", sys::Error::new(call, errno)))
    }
}

fn set_time(directory: impl std::os::fd::AsFd, name: &Path, time: Time) -> nix::Result<()> {
    let time = TimeSpec::new(clamp(time), 0);
    utimensat(directory, name, &time, &time, UtimensatFlags::NoFollowSymlink)
}

fn is(found: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == kind
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Name for a message, in one line.
fn shown(name: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(name).chars().take(200).collect();
    text.chars().map(|sign| if sign.is_control() { '?' } else { sign }).collect()
}
