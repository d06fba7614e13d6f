//! Reads tar files in the formats in use: POSIX (pax and ustar), GNU and Seventh Edition.
//!
//! The tar crate reads names of any length into memory. Here every record has a limit, ambiguous records are refused,
//! and the offset of a file's bytes in the archive is known.
#![forbid(unsafe_code)]

use std::io::{self, Read};

use super::entry::{Device, Entry, Kind, MAX_RECORD, Owner, Pieces, malformed};
use super::fields::{self, Block};
use super::pax::Records;
use super::sparse;

/// Size of an archive's blocks.
pub const BLOCK: u64 = 512;
/// Limit of a path in Linux (PATH_MAX), with its NUL.
const MAX_PATH: usize = 4096;

/// Entries of an archive, one after the other.
pub struct Reader<R> {
    input: R,
    at: u64,
    left: u64,
    padding: u64,
    global: Records,
    is_closed: bool,
    is_empty: bool,
}

/// Reader that can skip bytes.
pub trait Skip: Read {
    /// Skips `count` bytes. Missing bytes may be noticed only later.
    fn skip(&mut self, count: u64) -> io::Result<()>;
}

impl<R: Read> Skip for &mut R {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl<R: Skip> Reader<R> {
    /// Starts to read an archive at the start of `input`.
    pub fn new(input: R) -> Self {
        Self { input, at: 0, left: 0, padding: 0, global: Records::default(), is_closed: false, is_empty: false }
    }

    /// Next entry. Unread bytes of the one before are skipped.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let (mut name, mut link, mut records) = (None, None, None);
        loop {
            self.skip()?;
            let Some(block) = self.block()? else { return Ok(None) };
            if block.is_zero() {
                if name.is_some() || link.is_some() || records.is_some() {
                    return Err(malformed("ends behind a record of an entry that is not there"));
                }
                self.is_closed = true;
                return Ok(None);
            }
            block.check()?;
            let flag = block.flag();
            if !matches!(flag, b'L' | b'K' | b'x' | b'X' | b'g' | b'V') {
                let records: Records = records.unwrap_or_default();
                return self.entry(&block, name, link, &records).map(Some);
            }
            let bytes = self.record(block.size()?)?;
            let twice = match flag {
                b'L' => name.replace(fields::until_nul(&bytes).to_vec()).is_some(),
                b'K' => link.replace(fields::until_nul(&bytes).to_vec()).is_some(),
                b'x' | b'X' => records.replace(Records::read(&bytes)?).is_some(),
                b'g' => {
                    self.global.update(&bytes)?;
                    false
                }
                _ => false,
            };
            if twice {
                return Err(malformed("has two records of the same kind for one entry"));
            }
        }
    }

