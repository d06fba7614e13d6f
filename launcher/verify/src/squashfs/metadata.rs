//! Reads metadata blocks: one after another, or from a position that an inode or a directory names.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::decompress::Decompressor;
use super::{Fault, METADATA, Superblock};
use coracle_launcher::image::Error;
use coracle_launcher::image::squashfs::block_size;

/// The file, with the remaining limit of decompression.
pub struct Source<'a> {
    file: &'a File,
    offset: u64,
    decompressor: Decompressor,
    /// Number of bytes that were decompressed; each block counts as a whole one.
    pub spent: u64,
    limit: u64,
}

/// Contents of a metadata block.
pub struct Block {
    bytes: Box<[u8; METADATA]>,
    length: usize,
}

impl Block {
    fn new() -> Self {
        Self { bytes: Box::new([0; METADATA]), length: 0 }
    }

    /// Bytes of the block.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl<'a> Source<'a> {
    /// Source for the squashfs at `offset`; no more than `limit` bytes are decompressed.
    pub fn new(file: &'a File, offset: u64, superblock: &Superblock, limit: u64) -> Self {
        Self { file, offset, decompressor: Decompressor::new(superblock.compression), spent: 0, limit }
    }

    /// Reads the block at `at` into `block`, and returns its end, which is not after `end`.
    fn read(&mut self, table: &'static str, at: u64, end: u64, block: &mut Block) -> Result<u64, Error> {
        let wrong = |wrong| Error::from(Fault::Block(table, at, wrong));
        self.spent += METADATA as u64;
        if self.spent > self.limit {
            return Err(Fault::Budget("bytes of metadata", self.limit).into());
        }
        let mut raw = [0; METADATA + 2];
        let most = usize::try_from(end.saturating_sub(at)).map_or(raw.len(), |room| room.min(raw.len()));
        let raw = raw.get_mut(..most).filter(|raw| raw.len() > 2).ok_or_else(|| wrong("ends behind its table"))?;
        self.file.read_exact_at(raw, self.offset.saturating_add(at))?;
        let (stored, size) = block_size(u16::from_le_bytes([raw[0], raw[1]])).map_err(wrong)?;
        let length = usize::try_from(size).map_err(|_| wrong("is too long"))?;
        let packed = raw.get(2..length).ok_or_else(|| wrong("ends behind its table"))?;
        block.length = if stored {
            block.bytes[..packed.len()].copy_from_slice(packed);
            packed.len()
        } else {
            self.decompressor.block(packed, &mut block.bytes[..]).ok_or_else(|| wrong("cannot be decompressed"))?
        };
        if block.length == 0 {
            return Err(wrong("is empty"));
        }
        Ok(at + size)
    }

    /// Fills `out` with the data block of `size` bytes at `at`, which is compressed unless `stored`. Returns the number
    /// of bytes; nothing if the block is damaged.
    pub fn contents(&mut self, at: u64, size: usize, stored: bool, out: &mut [u8]) -> Result<Option<usize>, Error> {
        let mut packed = vec![0; size];
        self.file.read_exact_at(&mut packed, self.offset.saturating_add(at))?;
        if !stored {
            return Ok(self.decompressor.block(&packed, out));
        }
        let Some(room) = out.get_mut(..size) else { return Ok(None) };
        room.copy_from_slice(&packed);
        Ok(Some(size))
    }

    /// Reads the entries of a table, each of `N` bytes. `starts` contains the start of each block, and the end of the
    /// last one.
    pub fn entries<const N: usize>(
        &mut self,
        table: &'static str,
        starts: &[u64],
        count: u32,
        mut each: impl FnMut(&mut Self, u32, &[u8; N]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (mut block, mut number) = (Block::new(), 0);
        for pair in starts.windows(2) {
            let wrong = |wrong| Error::from(Fault::Block(table, pair[0], wrong));
            if self.read(table, pair[0], pair[1], &mut block)? != pair[1] {
                return Err(wrong("does not end where the next starts"));
            }
            // The kernel computes an entry's block from its number.
            let rest = usize::try_from(count - number).unwrap_or(usize::MAX).saturating_mul(N);
            if block.length != rest.min(METADATA) {
                return Err(wrong("has not the size of its entries"));
            }
            for entry in block.bytes[..block.length].chunks_exact(N) {
                let mut bytes = [0; N];
                bytes.copy_from_slice(entry);
                each(self, number, &bytes)?;
                number += 1;
            }
        }
        Ok(())
    }

    /// Positions of all blocks from `start` to `end`, without their contents.
    pub fn chain(&self, table: &'static str, start: u64, end: u64, most: usize) -> Result<Chain, Error> {
        let (mut starts, mut at) = (Vec::new(), start);
        let mut header = [0; 2];
        while at < end {
            let wrong = |wrong| Error::from(Fault::Block(table, at, wrong));
            if starts.len() >= most {
                return Err(Fault::Budget("blocks of metadata", most as u64).into());
            }
            let place = u32::try_from(at - start).map_err(|_| wrong("is further away than can be said"))?;
            if at + 2 > end {
                return Err(wrong("ends behind its table"));
            }
            self.file.read_exact_at(&mut header, self.offset.saturating_add(at))?;
            let (_, size) = block_size(u16::from_le_bytes(header)).map_err(wrong)?;
            if at + size > end {
                return Err(wrong("ends behind its table"));
            }
            starts.push(place);
            at += size;
        }
        Ok(Chain { table, start, end, starts, cache: Vec::new() })
    }
}

/// A table with random access.
pub struct Chain {
    table: &'static str,
    start: u64,
    end: u64,
    starts: Vec<u32>,
    /// Most recently read blocks, the latest at the end: directories are in the order of their inodes.
    cache: Vec<(usize, Block)>,
}

const CACHED: usize = 8;

impl Chain {
    /// Reader from `offset` in the block at `place` (from the table's start) on; nothing if there is no such block.
    pub fn at(&mut self, place: u64, offset: u16) -> Option<Cursor<'_>> {
        let index = self.starts.binary_search(&u32::try_from(place).ok()?).ok()?;
        Some(Cursor { chain: self, index, offset: offset.into(), moved: false })
    }

