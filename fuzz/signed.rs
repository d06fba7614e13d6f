//! Writes the SIF whose signatures are read.
#![allow(dead_code)]

#[path = "../tests/images/sif_writer.rs"]
pub mod sif_writer;

use sif_writer::{DATA, Part, sif};

/// Time at which the signatures are verified, in seconds since 1970: after the seeds are made, before keys end.
pub const NOW: u64 = 4_000_000_000;
/// Offset of a byte that is signed.
pub const OBJECT: usize = DATA;

/// Image with two objects in group 1, and room for signatures.
pub fn image() -> Vec<u8> {
    let part = |data, kind| Part { filesystem: 1, kind, architecture: *b"02\0", data };
    sif(&[part(b"first object", 2), part(b"second", 3)])
}
