//! Describes the faults of a squashfs.
#![forbid(unsafe_code)]

use std::fmt;

use super::super::Error;
use super::Compression;

/// Faults of a squashfs, and features that no kernel mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The partition is shorter than a superblock, or does not begin with the magic.
    NotSquashfs,
    /// A version other than 4.0.
    Version(u16, u16),
    /// A compressor that the kernel does not have.
    Compression(u16),
    /// A block size that is not a power of two from 4 KiB to 1 MiB, or does not match block_log.
    BlockSize(u32),
    /// No inode, or no id.
    Empty,
    /// A table that starts after the end of the file system.
    Table(&'static str, u64),
    /// A file system longer than its partition.
    Length {
        /// bytes_used of the superblock.
        used: u64,
        /// Size of the partition.
        size: u64,
    },
    /// The last bytes lie in an incomplete sector at the end of the file, which a loop device does not have.
    Unpadded,
    /// An implausible count.
    Count(&'static str, u64),
    /// The block of compressor options after the superblock.
    Options(&'static str),
    /// A table that does not lie before the table that must follow it.
    Order(&'static str, &'static str),
    /// An index that does not match the number of its table's entries.
    Index {
        /// Name of the table.
        table: &'static str,
        /// Bytes between its start and the next structure.
        have: u64,
        /// Bytes that its entries need.
        need: u64,
    },
    /// A metadata block of this table, at this byte of the file system.
    Block(&'static str, u64, &'static str),
    /// The root inode lies outside the inode table.
    Root(u64),
    /// An entry of the fragment table, by its index.
    Fragment(u32, &'static str),
    /// An entry of the xattr table, by its index.
    Xattr(u32, &'static str),
    /// An inode, by its number.
    Inode(u32, &'static str),
    /// A directory, by its inode number.
    Directory(u32, &'static str),
    /// An entry of the export table, by its inode number.
    Export(u32),
    /// A count above the limit of the check.
    Budget(&'static str, u64),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Squashfs(fault)
    }
}

impl Fault {
    /// True for a fault that no writer of squashfs produces; the other faults are limits of the check.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Budget(..))
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
            Self::Count(what, count) => write!(out, "it says it has {count} {what}"),
            Self::Options(wrong) => write!(out, "its compressor options {wrong}"),
            Self::Order(first, second) => write!(out, "its {first} table does not lie before its {second} table"),
            Self::Index { table, have, need } => {
                write!(out, "the index of its {table} table is {have} bytes long, its entries need {need}")
            }
            Self::Block(table, at, wrong) => write!(out, "the block of its {table} table at byte {at} {wrong}"),
            Self::Root(at) => write!(out, "its root inode is at {at:#x}, outside of the inode table"),
            Self::Fragment(number, wrong) => write!(out, "fragment {number} {wrong}"),
            Self::Xattr(number, wrong) => write!(out, "extended attributes {number}: {wrong}"),
            Self::Inode(number, wrong) => write!(out, "inode {number} {wrong}"),
            Self::Directory(number, wrong) => write!(out, "directory inode {number} {wrong}"),
            Self::Export(number) => write!(out, "its export table leads elsewhere for inode {number}"),
            Self::Budget(what, limit) => write!(out, "more than {limit} {what}, which is too much to look at"),
        }
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
