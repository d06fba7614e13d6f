//! Files with keys: OpenPGP, armoured and binary, and PEM.
#![no_main]

use coracle_verify::signature::{KeyError, Keyring};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut keys = Keyring::default();
    let added = keys.add(bytes);
    if bytes.windows(16).any(|part| part == b"BEGIN PRIVATE KEY") && std::str::from_utf8(bytes).is_ok() {
        let begins = bytes.windows(11).any(|part| part == b"-----BEGIN ");
        assert!(!begins || matches!(added, Err(KeyError::Private)));
    }
});
