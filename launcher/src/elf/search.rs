//! Searches for a library in the tree of the node or of an image.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::{File, FileType};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::cache::MAX_CACHE;
use super::{Cache, Error, Library, Machine};
use coracle::sys::{self, Lookup};

/// Path of the loader's list in a tree.
pub const CACHE: &str = "/etc/ld.so.cache";
/// Default directories of libraries, on systems with one directory for each kind of machine and on systems without; the
/// last is musl's.
const DIRECTORIES: &[&str] = &["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];

/// Maximum number of paths of one library; an image with many modules has some dozens.
const MAX_PLACES: usize = 256;

/// Maximum number of names in a directory; Debian's directory of libraries has some 10,000 on a large desktop.
const MAX_NAMES: usize = 100_000;

/// Root of a tree. Symbolic links are resolved inside it.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    lookup: Lookup,
}

/// Libraries of a tree for one kind of machine.
#[derive(Debug)]
pub struct Libraries {
    root: Root,
    machine: Machine,
    cache: Cache,
}

/// Library that was found.
#[derive(Debug)]
pub struct Found {
    /// Path as in the list or the directory; any component may be a link.
    pub path: PathBuf,
    /// The open file.
    pub file: File,
    /// Parsed headers.
    pub library: Library,
}

impl Root {
    /// Root of the node.
    pub fn node() -> sys::Result<Self> {
        let directory = sys::open_untrusted(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Ok(Self { directory, lookup: Lookup::Links })
    }

    /// Root at `directory`, without the file systems that are mounted below it.
    pub fn of_mount(directory: OwnedFd) -> Self {
        Self { directory, lookup: Lookup::LinksOnMount }
    }

    /// Opens the regular file at `path`; `None` if there is none, or if the caller may not read it.
    pub fn open(&self, path: &Path) -> io::Result<Option<File>> {
        // O_NONBLOCK: opening a FIFO must not block.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        match sys::open_in_root(self.directory.as_fd(), path, flags, self.lookup) {
            Ok(file) => {
                let file = File::from(file);
                Ok(file.metadata()?.is_file().then_some(file))
            }
            Err(error) => match error.errno() {
                Errno::ENOENT
                | Errno::ENOTDIR
                | Errno::ELOOP
                | Errno::EACCES
                | Errno::EXDEV
                | Errno::ENXIO
                | Errno::ENAMETOOLONG => Ok(None),
                other => Err(other.into()),
            },
        }
    }

    /// Names in a directory, up to a limit; none if the caller may not read it.
    pub fn names(&self, directory: &Path) -> Vec<String> {
        self.entries(directory, |_| true)
    }

    /// True if there is a directory at `path`, or a link to one.
    pub fn has_directory(&self, path: &Path) -> bool {
        sys::open_in_root(self.directory.as_fd(), path, OFlag::O_PATH | OFlag::O_DIRECTORY, self.lookup).is_ok()
    }

    /// Directories in a directory, and links, which may lead to directories.
    pub fn directories(&self, directory: &Path) -> Vec<PathBuf> {
        let names = self.entries(directory, |kind| kind.is_dir() || kind.is_symlink());
        names.into_iter().map(|name| directory.join(name)).collect()
    }

    fn entries(&self, directory: &Path, wanted: impl Fn(FileType) -> bool) -> Vec<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let Ok(directory) = sys::open_in_root(self.directory.as_fd(), directory, flags, self.lookup) else {
            return Vec::new();
        };
        // The only way in the standard library to read an open directory.
        let Ok(entries) = std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd())) else {
            return Vec::new();
        };
        let entries = entries.take(MAX_NAMES).filter_map(Result::ok);
        let entries = entries.filter(|entry| entry.file_type().is_ok_and(&wanted));
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Content of a regular file of at most `limit` bytes; `None` if it is longer.
    pub fn bytes(&self, path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        let length = usize::try_from(file.metadata()?.len()).ok().filter(|length| *length <= limit);
        let Some(length) = length else { return Ok(None) };
        let mut bytes = vec![0; length];
        let read = super::fill(&file, &mut bytes, 0)?;
        bytes.truncate(read);
        Ok(Some(bytes))
    }
}

impl Libraries {
    /// Libraries below `root` for `machine`. If the loader's list is missing or invalid, only the default directories
    /// are searched.
    pub fn new(root: Root, machine: Machine) -> io::Result<Self> {
        let bytes = root.bytes(Path::new(CACHE), MAX_CACHE)?;
        let cache = bytes.and_then(|bytes| Cache::new(bytes, machine)).unwrap_or_default();
        Ok(Self { root, machine, cache })
    }

    /// Root of the tree.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Library that the loader takes for `soname` if neither the program nor its environment names a directory: the
    /// list comes first, then the default directories. Like the loader, this skips libraries for other machines.
    pub fn find(&self, soname: &str) -> Result<Option<Found>, Error> {
        self.places(soname, &[]).find_map(|path| self.open(path).transpose()).transpose()
    }

    /// Library at each path where the loader may find it, `directories` (of LD_LIBRARY_PATH) first. Because of links,
    /// several paths may be one file.
    pub fn everywhere(&self, soname: &str, directories: &[PathBuf]) -> Result<Vec<Found>, Error> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for path in self.places(soname, directories) {
            if !seen.insert(path.clone()) {
                continue;
            }
            match self.open(path) {
                Ok(library) => found.extend(library),
                Err(Error::Read(cause)) => return Err(Error::Read(cause)),
                // The loader fails on this file if a program gets there.
                Err(_) => {}
            }
            if found.len() > MAX_PLACES {
                return Err(Error::TooMany("places"));
            }
        }
        Ok(found)
    }

    /// Names of the libraries in the loader's list, or without a list, in the default directories; also of those in
    /// `directories`.
    pub fn names(&self, directories: &[PathBuf]) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.cache.entries().map(|entry| entry.name.to_owned()).collect();
        let unlisted = self.directories().filter(|_| self.cache.entries().next().is_none());
        for directory in unlisted.chain(directories.iter().cloned()) {
            names.extend(self.root.names(&directory).into_iter().filter(|name| name.contains(".so.")));
        }
        names
    }

    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let tuple = self.machine.tuple();
        let own = ["/lib", "/usr/lib"].into_iter().filter_map(move |top| Some(Path::new(top).join(tuple?)));
        own.chain(DIRECTORIES.iter().map(PathBuf::from))
    }

    fn places(&self, soname: &str, first: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
        // A library for some processors only has much the same content as the one for all.
        let listed = |special| {
            let known = self.cache.entries().filter(move |entry| entry.name == soname && entry.is_special == special);
            known.map(|entry| entry.path.to_owned())
        };
        let told = first.iter().map(move |directory| directory.join(soname));
        told.chain(listed(false))
            .chain(listed(true))
            .chain(self.directories().map(move |directory| directory.join(soname)))
    }

    /// Library at `path`; `None` if there is none for this machine.
    pub fn open(&self, path: PathBuf) -> Result<Option<Found>, Error> {
        let Some(file) = self.root.open(&path)? else { return Ok(None) };
        match Library::read(&file) {
            Ok(library) => Ok((library.machine == self.machine).then_some(Found { path, file, library })),
            // A linker script, such as libc.so.
            Err(Error::NotElf) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
