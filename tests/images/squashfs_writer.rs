//! Writes one small squashfs of all kinds of inodes, with every field's place, and spoils it field by field.
//!
//! Its metadata is stored without compression, so that a field can be overwritten where it is.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

use std::collections::BTreeMap;

/// A sound image, and where its fields are.
pub struct Written {
    pub bytes: Vec<u8>,
    at: BTreeMap<String, usize>,
}

/// An image with a wrong field.
pub struct Crafted {
    pub name: String,
    /// Text of the refusal.
    pub says: &'static str,
    /// True if the look of each start refuses it already.
    pub quick: bool,
    pub bytes: Vec<u8>,
}

/// Bytes that grow, with marks in them.
#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    at: BTreeMap<String, usize>,
}

impl Part {
    fn put(&mut self, name: &str, bytes: &[u8]) -> &mut Self {
        self.at.insert(name.to_owned(), self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }
    fn u16(&mut self, name: &str, value: u16) -> &mut Self {
        self.put(name, &value.to_le_bytes())
    }
    fn u32(&mut self, name: &str, value: u32) -> &mut Self {
        self.put(name, &value.to_le_bytes())
    }
    fn u64(&mut self, name: &str, value: u64) -> &mut Self {
        self.put(name, &value.to_le_bytes())
    }

    /// The fields that all inodes start with.
    fn inode(&mut self, name: &str, kind: u16, number: u32) -> u16 {
        let at = self.bytes.len() as u16;
        let field = |field: &str| format!("{name}.{field}");
        self.u16(&field("type"), kind).u16(&field("mode"), 0o755).u16(&field("uid"), 0).u16(&field("gid"), 0);
        self.u32(&field("mtime"), 0).u32(&field("number"), number);
        at
    }

    /// A directory's entries: name, place and number of the inode, and its kind.
    fn listing(&mut self, name: &str, entries: &[(&str, u16, u32, u16)]) -> (u16, u16) {
        let at = self.bytes.len();
        let field = |field: &str| format!("{name}.{field}");
        self.u32(&field("count"), entries.len() as u32 - 1).u32(&field("block"), 0).u32(&field("base"), 5);
        for (entry, offset, number, kind) in entries {
            let field = |field: &str| format!("{name}.{entry}.{field}");
            self.u16(&field("offset"), *offset).u16(&field("delta"), (*number as u16).wrapping_sub(5));
            self.u16(&field("type"), *kind).u16(&field("size"), entry.len() as u16 - 1);
            self.put(&field("name"), entry.as_bytes());
        }
        (at as u16, (self.bytes.len() - at) as u16 + 3)
    }
}

const NONE: u32 = u32::MAX;
const BLOCK: usize = 4096;

impl Written {
    /// Adds a part as one metadata block, and answers where it starts.
    fn block(&mut self, name: &str, part: &Part) -> u64 {
        let start = self.bytes.len();
        self.at.insert(format!("{name}.header"), start);
        self.bytes.extend_from_slice(&(part.bytes.len() as u16 | 0x8000).to_le_bytes());
        let inside = self.bytes.len();
        self.at.extend(part.at.iter().map(|(name, at)| (name.clone(), inside + at)));
        self.bytes.extend_from_slice(&part.bytes);
        start as u64
    }

    fn index(&mut self, name: &str, block: u64) -> u64 {
        let start = self.bytes.len();
        self.at.insert(format!("{name}.index"), start);
        self.bytes.extend_from_slice(&block.to_le_bytes());
        start as u64
    }

    /// A copy with other bytes from `field` on.
    pub fn with(&self, field: &str, bytes: &[u8]) -> Vec<u8> {
        let at = *self.at.get(field).unwrap_or_else(|| panic!("no field {field}"));
        let mut out = self.bytes.clone();
        out[at..at + bytes.len()].copy_from_slice(bytes);
        out
    }

    /// Places of the fields.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.at.values().copied()
    }
}

