//! Defines the entries of archives: files with their owners, times and attributes.
#![forbid(unsafe_code)]

use std::io;

/// Limit of a record with details of an entry: names, attributes, or the holes of its file.
pub const MAX_RECORD: u64 = 1 << 20;

/// Time of the last change of a file, in seconds since 1970. An image cannot hold fractions.
pub type Time = i64;

/// Pieces of a file with holes: offsets and lengths.
pub type Pieces = Vec<(u64, u64)>;

/// Type of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Hard link to the entry of this name.
    Link(Vec<u8>),
    /// Symbolic link to this target.
    Symlink(Vec<u8>),
    /// Directory.
    Directory,
    /// FIFO.
    Fifo,
    /// Socket, which only squashfs has.
    Socket,
    /// Device.
    Device(Device),
}

/// Entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name, as in the archive.
    pub path: Vec<u8>,
    /// Type of the entry.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner of the file.
    pub owner: Owner,
    /// Time of the last change.
    pub time: Time,
    /// Length of the file, holes included.
    pub size: u64,
    /// Extended attributes.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Offsets and lengths of its pieces, if it has holes.
    pub pieces: Option<Pieces>,
    /// Number of its bytes in the archive.
    pub stored: u64,
    /// Offset of these bytes in the archive.
    pub at: u64,
}

impl Entry {
    /// Makes the entry of a directory of root.
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

/// Owner of a file in the image, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Device of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// True for a block device, false for a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// Error of a malformed archive.
pub fn malformed(cause: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, cause.into())
}
