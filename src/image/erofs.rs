//! The superblock of erofs (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h).
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;

use super::{Error, Filesystem, Layer, field, read_array};

/// Where the superblock is, in bytes.
pub const SUPERBLOCK_AT: usize = 1024;
/// How it starts, little-endian.
pub const MAGIC: &[u8; 4] = &0xe0f5_e1e2_u32.to_le_bytes();
const SUPERBLOCK: usize = 128;

/// What is impossible in a superblock, or what we do not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A block size that is no power of two from 512 bytes to 64 KiB.
    BlockBits(u8),
    /// No inode at all, or no block at all.
    Empty,
    /// Its data lies elsewhere, too.
    Devices,
}

impl Fault {
    /// True of what no writer of erofs makes.
    pub fn is_damage(&self) -> bool {
        *self != Self::Devices
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Erofs(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BlockBits(bits) => write!(out, "a block size of 2^{bits} bytes"),
            Self::Empty => out.write_str("it has no inodes"),
            Self::Devices => out.write_str("an erofs with parts in other files, which is not run"),
        }
    }
}

/// The erofs that a file of `length` bytes is, if its superblock is sound. Features that this node's kernel lacks are
/// for the kernel to refuse.
///
/// One that names other devices is refused: kernels before 6.4 may open what it names, as root.
pub fn layer(file: &File, length: u64) -> Result<Layer, Error> {
    let block: [u8; SUPERBLOCK] = read_array(file, SUPERBLOCK_AT as u64, length, "the erofs superblock")?;
    // The feature bit of the device table means something else, too: this number alone tells.
    if u16::from_le_bytes(field(&block, 86)) != 0 {
        return Err(Fault::Devices.into());
    }
    let bits = block[12];
    if !(9..=16).contains(&bits) {
        return Err(Fault::BlockBits(bits).into());
    }
    // With 48-bit addresses there are 16 bits more, in a place that sometimes means something else. A file of more than
    // 2^32 blocks that was cut is left to the kernel.
    let blocks = u64::from(u32::from_le_bytes(field(&block, 36)));
    if blocks == 0 || u64::from_le_bytes(field(&block, 16)) == 0 {
        return Err(Fault::Empty.into());
    }
    let need = blocks << bits;
    if need > length {
        return Err(Error::Truncated { what: "the erofs", need, have: length });
    }
    Ok(Layer { filesystem: Filesystem::Erofs, offset: 0, size: length })
}
