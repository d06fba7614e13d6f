//! Reads the loader's list of libraries, /etc/ld.so.cache (ldconfig(8); glibc's sysdeps/generic/dl-cache.h).
#![forbid(unsafe_code)]

use std::path::Path;

use super::Machine;

/// Limit in bytes; the cache of a node with 10,000 libraries has about 1 MB.
pub(super) const MAX_CACHE: usize = 8 << 20;
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0\0";
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// Up to glibc 2.31, the current format follows one of 1995, at the alignment of a 64-bit number.
const ALIGNMENT: usize = 8;

/// Unverified bytes of the list: an entry that points outside them is skipped.
#[derive(Debug, Clone, Default)]
pub struct Cache {
    bytes: Vec<u8>,
    /// Base of the string offsets.
    base: usize,
    entries: usize,
    count: usize,
    entry_size: usize,
    big_endian: bool,
}

/// Library in the loader's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// SONAME.
    pub name: &'a str,
    /// Path; its last component may be a link.
    pub path: &'a Path,
    /// True if it is only for processors with certain features (glibc-hwcaps).
    pub is_special: bool,
}

impl Cache {
    /// Cache of a tree for `machine`, if `bytes` are one.
    pub fn new(bytes: Vec<u8>, machine: Machine) -> Option<Self> {
        let cache = Self { bytes, big_endian: machine.big_endian, ..Self::default() };
        if let Some(newer) = cache.at(0) {
            return Some(newer);
        }
        cache.bytes.starts_with(OLD_MAGIC).then_some(())?;
        let count = cache.number(OLD_HEADER - 4)?;
        let end = count.checked_mul(OLD_ENTRY)?.checked_add(OLD_HEADER)?;
        match cache.at(end.checked_next_multiple_of(ALIGNMENT)?) {
            Some(newer) => Some(newer),
            None => Some(Self { base: end, entries: OLD_HEADER, count, entry_size: OLD_ENTRY, ..cache }),
        }
    }

    /// Cache in the newer format at `start`, if there is one.
    fn at(&self, start: usize) -> Option<Self> {
        self.bytes.get(start..)?.starts_with(MAGIC).then_some(())?;
        let count = self.number(start.checked_add(MAGIC.len())?)?;
        let entries = start.checked_add(HEADER)?;
        Some(Self { base: start, entries, count, entry_size: ENTRY, ..self.clone() })
    }

    /// Entries in the loader's order of preference.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        // `count` may exceed the number of entries in the bytes.
        (0..self.count)
            .map_while(|index| {
                let at = index.checked_mul(self.entry_size)?.checked_add(self.entries)?;
                self.bytes.get(at..at.checked_add(self.entry_size)?)?;
                Some(at)
            })
            .filter_map(|at| {
                let (name, path) = (self.text(self.number(at + 4)?)?, self.text(self.number(at + 8)?)?);
                let capabilities = if self.entry_size == ENTRY { self.bytes.get(at + 16..at + 24)? } else { &[] };
                let is_special = capabilities.iter().any(|byte| *byte != 0);
                Some(Entry { name, path: Path::new(path), is_special })
            })
    }

    fn number(&self, at: usize) -> Option<usize> {
        let bytes: [u8; 4] = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        let number = if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
        usize::try_from(number).ok()
    }

    fn text(&self, offset: usize) -> Option<&str> {
        let rest = self.bytes.get(self.base.checked_add(offset)?..)?;
        let rest = rest.get(..super::MAX_TEXT).unwrap_or(rest);
        let end = rest.iter().position(|byte| *byte == 0)?;
        str::from_utf8(rest.get(..end)?).ok()
    }
}
