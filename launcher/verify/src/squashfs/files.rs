//! Reads single files of a squashfs for display, without mounting it or unpacking it.
//!
//! No link is followed. Reads are bounded, and compared with the image's own limits, as in [`super::inspect_deep`].
#![forbid(unsafe_code)]

use std::fs::File;

use super::directory;
use super::inode::{DIRECTORY, EMPTY_DIRECTORY, FILE, LINK, Limits, Listing, NONE, STORED};
use super::metadata::{Chain, Source};
use super::walk::MAX_BLOCKS;
use super::{Fault, METADATA, SUPERBLOCK, Superblock};
use coracle_launcher::image::squashfs::Tables;
use coracle_launcher::image::{Error, field};

/// Limit on the bytes of metadata that are decompressed: directories of hundreds of thousands of names.
const METADATA_LIMIT: u64 = 256 << 20;
/// Limit on the names of a directory that are kept.
const MAX_NAMES: usize = 4096;
/// Length of an entry of the fragment table, in bytes.
const FRAGMENT: u32 = 16;

/// Target of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A directory, with its first 4,096 names.
    Directory(Vec<Vec<u8>>),
    /// A regular file with its contents.
    File(Vec<u8>),
    /// A regular file that is longer than the limit; its length in bytes.
    Long(u64),
    /// A symbolic link.
    Link,
    /// A device, FIFO or socket.
    Special,
}

/// Files of a squashfs.
pub struct Files<'a> {
    superblock: Superblock,
    source: Source<'a>,
    inodes: Chain,
    directories: Chain,
    fragments: Option<Chain>,
    /// Start of each block of the fragment table.
    fragment_blocks: Vec<u64>,
}

/// Position of a file's contents.
struct Contents {
    start: u64,
    size: u64,
    fragment: u32,
    offset: u32,
    blocks: Vec<u32>,
}

enum Inode {
    Directory(Listing),
    File(Contents),
    Long(u64),
    Link,
    Special,
}

impl<'a> Files<'a> {
    /// Opens the squashfs in `size` bytes from `offset` on.
    pub fn open(file: &'a File, offset: u64, size: u64) -> Result<Self, Error> {
        let superblock = Superblock::read(file, offset, size, file.metadata()?.len())?;
        let tables = Tables::read(file, offset, &superblock)?;
        let source = Source::new(file, offset, &superblock, METADATA_LIMIT);
        let inodes = source.chain("inode", tables.inodes.start, tables.inodes.end, MAX_BLOCKS)?;
        let directories = source.chain("directory", tables.directories.start, tables.directories.end, MAX_BLOCKS)?;
        let fragments = match (tables.fragments.first(), tables.fragments.last()) {
            (Some(start), Some(end)) => Some(source.chain("fragment", *start, *end, MAX_BLOCKS)?),
            _ => None,
        };
        Ok(Self { superblock, source, inodes, directories, fragments, fragment_blocks: tables.fragments })
    }

    /// Contents at `path`, of a file of at most `limit` bytes; nothing if `path` does not exist, or only through a
    /// link.
    pub fn look(&mut self, path: &str, limit: u64) -> Result<Option<Node>, Error> {
        let root = self.superblock.root;
        let mut at = (u32::try_from(root >> 16).map_err(|_| Fault::Root(root))?, low(root), 0);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let Inode::Directory(listing) = self.inode(at, 0)? else { return Ok(None) };
            let mut found = None;
            directory::read(&mut self.source, &mut self.directories, at.2, listing, |entry| {
                if entry.name == name.as_bytes() {
                    found = Some((entry.block, entry.offset, entry.number));
                }
                Ok(())
            })?;
            match found {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(match self.inode(at, limit)? {
            Inode::Directory(listing) => {
                let mut names = Vec::new();
                directory::read(&mut self.source, &mut self.directories, at.2, listing, |entry| {
                    if names.len() < MAX_NAMES {
                        names.push(entry.name.to_vec());
                    }
                    Ok(())
                })?;
                Node::Directory(names)
            }
            Inode::File(contents) => Node::File(self.read(at.2, &contents)?),
            Inode::Long(size) => Node::Long(size),
            Inode::Link => Node::Link,
            Inode::Special => Node::Special,
        }))
    }

