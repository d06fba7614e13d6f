//! Opens files of the node that only root can write.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::elf::{self, Library, Machine};
use coracle::sys::{self, Lookup};

/// First user id that is not reserved for the system (SYS_UID_MAX, login.defs(5)).
const FIRST_PERSON: u32 = 1000;

/// Root below which files are opened, with their required owner.
#[derive(Debug)]
pub struct Sources {
    root: OwnedFd,
    owner: u32,
}

/// Type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A socket.
    Socket,
}

/// Reason why a file is left out.
#[derive(Debug)]
pub enum Unfit {
    /// The file does not exist.
    Missing,
    /// The file belongs to this user.
    Owner(u32),
    /// Users other than its owner can write the file, which has this mode.
    Writable(u32),
    /// A socket in a directory in which other users can create files.
    Place,
    /// A device, a FIFO, or a file of an unexpected type.
    Kind,
    /// A library for another machine.
    Machine(Machine),
    /// The file is not a library.
    Library(elf::Error),
    /// A system call failed.
    Failed(sys::Error),
}

impl fmt::Display for Unfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => out.write_str("not on this node"),
            Self::Owner(uid) => write!(out, "belongs to user {uid}, and must belong to root"),
            Self::Writable(mode) => write!(out, "writable by others than root (mode {mode:04o})"),
            Self::Place => out.write_str("a socket in a directory where others could put one"),
            Self::Kind => out.write_str("neither a file nor a directory nor a socket"),
            Self::Machine(machine) => write!(out, "for {machine}, this node is {}", Machine::own()),
            Self::Library(cause) => cause.fmt(out),
            Self::Failed(error) => error.fmt(out),
        }
    }
}

impl Sources {
    /// Files of this node, which must belong to root.
    pub fn node() -> sys::Result<Self> {
        let root = sys::open_untrusted(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Ok(Self::below(root, 0))
    }

    /// Files below `root`, which must belong to `owner`.
    pub fn below(root: OwnedFd, owner: u32) -> Self {
        Self { root, owner }
    }

    /// Finds the real path of `path` and its type, and checks that only the owner can write it.
    pub fn find(&self, path: &Path) -> Result<(PathBuf, What), Unfit> {
        self.place(path).map(|(real, what, _)| (real, what))
    }

    /// Same as [`Self::find`], with a descriptor (O_PATH).
    pub fn place(&self, path: &Path) -> Result<(PathBuf, What, OwnedFd), Unfit> {
        let file = self.open(path, OFlag::O_PATH)?;
        let found = metadata(&file)?;
        let what = match found.file_type() {
            kind if kind.is_file() => What::File,
            kind if kind.is_dir() => What::Directory,
            kind if kind.is_socket() => What::Socket,
            _ => return Err(Unfit::Kind),
        };
        let real = real_path(&file)?;
        match what {
            What::Socket => self.socket(path, &real, &found)?,
            What::File | What::Directory => self.check(&found)?,
        }
        Ok((real, what, file.into()))
    }

    /// Finds the real path of the library at `path`, and reads its headers.
    pub fn library(&self, path: &Path) -> Result<(PathBuf, Library), Unfit> {
        let (real, what) = self.find(path)?;
        if what != What::File {
            return Err(Unfit::Kind);
        }
        let file = self.open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let found = file.metadata().map_err(|cause| Unfit::Failed(sys::Error::from_io("fstat", &cause)))?;
        if !found.is_file() {
            return Err(Unfit::Kind);
        }
        self.check(&found)?;
        let library = Library::read(&file).map_err(Unfit::Library)?;
        match library.machine == Machine::own() {
            true => Ok((real, library)),
            false => Err(Unfit::Machine(library.machine)),
        }
    }

    fn open(&self, path: &Path, flags: OFlag) -> Result<File, Unfit> {
        let file = sys::open_in_root(self.root.as_fd(), path, flags, Lookup::Links);
        file.map(File::from).map_err(|error| match error.errno() {
            Errno::ENOENT | Errno::ENOTDIR => Unfit::Missing,
            _ => Unfit::Failed(error),
        })
    }

    fn check(&self, found: &Metadata) -> Result<(), Unfit> {
        if found.uid() != self.owner {
            return Err(Unfit::Owner(found.uid()));
        }
        if found.mode() & 0o022 != 0 {
            return Err(Unfit::Writable(found.mode() & 0o7777));
        }
        Ok(())
    }

    /// Checks a socket. Users may write to sockets, and daemons have accounts of their own (nvidia-persistenced).
    /// Therefore the check is that no user can replace the socket.
    fn socket(&self, path: &Path, real: &Path, found: &Metadata) -> Result<(), Unfit> {
        let directory = self.open(path.parent().unwrap_or(path), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        if Some(real_path(&directory)?.as_path()) != real.parent() {
            return Err(Unfit::Place);
        }
        let directory = metadata(&directory)?;
        let trusted = |uid: u32| uid == self.owner || uid < FIRST_PERSON;
        if directory.mode() & 0o022 != 0 || !trusted(directory.uid()) {
            return Err(Unfit::Place);
        }
        if trusted(found.uid()) { Ok(()) } else { Err(Unfit::Owner(found.uid())) }
    }
}

fn metadata(file: &File) -> Result<Metadata, Unfit> {
    file.metadata().map_err(|cause| Unfit::Failed(sys::Error::from_io("fstat", &cause)))
}

fn real_path(file: &File) -> Result<PathBuf, Unfit> {
    sys::fd_path(file).map_err(|cause| Unfit::Failed(sys::Error::from_io("readlink(/proc/self/fd)", &cause)))
}
