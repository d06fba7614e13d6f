//! Writes SIF files for tests, also wrong ones: what is not given as it should be is written as it is given.

/// One partition object.
pub struct Part<'a> {
    /// 1 squashfs, 2 ext3, 5 and 6 encrypted …
    pub filesystem: i32,
    /// 2 primary system, 4 overlay …
    pub kind: i32,
    /// `02` is x86_64.
    pub architecture: [u8; 3],
    pub data: &'a [u8],
}

/// Place at which the table of descriptors starts.
pub const TABLE: usize = 4096;
/// Bytes of a descriptor.
pub const DESCRIPTOR: usize = 585;
/// Place at which the first object starts.
pub const DATA: usize = 32768;
const SLOTS: usize = 8;

/// The code of the machine that this was compiled for.
pub fn native() -> [u8; 3] {
    match std::env::consts::ARCH {
        "aarch64" => *b"04\0",
        "powerpc64le" => *b"06\0",
        _ => *b"02\0",
    }
}

pub fn sif(parts: &[Part<'_>]) -> Vec<u8> {
    let mut out = vec![0u8; DATA];
    out[..31].copy_from_slice(b"#!/usr/bin/env run-singularity\n");
    out[32..42].copy_from_slice(b"SIF_MAGIC\0");
    out[42..45].copy_from_slice(b"01\0");
    out[45..48].copy_from_slice(&parts.first().map_or(native(), |part| part.architecture));
    out[48..64].copy_from_slice(&[0x17; 16]);
    put(&mut out, 80, (SLOTS - parts.len()) as u64);
    put(&mut out, 88, SLOTS as u64);
    put(&mut out, 96, TABLE as u64);
    put(&mut out, 104, (SLOTS * DESCRIPTOR) as u64);
    put(&mut out, 112, DATA as u64);
    for ((index, id), part) in (0usize..).zip(1u32..).zip(parts) {
        let offset = out.len().next_multiple_of(4096);
        out.resize(offset, 0);
        out.extend_from_slice(part.data);
        let at = TABLE + index * DESCRIPTOR;
        out[at..at + 4].copy_from_slice(&0x4004i32.to_le_bytes());
        out[at + 4] = 1;
        out[at + 5..at + 9].copy_from_slice(&id.to_le_bytes());
        out[at + 9..at + 13].copy_from_slice(&0xf000_0001u32.to_le_bytes());
        put(&mut out, at + 17, offset as u64);
        put(&mut out, at + 25, part.data.len() as u64);
        put(&mut out, at + 33, part.data.len() as u64);
        out[at + 73..at + 86].copy_from_slice(b"root.squashfs");
        out[at + 201..at + 205].copy_from_slice(&part.filesystem.to_le_bytes());
        out[at + 205..at + 209].copy_from_slice(&part.kind.to_le_bytes());
        out[at + 209..at + 212].copy_from_slice(&part.architecture);
    }
    let length = (out.len() - DATA) as u64;
    put(&mut out, 120, length);
    out
}

/// Overwrites eight bytes.
pub fn put(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Appends a signature object for group 1, as descriptor `id` from 1 on.
pub fn append_signature(image: &mut Vec<u8>, id: u32, fingerprint: &[u8], data: &[u8]) {
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