    /// True if the archive has its final blocks. Some archives lack them, as does one that was cut between two entries.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// True if the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    fn entry(
        &mut self,
        block: &Block,
        name: Option<Vec<u8>>,
        link: Option<Vec<u8>>,
        records: &Records,
    ) -> io::Result<Entry> {
        let get = |key: &str| records.get(key).or_else(|| self.global.get(key)).filter(|value| !value.is_empty());
        let number = |key: &str| get(key).map(fields::decimal).transpose();
        let gnu_sparse = sparse::Marks::of(&records.all);
        let path = match (&gnu_sparse.name, get("path"), name) {
            (Some(name), _, _) => name.clone(),
            (None, Some(path), _) => path.to_vec(),
            (None, None, Some(name)) => name,
            (None, None, None) => block.path(),
        };
        let link = get("linkpath").map(<[u8]>::to_vec).or(link).unwrap_or_else(|| block.link());
        if path.len() >= MAX_PATH || link.len() >= MAX_PATH {
            return Err(malformed(format!("has a name of {} bytes", path.len().max(link.len()))));
        }
        let size = number("size")?.map_or_else(|| block.size(), Ok)?;
        let kind = match block.flag() {
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::Link(link),
            b'2' => Kind::Symlink(link),
            flag @ (b'3' | b'4') => {
                let (major, minor) = block.device()?;
                Kind::Device(Device { block: flag == b'4', major, minor })
            }
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            flag => return Err(malformed(format!("has an entry of the unknown kind {:?}", char::from(flag)))),
        };
        let id = |key: &str, field: io::Result<u64>| -> io::Result<u32> {
            let id = number(key)?.map_or(field, Ok)?;
            // The last number is no id: chown(2) takes it for "as it is".
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| malformed(format!("has the {key} {id}")))
        };
        let owner = Owner { uid: id("uid", block.uid())?, gid: id("gid", block.gid())? };
        let time = get("mtime").map_or_else(|| block.time(), fields::time)?;
        let mode = block.mode()?;
        let attributes = records.attributes();
        // As in GNU tar and Go: other types have no bytes behind the header, whatever size they state.
        let mut stored = if matches!(kind, Kind::File) || block.flag() == b'D' { size } else { 0 };
        let mut pieces = None;
        let mut size = if matches!(kind, Kind::File) { size } else { 0 };
        self.open(stored)?;
        if block.flag() == b'S' {
            let (map, whole) = self.old_sparse(block)?;
            (size, pieces) = (whole, Some(map));
        } else if gnu_sparse.is_there() && matches!(kind, Kind::File) {
            let (map, whole) = match gnu_sparse.map()? {
                Some(map) => (map, gnu_sparse.size()?),
                None => {
                    let map = sparse::map_in_front(|| self.data_block())?;
                    (map, gnu_sparse.size()?)
                }
            };
            stored = self.left;
            (size, pieces) = (whole, Some(map));
        }
        if let Some(pieces) = &pieces {
            sparse::check(pieces, stored, size)?;
        }
        Ok(Entry { path, kind, mode, owner, time, size, attributes, pieces, stored, at: self.at })
    }

    /// Pieces of a sparse file in GNU tar's old format, which continue in blocks behind the header.
    fn old_sparse(&mut self, block: &Block) -> io::Result<(Pieces, u64)> {
        let (mut map, whole, mut more) = block.sparse()?;
        while more {
            if map.len() as u64 * 24 > MAX_RECORD {
                return Err(malformed("has too many pieces of a sparse file"));
            }
            let block = self.block()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            more = block.more_sparse(&mut map)?;
        }
        Ok((map, whole))
    }

    fn open(&mut self, size: u64) -> io::Result<()> {
        let whole = size.checked_next_multiple_of(BLOCK).filter(|size| *size < 1 << 62);
        self.padding = whole.ok_or_else(|| malformed(format!("has an entry of {size} bytes")))? - size;
        self.left = size;
        Ok(())
    }

    /// Block of an entry's bytes.
    fn data_block(&mut self) -> io::Result<[u8; 512]> {
        let mut block = [0; 512];
        self.left = self.left.checked_sub(BLOCK).ok_or_else(|| malformed("has a sparse file without its map"))?;
        self.input.read_exact(&mut block)?;
        self.at += BLOCK;
        Ok(block)
    }

    fn record(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_RECORD {
            return Err(malformed(format!("has a record of {size} bytes about one entry")));
        }
        self.open(size)?;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Next block; `None` at the end of the file.
    fn block(&mut self) -> io::Result<Option<Block>> {
        let mut bytes = [0; 512];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 && self.at > 0 => return Ok(None),
                Ok(0) => {
                    self.is_empty = filled == 0;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.at += BLOCK;
        Ok(Some(Block(bytes)))
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left + self.padding;
        self.input.skip(rest)?;
        self.at += rest;
        (self.left, self.padding) = (0, 0);
        Ok(())
    }
}

/// Reads the bytes of the entry that was read last.
impl<R: Skip> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut out[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.at += count as u64;
        Ok(count)
    }
}
