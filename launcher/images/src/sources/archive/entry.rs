//! Entries of archives: files with their owners, times and attributes.
#![forbid(unsafe_code)]

use std::io;

/// The longest record that says more of an entry: names, attributes, and what is a hole in its file.
pub const MAX_RECORD: u64 = 1 << 20;

/// When a file was changed last, in seconds since 1970; fractions are not what an image can keep.
pub type Time = i64;

/// Pieces of a file with holes: their places in it, and their lengths.
pub type Pieces = Vec<(u64, u64)>;

/// Type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A file with contents.
    File,
    /// A further name of the entry of this name.
    Link(Vec<u8>),
    /// A symbolic link to this.
    Symlink(Vec<u8>),
    /// A directory.
    Directory,
    /// A pipe with a name.
    Fifo,
    /// A socket, which only squashfs has.
    Socket,
    /// A device.
    Device(Device),
}

/// Something of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, as the archive has it.
    pub path: Vec<u8>,
    /// Type of the entry.
    pub kind: Kind,
    /// The permission bits.
    pub mode: u32,
    /// Owner of the file.
    pub owner: Owner,
    /// When it was changed.
    pub time: Time,
    /// Length of the file, holes included.
    pub size: u64,
    /// Its extended attributes.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Places and lengths of its bytes, if it has holes.
    pub pieces: Option<Pieces>,
    /// Number of bytes that the archive has of it.
    pub stored: u64,
    /// Place in the archive at which these begin.
    pub at: u64,
}

impl Entry {
    /// A directory of root's.
    pub fn directory(mode: u32, time: Time) -> Self {
        Self {
            path: Vec::new(),
            kind: Kind::Directory,
            mode,
            owner: Owner::default(),
            time,
            size: 0,
            attributes: Vec::new(),
            pieces: None,
            stored: 0,
            at: 0,
        }
    }
}

/// The owner of a file in the image, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A device of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Of blocks, or else of characters.
    pub block: bool,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
}

/// Something that is not as it should be in an archive.
pub fn malformed(cause: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause.into())
}
