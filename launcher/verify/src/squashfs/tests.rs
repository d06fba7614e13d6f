#![forbid(unsafe_code)]
#![allow(clippy::cast_possible_truncation)]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use super::*;
use coracle_launcher::image::identify;

#[allow(dead_code)]
#[path = "../../../../tests/images/squashfs_writer.rs"]
mod squashfs_writer;
use squashfs_writer::{crafted, squashfs};

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn deep(bytes: &[u8], budget: &Budget) -> Result<Contents, Error> {
    inspect_deep(&file(bytes), 0, bytes.len() as u64, budget)
}

fn small() -> Budget {
    Budget { inodes: 10_000, directories: 1000, entries: 100_000, bytes: 4 << 20, depth: 64 }
}

#[test]
fn a_sound_image_is_sound() {
    let image = squashfs().bytes;
    assert_eq!(identify(&file(&image), "x86_64").unwrap().to_string(), "file:squashfs+gzip offset=0 size=8192");
    let contents = deep(&image, &Budget::default()).unwrap();
    assert_eq!((contents.inodes, contents.directories, contents.entries), (9, 3, 11));
}

#[test]
fn every_crafted_image_is_refused_by_name() {
    let (all, mut wrong) = (crafted(), Vec::new());
    for one in &all {
        let quick = identify(&file(&one.bytes), "x86_64").map(drop);
        let looked = if one.quick { quick } else { quick.and_then(|()| deep(&one.bytes, &small()).map(drop)) };
        let by_quick = identify(&file(&one.bytes), "x86_64").is_err();
        match looked {
            Err(error) if error.to_string().contains(one.says) && by_quick == one.quick => {}
            other => wrong.push(format!("{}: wanted {:?}, found {other:?}", one.name, one.says)),
        }
    }
    println!("crafted images: tries {} refused {}", all.len(), all.len() - wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(all.len() >= 130);
}

/// A reproducible sequence of numbers (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % below
    }
}

/// Changes up to three bytes of the image, each at or after one of `places`, and checks it with both functions.
fn mutate(image: &[u8], places: &[usize], times: usize, seed: u64) -> (usize, u64) {
    let (look, budget) = (file(image), small());
    let (mut numbers, mut refused, mut most) = (Numbers(seed), 0, 0);
    for _ in 0..times {
        let mut changed = Vec::new();
        for _ in 0..=numbers.next(3) {
            let at = (places[numbers.next(places.len())] + numbers.next(8)).min(image.len() - 1);
            let now = image[at];
            let value = [0, 0xff, 0x7f, 0x80, now.wrapping_add(1), now.wrapping_sub(1), numbers.next(256) as u8];
            look.write_all_at(&[value[numbers.next(value.len())]], at as u64).unwrap();
            changed.push(at);
        }
        let quick = identify(&look, "x86_64");
        let found = inspect_deep(&look, 0, image.len() as u64, &budget);
        match &found {
            Ok(contents) => {
                assert!(quick.is_ok(), "{quick:?}");
                assert!(contents.inodes <= budget.inodes && contents.bytes <= budget.bytes, "{contents:?}");
                most = most.max(contents.bytes);
            }
            Err(_) => refused += 1,
        }
        for at in changed {
            look.write_all_at(&image[at..=at], at as u64).unwrap();
        }
    }
    assert!(inspect_deep(&look, 0, image.len() as u64, &budget).is_ok());
    (refused, most)
}

#[test]
fn thousands_of_mutants_make_nothing_panic() {
    let sound = squashfs();
    let places: Vec<usize> = sound.places().collect();
    let (refused, most) = mutate(&sound.bytes, &places, 5000, 0x5eed);
    println!("mutants: tries 5000 refused {refused}, at most {most} bytes of metadata");
    assert!(refused > 3000, "only {refused} of 5000 were refused");
}

