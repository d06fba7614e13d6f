//! Checks the positions of a squashfs's tables, as far as that is possible without decompression.
//!
//! The order is the kernel's (squashfs_fill_super): inodes, directories, fragments, export, ids, extended attributes.
//! Each index must exactly fill the bytes up to the next structure. Kernels since Linux 5.11 require that; older ones
//! read out of bounds otherwise.
#![forbid(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::super::{Error, field, read_array};
use super::{Compression, FLAG_OPTIONS, Fault, MAX_ENTRIES, METADATA, NO_TABLE, SUPERBLOCK, Superblock};

/// Size of a metadata block's header, which holds the block's size in the file and a bit for uncompressed blocks.
const HEADER: u64 = 2;
const STORED: u16 = 1 << 15;
/// Maximum size of a metadata block with its header, in bytes.
const MAX_BLOCK: u64 = METADATA as u64 + HEADER;

/// Positions of the tables, in bytes from the start of the file system; all are checked to lie inside it.
#[derive(Debug)]
pub struct Tables {
    /// Blocks of inodes.
    pub inodes: Range<u64>,
    /// Blocks of directories.
    pub directories: Range<u64>,
    /// Start of each block of the fragment table, and end of the last one; empty without fragments.
    pub fragments: Vec<u64>,
    /// Start of each block of the export table, and end of the last one.
    pub export: Vec<u64>,
    /// Start of each block of the table of ids, and end of the last one.
    pub ids: Vec<u64>,
    /// Tables of extended attributes.
    pub xattrs: Option<Xattrs>,
}

/// Tables of extended attributes.
#[derive(Debug)]
pub struct Xattrs {
    /// Number of different sets.
    pub count: u32,
    /// Blocks of names and values.
    pub values: Range<u64>,
    /// Start of each block with the positions of sets, and end of the last one.
    pub sets: Vec<u64>,
}

impl Tables {
    /// Reads the indexes of the tables of the squashfs at `offset`, whose superblock has been checked.
    pub fn read(file: &File, offset: u64, superblock: &Superblock) -> Result<Self, Error> {
        let places = Places { file, offset, used: superblock.used };
        let data = places.options(superblock)?;
        let mut end = superblock.used;
        let xattrs = match superblock.xattr_table {
            NO_TABLE => None,
            at => Some(places.xattrs(at)?),
        };
        if let Some(xattrs) = &xattrs {
            end = xattrs.values.start;
        }
        let ids = places.index("id", superblock.id_table, superblock.ids.into(), 4, end)?;
        end = first(&ids, end);
        let export = match superblock.export_table {
            NO_TABLE => Vec::new(),
            at => places.index("export", at, superblock.inodes.into(), 8, end)?,
        };
        end = first(&export, end);
        let fragments = match superblock.fragments {
            0 => Vec::new(),
            count => places.index("fragment", superblock.fragment_table, count.into(), 16, end)?,
        };
        end = first(&fragments, end);
        // An image of one empty directory has an empty directory table.
        if superblock.directory_table > end {
            return Err(Fault::Order("directory", "next").into());
        }
        if superblock.inode_table >= superblock.directory_table {
            return Err(Fault::Order("inode", "directory").into());
        }
        if superblock.inode_table < data {
            return Err(Fault::Table("inode", superblock.inode_table).into());
        }
        let tables = Self {
            inodes: superblock.inode_table..superblock.directory_table,
            directories: superblock.directory_table..end,
            fragments,
            export,
            ids,
            xattrs,
        };
        places.block("inode", tables.inodes.start, tables.inodes.end)?;
        if !tables.directories.is_empty() {
            places.block("directory", tables.directories.start, tables.directories.end)?;
        }
        let root = superblock.root;
        let (block, within) = (tables.inodes.start.saturating_add(root >> 16), root & 0xffff);
        if root >> 48 != 0 || within >= METADATA as u64 || block >= tables.inodes.end {
            return Err(Fault::Root(root).into());
        }
        places.block("inode", block, tables.inodes.end)?;
        Ok(tables)
    }
}

fn first(index: &[u64], otherwise: u64) -> u64 {
    index.first().copied().unwrap_or(otherwise)
}

/// Reader of the file system's bytes; it reads none after its end.
struct Places<'a> {
    file: &'a File,
    offset: u64,
    used: u64,
}

