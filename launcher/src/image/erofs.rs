//! Reads and checks the superblock of erofs (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h).
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;

use super::{Error, Filesystem, Layer, field, read_array};

/// Place of the superblock, in bytes.
pub const SUPERBLOCK_AT: usize = coracle::image::EROFS_MAGIC_AT;
/// Magic at its start, little-endian.
pub const MAGIC: &[u8; 4] = coracle::image::EROFS_MAGIC;
const SUPERBLOCK: usize = 128;

/// Faults of a superblock, and features that the launcher refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A block size that is no power of two from 512 bytes to 64 KiB.
    BlockBits(u8),
    /// No inode, or no block.
    Empty,
    /// Data on further devices.
    Devices,
    /// Feature bits that Linux 7.0 does not define.
    Features(u32),
    /// A field that points outside the superblock or the file, or that must be zero.
    Field(&'static str, u64),
    /// The root is not a directory.
    Root(u16),
}

impl Fault {
    /// True for a fault that no writer of erofs produces.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Devices | Self::Features(_))
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
            Self::Features(bits) => write!(out, "an erofs with features that are not known ({bits:#x})"),
            Self::Field(name, value) => write!(out, "{name} is {value}"),
            Self::Root(mode) => write!(out, "its root is no directory (mode {mode:#o})"),
            Self::Devices => out.write_str("an erofs with parts in other files, which is not run"),
        }
    }
}

/// Layer of the erofs in a file of `length` bytes, if its superblock is valid. The kernel refuses features that it
/// lacks.
///
/// An erofs with further devices is refused: kernels before 6.4 may open the named devices as root.
pub fn layer(file: &File, length: u64) -> Result<Layer, Error> {
    let block: [u8; SUPERBLOCK] = read_array(file, SUPERBLOCK_AT as u64, length, "the erofs superblock")?;
    // The feature bit of the device table has a second meaning; only this count is unambiguous.
    if u16::from_le_bytes(field(&block, 86)) != 0 {
        return Err(Fault::Devices.into());
    }
    let bits = block[12];
    if !(9..=16).contains(&bits) {
        return Err(Fault::BlockBits(bits).into());
    }
    // With 48-bit addresses, 16 more bits are in a field that can have another meaning. The kernel detects a truncated
    // file of more than 2^32 blocks.
    let blocks = u64::from(u32::from_le_bytes(field(&block, 36)));
    if blocks == 0 || u64::from_le_bytes(field(&block, 16)) == 0 {
        return Err(Fault::Empty.into());
    }
    let need = blocks << bits;
    if need > length {
        return Err(Error::Truncated { what: "the erofs", need, have: length });
    }
    fields(file, &block, length)?;
    Ok(Layer { filesystem: Filesystem::Erofs, offset: 0, size: length })
}

/// Bits of `feature_incompat` (erofs_fs.h).
const KNOWN_FEATURES: u32 = 0x1ff;
const FRAGMENTS: u32 = 0x20;
const ADDRESSES_48: u32 = 0x80;
const METADATA_ELSEWHERE: u32 = 0x100;
/// Part of the first page that the kernel reads after byte 1024 (erofs_read_superblock).
const MAX_SUPERBLOCK: u64 = 4096 - SUPERBLOCK_AT as u64;
/// Unit of inode numbers, in bytes.
const SLOT: usize = 32;

/// Checks the fields that the kernel follows from the superblock.
fn fields(file: &File, block: &[u8; SUPERBLOCK], length: u64) -> Result<(), Error> {
    let word = |at| u32::from_le_bytes(field(block, at));
    let features = word(80);
    if features & !KNOWN_FEATURES != 0 {
        return Err(Fault::Features(features & !KNOWN_FEATURES).into());
    }
    let extra = u64::from(block[13]);
    if SUPERBLOCK as u64 + extra * 16 > MAX_SUPERBLOCK {
        return Err(Fault::Field("the number of its superblock's extensions", extra).into());
    }
    if block[90] != 0 {
        return Err(Fault::Field("its directories' block size", block[90].into()).into());
    }
    let prefixes = u64::from(word(92)) * 4;
    if block[91] != 0 && features & (FRAGMENTS | METADATA_ELSEWHERE) == 0 && prefixes >= length {
        return Err(Fault::Field("the place of its attribute prefixes", prefixes).into());
    }
    // With these features, numbers are wider or have another base.
    if features & (ADDRESSES_48 | METADATA_ELSEWHERE) != 0 {
        return Ok(());
    }
    let inode_at = |number: u64| {
        let at = number.checked_mul(SLOT as u64)?.checked_add(u64::from(word(40)) << block[12])?;
        (at >= SUPERBLOCK_AT as u64 && at.checked_add(SLOT as u64)? <= length).then_some(at)
    };
    let packed = u64::from_le_bytes(field(block, 96));
    if features & FRAGMENTS != 0 && packed != 0 && inode_at(packed).is_none() {
        return Err(Fault::Field("the number of its packed inode", packed).into());
    }
    let number = u64::from(u16::from_le_bytes(field(block, 14)));
    let at = inode_at(number).ok_or(Fault::Field("the number of its root inode", number))?;
    let inode: [u8; SLOT] = read_array(file, at, length, "the erofs root inode")?;
    let format = u16::from_le_bytes(field(&inode, 0));
    // One bit selects the long form, three bits the data layout, of which five values are defined.
    if format >> 1 & 7 > 4 {
        return Err(Fault::Field("the format of its root inode", format.into()).into());
    }
    let mode = u16::from_le_bytes(field(&inode, 4));
    if mode & 0o170_000 != 0o040_000 {
        return Err(Fault::Root(mode).into());
    }
    Ok(())
}
