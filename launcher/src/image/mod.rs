//! Finds in an open file what the kernel may mount: file system, offset and size.
//!
//! Each number from the file is compared with the file's size before it is used. At most a few hundred kilobytes are
//! read. This code runs in an unprivileged process (the launcher's `opener`).
#![forbid(unsafe_code)]

pub mod digest;
pub mod erofs;
pub mod fstab;
pub mod oci;
pub mod sif;
pub mod squashfs;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use coracle::report::{Kind, Refusal};

pub use coracle::image::{Container, START};

/// Part of a file that the kernel is to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Container format of the image.
    pub container: Container,
    /// File systems in the file, from the root's upwards. A directory has none.
    pub layers: Vec<Layer>,
}

/// File system in an image file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Type of the file system.
    pub filesystem: Filesystem,
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
}

/// File system type that the kernel mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// squashfs, with its compression.
    Squashfs(squashfs::Compression),
    /// erofs
    Erofs,
    /// ext3, with the layer's tree in a directory `upper`, as `apptainer overlay create` makes it.
    Ext3,
}

/// Reason why a file is not an image that Coracle runs.
#[derive(Debug)]
pub enum Error {
    /// Neither SIF nor squashfs nor erofs.
    Unknown,
    /// The file cannot be read.
    Read(io::Error),
    /// The file is shorter than its headers state.
    Truncated {
        /// Truncated part.
        what: &'static str,
        /// Required length of the file, in bytes.
        need: u64,
        /// Actual length of the file, in bytes.
        have: u64,
    },
    /// The SIF header or a descriptor is invalid.
    Sif(sif::Fault),
    /// The squashfs superblock is invalid.
    Squashfs(squashfs::Fault),
    /// The erofs superblock is invalid.
    Erofs(erofs::Fault),
    /// An overlay partition of a SIF, by its number from 1, is invalid.
    Overlay(usize, Box<Error>),
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Self {
        Self::Read(cause)
    }
}

impl Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Sif(sif::Fault::Encrypted) => Kind::ImageEncrypted,
            Self::Sif(sif::Fault::Architecture { .. }) => Kind::ImageArch,
            Self::Read(cause) => Kind::of_reading(cause),
            Self::Overlay(_, cause) => cause.kind(),
            _ => Kind::ImageFormat,
        }
    }

    /// Refusal of the image that the user calls `image`.
    pub fn refuse(&self, image: &str) -> Refusal {
        let refusal = Refusal::new(self.kind(), image, self.to_string());
        match self {
            Self::Truncated { .. } => {
                refusal.hint("was the copy of the image interrupted? compare its size with the original")
            }
            Self::Sif(sif::Fault::Encrypted) => refusal.hint("build the image without encryption"),
            Self::Unknown => coracle::image::refuse_unknown(image),
            _ => refusal,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => out.write_str(coracle::image::UNKNOWN),
            Self::Read(cause) => write!(out, "cannot be read: {cause}"),
            Self::Truncated { what, need, have } => {
                write!(out, "truncated: {what} ends at byte {need}, the file at byte {have}")
            }
            Self::Sif(fault) if fault.is_damage() => write!(out, "damaged SIF: {fault}"),
            Self::Sif(fault) => fault.fmt(out),
            Self::Squashfs(fault) if fault.is_damage() => write!(out, "damaged squashfs: {fault}"),
            Self::Squashfs(fault) => fault.fmt(out),
            Self::Erofs(fault) if fault.is_damage() => write!(out, "damaged erofs: {fault}"),
            Self::Erofs(fault) => fault.fmt(out),
            Self::Overlay(number, cause) => write!(out, "overlay partition {number}: {cause}"),
        }
    }
}

impl std::error::Error for Error {}

/// Finds the file systems in `file`, for a machine of `architecture` (as in [`std::env::consts::ARCH`]).
pub fn identify(file: &File, architecture: &str) -> Result<Image, Error> {
    let length = file.metadata()?.len();
    let mut start = Vec::with_capacity(START);
    let mut reader = file;
    reader.seek(SeekFrom::Start(0))?;
    reader.take(START as u64).read_to_end(&mut start)?;
    let container = Container::of(&start).ok_or(Error::Unknown)?;
    let layers = match container {
        Container::Sif => sif::layers(file, length, architecture)?,
        _ if start.starts_with(squashfs::MAGIC) => vec![squashfs::layer(file, 0, length, length)?],
        _ => vec![erofs::layer(file, length)?],
    };
    Ok(Image { container, layers })
}