/// An image made by mksquashfs; nothing if it is missing and not required.
fn made(from: &std::path::Path, options: &[&str]) -> Option<Vec<u8>> {
    let out = tempfile::tempdir().unwrap();
    let name = out.path().join("out.sqsh");
    let mut command = Command::new("mksquashfs");
    command.arg(from).arg(&name).args(["-quiet", "-no-progress", "-all-root"]).args(options);
    match command.stdout(Stdio::null()).status() {
        Ok(status) => {
            assert!(status.success(), "mksquashfs {options:?}");
            Some(std::fs::read(name).unwrap())
        }
        Err(cause) => {
            assert!(std::env::var_os("CORACLE_MUST_WORK").is_none(), "mksquashfs: {cause}");
            None
        }
    }
}

fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    for directory in 0..12 {
        let directory = tree.path().join(format!("directory-{directory}"));
        std::fs::create_dir(&directory).unwrap();
        for name in 0..60 {
            std::fs::write(directory.join(format!("a file of some name {name}")), format!("{name}").repeat(50))
                .unwrap();
        }
    }
    std::os::unix::fs::symlink("x".repeat(4095), tree.path().join("link")).unwrap();
    tree
}

#[test]
fn what_mksquashfs_makes_is_sound_with_each_compressor() {
    let tree = tree();
    for options in [
        &["-comp", "gzip"][..],
        &["-comp", "gzip", "-Xwindow-size", "9", "-b", "4096"],
        &["-comp", "lzo"],
        &["-comp", "lz4", "-Xhc"],
        &["-comp", "xz", "-Xbcj", "x86", "-Xdict-size", "8192"],
        &["-comp", "zstd", "-b", "1M"],
        &["-noI", "-noD", "-noF", "-noX"],
        &["-no-exports", "-no-fragments", "-no-xattrs"],
    ] {
        let Some(image) = made(tree.path(), options) else { return };
        identify(&file(&image), "x86_64").unwrap_or_else(|error| panic!("{options:?}: {error}"));
        let contents = deep(&image, &Budget::default()).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        assert_eq!((contents.inodes, contents.directories), (12 * 61 + 2, 13), "{options:?}");
        let (start, end) = (image.len() - 4096, image.len() - 200);
        let places: Vec<usize> = (0..96).chain(start..end).collect();
        mutate(&image, &places, 100, 0xfeed);
    }
}

