//! Parses inodes of all fourteen types (squashfs_fs.h, union squashfs_inode).
#![forbid(unsafe_code)]

use std::ops::Range;

use super::metadata::{Chain, Source, Stream};
use super::{Fault, Superblock};
use coracle_launcher::image::{Error, field};

/// Value of 32-bit fields for a missing fragment or missing extended attributes.
pub const NONE: u32 = u32::MAX;
/// Flag in the size of a block that is not compressed.
pub const STORED: u32 = 1 << 24;
/// Limit on the target of a symbolic link: PATH_MAX without the NUL.
const MAX_LINK: u32 = 4095;
/// Limit on the bytes of a name in a directory.
pub const MAX_NAME: u32 = 256;
/// Size that the kernel adds to every directory, for `.` and `..`.
pub const EMPTY_DIRECTORY: u32 = 3;

/// Type of a directory in directory entries; the extended form of each type is seven more.
pub const DIRECTORY: u16 = 1;
/// Type of a regular file.
pub const FILE: u16 = 2;
/// Type of a symbolic link.
pub const LINK: u16 = 3;
const BLOCK_DEVICE: u16 = 4;
const CHARACTER_DEVICE: u16 = 5;
const FIFO: u16 = 6;
const SOCKET: u16 = 7;

/// Fields of a valid inode for the walk.
pub struct Inode {
    /// Inode number, from 1 to the number of inodes.
    pub number: u32,
    /// Type, from 1 to 7.
    pub kind: u16,
    /// Position of its entries, if it is a directory.
    pub listing: Option<Listing>,
}

/// Position of a directory's entries.
#[derive(Clone, Copy)]
pub struct Listing {
    /// Offset of the block in the directory table.
    pub block: u32,
    /// Offset in that block.
    pub offset: u16,
    /// Bytes of the entries, without [`EMPTY_DIRECTORY`].
    pub size: u32,
    /// Inode number of its parent directory, as stored. The root has none: mksquashfs stores the number of inodes plus
    /// one, other programs zero.
    pub parent: u32,
}

/// Limits for the numbers in an inode.
pub struct Limits<'a> {
    /// Superblock of this image.
    pub superblock: &'a Superblock,
    /// Range of files' contents and fragments.
    pub data: Range<u64>,
    /// Number of sets of extended attributes.
    pub xattrs: u32,
    /// Directory table.
    pub directories: &'a Chain,
}

impl Limits<'_> {
    /// End of a data block of `size` (with its flag) at `at`.
    pub fn data_block(&self, at: u64, size: u32) -> Result<u64, &'static str> {
        let bytes = size & !STORED;
        if bytes > self.superblock.block_size {
            return Err("has a block that is longer than the block size");
        }
        let end = at.checked_add(bytes.into()).filter(|end| at >= self.data.start && *end <= self.data.end);
        end.ok_or("has a block outside of the image's data")
    }
}

/// Reads one inode after another.
pub struct Reader<'a, 'b> {
    /// Inode table.
    pub stream: &'b mut Stream,
    /// Source of the blocks.
    pub source: &'b mut Source<'a>,
    /// Limits for its numbers.
    pub limits: &'b Limits<'b>,
}

