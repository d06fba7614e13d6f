//! Signatures of a SIF: OpenPGP clear-signed messages and DSSE envelopes.
//!
//! An input is the fingerprint in the descriptor, a key file with its length in front, and the signature.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use coracle_verify::signature::{Keyring, verify};

#[path = "../memory.rs"]
mod memory;
#[path = "../signed.rs"]
mod signed;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((fingerprint, rest)) = bytes.split_first_chunk::<20>() else { return };
    let Some((length, rest)) = rest.split_first_chunk::<2>() else { return };
    let Some((keyfile, signature)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else { return };
    let mut keys = Keyring::default();
    let _ = keys.add(keyfile);
    let now = UNIX_EPOCH + Duration::from_secs(signed::NOW);
    let mut image = signed::image();
    signed::sif_writer::append_signature(&mut image, 3, fingerprint, signature);
    let verify = |image: &[u8], keys: &Keyring| {
        let mut found = Vec::new();
        memory::with_file(image, |file| found = verify(file, image.len() as u64, keys, now).unwrap_or_default());
        found
    };
    if verify(&image, &keys).is_empty() {
        return;
    }
    // An image that is accepted must not be accepted with another byte, or without its key.
    assert!(verify(&image, &Keyring::default()).is_empty());
    image[signed::OBJECT] ^= 1;
    assert!(verify(&image, &keys).is_empty());
});