    fn inode(&mut self, (block, offset, number): (u32, u16, u32), limit: u64) -> Result<Inode, Error> {
        let wrong = |text| Error::from(Fault::Inode(number, text));
        let cut = || wrong("is cut off by the end of its table");
        let Self { source, inodes, superblock, .. } = self;
        let mut cursor = inodes.at(block.into(), offset).ok_or_else(|| wrong("is in no block"))?;
        let base: [u8; 16] = cursor.array(source)?.ok_or_else(cut)?;
        let kind = u16::from_le_bytes(field(&base, 0));
        let (kind, long) = if kind > 7 { (kind - 7, true) } else { (kind, false) };
        let (start, size, fragment, offset) = match (kind, long) {
            (DIRECTORY, false) => {
                let body: [u8; 16] = cursor.array(source)?.ok_or_else(cut)?;
                let (block, parent) = (u32::from_le_bytes(field(&body, 0)), u32::from_le_bytes(field(&body, 12)));
                let size = u32::from(u16::from_le_bytes(field(&body, 8))).saturating_sub(EMPTY_DIRECTORY);
                let offset = u16::from_le_bytes(field(&body, 10));
                return Ok(Inode::Directory(Listing { block, offset, size, parent }));
            }
            (DIRECTORY, true) => {
                let body: [u8; 24] = cursor.array(source)?.ok_or_else(cut)?;
                let word = |at| u32::from_le_bytes(field(&body, at));
                let size = word(4).saturating_sub(EMPTY_DIRECTORY);
                let offset = u16::from_le_bytes(field(&body, 18));
                return Ok(Inode::Directory(Listing { block: word(8), offset, size, parent: word(12) }));
            }
            (FILE, false) => {
                let body: [u8; 16] = cursor.array(source)?.ok_or_else(cut)?;
                let word = |at| u32::from_le_bytes(field(&body, at));
                (u64::from(word(0)), u64::from(word(12)), word(4), word(8))
            }
            (FILE, true) => {
                let body: [u8; 40] = cursor.array(source)?.ok_or_else(cut)?;
                let long = |at| u64::from_le_bytes(field(&body, at));
                (long(0), long(8), u32::from_le_bytes(field(&body, 28)), u32::from_le_bytes(field(&body, 32)))
            }
            (LINK, _) => return Ok(Inode::Link),
            _ => return Ok(Inode::Special),
        };
        if size > limit {
            return Ok(Inode::Long(size));
        }
        let block = u64::from(superblock.block_size);
        let count = if fragment == NONE { size.div_ceil(block) } else { size / block };
        let mut blocks = Vec::new();
        for _ in 0..count {
            blocks.push(u32::from_le_bytes(cursor.array(source)?.ok_or_else(cut)?));
        }
        Ok(Inode::File(Contents { start, size, fragment, offset, blocks }))
    }

    /// Contents of a file whose size is known to be within the limit.
    fn read(&mut self, number: u32, contents: &Contents) -> Result<Vec<u8>, Error> {
        let wrong = |text| Error::from(Fault::Inode(number, text));
        let block = self.superblock.block_size as usize;
        let size = usize::try_from(contents.size).map_err(|_| wrong("is a file of a negative size"))?;
        let mut bytes = Vec::new();
        let mut at = contents.start;
        for size_of in &contents.blocks {
            let rest = (size - bytes.len()).min(block);
            if *size_of == 0 {
                bytes.resize(bytes.len() + rest, 0);
                continue;
            }
            let (data, end) = self.block(at, *size_of).map_err(|error| error.of(wrong))?;
            at = end;
            let data = data.get(..rest).ok_or_else(|| wrong("has a block that is shorter than it has to be"))?;
            bytes.extend_from_slice(data);
        }
        if bytes.len() < size {
            let (at, size_of) = self.fragment(contents.fragment)?;
            let (data, _) = self.block(at, size_of).map_err(|error| error.of(wrong))?;
            let tail = usize::try_from(contents.offset).unwrap_or(usize::MAX);
            let tail = tail.checked_add(size - bytes.len()).and_then(|end| data.get(tail..end));
            bytes.extend_from_slice(tail.ok_or_else(|| wrong("reaches out of its fragment"))?);
        }
        Ok(bytes)
    }

    /// Position of a fragment, and its size with the flag.
    fn fragment(&mut self, number: u32) -> Result<(u64, u32), Error> {
        let wrong = |text| Error::from(Fault::Fragment(number, text));
        let each = u32::try_from(METADATA).unwrap_or(0) / FRAGMENT;
        let first = self.fragment_blocks.first().copied().unwrap_or(0);
        let place = self.fragment_blocks.get((number / each) as usize).filter(|_| number < self.superblock.fragments);
        let offset = u16::try_from(number % each * FRAGMENT).unwrap_or(u16::MAX);
        let cursor = place.zip(self.fragments.as_mut()).and_then(|(place, chain)| chain.at(place - first, offset));
        let entry: Option<[u8; FRAGMENT as usize]> = match cursor {
            Some(mut cursor) => cursor.array(&mut self.source)?,
            None => None,
        };
        let entry = entry.ok_or_else(|| wrong("is none that there is"))?;
        Ok((u64::from_le_bytes(field(&entry, 0)), u32::from_le_bytes(field(&entry, 8))))
    }

    /// Bytes of a block of contents, and the end of the block.
    fn block(&mut self, at: u64, size: u32) -> Result<(Vec<u8>, u64), BlockError> {
        let data = SUPERBLOCK as u64..self.superblock.inode_table;
        let limits = Limits { superblock: &self.superblock, data, xattrs: 0, directories: &self.directories };
        let end = limits.data_block(at, size).map_err(BlockError::Said)?;
        let packed = (size & !STORED) as usize;
        let mut out = vec![0; self.superblock.block_size as usize];
        let filled = self.source.contents(at, packed, size & STORED != 0, &mut out).map_err(BlockError::Failed)?;
        out.truncate(filled.ok_or(BlockError::Said("has a block that cannot be decompressed"))?);
        Ok((out, end))
    }
}

enum BlockError {
    Said(&'static str),
    Failed(Error),
}

impl BlockError {
    fn of(self, wrong: impl Fn(&'static str) -> Error) -> Error {
        match self {
            Self::Said(text) => wrong(text),
            Self::Failed(error) => error,
        }
    }
}

/// Last 16 bits of an inode position.
fn low(place: u64) -> u16 {
    (place & 0xffff).try_into().unwrap_or(u16::MAX)
}
