//! Shared objects, and the loader's list of them.
#![no_main]

#[path = "../memory.rs"]
mod memory;

use coracle_launcher::elf::{Cache, Library, Machine};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    memory::with_file(bytes, |file| {
        let _ = Library::read(file);
    });
    if let Some(cache) = Cache::new(bytes.to_vec(), Machine::own()) {
        let _ = cache.entries().count();
    }
});
