//! The superblock of squashfs 4.0 (Documentation/filesystems/squashfs.rst, fs/squashfs/squashfs_fs.h).

use std::fmt;
use std::fs::File;

use super::{Error, Filesystem, Layer, field, read_array};

/// "hsqs", the first bytes of a little-endian squashfs.
pub const MAGIC: &[u8; 4] = b"hsqs";
const SUPERBLOCK: usize = 96;
/// A table that the image does not have (SQUASHFS_INVALID_BLK).
const NO_TABLE: u64 = u64::MAX;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zlib
    Gzip,
    /// lzo
    Lzo,
    /// xz
    Xz,
    /// lz4
    Lz4,
    /// zstd
    Zstd,
}

impl Compression {
    const ALL: [Self; 5] = [Self::Gzip, Self::Lzo, Self::Xz, Self::Lz4, Self::Zstd];

    /// The compressor of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.to_string() == word)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Gzip => "gzip",
            Self::Lzo => "lzo",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// What is impossible in a superblock, or what no kernel mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The partition is shorter than a superblock, or does not start like one.
    NotSquashfs,
    /// Another version than 4.0.
    Version(u16, u16),
    /// A compressor that the kernel does not have.
    Compression(u16),
    /// A block size that is no power of two from 4 KiB to 1 MiB, or not the one of block_log.
    BlockSize(u32),
    /// No inode at all, or no id at all.
    Empty,
    /// A table that starts behind the end of the filesystem.
    Table(&'static str, u64),
    /// Longer than the partition that holds it.
    Length {
        /// bytes_used of the superblock.
        used: u64,
        /// The partition's size.
        size: u64,
    },
    /// Its last bytes lie in a part of a sector at the end of the file, which a loop device does not have.
    Unpadded,
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Squashfs(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSquashfs => out.write_str("it does not start like one"),
            Self::Version(major, minor) => write!(out, "version {major}.{minor}, only 4.0 is known"),
            Self::Compression(2) => out.write_str("compressed with lzma, which the kernel does not read"),
            Self::Compression(id) => write!(out, "unknown compressor {id}"),
            Self::BlockSize(size) => write!(out, "a block size of {size} bytes"),
            Self::Empty => out.write_str("it has no inodes"),
            Self::Table(name, at) => write!(out, "its {name} table starts at byte {at}, behind its end"),
            Self::Length { used, size } => write!(out, "it says it is {used} bytes long, its place has {size}"),
            Self::Unpadded => out.write_str("it does not end at a 512-byte border and the file ends with it"),
        }
    }
}

/// The squashfs in `size` bytes from `offset` on, if its superblock is sound, in a file of `length` bytes.
pub fn layer(file: &File, offset: u64, size: u64, length: u64) -> Result<Layer, Error> {
    let superblock = Superblock::read(file, offset, size, length)?;
    Ok(Layer { filesystem: Filesystem::Squashfs(superblock.compression), offset, size })
}

/// What we keep of a superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// The compressor.
    pub compression: Compression,
}

impl Superblock {
    /// Reads and checks the superblock of the squashfs in `size` bytes from `offset` on, in a file of `length`.
    pub fn read(file: &File, offset: u64, size: u64, length: u64) -> Result<Self, Error> {
        if size < SUPERBLOCK as u64 {
            return Err(Fault::NotSquashfs.into());
        }
        let block: [u8; SUPERBLOCK] = read_array(file, offset, length, "the squashfs superblock")?;
        if block[..4] != *MAGIC {
            return Err(Fault::NotSquashfs.into());
        }
        let short = |at| u16::from_le_bytes(field(&block, at));
        let word = |at| u32::from_le_bytes(field(&block, at));
        let long = |at| u64::from_le_bytes(field(&block, at));

        let (major, minor) = (short(28), short(30));
        if (major, minor) != (4, 0) {
            return Err(Fault::Version(major, minor).into());
        }
        let compression = match short(20) {
            1 => Compression::Gzip,
            3 => Compression::Lzo,
            4 => Compression::Xz,
            5 => Compression::Lz4,
            6 => Compression::Zstd,
            other => return Err(Fault::Compression(other).into()),
        };
        let block_size = word(12);
        if !(12..=20).contains(&short(22)) || block_size != 1 << short(22) {
            return Err(Fault::BlockSize(block_size).into());
        }
        if word(4) == 0 || short(26) == 0 {
            return Err(Fault::Empty.into());
        }
        let used = long(40);
        if used > size || used < SUPERBLOCK as u64 {
            // A plain squashfs that is shorter than it says was cut, and saying so helps more.
            return Err(match offset.checked_add(used) {
                Some(need) if need > length => Error::Truncated { what: "the squashfs", need, have: length },
                _ => Fault::Length { used, size }.into(),
            });
        }
        for (name, at, optional) in [
            ("id", 48, false),
            ("xattr", 56, true),
            ("inode", 64, false),
            ("directory", 72, false),
            ("fragment", 80, true),
            ("export", 88, true),
        ] {
            let start = long(at);
            if start >= used && !(optional && start == NO_TABLE) {
                return Err(Fault::Table(name, start).into());
            }
        }
        // A loop device has whole sectors; see loop_size.
        if used > super::loop_size(offset, size, length) {
            return Err(Fault::Unpadded.into());
        }
        Ok(Self { compression })
    }
}
