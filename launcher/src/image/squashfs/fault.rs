//! Faults of a squashfs, in words.
#![forbid(unsafe_code)]

use std::fmt;

use super::super::Error;
use super::Compression;

/// Faults of a squashfs, or things that no kernel mounts.
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
    /// A number of things that no image has.
    Count(&'static str, u64),
    /// The block of compressor options behind the superblock.
    Options(&'static str),
    /// A table that does not lie before the one that must follow it.
    Order(&'static str, &'static str),
    /// The index of a table is shorter or longer than its number of entries needs.
    Index {
        /// Which table's.
        table: &'static str,
        /// Bytes between its start and that of what follows.
        have: u64,
        /// Bytes that its entries need.
        need: u64,
    },
    /// A metadata block of that table, at that byte of the filesystem.
    Block(&'static str, u64, &'static str),
    /// The root inode lies outside of the inode table.
    Root(u64),
    /// An entry of the fragment table, by its number.
    Fragment(u32, &'static str),
    /// An entry of the xattr table, by its number.
    Xattr(u32, &'static str),
    /// An inode, by its number.
    Inode(u32, &'static str),
    /// A directory, by its inode's number.
    Directory(u32, &'static str),
    /// An entry of the export table, by the number of its inode.
    Export(u32),
    /// More of something than the budget allows.
    Budget(&'static str, u64),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Squashfs(fault)
    }
}

impl Fault {
    /// True of what no writer of squashfs makes; the rest is too much for us to look at.
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
