//! Reads the Singularity Image Format, version 01 (pkg/sif of github.com/apptainer/sif): a header of 128 bytes, a table
//! of descriptors of 585 bytes, and data objects at the offsets in the descriptors. Little endian, packed.
#![forbid(unsafe_code)]

mod describe;

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{Error, Filesystem, Layer, field, read_array, squashfs};

pub use describe::{Link, Partition as Described, group_link, objects};

/// Offset of the magic, after the launch script.
pub const MAGIC_AT: usize = coracle::image::SIF_MAGIC_AT;
/// Magic of every SIF.
pub const MAGIC: &[u8; 10] = coracle::image::SIF_MAGIC;
/// Maximum number of overlay partitions: their paths must fit into one mount option of 256 bytes.
pub const MAX_OVERLAYS: usize = 8;
/// Maximum size of a data object that [`object`] returns, in bytes.
pub const MAX_OBJECT: u64 = 1 << 20;
/// Size of the header, in bytes.
pub const HEADER: usize = 128;
/// Size of a descriptor, in bytes.
pub const DESCRIPTOR: usize = 585;
/// Maximum number of descriptors. Apptainer reserves 48.
const MAX_DESCRIPTORS: i64 = 4096;

/// Definition file of the image.
pub const DATA_DEFINITION: i32 = 0x4001;
/// JSON about the image, identified by its name.
pub const DATA_JSON: i32 = 0x4006;
/// Name of the object that `apptainer inspect` shows.
pub const METADATA: &str = "inspect-metadata.json";
/// Configuration of the OCI image that the SIF was made from.
pub const OCI_CONFIG: &str = "oci-config.json";
/// Partition: a file system.
pub const DATA_PARTITION: i32 = 0x4004;
/// Signature of other objects.
pub const DATA_SIGNATURE: i32 = 0x4005;
/// File system type of a partition: squashfs.
pub const FS_SQUASHFS: i32 = 1;
const FS_EXT3: i32 = 2;
const FS_ENCRYPTED_SQUASHFS: i32 = 5;
const FS_GOCRYPTFS_SQUASHFS: i32 = 6;
/// Partition with the root file system.
pub const PART_PRIMARY_SYSTEM: i32 = 2;
const PART_OVERLAY: i32 = 4;
/// Bits that are set in every group number; no other bit set means no group.
pub const GROUP_MASK: u32 = 0xf000_0000;
/// Magic of ext2, ext3 and ext4 (Documentation/filesystems/ext4/super.rst, s_magic).
const EXT_MAGIC: [u8; 2] = 0xef53_u16.to_le_bytes();
const EXT_MAGIC_AT: u64 = 1024 + 0x38;

