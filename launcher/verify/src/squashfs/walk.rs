//! Checks the whole tree of a squashfs before a kernel reads it: every table, every inode, every entry of every
//! directory; not the files' contents.
//!
//! The [`Budget`] limits its memory, not the numbers in the image: about nine bytes per inode and twenty per directory.
#![forbid(unsafe_code)]

use std::fs::File;

use super::inode::{DIRECTORY, Limits, Listing, Reader};
use super::metadata::{Chain, Source, Stream};
use super::{Fault, Superblock, directory};
use coracle_launcher::image::squashfs::{Tables, Xattrs};
use coracle_launcher::image::{Error, field};

/// Limits on the metadata of an image. They do not depend on time or on the host, so all hosts give the same result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Limit on inodes.
    pub inodes: u32,
    /// Limit on directories.
    pub directories: u32,
    /// Limit on entries of directories and extended attributes.
    pub entries: u64,
    /// Limit on the bytes of decompressed metadata.
    pub bytes: u64,
    /// Limit on nested directories.
    pub depth: u32,
}

impl Default for Budget {
    /// Four million inodes, in less than 64 MiB of memory.
    fn default() -> Self {
        Self { inodes: 1 << 22, directories: 1 << 19, entries: 1 << 24, bytes: 2 << 30, depth: 1024 }
    }
}

/// Summary of the metadata that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    /// Number of inodes.
    pub inodes: u32,
    /// Number of directories among them.
    pub directories: u32,
    /// Number of entries of directories and extended attributes.
    pub entries: u64,
    /// Number of bytes of metadata that were decompressed; each block counts as a whole one.
    pub bytes: u64,
}

/// Limit on the metadata blocks of a table with random access: a gigabyte of directories.
pub(super) const MAX_BLOCKS: usize = 1 << 17;
/// Limit on the bytes of a value of an extended attribute (XATTR_SIZE_MAX), and of a name without its prefix.
const MAX_VALUE: u32 = 65536;
const MAX_XATTR_NAME: u16 = 255;
/// Limit on the attributes of one inode: listxattr(2) can return no more.
const MAX_XATTRS: u32 = 65536;
/// Flag of an attribute whose value is stored elsewhere (SQUASHFS_XATTR_VALUE_OOL).
const ELSEWHERE: u16 = 1 << 8;

/// Checks all metadata of the squashfs in `size` bytes from `offset` on, within `budget`.
///
/// It never maps the file: a change during the check can change the answer, and nothing more.
pub fn inspect_deep(file: &File, offset: u64, size: u64, budget: &Budget) -> Result<Contents, Error> {
    let superblock = Superblock::read(file, offset, size, file.metadata()?.len())?;
    if superblock.inodes > budget.inodes {
        return Err(Fault::Budget("inodes", budget.inodes.into()).into());
    }
    let tables = Tables::read(file, offset, &superblock)?;
    let mut source = Source::new(file, offset, &superblock, budget.bytes);
    let range = &tables.directories;
    let mut chain = source.chain("directory", range.start, range.end, MAX_BLOCKS)?;
    let limits = Limits {
        superblock: &superblock,
        data: super::SUPERBLOCK as u64..superblock.inode_table,
        xattrs: tables.xattrs.as_ref().map_or(0, |xattrs| xattrs.count),
        directories: &chain,
    };
    let mut entries = Entries { seen: 0, limit: budget.entries };
    source.entries("id", &tables.ids, superblock.ids.into(), |_, _, _: &[u8; 4]| Ok(()))?;
    fragments(&mut source, &tables, &limits)?;
    if let Some(xattrs) = &tables.xattrs {
        extended_attributes(&mut source, xattrs, &mut entries)?;
    }
    let mut tree = Tree::read(&mut source, &tables, &limits, budget)?;
    tree.walk(&mut source, &mut chain, &mut entries)?;
    tree.check_parents(budget.depth)?;
    source.entries("export", &tables.export, superblock.inodes, |_, index, entry: &[u8; 8]| {
        let place = u64::from_le_bytes(*entry);
        match tree.inodes.get(index as usize) {
            Some(inode) if inode.place() == place => Ok(()),
            _ => Err(Fault::Export(index + 1).into()),
        }
    })?;
    Ok(Contents {
        inodes: superblock.inodes,
        directories: tree.directories.len().try_into().unwrap_or(u32::MAX),
        entries: entries.seen,
        bytes: source.spent,
    })
}

struct Entries {
    seen: u64,
    limit: u64,
}

impl Entries {
    fn count(&mut self) -> Result<(), Error> {
        self.seen += 1;
        if self.seen > self.limit {
            return Err(Fault::Budget("entries", self.limit).into());
        }
        Ok(())
    }
}

fn fragments(source: &mut Source<'_>, tables: &Tables, limits: &Limits<'_>) -> Result<(), Error> {
    source.entries("fragment", &tables.fragments, limits.superblock.fragments, |_, number, entry: &[u8; 16]| {
        let (start, size) = (u64::from_le_bytes(field(entry, 0)), u32::from_le_bytes(field(entry, 8)));
        if size << 8 == 0 {
            return Err(Fault::Fragment(number, "is empty").into());
        }
        limits.data_block(start, size).map(drop).map_err(|wrong| Fault::Fragment(number, wrong).into())
    })
}

