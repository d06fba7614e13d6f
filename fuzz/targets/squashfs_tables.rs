//! Superblock and tables of a squashfs, which are checked at each start.
#![no_main]

#[path = "../memory.rs"]
mod memory;

use coracle_launcher::image::{self, squashfs};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    if let Some(magic) = bytes.get_mut(..4) {
        magic.copy_from_slice(squashfs::MAGIC);
    }
    memory::with_file(&bytes, |file| {
        let _ = image::identify(file, "x86_64");
    });
});