/// Faults of a header, and features that the launcher refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Another version than 01.
    Version(String),
    /// An implausible number of descriptors.
    DescriptorCount(i64),
    /// The table's size is not the number of descriptors times 585.
    TableSize(i64),
    /// A negative offset or size.
    Negative(&'static str, i64),
    /// Offset and size that add up to more than 2^63.
    Overflow(&'static str),
    /// No primary system partition.
    NoRoot,
    /// More than one primary system partition.
    TwoRoots,
    /// A primary system partition with a file system other than squashfs.
    Filesystem(i32),
    /// An encrypted primary system partition.
    Encrypted,
    /// An image for another processor architecture.
    Architecture {
        /// Architecture of the partition.
        image: String,
        /// Architecture of the machine.
        machine: String,
    },
    /// An overlay partition with a file system other than squashfs and ext3.
    OverlayFilesystem(i32),
    /// An overlay partition of type ext3 without the magic of ext3.
    NotExt3,
    /// More than [`MAX_OVERLAYS`] overlay partitions.
    TooManyOverlays,
    /// A data object larger than [`MAX_OBJECT`].
    LongObject(u64),
    /// Two objects with this id.
    SameId(u32),
    /// Two objects that share bytes, the first of them here.
    Overlap(u64),
}

impl Fault {
    /// True for a fault that no writer of SIF files produces; any other SIF is valid, but not for Coracle or this node.
    pub fn is_damage(&self) -> bool {
        !matches!(
            self,
            Self::Filesystem(_)
                | Self::Encrypted
                | Self::Architecture { .. }
                | Self::OverlayFilesystem(_)
                | Self::TooManyOverlays
        )
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Sif(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => write!(out, "version {version:?}, only \"01\" is known"),
            Self::DescriptorCount(count) => write!(out, "{count} descriptors, 1 to {MAX_DESCRIPTORS} are possible"),
            Self::TableSize(size) => {
                write!(out, "a descriptor table of {size} bytes does not fit its number of entries")
            }
            Self::Negative(what, value) => write!(out, "{what} is {value}"),
            Self::Overflow(what) => write!(out, "{what} ends past the largest possible file"),
            Self::NoRoot => out.write_str("no primary system partition"),
            Self::TwoRoots => out.write_str("more than one primary system partition"),
            Self::Filesystem(id) => match filesystem_name(*id) {
                Some(name) => write!(out, "the root filesystem is {name}, only squashfs is run"),
                None => write!(out, "the root filesystem is of unknown type {id}"),
            },
            Self::Encrypted => out.write_str("the root filesystem is encrypted"),
            Self::Architecture { image, machine } => write!(out, "made for {image}, this node is {machine}"),
            Self::OverlayFilesystem(id) => match filesystem_name(*id) {
                Some(name) => write!(out, "{name}, only squashfs and ext3 are read"),
                None => write!(out, "of unknown type {id}, only squashfs and ext3 are read"),
            },
            Self::NotExt3 => out.write_str("it does not start like an ext3"),
            Self::TooManyOverlays => write!(out, "it has more than {MAX_OVERLAYS} overlay partitions"),
            Self::SameId(id) => write!(out, "two objects have number {id}"),
            Self::Overlap(at) => write!(out, "two of its parts share byte {at}"),
            Self::LongObject(size) => write!(out, "a data object of {size} bytes, {MAX_OBJECT} are possible"),
        }
    }
}

/// Layers of the only primary system partition, then of the overlay partitions in its group, in the order of the table.
/// Apptainer stacks them in this order.
pub fn layers(file: &File, length: u64, architecture: &str) -> Result<Vec<Layer>, Error> {
    let mut root: Option<Partition> = None;
    let mut overlays = Vec::new();
    let header = Header::read(file, length)?;
    let descriptors = header.descriptors(file, length)?;
    for descriptor in &descriptors {
        if descriptor.data_type() != DATA_PARTITION {
            continue;
        }
        let partition = Partition::parse(descriptor);
        match partition.part {
            PART_PRIMARY_SYSTEM if root.is_some() => return Err(Fault::TwoRoots.into()),
            PART_PRIMARY_SYSTEM => root = Some(partition),
            PART_OVERLAY => overlays.push(partition),
            _ => {}
        }
    }
    let root = root.ok_or(Fault::NoRoot)?;
    // Overlays of other groups do not belong to this root; a root without a group takes all of them.
    overlays.retain(|overlay| root.group.is_none() || overlay.group == root.group);
    if overlays.len() > MAX_OVERLAYS {
        return Err(Fault::TooManyOverlays.into());
    }
    let mut layers = vec![root.root(file, length, architecture)?];
    for (index, overlay) in overlays.iter().enumerate() {
        let layer = overlay.overlay(file, length);
        layers.push(layer.map_err(|cause| Error::Overlay(index + 1, Box::new(cause)))?);
    }
    check_places(&descriptors, header.table(length)?, length)?;
    Ok(layers)
}

/// Offset and size, in bytes, of the first data object with this type and name, if there is one.
///
/// The type and the name are statements of the image: no signature is checked here.
pub fn object(file: &File, length: u64, datatype: i32, name: &str) -> Result<Option<(u64, u64)>, Error> {
    for descriptor in Header::read(file, length)?.descriptors(file, length)? {
        if descriptor.data_type() != datatype || printable(&descriptor.field::<128>(73)) != name {
            continue;
        }
        let found = descriptor.place("a data object", length)?;
        if found.1 > MAX_OBJECT {
            return Err(Fault::LongObject(found.1).into());
        }
        return Ok(Some(found));
    }
    Ok(None)
}

/// Global header. [`super::Container::of`] checks its magic.
#[derive(Debug, Clone)]
pub struct Header([u8; HEADER]);

impl Header {
    /// Reads the header of a SIF.
    pub fn read(file: &File, length: u64) -> Result<Self, Error> {
        let header: [u8; HEADER] = read_array(file, 0, length, "the SIF header")?;
        let version = field::<3>(&header, 42);
        if version != *b"01\0" {
            return Err(Fault::Version(printable(&version)).into());
        }
        Ok(Self(header))
    }

    /// Offset and size of the table of descriptors.
    pub fn table(&self, length: u64) -> Result<(u64, u64), Error> {
        let count = i64::from_le_bytes(field(&self.0, 88));
        if !(1..=MAX_DESCRIPTORS).contains(&count) {
            return Err(Fault::DescriptorCount(count).into());
        }
        let table_size = i64::from_le_bytes(field(&self.0, 104));
        if table_size != count * DESCRIPTOR as i64 {
            return Err(Fault::TableSize(table_size).into());
        }
        extent("the descriptor table", i64::from_le_bytes(field(&self.0, 96)), table_size, length)
    }

    /// Descriptors in use, in the order of the table.
    pub fn descriptors(&self, file: &File, length: u64) -> Result<Vec<Descriptor>, Error> {
        let (offset, size) = self.table(length)?;
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| Fault::Overflow("the descriptor table"))?];
        file.read_exact_at(&mut bytes, offset)?;
        let used = bytes.chunks_exact(DESCRIPTOR).filter(|descriptor| descriptor[4] != 0);
        Ok(used.map(|descriptor| Descriptor(field(descriptor, 0))).collect())
    }

    /// Signed fields of the header: launch script, magic, version and UUID. The architecture, the times, and the
    /// positions of table and data are not signed: adding an object changes them.
    pub fn signed_fields(&self) -> Vec<u8> {
        [&self.0[..45], &self.0[48..64]].concat()
    }
}

