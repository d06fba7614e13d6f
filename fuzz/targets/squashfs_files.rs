//! Single files of a squashfs, for `coracle inspect`.
#![no_main]

use coracle_launcher::image::squashfs::MAGIC;
use coracle_verify::squashfs::{Files, Node};

#[path = "../memory.rs"]
mod memory;

const PATHS: [&str; 5] = ["", "/a", "/a/short", "b/c/long", "/link/short"];
/// Limit on the length of a file.
const LIMIT: u64 = 1 << 16;
/// Limit on the names of a directory.
const MAX_NAMES: usize = 4096;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    if let Some(magic) = bytes.get_mut(..4) {
        magic.copy_from_slice(MAGIC);
    }
    memory::with_file(&bytes, |file| {
        let Ok(mut files) = Files::open(file, 0, bytes.len() as u64) else { return };
        for path in PATHS {
            match files.look(path, LIMIT) {
                Ok(Some(Node::Directory(names))) => assert!(names.len() <= MAX_NAMES),
                Ok(Some(Node::File(contents))) => assert!(contents.len() as u64 <= LIMIT),
                Ok(Some(Node::Long(length))) => assert!(length > LIMIT),
                _ => {}
            }
        }
    });
});
