//! Search for a library in a tree, the node's or an image's.
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

/// Path of the loader's list.
pub const CACHE: &str = "/etc/ld.so.cache";
/// Directories of libraries that need not be named, on systems with one folder for each kind of machine and on those
/// without; the last is musl's.
const FOLDERS: &[&str] = &["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];

/// Places of one library; an image with many modules has some dozens.
const MAX_PLACES: usize = 256;

/// Debian's folder of libraries has some 10,000 names on a large desktop.
const MAX_NAMES: usize = 100_000;

/// The root of a tree. Links are followed, and never out of it.
#[derive(Debug)]
pub struct Root {
    folder: OwnedFd,
    lookup: Lookup,
}

/// The libraries of a tree for one kind of machine.
#[derive(Debug)]
pub struct Libraries {
    root: Root,
    machine: Machine,
    cache: Cache,
}

/// A library that was found.
#[derive(Debug)]
pub struct Found {
    /// Path, as the list or the folder has it: a name on the way may be a link.
    pub path: PathBuf,
    /// The open file.
    pub file: File,
    /// Parsed headers.
    pub library: Library,
}

impl Root {
    /// The node's own.
    pub fn node() -> sys::Result<Self> {
        let folder = sys::open_untrusted(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Ok(Self { folder, lookup: Lookup::Links })
    }

    /// The one that `folder` is open on. What other file systems are mounted below it is no part of it.
    pub fn of_mount(folder: OwnedFd) -> Self {
        Self { folder, lookup: Lookup::LinksOnMount }
    }

    /// Opens the regular file at `path`; nothing, if there is none, or none that we may read.
    pub fn open(&self, path: &Path) -> io::Result<Option<File>> {
        // A FIFO is not waited for.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        match sys::open_in_root(self.folder.as_fd(), path, flags, self.lookup) {
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

    /// The names in a folder, if it is one that we may read; of more than anybody has, only some.
    pub fn names(&self, folder: &Path) -> Vec<String> {
        self.entries(folder, |_| true)
    }

    /// True if there is a folder, links followed.
    pub fn has_folder(&self, path: &Path) -> bool {
        sys::open_in_root(self.folder.as_fd(), path, OFlag::O_PATH | OFlag::O_DIRECTORY, self.lookup).is_ok()
    }

    /// The folders in a folder, and links, which may lead to some.
    pub fn folders(&self, folder: &Path) -> Vec<PathBuf> {
        let names = self.entries(folder, |kind| kind.is_dir() || kind.is_symlink());
        names.into_iter().map(|name| folder.join(name)).collect()
    }

    fn entries(&self, folder: &Path, wanted: impl Fn(FileType) -> bool) -> Vec<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let Ok(folder) = sys::open_in_root(self.folder.as_fd(), folder, flags, self.lookup) else { return Vec::new() };
        // The one way to read a folder that is open without leaving the standard library.
        let Ok(entries) = std::fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd())) else { return Vec::new() };
        let entries = entries.take(MAX_NAMES).filter_map(Result::ok);
        let entries = entries.filter(|entry| entry.file_type().is_ok_and(&wanted));
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// The bytes of a regular file of at most `limit` bytes; nothing of a longer one.
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
    /// Those below `root` that are for `machine`. Without a list of the loader's, or with one that makes no sense, there
    /// are the usual folders.
    pub fn new(root: Root, machine: Machine) -> io::Result<Self> {
        let bytes = root.bytes(Path::new(CACHE), MAX_CACHE)?;
        let cache = bytes.and_then(|bytes| Cache::new(bytes, machine)).unwrap_or_default();
        Ok(Self { root, machine, cache })
    }

    /// The tree.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The library that the loader takes for `soname` when neither the program nor its environment says where: the list
    /// first, then the usual folders. What is for another machine is passed over, as the loader does.
    pub fn find(&self, soname: &str) -> Result<Option<Found>, Error> {
        self.places(soname, &[]).find_map(|path| self.open(path).transpose()).transpose()
    }

    /// The library in every place where the loader might find it, `folders` (of LD_LIBRARY_PATH) first. Links may make
    /// one file of several places.
    pub fn everywhere(&self, soname: &str, folders: &[PathBuf]) -> Result<Vec<Found>, Error> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for path in self.places(soname, folders) {
            if !seen.insert(path.clone()) {
                continue;
            }
            match self.open(path) {
                Ok(library) => found.extend(library),
                Err(Error::Read(cause)) => return Err(Error::Read(cause)),
                // The loader stumbles over it, if a program gets there.
                Err(_) => {}
            }
            if found.len() > MAX_PLACES {
                return Err(Error::TooMany("places"));
            }
        }
        Ok(found)
    }

    /// Names of the libraries that the loader knows or, where it has no list, that lie in its folders; and those
    /// in `folders`.
    pub fn names(&self, folders: &[PathBuf]) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.cache.entries().map(|entry| entry.name.to_owned()).collect();
        let unlisted = self.folders().filter(|_| self.cache.entries().next().is_none());
        for folder in unlisted.chain(folders.iter().cloned()) {
            names.extend(self.root.names(&folder).into_iter().filter(|name| name.contains(".so.")));
        }
        names
    }

    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let tuple = self.machine.tuple();
        let own = ["/lib", "/usr/lib"].into_iter().filter_map(move |top| Some(Path::new(top).join(tuple?)));
        own.chain(FOLDERS.iter().map(PathBuf::from))
    }

    fn places(&self, soname: &str, first: &[PathBuf]) -> impl Iterator<Item = PathBuf> {
        // A library for some processors only is much the same as the one for all.
        let listed = |special| {
            let known = self.cache.entries().filter(move |entry| entry.name == soname && entry.is_special == special);
            known.map(|entry| entry.path.to_owned())
        };
        let told = first.iter().map(move |folder| folder.join(soname));
        told.chain(listed(false)).chain(listed(true)).chain(self.folders().map(move |folder| folder.join(soname)))
    }

    /// The library at `path`; nothing, if there is none for this machine.
    pub fn open(&self, path: PathBuf) -> Result<Option<Found>, Error> {
        let Some(file) = self.root.open(&path)? else { return Ok(None) };
        match Library::read(&file) {
            Ok(library) => Ok((library.machine == self.machine).then_some(Found { path, file, library })),
            // A script of the linker's, as libc.so is.
            Err(Error::NotElf) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