/// Fault of an inode, or of reading it.
enum Wrong {
    Said(&'static str),
    Failed(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<&'static str> for Wrong {
    fn from(text: &'static str) -> Self {
        Self::Said(text)
    }
}

impl Reader<'_, '_> {
    /// Reads the next inode.
    pub fn next(&mut self) -> Result<Inode, Error> {
        let mut number = 0;
        self.inode(&mut number).map_err(|wrong| match wrong {
            Wrong::Said(text) => Fault::Inode(number, text).into(),
            Wrong::Failed(error) => error,
        })
    }

    fn inode(&mut self, number: &mut u32) -> Result<Inode, Wrong> {
        let base: [u8; 16] = self.array()?;
        let short = |at| u16::from_le_bytes(field(&base, at));
        *number = u32::from_le_bytes(field(&base, 12));
        let superblock = self.limits.superblock;
        if *number == 0 || *number > superblock.inodes {
            return Err("has a number that there is not".into());
        }
        let (kind, long) = match short(0) {
            kind @ DIRECTORY..=SOCKET => (kind, false),
            kind @ 8..=14 => (kind - 7, true),
            _ => return Err("is of an unknown kind".into()),
        };
        // The kernel adds the type bits to these.
        let bits = [0, 0o040_000, 0o100_000, 0o120_000, 0o060_000, 0o020_000, 0o010_000, 0o140_000];
        let said = short(2) & 0o170_000;
        if said != 0 && bits.get(usize::from(kind)) != Some(&said) {
            return Err("has a mode of another kind".into());
        }
        if short(4) >= superblock.ids || short(6) >= superblock.ids {
            return Err("has an owner that there is not".into());
        }
        let listing = match (kind, long) {
            (DIRECTORY, false) => Some(self.directory()?),
            (DIRECTORY, true) => Some(self.long_directory()?),
            (FILE, false) => self.file().map(|()| None)?,
            (FILE, true) => self.long_file().map(|()| None)?,
            (LINK, long) => self.link(long).map(|()| None)?,
            (kind, long) => self.special(kind, long).map(|()| None)?,
        };
        Ok(Inode { number: *number, kind, listing })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        Ok(self.stream.array(self.source)?.ok_or("is cut off by the end of its table")?)
    }

    fn word(&mut self) -> Result<u32, Wrong> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn skip(&mut self, mut bytes: u32) -> Result<(), Wrong> {
        while bytes > 0 {
            let mut buffer = [0; 256];
            let count = buffer.len().min(usize::try_from(bytes).unwrap_or(buffer.len()));
            let part = &mut buffer[..count];
            self.stream.fill(self.source, part)?.ok_or("is cut off by the end of its table")?;
            if part.contains(&0) {
                return Err("has a name or a target with a NUL".into());
            }
            bytes -= u32::try_from(count).unwrap_or(bytes);
        }
        Ok(())
    }

    fn directory(&mut self) -> Result<Listing, Wrong> {
        let body: [u8; 16] = self.array()?;
        links(u32::from_le_bytes(field(&body, 4)))?;
        self.listing(
            u32::from_le_bytes(field(&body, 0)),
            u16::from_le_bytes(field(&body, 10)),
            u16::from_le_bytes(field(&body, 8)).into(),
            u32::from_le_bytes(field(&body, 12)),
        )
    }

    fn long_directory(&mut self) -> Result<Listing, Wrong> {
        let body: [u8; 24] = self.array()?;
        let word = |at| u32::from_le_bytes(field(&body, at));
        links(word(0))?;
        let count = u16::from_le_bytes(field(&body, 16));
        let listing = self.listing(word(8), u16::from_le_bytes(field(&body, 18)), word(4), word(12))?;
        self.xattrs(word(20))?;
        let mut before = 0;
        for _ in 0..count {
            let entry: [u8; 12] = self.array()?;
            let word = |at| u32::from_le_bytes(field(&entry, at));
            // `word(0)` counts from the start of the listing, without the three bytes.
            if word(0) >= listing.size || word(0) < before || !self.limits.directories.has(word(4)) {
                return Err("has an index that leads out of its entries".into());
            }
            before = word(0);
            let name = word(8).checked_add(1).filter(|name| *name <= MAX_NAME);
            self.skip(name.ok_or("has an index with a name that is too long")?)?;
        }
        Ok(listing)
    }

    fn listing(&self, block: u32, offset: u16, size: u32, parent: u32) -> Result<Listing, Wrong> {
        let size = size.checked_sub(EMPTY_DIRECTORY).ok_or("is a directory of less than 3 bytes")?;
        if size > 0 && !self.limits.directories.has(block) {
            return Err("is a directory whose entries are in no block".into());
        }
        Ok(Listing { block, offset, size, parent })
    }

    fn file(&mut self) -> Result<(), Wrong> {
        let body: [u8; 16] = self.array()?;
        let word = |at| u32::from_le_bytes(field(&body, at));
        self.contents(word(0).into(), word(12).into(), word(4), word(8))
    }

    fn long_file(&mut self) -> Result<(), Wrong> {
        let body: [u8; 40] = self.array()?;
        let word = |at| u32::from_le_bytes(field(&body, at));
        let long = |at| u64::from_le_bytes(field(&body, at));
        links(word(24))?;
        if long(16) > long(8) {
            return Err("has more holes than bytes".into());
        }
        self.xattrs(word(36))?;
        self.contents(long(0), long(8), word(28), word(32))
    }

    fn contents(&mut self, start: u64, size: u64, fragment: u32, offset: u32) -> Result<(), Wrong> {
        if i64::try_from(size).is_err() {
            return Err("is a file of a negative size".into());
        }
        let block = u64::from(self.limits.superblock.block_size);
        let (whole, tail) = (size / block, size % block);
        let blocks = match fragment {
            NONE => size.div_ceil(block),
            _ if fragment >= self.limits.superblock.fragments => {
                return Err("is in a fragment that there is not".into());
            }
            _ if tail == 0 => return Err("is in a fragment without having bytes for it".into()),
            _ if u64::from(offset) + tail > block => return Err("reaches out of its fragment".into()),
            _ => whole,
        };
        let mut at = start;
        for _ in 0..blocks {
            let size = self.word()?;
            // A hole has no position.
            if size != 0 {
                at = self.limits.data_block(at, size)?;
            }
        }
        Ok(())
    }

    fn link(&mut self, long: bool) -> Result<(), Wrong> {
        links(self.word()?)?;
        let size = self.word()?;
        if !(1..=MAX_LINK).contains(&size) {
            return Err("is a symbolic link with a target of an impossible size".into());
        }
        self.skip(size)?;
        if long {
            let set = self.word()?;
            self.xattrs(set)?;
        }
        Ok(())
    }

    fn special(&mut self, kind: u16, long: bool) -> Result<(), Wrong> {
        links(self.word()?)?;
        if matches!(kind, BLOCK_DEVICE | CHARACTER_DEVICE) {
            self.word()?;
        } else {
            debug_assert!(matches!(kind, FIFO | SOCKET));
        }
        if long {
            let set = self.word()?;
            self.xattrs(set)?;
        }
        Ok(())
    }

    fn xattrs(&self, set: u32) -> Result<(), Wrong> {
        if set != NONE && set >= self.limits.xattrs {
            return Err("has extended attributes that there are not".into());
        }
        Ok(())
    }
}

fn links(count: u32) -> Result<(), Wrong> {
    if count == 0 { Err("has no links".into()) } else { Ok(()) }
}