#[test]
fn a_bomb_costs_no_more_than_the_budget() {
    // A file of a terabyte of holes: a list of 4 MiB, in blocks that compress to nothing.
    let mut inodes = [&[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0][..], &[0; 40], &vec![0; 4 << 20]].concat();
    inodes[16 + 8..][..8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    inodes[16 + 24] = 1;
    inodes[16 + 28..][..4].fill(0xff);
    inodes[16 + 36..][..4].fill(0xff);
    let mut image = vec![0; 96];
    for block in inodes.chunks(8192) {
        let packed = miniz_oxide::deflate::compress_to_vec_zlib(block, 9);
        image.extend_from_slice(&(packed.len() as u16).to_le_bytes());
        image.extend_from_slice(&packed);
    }
    let end = image.len() as u64;
    image.extend_from_slice(&[4, 0x80, 0, 0, 0, 0]);
    image.extend_from_slice(&end.to_le_bytes());
    let used = image.len() as u64;
    image.resize(image.len().next_multiple_of(4096), 0);
    image[..96].copy_from_slice(&squashfs().bytes[..96]);
    for (at, value) in
        [(40, used), (48, used - 8), (56, NO_TABLE), (64, 96), (72, end), (80, NO_TABLE), (88, NO_TABLE), (32, 0)]
    {
        image[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    for (at, value) in [(4, 1), (12, 1 << 20), (16, 0), (20, 0x0014_0001)] {
        image[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
    }
    assert!(image.len() < 32 << 10, "{}", image.len());
    let little = Budget { bytes: 1 << 20, ..Budget::default() };
    let said = deep(&image, &little).unwrap_err().to_string();
    assert_eq!(said, "more than 1048576 bytes of metadata, which is too much to look at");
    let said = deep(&image, &Budget::default()).unwrap_err().to_string();
    assert_eq!(said, "damaged squashfs: its root inode is at 0x0, outside of the inode table");
    let with = |change: &dyn Fn(&mut Budget)| {
        let mut budget = Budget::default();
        change(&mut budget);
        deep(&squashfs().bytes, &budget).unwrap_err().to_string()
    };
    assert!(with(&|budget| budget.inodes = 8).starts_with("more than 8 inodes, "));
    assert!(with(&|budget| budget.directories = 2).starts_with("more than 2 directories, "));
    assert!(with(&|budget| budget.entries = 10).starts_with("more than 10 entries, "));
    assert!(with(&|budget| budget.bytes = 8192).starts_with("more than 8192 bytes of metadata, "));
    assert!(with(&|budget| budget.depth = 0).starts_with("more than 0 directories in one another, "));
}

#[test]
fn deep_directories_are_followed_so_far_and_no_further() {
    let tree = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(tree.path().join("d/".repeat(100))).unwrap();
    let Some(image) = made(tree.path(), &[]) else { return };
    let depth = |depth| deep(&image, &Budget { depth, ..Budget::default() });
    assert_eq!(depth(101).unwrap().directories, 101);
    assert_eq!(
        depth(99).unwrap_err().to_string(),
        "more than 99 directories in one another, which is too much to look at"
    );
}

#[test]
fn single_files_are_read_with_each_compressor_and_no_link_is_followed() {
    let tree = tree();
    let path = |name: &str| tree.path().join(name);
    let long: Vec<u8> = (0..700_000_u32).flat_map(|number| (number / 3).to_le_bytes()).collect();
    std::fs::write(path("long"), &long).unwrap();
    let holes = std::fs::File::create(path("holes")).unwrap();
    holes.write_all_at(b"end", 1_000_000).unwrap();
    std::fs::write(path("empty"), "").unwrap();
    for options in [
        &["-comp", "gzip", "-b", "4096"][..],
        &["-comp", "lzo"],
        &["-comp", "lz4", "-Xhc"],
        &["-comp", "xz", "-Xbcj", "x86"],
        &["-comp", "zstd", "-b", "1M"],
        &["-noI", "-noD", "-noF", "-noX"],
        &["-no-exports", "-no-fragments", "-no-xattrs"],
    ] {
        let Some(image) = made(tree.path(), options) else { return };
        let opened = file(&image);
        let mut files = Files::open(&opened, 0, image.len() as u64).unwrap();
        let mut look = |name: &str| files.look(name, 4 << 20).unwrap_or_else(|error| panic!("{options:?}: {error}"));
        assert_eq!(look("/directory-7/a file of some name 31"), Some(Node::File("31".repeat(50).into_bytes())));
        assert_eq!(look("long"), Some(Node::File(long.clone())), "{options:?}");
        assert_eq!(look("holes"), Some(Node::File([&[0; 1_000_000][..], b"end"].concat())), "{options:?}");
        assert_eq!(look("empty"), Some(Node::File(Vec::new())));
        assert_eq!(look("link"), Some(Node::Link));
        for none in ["link/x", "none", "long/x", "directory-1/none", "../directory-1", "."] {
            assert_eq!(look(none), None, "{none}");
        }
        assert!(matches!(look("directory-1"), Some(Node::Directory(names)) if names.len() == 60));
        assert!(matches!(look("/"), Some(Node::Directory(names)) if names.len() == 16));
        assert_eq!(files.look("long", 4096).unwrap(), Some(Node::Long(2_800_000)));
    }
}

#[test]
fn files_of_crafted_images_make_nothing_panic() {
    let tree = tree();
    let images = crafted().into_iter().map(|one| one.bytes);
    let mut images: Vec<Vec<u8>> = images.collect();
    images.extend(made(tree.path(), &["-b", "4096"]));
    let mut random = Numbers(0xf11e);
    for image in images {
        for turn in 0..200 {
            let mut bytes = image.clone();
            if turn > 0 {
                // Most data on the way to a file is at the end.
                let at = bytes.len() - 1 - random.next(bytes.len().min(20_000));
                bytes[at] = bytes[at].wrapping_add(u8::try_from(1 + random.next(255)).unwrap());
            }
            let opened = file(&bytes);
            let Ok(mut files) = Files::open(&opened, 0, bytes.len() as u64) else { continue };
            for name in ["/", "/directory-3/a file of some name 5", "/file", "/a"] {
                let _ = files.look(name, 1 << 20);
            }
        }
    }
}
