//! All metadata of a squashfs, through all five decompressors.
#![no_main]

#[path = "../memory.rs"]
mod memory;

use coracle_launcher::image::squashfs::{MAGIC, layer};
use coracle_verify::squashfs::{self, Budget};

const BUDGET: Budget = Budget { inodes: 10_000, directories: 1000, entries: 100_000, bytes: 1 << 20, depth: 64 };

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    if let Some(magic) = bytes.get_mut(..4) {
        magic.copy_from_slice(MAGIC);
    }
    let size = bytes.len() as u64;
    memory::with_file(&bytes, |file| {
        if let Ok(contents) = squashfs::inspect_deep(file, 0, size, &BUDGET) {
            assert!(contents.inodes <= BUDGET.inodes && contents.bytes <= BUDGET.bytes);
            // What the deep look takes, the quick one takes, too.
            layer(file, 0, size, size).expect("the quick look refuses less");
        }
    });
});
