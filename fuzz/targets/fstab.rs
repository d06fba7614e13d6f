//! An image's /etc/fstab.
#![no_main]

use coracle_launcher::image::fstab;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(note) = fstab::note(bytes) {
        // One mount point, with U+FFFD for each wrong byte, and the words around it.
        assert!(note.len() <= 3 * bytes.len() + 200);
    }
});
