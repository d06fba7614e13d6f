//! Limits the size to which an archive may unpack.
//!
//! A hostile archive may fill a disk, or never end. Real images are far below these limits:
//!
//! - ten million entries, with names of 2 GiB together (each counts twice: in the archive, and in the image), in all
//!   layers of an image;
//! - of each archive: 100 times its stored size, and at least 4 GiB. An uncompressed archive has no such limit: users
//!   with larger archives can decompress them;
//! - holes of 1 TiB in sparse files;
//! - the free space of the target disk, less a 64th of the disk, or less 1 GiB if that is smaller.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;

use coracle::report::Refusal;
use nix::errno::Errno;

use crate::output::unwritable;

/// Size to which an archive may always unpack.
const ALWAYS: u64 = 4 << 30;
/// Greatest ratio of unpacked to packed size.
const RATIO: u64 = 100;
const ENTRIES: u64 = 10_000_000;
const NAMES: u64 = 2 << 30;
const HOLES: u64 = 1 << 40;
/// Number of bytes between checks of the free space.
const LOOK: u64 = 64 << 20;
/// Approximate space of a file without contents.
const INODE: u64 = 512;

/// Size to which a stream of `size` bytes may unpack.
pub fn unpacked(size: u64) -> u64 {
    size.saturating_mul(RATIO).max(ALWAYS)
}

/// Error of a stream that exceeds its limit.
#[derive(Debug)]
struct Bomb;

impl std::fmt::Display for Bomb {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "unpacks to more than {RATIO} times its size and more than {} GiB", ALWAYS >> 30)
    }
}

impl std::error::Error for Bomb {}

/// Makes the error of a stream that exceeds its limit.
pub fn bomb() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Bomb)
}

/// True for the error of [`bomb`].
pub fn is_bomb(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Bomb>())
}

/// Remaining resources for unpacking an image.
#[derive(Debug)]
pub struct Budget {
    entries: u64,
    names: u64,
    holes: u64,
    until_look: u64,
}

impl Budget {
    /// Complete resources.
    pub fn new() -> Self {
        Self { entries: ENTRIES, names: NAMES, holes: HOLES, until_look: 0 }
    }

    /// Takes an entry with a name of `name` bytes.
    pub fn entry(&mut self, name: usize) -> Result<(), String> {
        let left = self.entries.checked_sub(1);
        self.entries = left.ok_or_else(|| format!("more than {ENTRIES} files in the image"))?;
        self.name(name)
    }

    /// Takes a name of `name` bytes.
    pub fn name(&mut self, name: usize) -> Result<(), String> {
        let left = self.names.checked_sub(name as u64);
        self.names = left.ok_or_else(|| format!("more than {NAMES} bytes of names of files in the image"))?;
        Ok(())
    }

    /// Takes the holes of a file.
    pub fn holes(&mut self, bytes: u64) -> Result<(), String> {
        let left = self.holes.checked_sub(bytes);
        self.holes = left.ok_or_else(|| format!("holes of more than {HOLES} bytes in the image's files"))?;
        Ok(())
    }

    /// Takes a file of `bytes` on the disk of `directory`.
    pub fn file(&mut self, bytes: u64, directory: &File) -> Result<(), Refusal> {
        let wanted = bytes.saturating_add(INODE);
        if let Some(left) = self.until_look.checked_sub(wanted) {
            self.until_look = left;
            return Ok(());
        }
        let system = |errno: Errno| Refusal::system("workshop", &coracle::sys::Error::new("fstatvfs()", errno));
        let disk = nix::sys::statvfs::fstatvfs(directory).map_err(system)?;
        let block = disk.fragment_size();
        let (free, all) = (disk.blocks_available().saturating_mul(block), disk.blocks().saturating_mul(block));
        let reserve = (all / 64).min(1 << 30);
        if wanted.saturating_add(reserve) > free {
            let full = io::Error::from_raw_os_error(Errno::ENOSPC as i32);
            let hint = "CORACLE_TMPDIR names the directory in which images are made";
            return Err(unwritable("workshop", &full).hint(hint));
        }
        // The free space of a nearly full disk is checked more often.
        self.until_look = LOOK.min((free - reserve - wanted) / 2);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use coracle::report::Kind;

    use super::*;

    #[test]
    fn what_is_taken_is_gone() {
        let mut budget = Budget { entries: 2, names: 5, ..Budget::new() };
        budget.entry(5).unwrap();
        assert!(budget.entry(1).unwrap_err().contains("names"));
        assert!(budget.entry(0).unwrap_err().contains("files"));
        budget.holes(HOLES).unwrap();
        assert!(budget.holes(1).unwrap_err().contains("holes"));
        let directory = File::open("/").unwrap();
        budget.file(1, &directory).unwrap();
        assert_eq!(budget.file(u64::MAX, &directory).unwrap_err().kind, Kind::System);
    }

    #[test]
    fn small_streams_may_grow_more_than_large_ones() {
        assert_eq!(unpacked(10), ALWAYS);
        assert_eq!(unpacked(1 << 30), 100 << 30);
        assert_eq!(unpacked(u64::MAX), u64::MAX);
    }
}