/// A directory, an empty one, a long one with an index, files with and without a fragment, a link, a device, a pipe.
pub fn squashfs() -> Written {
    let mut out = Written { bytes: vec![0; 96], at: BTreeMap::new() };
    out.bytes.extend_from_slice(&[b'x'; BLOCK]);
    let fragment = out.bytes.len() as u64;
    out.bytes.extend_from_slice(&[b'y'; 300]);

    let (mut inodes, mut listings) = (Part::default(), Part::default());
    let file = inodes.inode("file", 2, 1);
    inodes.u32("file.start", 96).u32("file.fragment", 0).u32("file.offset", 0).u32("file.length", BLOCK as u32 + 100);
    inodes.u32("file.block", BLOCK as u32 | 1 << 24);
    let inner = inodes.inode("inner", 2, 2);
    inodes.u32("inner.start", 0).u32("inner.fragment", 0).u32("inner.offset", 100).u32("inner.length", 200);
    let (at, size) = listings.listing("in-dir", &[("inner", inner, 2, 2), ("other", inner, 2, 2)]);
    let dir = inodes.inode("dir", 1, 3);
    inodes.u32("dir.block", 0).u32("dir.links", 2).u16("dir.size", size).u16("dir.offset", at).u32("dir.parent", 9);
    let link = inodes.inode("link", 3, 4);
    inodes.u32("link.links", 1).u32("link.size", 4).put("link.target", b"file");
    let null = inodes.inode("null", 5, 5);
    inodes.u32("null.links", 1).u32("null.device", 0x103);
    let pipe = inodes.inode("pipe", 13, 6);
    inodes.u32("pipe.links", 1).u32("pipe.xattr", NONE);
    let long = inodes.inode("long", 9, 7);
    inodes.u64("long.start", 96).u64("long.length", 2 * BLOCK as u64).u64("long.sparse", BLOCK as u64);
    inodes.u32("long.links", 1).u32("long.fragment", NONE).u32("long.offset", 0).u32("long.xattr", 0);
    inodes.u32("long.hole", 0).u32("long.block", BLOCK as u32 | 1 << 24);
    let (at, size) = listings.listing("in-longdir", &[("pipe", pipe, 6, 6)]);
    let longdir = inodes.inode("longdir", 8, 8);
    inodes.u32("longdir.links", 2).u32("longdir.size", size.into()).u32("longdir.block", 0);
    inodes.u32("longdir.parent", 9).u16("longdir.indexes", 1).u16("longdir.offset", at).u32("longdir.xattr", NONE);
    inodes.u32("longdir.index.at", 0).u32("longdir.index.block", 0).u32("longdir.index.size", 3);
    inodes.put("longdir.index.name", b"pipe");
    let entries = [
        ("dir", dir, 3, 1),
        ("file", file, 1, 2),
        ("link", link, 4, 3),
        ("long", long, 7, 2),
        ("longdir", longdir, 8, 1),
        ("null", null, 5, 5),
    ];
    let (at, size) = listings.listing("in-root", &entries);
    let root = inodes.inode("root", 1, 9);
    inodes
        .u32("root.block", 0)
        .u32("root.links", 4)
        .u16("root.size", size)
        .u16("root.offset", at)
        .u32("root.parent", 10);

    let inode_table = out.block("inodes", &inodes);
    let directory_table = out.block("directories", &listings);
    let mut part = Part::default();
    part.u64("fragment.start", fragment).u32("fragment.size", 300 | 1 << 24).u32("fragment.unused", 0);
    let block = out.block("fragments", &part);
    let fragment_table = out.index("fragments", block);
    let mut part = Part::default();
    for (number, at) in (1..).zip([file, inner, dir, link, null, pipe, long, longdir, root]) {
        part.u64(&format!("export.{number}"), at.into());
    }
    let block = out.block("export", &part);
    let export_table = out.index("export", block);
    let mut part = Part::default();
    part.u32("id", 0);
    let block = out.block("ids", &part);
    let id_table = out.index("ids", block);
    let mut part = Part::default();
    part.u16("xattr.kind", 0)
        .u16("xattr.size", 3)
        .put("xattr.name", b"one")
        .u32("xattr.value", 5)
        .put("xattr.bytes", b"12345");
    part.u16("far.kind", 0x100).u16("far.size", 3).put("far.name", b"two").u32("far.value", 8).u64("far.place", 7);
    let values = out.block("values", &part);
    let mut part = Part::default();
    part.u64("set.place", 0).u32("set.count", 2).u32("set.size", 18);
    let sets = out.block("sets", &part);
    let xattr_table = out.bytes.len() as u64;
    let mut head = Part::default();
    head.u64("xattrs.start", values).u32("xattrs.count", 1).u32("xattrs.unused", 0);
    out.at.extend(head.at.iter().map(|(name, at)| (name.clone(), out.bytes.len() + at)));
    out.bytes.extend_from_slice(&head.bytes);
    out.index("xattrs", sets);

    let used = out.bytes.len() as u64;
    out.bytes.resize(out.bytes.len().next_multiple_of(4096), 0);
    let mut head = Part::default();
    head.put("magic", b"hsqs").u32("inodes", 9).u32("mkfs", 0).u32("block_size", BLOCK as u32).u32("fragments", 1);
    head.u16("compression", 1).u16("block_log", 12).u16("flags", 0).u16("ids", 1).u16("major", 4).u16("minor", 0);
    head.u64("root", root.into()).u64("used", used).u64("id_table", id_table).u64("xattr_table", xattr_table);
    head.u64("inode_table", inode_table).u64("directory_table", directory_table);
    head.u64("fragment_table", fragment_table).u64("export_table", export_table);
    out.at.extend(head.at);
    out.bytes[..96].copy_from_slice(&head.bytes);
    out
}