fn word(container: Container) -> &'static str {
    match container {
        Container::Sif => "sif",
        Container::File => "file",
        Container::Directory => "directory",
    }
}

impl Filesystem {
    fn from_word(word: &str) -> Option<Self> {
        match word {
            "erofs" => Some(Self::Erofs),
            "ext3" => Some(Self::Ext3),
            compression => squashfs::Compression::from_word(compression).map(Self::Squashfs),
        }
    }

    fn word(self) -> String {
        match self {
            Self::Squashfs(compression) => compression.to_string(),
            Self::Erofs => "erofs".into(),
            Self::Ext3 => "ext3".into(),
        }
    }
}

impl fmt::Display for Filesystem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Squashfs(compression) => write!(out, "squashfs+{compression}"),
            Self::Erofs | Self::Ext3 => out.write_str(&self.word()),
        }
    }
}

impl Image {
    /// Image that is a directory of the node.
    pub fn directory() -> Self {
        Self { container: Container::Directory, layers: Vec::new() }
    }

    /// True for a directory of the node.
    pub fn is_directory(&self) -> bool {
        self.container == Container::Directory
    }

    /// True for an image with an ext3, which users must not supply: the kernel's ext4 code is not made for crafted
    /// images (CVE-2022-1184, CVE-2023-30549).
    pub fn has_ext3(&self) -> bool {
        self.layers.iter().any(|layer| layer.filesystem == Filesystem::Ext3)
    }

    /// Text form in which an unprivileged process returns its result.
    pub fn to_words(&self) -> String {
        let mut words = word(self.container).to_owned();
        for Layer { filesystem, offset, size } in &self.layers {
            words.push_str(&format!(" {offset} {size} {}", filesystem.word()));
        }
        words
    }

    /// Parses the text of [`Image::to_words`]. Its writer is not trusted: a layer outside a file of `length` bytes
    /// makes the result `None`.
    pub fn from_words(words: &str, length: u64) -> Option<Self> {
        let words: Vec<&str> = words.split(' ').collect();
        let (container, rest) = words.split_first()?;
        let mut containers = [Container::Sif, Container::File, Container::Directory].into_iter();
        let container = containers.find(|one| word(*one) == *container)?;
        let layers = rest.chunks(3).map(|words| Layer::from_words(words, length)).collect::<Option<Vec<_>>>()?;
        let possible = match container {
            Container::Sif => 1..=1 + sif::MAX_OVERLAYS,
            Container::File => 1..=1,
            Container::Directory => 0..=0,
        };
        possible.contains(&layers.len()).then_some(Self { container, layers })
    }
}

impl Layer {
    fn from_words(words: &[&str], length: u64) -> Option<Self> {
        let [offset, size, filesystem] = words else { return None };
        let (offset, size): (u64, u64) = (offset.parse().ok()?, size.parse().ok()?);
        let inside = offset.checked_add(size).is_some_and(|end| end <= length);
        let filesystem = Filesystem::from_word(filesystem)?;
        inside.then_some(Self { filesystem, offset, size })
    }
}

impl fmt::Display for Image {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(word(self.container))?;
        for (index, Layer { filesystem, offset, size }) in self.layers.iter().enumerate() {
            write!(out, "{}{filesystem} offset={offset} size={size}", if index == 0 { ":" } else { " + " })?;
        }
        Ok(())
    }
}

/// Size of a loop device over this part of a file, in bytes.
///
/// The kernel counts in sectors of 512 bytes and drops an incomplete one. A partition that ends inside a sector may use
/// the bytes that follow it in the file, if there are any.
pub fn loop_size(offset: u64, size: u64, length: u64) -> u64 {
    let rest = length.saturating_sub(offset);
    size.next_multiple_of(512).min(rest) / 512 * 512
}

/// Reads `N` bytes at `at`, or reports that `what` is truncated.
pub fn read_array<const N: usize>(file: &File, at: u64, length: u64, what: &'static str) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let need = at.saturating_add(N as u64);
    if need > length {
        return Err(Error::Truncated { what, need, have: length });
    }
    match file.read_exact_at(&mut bytes, at) {
        // The file was truncated during the read.
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Truncated { what, need, have: at }),
        read => read.map(|()| bytes).map_err(Error::Read),
    }
}

/// Little-endian number in a header whose length the caller has checked.
pub fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    if let Some(part) = bytes.get(at..at + N) {
        out.copy_from_slice(part);
    }
    out
}

#[cfg(test)]
mod tests;
