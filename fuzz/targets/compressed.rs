//! Compressed archives: gzip, zstd, xz and bzip2.
#![no_main]

use std::io::Read;

use coracle_images::readers::reader;

/// Number of bytes that are unpacked.
const LIMIT: u64 = 1 << 20;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The limit of memory is that of the fuzzer: a small stream must not need a large window.
    if let Ok(reader) = reader(bytes) {
        let mut plain = Vec::new();
        let _ = reader.take(LIMIT).read_to_end(&mut plain);
        assert!(plain.len() as u64 <= LIMIT);
    }
});