/// Descriptor of one data object.
#[derive(Debug, Clone)]
pub struct Descriptor([u8; DESCRIPTOR]);

impl Descriptor {
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        field(&self.0, at)
    }

    /// Type of the object, such as [`DATA_SIGNATURE`].
    pub fn data_type(&self) -> i32 {
        i32::from_le_bytes(self.field(0))
    }

    /// Id of the object, which other objects refer to.
    pub fn id(&self) -> u32 {
        u32::from_le_bytes(self.field(5))
    }

    /// Group of the object.
    pub fn group(&self) -> Option<u32> {
        Some(u32::from_le_bytes(self.field(9)) & !GROUP_MASK).filter(|group| *group != 0)
    }

    /// Linked group, if the link is to a whole group.
    pub fn linked_group(&self) -> Option<u32> {
        let link = u32::from_le_bytes(self.field(13));
        (link & GROUP_MASK == GROUP_MASK).then_some(link & !GROUP_MASK)
    }

    /// Offset and size of the object, in bytes, checked against a file of `length` bytes.
    pub fn place(&self, what: &'static str, length: u64) -> Result<(u64, u64), Error> {
        extent(what, i64::from_le_bytes(self.field(17)), i64::from_le_bytes(self.field(25)), length)
    }

    /// For a signature: the id of its hash algorithm, and the fingerprint of the OpenPGP key that made it (zeros for
    /// another kind of key).
    pub fn signer(&self) -> (i32, [u8; 20]) {
        (i32::from_le_bytes(self.field(201)), self.field(205))
    }

    /// Signed fields of an object's descriptor, with `relative` as its id relative to the first object of its group:
    /// type, use, link, size, time of creation, owner, name and the type's own fields. The group and the offset are not
    /// signed.
    pub fn signed_fields(&self, relative: u32) -> Vec<u8> {
        let whole = &self.0;
        [&whole[..5], &relative.to_le_bytes(), &whole[13..17], &whole[25..33], &whole[41..49], &whole[57..]].concat()
    }
}

/// Refuses objects that share bytes: two readers could interpret them differently, and a signature covers one of them.
fn check_places(descriptors: &[Descriptor], table: (u64, u64), length: u64) -> Result<(), Error> {
    let mut places = vec![(0, HEADER as u64), table];
    for descriptor in descriptors {
        places.push(descriptor.place("a data object", length)?);
    }
    places.retain(|(_, size)| *size > 0);
    places.sort_unstable();
    match places.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
        Some(pair) => Err(Fault::Overlap(pair[1].0).into()),
        None => Ok(()),
    }
}