fn extended_attributes(source: &mut Source<'_>, xattrs: &Xattrs, entries: &mut Entries) -> Result<(), Error> {
    let range = &xattrs.values;
    let mut chain = source.chain("xattr value", range.start, range.end, MAX_BLOCKS)?;
    source.entries("xattr", &xattrs.sets, xattrs.count, |source, number, entry: &[u8; 16]| {
        let wrong = |text| Error::from(Fault::Xattr(number, text));
        let outside = || wrong("outside of their table");
        let place = u64::from_le_bytes(field(entry, 0));
        let word = |at| u32::from_le_bytes(field(entry, at));
        if word(8) == 0 || word(8) > MAX_XATTRS || i32::try_from(word(12)).is_err() {
            return Err(wrong("an impossible number of them"));
        }
        let (mut cursor, mut far) = (chain.at(place >> 16, offset(place)).ok_or_else(outside)?, Vec::new());
        for _ in 0..word(8) {
            entries.count()?;
            let head: [u8; 4] = cursor.array(source)?.ok_or_else(outside)?;
            let (kind, name) = (u16::from_le_bytes(field(&head, 0)), u16::from_le_bytes(field(&head, 2)));
            // user, trusted, security
            if kind & !ELSEWHERE > 2 {
                return Err(wrong("a name of an unknown kind"));
            }
            if name == 0 || name > MAX_XATTR_NAME {
                return Err(wrong("a name of an impossible length"));
            }
            let mut text = [0; MAX_XATTR_NAME as usize];
            let text = &mut text[..name.into()];
            cursor.fill(source, text)?.ok_or_else(outside)?;
            if text.contains(&0) {
                return Err(wrong("a name with a NUL"));
            }
            let length = u32::from_le_bytes(cursor.array(source)?.ok_or_else(outside)?);
            if kind & ELSEWHERE != 0 {
                if length != 8 {
                    return Err(wrong("a value elsewhere that is no place"));
                }
                far.push(u64::from_le_bytes(cursor.array(source)?.ok_or_else(outside)?));
                continue;
            }
            skip_value(&mut cursor, source, length).and_then(|inside| inside.ok_or_else(outside))?;
        }
        for place in far {
            let mut cursor = chain.at(place >> 16, offset(place)).ok_or_else(outside)?;
            let length = u32::from_le_bytes(cursor.array(source)?.ok_or_else(outside)?);
            skip_value(&mut cursor, source, length).and_then(|inside| inside.ok_or_else(outside))?;
        }
        Ok(())
    })
}

fn skip_value(
    cursor: &mut super::metadata::Cursor<'_>,
    source: &mut Source<'_>,
    length: u32,
) -> Result<Option<()>, Error> {
    let mut rest = match usize::try_from(length) {
        Ok(rest) if length <= MAX_VALUE => rest,
        _ => return Ok(None),
    };
    let mut buffer = [0; 512];
    while rest > 0 {
        let count = rest.min(buffer.len());
        if cursor.fill(source, &mut buffer[..count])?.is_none() {
            return Ok(None);
        }
        rest -= count;
    }
    Ok(Some(()))
}

/// Last 16 bits of an inode position.
fn offset(place: u64) -> u16 {
    (place & 0xffff).try_into().unwrap_or(u16::MAX)
}

/// Position and type of an inode, in eight bytes: offset of the block in 32 bits, offset in the block in 16, type in 8,
/// and a flag that is set if a directory names it. All zeros: not read yet.
#[derive(Clone, Copy, Default)]
struct Known(u64);

impl Known {
    const NAMED: u64 = 1 << 63;

    fn new(block: u32, offset: u16, kind: u16) -> Self {
        Self(u64::from(kind & 7) << 48 | u64::from(block) << 16 | u64::from(offset))
    }

    /// Position in the format of superblock and export table.
    fn place(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }

    fn kind(self) -> u16 {
        (self.0 >> 48 & 7).try_into().unwrap_or(0)
    }
}

/// A directory, and the one that names it.
struct Directory {
    number: u32,
    listing: Listing,
    /// Index of the parent in the list; its own for the root, [`NOBODY`] if no directory has named it yet.
    parent: u32,
}

const NOBODY: u32 = u32::MAX;

struct Tree {
    /// By inode number, from 1 on.
    inodes: Vec<Known>,
    /// Sorted by inode number.
    directories: Vec<Directory>,
}

