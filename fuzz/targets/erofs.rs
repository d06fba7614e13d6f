//! The superblock of an erofs.
#![no_main]

#[path = "../memory.rs"]
mod memory;

use coracle_launcher::image::{self, erofs};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    let magic = erofs::SUPERBLOCK_AT..erofs::SUPERBLOCK_AT + erofs::MAGIC.len();
    if let Some(magic) = bytes.get_mut(magic) {
        magic.copy_from_slice(erofs::MAGIC);
    }
    memory::with_file(&bytes, |file| {
        let _ = erofs::layer(file, bytes.len() as u64);
        let _ = image::identify(file, "x86_64");
    });
});
