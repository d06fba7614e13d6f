//! Header, descriptors and partitions of a SIF, on any machine.
#![no_main]

#[path = "../memory.rs"]
mod memory;

use coracle_launcher::image::{self, sif};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    // The magic is no secret: every input has it.
    if let Some(magic) = bytes.get_mut(sif::MAGIC_AT..sif::MAGIC_AT + sif::MAGIC.len()) {
        magic.copy_from_slice(sif::MAGIC);
    }
    let length = bytes.len() as u64;
    memory::with_file(&bytes, |file| {
        if let Ok(image) = image::identify(file, "x86_64") {
            assert!(image.layers.iter().all(|layer| layer.offset.checked_add(layer.size).unwrap() <= length));
            assert_eq!(image::Image::from_words(&image.to_words(), length), Some(image));
        }
        if let Ok(Some((at, size))) = sif::object(file, length, 0x4006, "oci-config.json") {
            assert!(at + size <= length && size <= sif::MAX_OBJECT);
        }
    });
});
