//! From an open file to what the kernel may mount: which filesystem, where in the file, how long.
//!
//! Nothing here trusts a number of the file before it has been compared with the file's size, and nothing
//! reads more than a few hundred kilobytes. It runs in an unprivileged process (the launcher's `proxy`).
#![forbid(unsafe_code)]

#[cfg(feature = "launcher")]
pub mod digest;
pub mod sif;
pub mod squashfs;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::report::{Kind, Refusal};

/// What of a file the kernel is to mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// How the file is made.
    pub container: Container,
    /// Where the filesystem starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub size: u64,
    /// How the squashfs is compressed.
    pub compression: squashfs::Compression,
}

/// How an image file is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// The Singularity Image Format, version 01.
    Sif,
    /// A squashfs and nothing else.
    Squashfs,
}

/// Why a file is no image that we run.
#[derive(Debug)]
pub enum Error {
    /// Neither SIF nor squashfs.
    Unknown,
    /// The file cannot be read.
    Read(io::Error),
    /// Shorter than what it says of itself.
    Truncated {
        /// What is cut.
        what: &'static str,
        /// The length that it would need, in bytes.
        need: u64,
        /// The file's length, in bytes.
        have: u64,
    },
    /// The SIF header or a descriptor says something impossible.
    Sif(sif::Fault),
    /// The squashfs superblock says something impossible.
    Squashfs(squashfs::Fault),
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Self {
        Self::Read(cause)
    }
}

impl Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Sif(sif::Fault::Encrypted) => Kind::ImageEncrypted,
            Self::Sif(sif::Fault::Architecture { .. }) => Kind::ImageArch,
            Self::Read(_) => Kind::ImageUnreadable,
            _ => Kind::ImageFormat,
        }
    }

    /// The refusal of the image that the user calls `image`.
    pub fn refuse(&self, image: &str) -> Refusal {
        let refusal = Refusal::new(self.kind(), image, self.to_string());
        match self {
            Self::Truncated { .. } => {
                refusal.hint("was the copy of the image interrupted? compare its size with the original")
            }
            Self::Sif(sif::Fault::Encrypted) => refusal.hint("build the image without encryption"),
            Self::Unknown => refusal.hint("a SIF or squashfs file is wanted"),
            _ => refusal,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => out.write_str("not an image: it starts neither like a SIF nor like a squashfs"),
            Self::Read(cause) => write!(out, "cannot be read: {cause}"),
            Self::Truncated { what, need, have } => {
                write!(out, "truncated: {what} ends at byte {need}, the file at byte {have}")
            }
            Self::Sif(fault) if fault.is_damage() => write!(out, "damaged SIF: {fault}"),
            Self::Sif(fault) => fault.fmt(out),
            Self::Squashfs(fault) => write!(out, "damaged squashfs: {fault}"),
        }
    }
}

impl std::error::Error for Error {}

/// Finds the root filesystem in `file`, for a machine of `architecture` (as in [`std::env::consts::ARCH`]).
pub fn identify(file: &File, architecture: &str) -> Result<Image, Error> {
    let length = file.metadata()?.len();
    let start: [u8; 64] = match read_array(file, 0, length, "the first header") {
        Err(Error::Truncated { .. }) => return Err(Error::Unknown),
        read => read?,
    };
    let (container, offset, size) = match Container::of(&start) {
        Some(Container::Squashfs) => (Container::Squashfs, 0, length),
        Some(Container::Sif) => {
            let (offset, size) = sif::root_partition(file, length, architecture)?;
            (Container::Sif, offset, size)
        }
        None => return Err(Error::Unknown),
    };
    let superblock = squashfs::Superblock::read(file, offset, size, length)?;
    Ok(Image { container, offset, size, compression: superblock.compression })
}

impl Container {
    /// What a file is, from its first 64 bytes. The submit side uses this to refuse early.
    pub fn of(start: &[u8; 64]) -> Option<Self> {
        if start[32..42] == *sif::MAGIC {
            Some(Self::Sif)
        } else if start[..4] == *squashfs::MAGIC {
            Some(Self::Squashfs)
        } else {
            None
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Sif => "sif",
            Self::Squashfs => "file",
        }
    }
}

impl Image {
    /// The form in which an unprivileged process says what it found.
    pub fn to_words(&self) -> String {
        format!("{} {} {} {}", self.container.word(), self.offset, self.size, self.compression)
    }

    /// Reads [`Image::to_words`]. Whoever said it is not trusted: what does not lie in a file of `length` bytes is
    /// nothing.
    pub fn from_words(words: &str, length: u64) -> Option<Self> {
        let mut words = words.split(' ');
        let (container, offset, size, compression) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let container = [Container::Sif, Container::Squashfs].into_iter().find(|one| one.word() == container)?;
        let (offset, size): (u64, u64) = (offset.parse().ok()?, size.parse().ok()?);
        let inside = offset.checked_add(size).is_some_and(|end| end <= length) && words.next().is_none();
        let compression = squashfs::Compression::from_word(compression)?;
        inside.then_some(Self { container, offset, size, compression })
    }
}

impl fmt::Display for Image {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let container = self.container.word();
        write!(out, "{container}:squashfs+{} offset={} size={}", self.compression, self.offset, self.size)
    }
}

/// How many bytes a loop device over this part of a file gets to see.
///
/// The kernel counts in sectors of 512 bytes and drops a part of one. A partition that ends inside a sector may
/// use what follows it in the file, if anything does.
pub fn loop_size(offset: u64, size: u64, length: u64) -> u64 {
    let rest = length.saturating_sub(offset);
    size.next_multiple_of(512).min(rest) / 512 * 512
}

/// Reads `N` bytes at `at`, or says that `what` is cut.
fn read_array<const N: usize>(file: &File, at: u64, length: u64, what: &'static str) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let need = at.saturating_add(N as u64);
    if need > length {
        return Err(Error::Truncated { what, need, have: length });
    }
    match file.read_exact_at(&mut bytes, at) {
        // The file became shorter while we read.
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Truncated { what, need, have: at }),
        read => read.map(|()| bytes).map_err(Error::Read),
    }
}

/// A little-endian number in a header whose length the caller has checked.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(part) = bytes.get(at..at + N) {
        out.copy_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests;