impl Tree {
    fn read(source: &mut Source<'_>, tables: &Tables, limits: &Limits<'_>, budget: &Budget) -> Result<Self, Error> {
        let mut stream = Stream::new("inode", tables.inodes.start, tables.inodes.end);
        let count = limits.superblock.inodes;
        let mut tree = Self { inodes: vec![Known::default(); count as usize], directories: Vec::new() };
        let (mut seen, mut root) = (0, None);
        while let Some((block, offset)) = stream.place(source)? {
            let inode = Reader { stream: &mut stream, source, limits }.next()?;
            let wrong = |text| Error::from(Fault::Inode(inode.number, text));
            let known = tree.inodes.get_mut(inode.number as usize - 1).ok_or_else(|| wrong("is too many"))?;
            if known.0 != 0 {
                return Err(wrong("has a number that another has, too"));
            }
            let block = u32::try_from(block).map_err(|_| wrong("is further away than can be said"))?;
            *known = Known::new(block, offset, inode.kind);
            seen += 1;
            if known.place() == limits.superblock.root {
                root = Some(inode.number);
                known.0 |= Known::NAMED;
            }
            if let Some(listing) = inode.listing {
                if tree.directories.len() >= budget.directories as usize {
                    return Err(Fault::Budget("directories", budget.directories.into()).into());
                }
                tree.directories.push(Directory { number: inode.number, listing, parent: NOBODY });
            }
        }
        if seen != count {
            return Err(Fault::Count("inodes, not as many as its table", count.into()).into());
        }
        tree.directories.sort_unstable_by_key(|directory| directory.number);
        let root = root.and_then(|root| tree.directory(root)).ok_or(Fault::Root(limits.superblock.root))?;
        tree.directories[root].parent = u32::try_from(root).unwrap_or(NOBODY);
        // NFS handles use it without a check before Linux 5.11 (squashfs_get_parent).
        let real = 1..=limits.superblock.inodes;
        let mut directories = tree.directories.iter().enumerate();
        let lost = directories.find(|(at, one)| *at != root && !real.contains(&one.listing.parent));
        match lost {
            Some((_, directory)) => Err(Fault::Inode(directory.number, "is in a directory that there is not").into()),
            None => Ok(tree),
        }
    }

    fn directory(&self, number: u32) -> Option<usize> {
        self.directories.binary_search_by_key(&number, |directory| directory.number).ok()
    }

    /// Reads all directories, and compares their entries with the inodes.
    fn walk(&mut self, source: &mut Source<'_>, chain: &mut Chain, entries: &mut Entries) -> Result<(), Error> {
        for index in 0..self.directories.len() {
            let Directory { number, listing, .. } = self.directories[index];
            let wrong = |text| Error::from(Fault::Directory(number, text));
            directory::read(source, chain, number, listing, |entry| {
                entries.count()?;
                let known = entry.number.checked_sub(1).and_then(|index| self.inodes.get_mut(index as usize));
                let known = known.ok_or_else(|| wrong("has an entry for an inode that there is not"))?;
                let place = u64::from(entry.block) << 16 | u64::from(entry.offset);
                if known.place() != place || known.kind() != entry.kind {
                    return Err(wrong("has an entry that leads to another inode than it says"));
                }
                if entry.kind == DIRECTORY && known.0 & Known::NAMED != 0 {
                    return Err(wrong("has an entry for a directory that is elsewhere, too, or above it"));
                }
                known.0 |= Known::NAMED;
                if entry.kind == DIRECTORY {
                    let child = self.directories.binary_search_by_key(&entry.number, |directory| directory.number);
                    let child = child.map_err(|_| wrong("has an entry that leads to another inode than it says"))?;
                    self.directories[child].parent = u32::try_from(index).unwrap_or(NOBODY);
                }
                Ok(())
            })?;
        }
        match self.inodes.iter().position(|known| known.0 & Known::NAMED == 0) {
            Some(index) => Err(Fault::Inode(u32::try_from(index + 1).unwrap_or(0), "is in no directory").into()),
            None => Ok(()),
        }
    }

    /// Checks that each directory leads to the root within `most` steps. Each has one parent, but so has a cycle
    /// without a connection to the root.
    fn check_parents(&self, most: u32) -> Result<(), Error> {
        let mut depths = vec![0_u32; self.directories.len()];
        let mut path = Vec::new();
        for start in 0..self.directories.len() {
            let mut at = start;
            path.clear();
            while depths[at] == 0 {
                let parent = self.directories[at].parent as usize;
                if parent == at {
                    depths[at] = 1;
                    break;
                }
                path.push(at);
                if path.len() > most as usize {
                    return Err(self.too_deep(start, most));
                }
                at = parent;
                if at >= depths.len() {
                    return Err(Fault::Directory(self.directories[start].number, "is in no directory").into());
                }
            }
            let mut depth = depths[at];
            while let Some(directory) = path.pop() {
                depth += 1;
                depths[directory] = depth;
            }
            if depth > most {
                return Err(self.too_deep(start, most));
            }
        }
        Ok(())
    }

    /// Error for a cycle, or for too many levels.
    fn too_deep(&self, start: usize, most: u32) -> Error {
        let mut at = start;
        for _ in 0..self.directories.len() {
            let parent = self.directories[at].parent as usize;
            if parent == at {
                return Fault::Budget("directories in one another", most.into()).into();
            }
            at = parent;
        }
        Fault::Directory(self.directories[start].number, "is in itself").into()
    }
}
