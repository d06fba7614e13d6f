//! Reads all metadata of a squashfs 4.0 (Documentation/filesystems/squashfs.rst, fs/squashfs/squashfs_fs.h),
//! decompressed.
//!
//! The kernel's own code trusts much of this metadata. Each start checks the superblock and the positions of all tables
//! ([`coracle_launcher::image::squashfs`]). All other metadata, but not the files' contents, is checked once, when the
//! store accepts an image ([`inspect_deep`]).
#![forbid(unsafe_code)]

mod decompress;
mod directory;
mod files;
mod inode;
mod lzo;
mod metadata;
mod walk;

#[cfg(test)]
mod tests;

pub use coracle_launcher::image::squashfs::{Compression, Fault, METADATA, SUPERBLOCK, Superblock};
pub use files::{Files, Node};
pub use walk::{Budget, Contents, inspect_deep};

#[cfg(test)]
use coracle_launcher::image::{Error, squashfs::NO_TABLE};