impl Places<'_> {
    fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], Error> {
        let end = self.offset.saturating_add(self.used);
        read_array(self.file, self.offset.saturating_add(at), end, "the squashfs")
    }

    /// Checks the compressor options, and returns the position at which the contents of files may start.
    fn options(&self, superblock: &Superblock) -> Result<u64, Error> {
        let start = SUPERBLOCK as u64;
        if superblock.flags & FLAG_OPTIONS == 0 {
            return Ok(start);
        }
        let header = u16::from_le_bytes(self.array(start)?);
        let size = if superblock.compression == Compression::Zstd { 4 } else { 8 };
        if header != STORED | size {
            return Err(Fault::Options("have another size than they must").into());
        }
        let first = u32::from_le_bytes(self.array(start + HEADER)?);
        // The kernel's decompressors evaluate these fields (xz_wrapper.c, lz4_wrapper.c), and allocate accordingly.
        let dictionary = |size: u32| {
            let rest = size & (size.wrapping_sub(1));
            size <= superblock.block_size && (rest == 0 || rest.is_power_of_two() && rest == (size ^ rest) << 1)
        };
        match superblock.compression {
            Compression::Xz if first == 0 || !dictionary(first) => {
                Err(Fault::Options("have a dictionary of an impossible size").into())
            }
            Compression::Lz4 if first != 1 => Err(Fault::Options("are of an unknown version of lz4").into()),
            _ => Ok(start + HEADER + u64::from(size)),
        }
    }

    fn xattrs(&self, at: u64) -> Result<Xattrs, Error> {
        let header: [u8; 16] = self.array(at)?;
        let start = u64::from_le_bytes(field(&header, 0));
        let count = u32::from_le_bytes(field(&header, 8));
        if count == 0 || count > MAX_ENTRIES {
            return Err(Fault::Count("sets of extended attributes", count.into()).into());
        }
        let sets = self.blocks("xattr", (at, at + 16), count.into(), 16, self.used)?;
        let end = first(&sets, at);
        if start >= end {
            return Err(Fault::Order("xattr value", "xattr").into());
        }
        self.block("xattr value", start, end)?;
        Ok(Xattrs { count, values: start..end, sets })
    }

    fn index(&self, table: &'static str, at: u64, count: u64, size: u64, end: u64) -> Result<Vec<u64>, Error> {
        self.blocks(table, (at, at), count, size, end)
    }

    /// Reads the starts of the blocks that hold `count` entries of `size` bytes, and the end of the last one. The
    /// blocks end where the table starts (`at.0`); the index extends from `at.1` to `end`.
    fn blocks(&self, table: &'static str, at: (u64, u64), count: u64, size: u64, end: u64) -> Result<Vec<u64>, Error> {
        let number = (count * size).div_ceil(METADATA as u64);
        let need = number * 8;
        let have = end.checked_sub(at.1).ok_or(Fault::Order(table, "next"))?;
        if have != need {
            return Err(Fault::Index { table, have, need }.into());
        }
        let bytes = usize::try_from(need).map_err(|_| Fault::Count(table, count))?;
        let mut raw = vec![0; bytes];
        let from = self.offset.saturating_add(at.1);
        self.file.read_exact_at(&mut raw, from)?;
        let mut starts: Vec<u64> = raw.chunks_exact(8).map(|entry| u64::from_le_bytes(field(entry, 0))).collect();
        starts.push(at.0);
        for pair in starts.windows(2) {
            let room = pair[1].checked_sub(pair[0]).filter(|room| (HEADER + 1..=MAX_BLOCK).contains(room));
            if pair[0] < SUPERBLOCK as u64 || room.is_none() {
                return Err(Fault::Block(table, pair[0], "does not lie before the next").into());
            }
        }
        // Reading the blocks checks the others: a check here would read all of them at each start of a job.
        for index in [0, starts.len() - 2] {
            let (start, end) = (starts[index], starts[index + 1]);
            if self.block(table, start, end)? != end {
                return Err(Fault::Block(table, start, "does not end where the next starts").into());
            }
        }
        Ok(starts)
    }

    /// End of the block at `at`, which must be before `end`.
    fn block(&self, table: &'static str, at: u64, end: u64) -> Result<u64, Error> {
        let wrong = |wrong| Fault::Block(table, at, wrong);
        if at.saturating_add(HEADER) > end {
            return Err(wrong("ends behind its table").into());
        }
        let (_, size) = block_size(u16::from_le_bytes(self.array(at)?)).map_err(wrong)?;
        let next = at + size;
        if next > end {
            return Err(wrong("ends behind its table").into());
        }
        Ok(next)
    }
}

/// True if a block is not compressed, and its size with its header, from that header.
pub fn block_size(header: u16) -> Result<(bool, u64), &'static str> {
    let size = header & !STORED;
    match size {
        0 => Err("is empty"),
        1..=8192 => Ok((header & STORED != 0, u64::from(size) + HEADER)),
        _ => Err("is longer than 8192 bytes"),
    }
}
