//! Decompresses a block with the kernel's limits: at most the length of the buffer, whatever its header states.
#![forbid(unsafe_code)]

use std::io::Read;

use lzma_rust2::XzReader;
use ruzstd::decoding::FrameDecoder;

use super::{Compression, lzo};

/// Limit on a window or dictionary: that of the largest block of a squashfs, for which the kernel allocates memory.
const WINDOW: u64 = 1 << 20;
/// The same limit for xz, in KiB, with the additional memory of its decoder.
const XZ_KIB: u32 = 1024 + 256;

/// Decompresses one block after another with the same memory.
pub struct Decompressor {
    compression: Compression,
    zstd: Box<FrameDecoder>,
}

impl Decompressor {
    /// Creates a decompressor for an image with that compression.
    pub fn new(compression: Compression) -> Self {
        let mut zstd = Box::new(FrameDecoder::new());
        zstd.set_max_window_size(WINDOW);
        Self { compression, zstd }
    }

    /// Number of bytes of `out` that the block has filled; nothing if it is damaged or longer.
    pub fn block(&mut self, block: &[u8], out: &mut [u8]) -> Option<usize> {
        match self.compression {
            Compression::Gzip => zlib(block, out),
            Compression::Lz4 => lz4_flex::block::decompress_into(block, out).ok(),
            Compression::Lzo => lzo::decompress(block, out),
            Compression::Xz => xz(block, out),
            Compression::Zstd => self.zstd.decode_all(block, out).ok(),
        }
    }
}

fn zlib(block: &[u8], out: &mut [u8]) -> Option<usize> {
    miniz_oxide::inflate::decompress_slice_iter_to_slice(out, std::iter::once(block), true, false).ok()
}

fn xz(block: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut reader = XzReader::new_mem_limit(block, false, XZ_KIB);
    let mut filled = 0;
    while filled < out.len() {
        match reader.read(&mut out[filled..]).ok()? {
            0 => return Some(filled),
            count => filled += count,
        }
    }
    (reader.read(&mut [0]).ok()? == 0).then_some(filled)
}
