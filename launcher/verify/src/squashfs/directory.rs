//! Reads the entries of a directory (fs/squashfs/dir.c, namei.c).
#![forbid(unsafe_code)]

use super::Fault;
use super::inode::{Listing, MAX_NAME};
use super::metadata::{Chain, Source};
use coracle_launcher::image::{Error, field};

/// Limit on the entries after one header (SQUASHFS_DIR_COUNT).
const MAX_RUN: u32 = 256;

/// Fields of an entry about the inode that it names.
pub struct Entry<'a> {
    /// Name in this directory.
    pub name: &'a [u8],
    /// Position of the inode: offset of the block in the inode table.
    pub block: u32,
    /// Offset in that block.
    pub offset: u16,
    /// Inode number.
    pub number: u32,
    /// Type of the inode, from 1 to 7.
    pub kind: u16,
}

/// Calls `each` for all entries of the directory with that inode number.
///
/// The kernel stops the search for a name at the first one that sorts after it, and shows names unchanged. So they must
/// be sorted and unique, and none may be `.`, `..` or a path.
pub fn read(
    source: &mut Source<'_>,
    chain: &mut Chain,
    number: u32,
    listing: Listing,
    mut each: impl FnMut(Entry<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let wrong = |text| Error::from(Fault::Directory(number, text));
    if listing.size == 0 {
        return Ok(());
    }
    let cut = || wrong("has entries outside of the directory table");
    let mut cursor = chain.at(listing.block.into(), listing.offset).ok_or_else(cut)?;
    let mut rest = listing.size;
    let take = |bytes: u32, rest: &mut u32| -> Result<(), Error> {
        *rest = rest.checked_sub(bytes).ok_or_else(|| wrong("has an entry that reaches out of it"))?;
        Ok(())
    };
    let (mut name, mut before) = ([0; MAX_NAME as usize], Vec::with_capacity(MAX_NAME as usize));
    while rest > 0 {
        take(12, &mut rest)?;
        let header: [u8; 12] = cursor.array(source)?.ok_or_else(cut)?;
        let word = |at| u32::from_le_bytes(field(&header, at));
        let (run, block, base) = (word(0), word(4), word(8));
        if run >= MAX_RUN {
            return Err(wrong("has more than 256 entries behind one header"));
        }
        for _ in 0..=run {
            take(8, &mut rest)?;
            let entry: [u8; 8] = cursor.array(source)?.ok_or_else(cut)?;
            let short = |at| u16::from_le_bytes(field(&entry, at));
            let length = u32::from(short(6)) + 1;
            if length > MAX_NAME {
                return Err(wrong("has a name that is too long"));
            }
            take(length, &mut rest)?;
            let name = name.get_mut(..usize::from(short(6)) + 1).ok_or_else(cut)?;
            cursor.fill(source, name)?.ok_or_else(cut)?;
            if name.contains(&b'/') || name.contains(&0) {
                return Err(wrong("has a name with a slash or a NUL"));
            }
            if *name == *b"." || *name == *b".." {
                return Err(wrong("has an entry \".\" or \"..\""));
            }
            if *name <= *before {
                return Err(wrong("has names that are not sorted, or one name twice"));
            }
            before.clear();
            before.extend_from_slice(name);
            let delta = i16::from_le_bytes(field(&entry, 2));
            let number = base.wrapping_add_signed(delta.into());
            each(Entry { name, block, offset: short(0), number, kind: short(4) })?;
        }
    }
    Ok(())
}