    /// True if a block starts at `place`.
    pub fn has(&self, place: u32) -> bool {
        self.starts.binary_search(&place).is_ok()
    }

    fn block(&mut self, source: &mut Source<'_>, index: usize) -> Result<Option<&Block>, Error> {
        if let Some(found) = self.cache.iter().position(|(cached, _)| *cached == index) {
            let cached = self.cache.remove(found);
            self.cache.push(cached);
        } else {
            let Some(place) = self.starts.get(index) else { return Ok(None) };
            let at = self.start + u64::from(*place);
            let mut block = if self.cache.len() < CACHED { Block::new() } else { self.cache.remove(0).1 };
            source.read(self.table, at, self.end, &mut block)?;
            self.cache.push((index, block));
        }
        Ok(self.cache.last().map(|(_, block)| block))
    }
}

/// Reads through a chain. `None` means the end of the table.
pub struct Cursor<'a> {
    chain: &'a mut Chain,
    index: usize,
    offset: usize,
    /// True after the first read.
    moved: bool,
}

impl Cursor<'_> {
    /// Fills `out` with the next bytes.
    pub fn fill(&mut self, source: &mut Source<'_>, mut out: &mut [u8]) -> Result<Option<()>, Error> {
        while !out.is_empty() {
            let Some(block) = self.chain.block(source, self.index)? else { return Ok(None) };
            let rest = block.bytes().get(self.offset..).unwrap_or_default();
            if rest.is_empty() {
                // A start after the end of a block: the kernel refuses it, while old kernels read on from there.
                if !self.moved {
                    return Ok(None);
                }
                (self.index, self.offset) = (self.index + 1, 0);
                continue;
            }
            let count = rest.len().min(out.len());
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&rest[..count]);
            (out, self.offset, self.moved) = (later, self.offset + count, true);
        }
        Ok(Some(()))
    }

    /// Reads the next `N` bytes.
    pub fn array<const N: usize>(&mut self, source: &mut Source<'_>) -> Result<Option<[u8; N]>, Error> {
        let mut out = [0; N];
        Ok(self.fill(source, &mut out)?.map(|()| out))
    }
}

/// Reads all of a table, from its start to its end.
pub struct Stream {
    table: &'static str,
    start: u64,
    end: u64,
    /// Positions of the current block, and of the next.
    at: u64,
    next: u64,
    block: Block,
    offset: usize,
}

impl Stream {
    /// Creates a stream of the table from `start` to `end`.
    pub fn new(table: &'static str, start: u64, end: u64) -> Self {
        Self { table, start, end, at: start, next: start, block: Block::new(), offset: 0 }
    }

    /// Position of the next byte: offset of the block in the table, and offset in the block; nothing at the end.
    pub fn place(&mut self, source: &mut Source<'_>) -> Result<Option<(u64, u16)>, Error> {
        if self.offset == self.block.length {
            if self.next == self.end {
                return Ok(None);
            }
            self.at = self.next;
            self.next = source.read(self.table, self.at, self.end, &mut self.block)?;
            self.offset = 0;
        }
        Ok(u16::try_from(self.offset).ok().map(|offset| (self.at - self.start, offset)))
    }

    /// Fills `out` with the next bytes; `None` if the table ends before that.
    pub fn fill(&mut self, source: &mut Source<'_>, mut out: &mut [u8]) -> Result<Option<()>, Error> {
        while !out.is_empty() {
            if self.place(source)?.is_none() {
                return Ok(None);
            }
            let rest = &self.block.bytes()[self.offset..];
            let count = rest.len().min(out.len());
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&rest[..count]);
            (out, self.offset) = (later, self.offset + count);
        }
        Ok(Some(()))
    }

    /// Reads the next `N` bytes.
    pub fn array<const N: usize>(&mut self, source: &mut Source<'_>) -> Result<Option<[u8; N]>, Error> {
        let mut out = [0; N];
        Ok(self.fill(source, &mut out)?.map(|()| out))
    }
}
