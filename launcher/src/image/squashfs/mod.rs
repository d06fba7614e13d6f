//! Reads and checks squashfs 4.0 (Documentation/filesystems/squashfs.rst, fs/squashfs/squashfs_fs.h).
//!
//! The kernel trusts much of what it reads there. Therefore two checks come first: at each start, of the superblock and
//! the positions of all tables ([`layer`]); and once, when an image enters the store, of everything but the contents of
//! files (`coracle-verify`).
#![forbid(unsafe_code)]

mod fault;
mod tables;

pub use fault::Fault;
pub use tables::{Tables, Xattrs, block_size};

use std::fs::File;

use super::{Error, Filesystem, Layer, field, read_array};

/// "hsqs", the magic of a little-endian squashfs.
pub const MAGIC: &[u8; 4] = coracle::image::SQUASHFS_MAGIC;
/// Length of the superblock, in bytes.
pub const SUPERBLOCK: usize = 96;
/// Position of a table that the image does not have (SQUASHFS_INVALID_BLK).
pub const NO_TABLE: u64 = u64::MAX;
/// Maximum size of a decompressed metadata block, in bytes (SQUASHFS_METADATA_SIZE).
pub const METADATA: usize = 8192;
/// Flag: compressor options follow the superblock.
pub const FLAG_OPTIONS: u16 = 1 << 10;
/// Maximum number of inodes, fragments or sets of extended attributes: sixteen times that of large images.
pub const MAX_ENTRIES: u32 = 1 << 26;

/// Compression of blocks.
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

    /// Compressor with this name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|compression| compression.to_string() == word)
    }
}

/// Layer of the squashfs in `size` bytes from `offset` on, in a file of `length` bytes, if its superblock and the
/// positions of its tables are valid.
pub fn layer(file: &File, offset: u64, size: u64, length: u64) -> Result<Layer, Error> {
    let superblock = Superblock::read(file, offset, size, length)?;
    tables::Tables::read(file, offset, &superblock)?;
    Ok(Layer { filesystem: Filesystem::Squashfs(superblock.compression), offset, size })
}

/// Fields of a superblock. Positions are in bytes from the start of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// The compressor.
    pub compression: Compression,
    /// Flags (SQUASHFS_COMP_OPT and others).
    pub flags: u16,
    /// Bytes of a file that are compressed together.
    pub block_size: u32,
    /// Number of inodes.
    pub inodes: u32,
    /// Number of fragments.
    pub fragments: u32,
    /// Number of user and group ids.
    pub ids: u16,
    /// Reference to the root inode: position of a block in the inode table, and 16 bits for the offset in that block.
    pub root: u64,
    /// Length of the file system, in bytes.
    pub used: u64,
    /// Position of the table of ids.
    pub id_table: u64,
    /// Position of the table of extended attributes, or [`NO_TABLE`].
    pub xattr_table: u64,
    /// Position of the inodes.
    pub inode_table: u64,
    /// Position of the directories.
    pub directory_table: u64,
    /// Position of the fragment table.
    pub fragment_table: u64,
    /// Position of the export table, or [`NO_TABLE`].
    pub export_table: u64,
}

impl Superblock {
    /// Bytes of a file that are compressed together.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// True if files have extended attributes.
    pub fn has_attributes(&self) -> bool {
        self.xattr_table != NO_TABLE
    }

    /// Reads and checks the superblock of the squashfs in `size` bytes from `offset` on, in a file of `length` bytes.
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
            // A plain squashfs that is shorter than its superblock states was truncated; that message helps more.
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
        // A loop device has only whole sectors; see loop_size.
        if used > super::loop_size(offset, size, length) {
            return Err(Fault::Unpadded.into());
        }
        for (what, count) in [("inodes", word(4)), ("fragments", word(16))] {
            if count > MAX_ENTRIES {
                return Err(Fault::Count(what, count.into()).into());
            }
        }
        Ok(Self {
            compression,
            flags: short(24),
            block_size,
            inodes: word(4),
            fragments: word(16),
            ids: short(26),
            root: long(32),
            used,
            id_table: long(48),
            xattr_table: long(56),
            inode_table: long(64),
            directory_table: long(72),
            fragment_table: long(80),
            export_table: long(88),
        })
    }
}