struct Partition {
    group: Option<u32>,
    offset: i64,
    size: i64,
    filesystem: i32,
    part: i32,
    architecture: [u8; 3],
}

impl Partition {
    fn parse(descriptor: &Descriptor) -> Self {
        Self {
            group: descriptor.group(),
            offset: i64::from_le_bytes(descriptor.field(17)),
            size: i64::from_le_bytes(descriptor.field(25)),
            filesystem: i32::from_le_bytes(descriptor.field(201)),
            part: i32::from_le_bytes(descriptor.field(205)),
            architecture: descriptor.field(209),
        }
    }

    fn root(&self, file: &File, length: u64, architecture: &str) -> Result<Layer, Error> {
        match self.filesystem {
            FS_SQUASHFS => {}
            FS_ENCRYPTED_SQUASHFS | FS_GOCRYPTFS_SQUASHFS => return Err(Fault::Encrypted.into()),
            other => return Err(Fault::Filesystem(other).into()),
        }
        if architecture_name(self.architecture) != Some(architecture) {
            let image = match architecture_name(self.architecture) {
                Some(name) => name.to_owned(),
                None => format!("the unknown architecture {:?}", printable(&self.architecture)),
            };
            return Err(Fault::Architecture { image, machine: architecture.to_owned() }.into());
        }
        let (offset, size) = extent("the root partition", self.offset, self.size, length)?;
        squashfs::layer(file, offset, size, length)
    }

    fn overlay(&self, file: &File, length: u64) -> Result<Layer, Error> {
        let (offset, size) = extent("the partition", self.offset, self.size, length)?;
        match self.filesystem {
            FS_SQUASHFS => squashfs::layer(file, offset, size, length),
            FS_EXT3 => {
                let magic_at = offset.saturating_add(EXT_MAGIC_AT);
                if size < EXT_MAGIC_AT + 2 || read_array(file, magic_at, length, "the partition")? != EXT_MAGIC {
                    return Err(Fault::NotExt3.into());
                }
                Ok(Layer { filesystem: Filesystem::Ext3, offset, size })
            }
            other => Err(Fault::OverlayFilesystem(other).into()),
        }
    }
}

/// Offset and size from the file as unsigned numbers, checked against its length.
fn extent(what: &'static str, offset: i64, size: i64, length: u64) -> Result<(u64, u64), Error> {
    for value in [offset, size] {
        if value < 0 {
            return Err(Fault::Negative(what, value).into());
        }
    }
    let end = offset.checked_add(size).ok_or(Fault::Overflow(what))?.unsigned_abs();
    if end > length {
        return Err(Error::Truncated { what, need: end, have: length });
    }
    Ok((offset.unsigned_abs(), size.unsigned_abs()))
}

/// Architecture codes of SIF, with Rust's names for them.
const ARCHITECTURES: [([u8; 3], &str); 13] = [
    (*b"01\0", "x86"),
    (*b"02\0", "x86_64"),
    (*b"03\0", "arm"),
    (*b"04\0", "aarch64"),
    (*b"05\0", "powerpc64"),
    (*b"06\0", "powerpc64le"),
    (*b"07\0", "mips"),
    (*b"08\0", "mipsel"),
    (*b"09\0", "mips64"),
    (*b"10\0", "mips64el"),
    (*b"11\0", "s390x"),
    (*b"12\0", "riscv64"),
    (*b"13\0", "loongarch64"),
];

fn architecture_name(code: [u8; 3]) -> Option<&'static str> {
    ARCHITECTURES.iter().find(|(known, _)| *known == code).map(|(_, name)| *name)
}

/// SIF code of an architecture in the form of [`std::env::consts::ARCH`].
pub fn architecture_code(name: &str) -> Option<[u8; 3]> {
    ARCHITECTURES.iter().find(|(_, known)| *known == name).map(|(code, _)| *code)
}

fn filesystem_name(id: i32) -> Option<&'static str> {
    Some(match id {
        2 => "ext3",
        3 => "an archive",
        4 => "raw data",
        5 | 6 => "encrypted squashfs",
        _ => return None,
    })
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}
