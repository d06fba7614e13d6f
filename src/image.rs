//! Detects the container format of image files by their first bytes. With it the submit host refuses other files early.
#![forbid(unsafe_code)]

use crate::report::{Kind, Refusal};

/// Start of a SIF, at [`SIF_MAGIC_AT`] (docs of github.com/apptainer/sif).
pub const SIF_MAGIC: &[u8; 10] = b"SIF_MAGIC\0";
/// Place of [`SIF_MAGIC`], behind the launch line, in bytes.
pub const SIF_MAGIC_AT: usize = 32;
/// First bytes of a little-endian squashfs (fs/squashfs/squashfs_fs.h).
pub const SQUASHFS_MAGIC: &[u8; 4] = b"hsqs";
/// Magic number of an erofs superblock, at [`EROFS_MAGIC_AT`] (fs/erofs/erofs_fs.h).
pub const EROFS_MAGIC: &[u8; 4] = &0xe0f5_e1e2_u32.to_le_bytes();
/// Place of the erofs superblock, in bytes.
pub const EROFS_MAGIC_AT: usize = 1024;

/// Cause in the refusal of a file that is of no format.
pub const UNKNOWN: &str = "not an image: it starts neither like a SIF nor like a squashfs or erofs";
const WANTED: &str = "a SIF, squashfs or erofs file is wanted";

/// Returns the refusal of a file that is of no format; `image` is the user's name for it.
pub fn refuse_unknown(image: &str) -> Refusal {
    Refusal::new(Kind::ImageFormat, image, UNKNOWN).hint(WANTED)
}

/// Container formats of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// The Singularity Image Format, version 01.
    Sif,
    /// A file with one file system and nothing else.
    File,
    /// A directory of the node instead of a file.
    Directory,
}

/// Number of bytes of a file that [`Container::of`] reads.
pub const START: usize = EROFS_MAGIC_AT + EROFS_MAGIC.len();

impl Container {
    /// Returns the format of a file by its first [`START`] bytes, or by all of them if there are fewer.
    pub fn of(start: &[u8]) -> Option<Self> {
        let has = |at: usize, magic: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(magic));
        if has(SIF_MAGIC_AT, SIF_MAGIC) {
            Some(Self::Sif)
        } else if has(0, SQUASHFS_MAGIC) || has(EROFS_MAGIC_AT, EROFS_MAGIC) {
            Some(Self::File)
        } else {
            None
        }
    }
}