/// Images that differ from a sound one in one field each.
pub fn crafted() -> Vec<Crafted> {
    let sound = squashfs();
    let start = |field: &str| sound.bytes[sound.at[field]..][..8].to_vec();
    let number = |bytes: &[u8], more: i64| {
        u64::from_le_bytes(bytes.try_into().unwrap()).wrapping_add_signed(more).to_le_bytes().to_vec()
    };
    let word = |value: u32| value.to_le_bytes().to_vec();
    let long = |value: u64| value.to_le_bytes().to_vec();
    let short = |value: u16| value.to_le_bytes().to_vec();
    let quick: Vec<(&str, &str, Vec<u8>, &'static str)> = vec![
        ("no-inodes", "inodes", word(0), "it has no inodes"),
        ("inodes-negative", "inodes", word(NONE), "it says it has 4294967295 inodes"),
        ("inodes-2000", "inodes", word(2000), "the index of its export table is 8 bytes long, its entries need 16"),
        ("fragments-negative", "fragments", word(NONE), "it says it has 4294967295 fragments"),
        (
            "fragments-600",
            "fragments",
            word(600),
            "the index of its fragment table is 8 bytes long, its entries need 16",
        ),
        ("no-ids", "ids", short(0), "it has no inodes"),
        ("ids-65535", "ids", short(65535), "the index of its id table is 8 bytes long, its entries need 256"),
        ("block-size", "block_size", word(1 << 30), "a block size of 1073741824 bytes"),
        ("block-size-zero", "block_size", word(0), "a block size of 0 bytes"),
        ("block-log", "block_log", short(31), "a block size of 4096 bytes"),
        ("version", "major", short(3), "version 3.0"),
        ("compressor", "compression", short(7), "unknown compressor 7"),
        ("lzma", "compression", short(2), "compressed with lzma"),
        ("root-behind", "root", long(1 << 30), "its root inode is at 0x40000000, outside"),
        ("root-wide", "root", long(1 << 60), "outside of the inode table"),
        ("root-offset", "root", long(8192), "its root inode is at 0x2000, outside"),
        ("used-negative", "used", long(u64::MAX), "truncated: the squashfs ends at byte 18446744073709551615"),
        ("used-short", "used", long(95), "it says it is 95 bytes long"),
        ("used-less", "used", number(&start("used"), -8), "the index of its xattr table"),
        ("id-table-behind", "id_table", long(u64::MAX - 1), "its id table starts at byte"),
        ("id-table-later", "id_table", number(&start("id_table"), 8), "the index of its id table is 0 bytes long"),
        ("id-table-early", "id_table", long(96), "the index of its id table is"),
        ("inode-behind-directory", "inode_table", start("directory_table"), "its inode table does not lie before"),
        ("inode-in-superblock", "inode_table", long(8), "its inode table starts at byte 8"),
        ("directory-late", "directory_table", start("id_table"), "its directory table does not lie before"),
        (
            "fragment-table-moved",
            "fragment_table",
            number(&start("fragment_table"), -1),
            "the index of its fragment table",
        ),
        ("export-table-moved", "export_table", number(&start("export_table"), -8), "the index of its export table"),
        ("xattr-table-last-byte", "xattr_table", number(&start("used"), -1), "the squashfs ends at byte"),
        ("options", "flags", short(1 << 10), "its compressor options have another size"),
        ("id-index-behind", "ids.index", long(1 << 40), "the block of its id table at byte 1099511627776"),
        ("id-index-negative", "ids.index", long(u64::MAX), "the block of its id table at byte"),
        ("id-index-zero", "ids.index", long(0), "the block of its id table at byte 0"),
        ("export-index-behind", "export.index", long(1 << 62), "the block of its export table at byte"),
        ("export-index-itself", "export.index", start("export_table"), "the block of its export table at byte"),
        ("fragment-index", "fragments.index", long(u64::MAX - 8), "the block of its fragment table at byte"),
        ("fragment-index-zero", "fragments.index", long(0), "the block of its fragment table at byte 0"),
        ("xattr-count-zero", "xattrs.count", word(0), "it says it has 0 sets of extended attributes"),
        ("xattr-count-sign", "xattrs.count", word(1 << 31), "it says it has 2147483648 sets"),
        ("xattr-count-minus", "xattrs.count", word(NONE), "it says it has 4294967295 sets"),
        ("xattr-count-wraps", "xattrs.count", word(1 << 28), "it says it has 268435456 sets"),
        ("xattr-count-600", "xattrs.count", word(600), "the index of its xattr table is 8 bytes long"),
        ("xattr-start-behind", "xattrs.start", long(1 << 50), "its xattr value table does not lie before"),
        ("xattr-start-early", "xattrs.start", long(96), "the block of its xattr value table at byte 96"),
        ("xattr-index", "xattrs.index", long(u64::MAX), "the block of its xattr table at byte"),
        ("id-block-long", "ids.header", short(0xffff), "is longer than 8192 bytes"),
        ("id-block-empty", "ids.header", short(0x8000), "is empty"),
        ("id-block-shorter", "ids.header", short(0x8003), "does not end where the next starts"),
        ("inode-block-long", "inodes.header", short(0xbfff), "is longer than 8192 bytes"),
        ("inode-block-behind", "inodes.header", short(0xa000), "the block of its inode table at byte"),
        ("inode-block-empty", "inodes.header", short(0), "is empty"),
        ("directory-block-behind", "directories.header", short(0xa000), "the block of its directory table at byte"),
        ("export-block-behind", "export.header", short(0x9fff), "ends behind its table"),
        ("xattr-block-behind", "sets.header", short(0x9fff), "ends behind its table"),
    ];
    let deep: Vec<(&str, &str, Vec<u8>, &'static str)> = vec![
        ("inodes-one-more", "inodes", word(10), "it says it has 10 inodes, not as many as its table"),
        ("root-elsewhere", "root", long(4), "its root inode is at 0x4"),
        ("root-is-a-file", "root", long(0), "its root inode is at 0x0"),
        (
            "block-not-compressed",
            "inodes.header",
            short(u16::from_le_bytes([start("inodes.header")[0], start("inodes.header")[1]]) & 0x7fff),
            "cannot be decompressed",
        ),
        ("inode-zero", "file.number", word(0), "inode 0 has a number that there is not"),
        ("inode-negative", "file.number", word(NONE), "inode 4294967295 has a number that there is not"),
        ("inode-twice", "file.number", word(2), "inode 2 has a number that another has"),
        ("type-zero", "file.type", short(0), "is of an unknown kind"),
        ("type-fifteen", "file.type", short(15), "is of an unknown kind"),
        ("type-other", "link.type", short(5), "inode"),
        ("mode-of-directory", "file.mode", short(0o040_755), "has a mode of another kind"),
        ("mode-of-socket", "dir.mode", short(0o140_755), "has a mode of another kind"),
        ("owner", "file.uid", short(1), "has an owner that there is not"),
        ("group", "file.gid", short(0xffff), "has an owner that there is not"),
        ("no-links", "link.links", word(0), "has no links"),
        ("fragment-number", "file.fragment", word(1), "is in a fragment that there is not"),
        ("fragment-negative", "file.fragment", word(NONE - 1), "is in a fragment that there is not"),
        ("fragment-offset", "file.offset", word(BLOCK as u32), "reaches out of its fragment"),
        ("fragment-offset-negative", "file.offset", word(NONE), "reaches out of its fragment"),
        ("fragment-for-nothing", "file.length", word(BLOCK as u32), "is in a fragment without having bytes for it"),
        ("file-4-gib", "file.length", word(NONE), "inode"),
        ("file-negative", "long.length", long(u64::MAX), "is a file of a negative size"),
        ("file-2-to-40", "long.length", long(1 << 40), "inode 7 has a block"),
        ("file-holes", "long.sparse", long(1 << 40), "has more holes than bytes"),
        ("block-too-long", "file.block", word(0x00ff_ffff), "has a block that is longer than the block size"),
        ("block-bits", "file.block", word(0xffff_ffff), "has a block that is longer than the block size"),
        ("block-behind", "file.start", word(NONE), "has a block outside of the image's data"),
        (
            "block-in-tables",
            "file.start",
            word(start("used")[..4].try_into().map(u32::from_le_bytes).unwrap() - 64),
            "outside of the image's data",
        ),
        ("block-in-superblock", "file.start", word(0), "has a block outside of the image's data"),
        ("link-empty", "link.size", word(0), "target of an impossible size"),
        ("link-4096", "link.size", word(4096), "target of an impossible size"),
        ("link-negative", "link.size", word(NONE), "target of an impossible size"),
        ("link-nul", "link.target", b"f\0le".to_vec(), "with a NUL"),
        ("xattr-number", "long.xattr", word(1), "has extended attributes that there are not"),
        ("xattr-number-sign", "long.xattr", word(1 << 31), "has extended attributes that there are not"),
        ("directory-of-2", "dir.size", short(2), "is a directory of less than 3 bytes"),
        ("directory-of-0", "dir.size", short(0), "is a directory of less than 3 bytes"),
        ("directory-cut", "dir.size", short(20), "has an entry that reaches out of it"),
        ("directory-long", "dir.size", short(0xffff), "directory inode 3"),
        ("directory-huge", "longdir.size", word(NONE), "directory inode 8"),
        ("directory-block", "dir.block", word(77), "whose entries are in no block"),
        ("directory-offset", "dir.offset", short(8000), "has entries outside of the directory table"),
        ("directory-parent-zero", "dir.parent", word(0), "inode 3 is in a directory that there is not"),
        ("directory-parent", "dir.parent", word(NONE), "inode 3 is in a directory that there is not"),
        ("index-count", "longdir.indexes", short(0xffff), "inode 8"),
        ("index-at", "longdir.index.at", word(NONE), "has an index that leads out of its entries"),
        ("index-block", "longdir.index.block", word(5), "has an index that leads out of its entries"),
        ("index-name", "longdir.index.size", word(NONE), "has an index with a name that is too long"),
        ("entries-257", "in-root.count", word(256), "more than 256 entries"),
        ("entries-negative", "in-root.count", word(NONE), "more than 256 entries"),
        ("entries-more", "in-dir.count", word(2), "has an entry that reaches out of it"),
        ("entry-block", "in-root.block", word(1), "leads to another inode than it says"),
        ("entry-number-zero", "in-dir.inner.delta", short(0xfffb), "has an entry for an inode that there is not"),
        ("entry-number-behind", "in-dir.inner.delta", short(0x7fff), "has an entry for an inode that there is not"),
        ("entry-offset", "in-dir.inner.offset", short(1), "leads to another inode than it says"),
        ("entry-offset-behind", "in-dir.inner.offset", short(0xffff), "leads to another inode than it says"),
        ("entry-type", "in-dir.inner.type", short(1), "leads to another inode than it says"),
        ("entry-type-unknown", "in-dir.inner.type", short(0xffff), "leads to another inode than it says"),
        ("name-slash", "in-dir.inner.name", b"a/../".to_vec(), "a name with a slash or a NUL"),
        ("name-nul", "in-dir.inner.name", b"inn\0r".to_vec(), "a name with a slash or a NUL"),
        ("name-twice", "in-dir.other.name", b"inner".to_vec(), "names that are not sorted, or one name twice"),
        ("name-unsorted", "in-dir.other.name", b"aaaaa".to_vec(), "names that are not sorted"),
        ("name-long", "in-dir.inner.size", short(256), "has a name that is too long"),
        ("name-negative", "in-dir.inner.size", short(0xffff), "has a name that is too long"),
        ("export-other", "export.1", long(77), "its export table leads elsewhere for inode 1"),
        ("export-negative", "export.9", long(u64::MAX), "its export table leads elsewhere for inode 9"),
        ("fragment-empty", "fragment.size", word(1 << 24), "fragment 0 is empty"),
        ("fragment-long", "fragment.size", word(0x00ff_ffff), "fragment 0 has a block that is longer"),
        ("fragment-behind", "fragment.start", long(1 << 40), "fragment 0 has a block outside"),
        ("fragment-wraps", "fragment.start", long(u64::MAX - 10), "fragment 0 has a block outside"),
        ("set-place", "set.place", long(1 << 40), "extended attributes 0: outside of their table"),
        ("set-offset", "set.place", long(9000), "extended attributes 0: outside of their table"),
        ("set-count-zero", "set.count", word(0), "an impossible number of them"),
        ("set-count-sign", "set.count", word(NONE), "an impossible number of them"),
        ("set-count-more", "set.count", word(1000), "extended attributes 0"),
        ("set-size-sign", "set.size", word(1 << 31), "an impossible number of them"),
        ("xattr-kind", "xattr.kind", short(3), "a name of an unknown kind"),
        ("xattr-name-empty", "xattr.size", short(0), "a name of an impossible length"),
        ("xattr-name-long", "xattr.size", short(0xffff), "a name of an impossible length"),
        ("xattr-value-long", "xattr.value", word(NONE), "outside of their table"),
        ("xattr-far-size", "far.value", word(4), "a value elsewhere that is no place"),
        ("xattr-far-place", "far.place", long(u64::MAX), "outside of their table"),
    ];
    let (quick, deep) = (quick.into_iter().map(|one| (one, true)), deep.into_iter().map(|one| (one, false)));
    let one = |((name, field, bytes, says), quick): ((&str, &str, Vec<u8>, &'static str), bool)| Crafted {
        name: name.to_owned(),
        says,
        quick,
        bytes: sound.with(field, &bytes),
    };
    let mut all: Vec<Crafted> = quick.chain(deep).map(one).collect();
    // Those that need more than one field.
    let dots = |name: &str, dots: &[u8]| {
        let mut bytes = sound.with("in-longdir.pipe.name", dots);
        let size = sound.at["in-longdir.pipe.size"];
        bytes[size] = dots.len() as u8 - 1;
        let whole = sound.at["longdir.size"];
        bytes[whole] -= 4 - dots.len() as u8;
        Crafted { name: name.to_owned(), says: "has an entry \".\" or \"..\"", quick: false, bytes }
    };
    all.extend([dots("name-dot", b"."), dots("name-dot-dot", b"..")]);
    let names = |name: &str, says, number: u16, from: &str| {
        let offset = |field: &str| sound.bytes[sound.at[field]..][..2].to_vec();
        let place = match from {
            "root" => (start("root")[0], start("root")[1]),
            field => (offset(field)[0], offset(field)[1]),
        };
        let mut bytes = sound.with("in-longdir.pipe.offset", &[place.0, place.1]);
        bytes[sound.at["in-longdir.pipe.delta"]..][..2].copy_from_slice(&number.wrapping_sub(5).to_le_bytes());
        bytes[sound.at["in-longdir.pipe.type"]] = 1;
        Crafted { name: name.to_owned(), says, quick: false, bytes }
    };
    let says = "has an entry for a directory that is elsewhere, too, or above it";
    all.extend([
        names("directory-holds-root", says, 9, "root"),
        names("directory-twice", says, 3, "in-root.dir.offset"),
        names("directory-in-itself", says, 8, "in-root.longdir.offset"),
    ]);
    all
}
