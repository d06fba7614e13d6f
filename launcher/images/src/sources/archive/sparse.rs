//! Reads files with holes, as GNU tar writes them in pax records (its manual, "Storing Sparse Files").
#![forbid(unsafe_code)]

use std::io;

use super::entry::{MAX_RECORD, Pieces, malformed};
use super::fields::decimal;

/// Records about holes of an entry.
#[derive(Debug, Default)]
pub struct Marks {
    /// Name of the file; the entry itself has another one.
    pub name: Option<Vec<u8>>,
    size: Option<Vec<u8>>,
    numbers: Option<Vec<Vec<u8>>>,
    version: Option<Vec<u8>>,
}

impl Marks {
    /// Collects the records, in any of their three forms.
    pub fn of(records: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut marks = Self::default();
        for (key, value) in records {
            match key.as_slice() {
                b"GNU.sparse.name" => marks.name = Some(value.clone()),
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => marks.size = Some(value.clone()),
                b"GNU.sparse.major" => marks.version = Some(value.clone()),
                b"GNU.sparse.map" => {
                    marks.numbers = Some(value.split(|byte| *byte == b',').map(<[u8]>::to_vec).collect());
                }
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    marks.numbers.get_or_insert_default().push(value.clone());
                }
                _ => {}
            }
        }
        marks
    }

    /// True for a file with holes.
    pub fn is_there(&self) -> bool {
        self.numbers.is_some() || self.version.is_some()
    }

    /// Pieces of the file, unless they are written in front of its bytes.
    pub fn map(&self) -> io::Result<Option<Pieces>> {
        if self.version.as_deref() == Some(b"1") {
            return Ok(None);
        }
        let numbers = self.numbers.as_deref().unwrap_or_default();
        let pairs = numbers.chunks(2).map(|pair| match pair {
            [offset, size] => Ok((decimal(offset)?, decimal(size)?)),
            _ => Err(malformed("has a sparse file with half a piece")),
        });
        pairs.collect::<io::Result<_>>().map(Some)
    }

    /// Length of the file.
    pub fn size(&self) -> io::Result<u64> {
        self.size.as_deref().map_or_else(|| Err(malformed("has a sparse file of no size")), decimal)
    }
}

/// Reads the pieces of a sparse file from the blocks before its bytes: decimal numbers, each with a line break.
pub fn map_in_front(mut next: impl FnMut() -> io::Result<[u8; 512]>) -> io::Result<Pieces> {
    let (mut block, mut at, mut read) = (next()?, 0, 0_u64);
    let mut number = || -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            if at == block.len() {
                (block, at) = (next()?, 0);
            }
            read += 1;
            if read > MAX_RECORD {
                return Err(malformed("has too many pieces of a sparse file"));
            }
            let byte = block[at];
            at += 1;
            if byte == b'\n' {
                return decimal(&digits);
            }
            digits.push(byte);
        }
    };
    let count = number()?;
    let mut map = Vec::new();
    for _ in 0..count {
        map.push((number()?, number()?));
    }
    Ok(map)
}

/// Checks that `pieces` follow each other in a file of `size` bytes, and cover all `stored` bytes.
pub fn check(pieces: &[(u64, u64)], stored: u64, size: u64) -> io::Result<()> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, length) in pieces {
        let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size);
        end = next.ok_or_else(|| malformed("has a sparse file with pieces that overlap"))?;
        sum += length;
    }
    if sum == stored { Ok(()) } else { Err(malformed("has a sparse file with more or fewer bytes than pieces")) }
}
