//! Writes the SIF whose signatures are read.
#![allow(dead_code)]

#[path = "../tests/images/sif_writer.rs"]
mod sif_writer;

use sif_writer::{DATA, DESCRIPTOR, Part, TABLE, put, sif};

/// Time at which the signatures are verified, in seconds since 1970: after the seeds are made, before keys end.
pub const NOW: u64 = 4_000_000_000;
/// Offset of a byte that is signed.
pub const OBJECT: usize = DATA;

/// Image with two objects in group 1, and room for signatures.
pub fn image() -> Vec<u8> {
    let part = |data, kind| Part { filesystem: 1, kind, architecture: *b"02\0", data };
    sif(&[part(b"first object", 2), part(b"second", 3)])
}

/// Appends a signature of group 1.
pub fn append(image: &mut Vec<u8>, id: u32, fingerprint: &[u8], data: &[u8]) {
    let (at, offset) = (TABLE + (id as usize - 1) * DESCRIPTOR, image.len());
    image.extend_from_slice(data);
    image[at..at + 4].copy_from_slice(&0x4005i32.to_le_bytes());
    image[at + 4] = 1;
    image[at + 5..at + 9].copy_from_slice(&id.to_le_bytes());
    image[at + 9..at + 13].copy_from_slice(&0xf000_0000u32.to_le_bytes());
    image[at + 13..at + 17].copy_from_slice(&0xf000_0001u32.to_le_bytes());
    put(image, at + 17, offset as u64);
    put(image, at + 25, data.len() as u64);
    image[at + 201] = 1;
    image[at + 205..at + 205 + fingerprint.len()].copy_from_slice(fingerprint);
}
