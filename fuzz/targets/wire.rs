//! The messages between plugin and launcher.
#![no_main]

use coracle::wire::{Answer, Hello, Here, Start};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(start) = Start::from_bytes(bytes) {
        assert_eq!(Start::from_bytes(&start.to_bytes()).ok(), Some(start));
    }
    if let Ok(here) = Here::from_bytes(bytes) {
        assert_eq!(Here::from_bytes(&here.to_bytes()).ok(), Some(here));
    }
    if let Ok(hello) = Hello::from_bytes(bytes) {
        assert_eq!(Hello::from_bytes(&hello.to_bytes()).ok(), Some(hello));
    }
    if let Ok(answer) = Answer::from_bytes(bytes) {
        let _ = answer.to_bytes();
    }
});
