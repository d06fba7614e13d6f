//! Describes the header and the objects of a SIF for display. All fields are unverified statements of the image.
#![forbid(unsafe_code)]

use std::fmt;

use super::{
    ARCHITECTURES, DATA_DEFINITION, DATA_JSON, DATA_PARTITION, Descriptor, Error, FS_ENCRYPTED_SQUASHFS, FS_EXT3,
    FS_GOCRYPTFS_SQUASHFS, FS_SQUASHFS, Fault, File, GROUP_MASK, Header, PART_OVERLAY, PART_PRIMARY_SYSTEM,
    check_places, field, printable,
};

/// Target of an object's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A group of objects.
    Group(u32),
    /// One object.
    Object(u32),
}

/// Partition, as its descriptor states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    filesystem: i32,
    part: i32,
    architecture: [u8; 3],
}

/// Reads header and descriptors of the SIF in `file`, of `length` bytes. All objects lie in the file, share no bytes
/// and have different ids. The SIF may be encrypted, for another architecture, or without a root file system.
pub fn objects(file: &File, length: u64) -> Result<(Header, Vec<Descriptor>), Error> {
    let header = Header::read(file, length)?;
    let descriptors = header.descriptors(file, length)?;
    check_places(&descriptors, header.table(length)?, length)?;
    let mut ids: Vec<u32> = descriptors.iter().map(Descriptor::id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Fault::SameId(pair[0]).into()),
        None => Ok((header, descriptors)),
    }
}

impl Header {
    /// Launch script, which runs if the file is executed.
    pub fn launch(&self) -> String {
        printable(&self.0[..32])
    }

    /// UUID of the image; it does not depend on the content.
    pub fn uuid(&self) -> [u8; 16] {
        field(&self.0, 48)
    }

    /// Time of creation, in seconds since 1970.
    pub fn created(&self) -> i64 {
        i64::from_le_bytes(field(&self.0, 64))
    }

    /// Time of the last change, in seconds since 1970.
    pub fn modified(&self) -> i64 {
        i64::from_le_bytes(field(&self.0, 72))
    }

    /// Architecture of the root file system, as in [`std::env::consts::ARCH`].
    pub fn architecture(&self) -> Option<&'static str> {
        super::architecture_name(field(&self.0, 45))
    }
}

impl Descriptor {
    /// Name of the object; writers use file names.
    pub fn name(&self) -> String {
        printable(&self.field::<128>(73))
    }

    /// Link to the object or group that this object is about, if there is one.
    pub fn link(&self) -> Option<Link> {
        let link = u32::from_le_bytes(self.field(13));
        match self.linked_group() {
            Some(group) => Some(Link::Group(group)),
            None => Some(Link::Object(link)).filter(|_| link != 0),
        }
    }

    /// Time at which the object was added, in seconds since 1970.
    pub fn created(&self) -> i64 {
        i64::from_le_bytes(self.field(41))
    }

    /// Type of the object as a word.
    pub fn type_name(&self) -> Option<&'static str> {
        Some(match self.data_type() {
            DATA_DEFINITION => "definition",
            0x4002 => "environment",
            0x4003 => "labels",
            DATA_PARTITION => "partition",
            super::DATA_SIGNATURE => "signature",
            DATA_JSON => "json",
            0x4007 => "data",
            0x4008 => "key",
            0x4009 => "sbom",
            0x400a => "oci-index",
            0x400b => "oci-blob",
            _ => return None,
        })
    }

    /// Fields of the partition, if the object is one.
    pub fn partition(&self) -> Option<Partition> {
        (self.data_type() == DATA_PARTITION).then(|| Partition {
            filesystem: i32::from_le_bytes(self.field(201)),
            part: i32::from_le_bytes(self.field(205)),
            architecture: self.field(209),
        })
    }
}

impl Partition {
    /// True for an unencrypted squashfs.
    pub fn is_squashfs(&self) -> bool {
        self.filesystem == FS_SQUASHFS
    }

    /// True for the root partition.
    pub fn is_root(&self) -> bool {
        self.part == PART_PRIMARY_SYSTEM
    }

    /// True if reading the partition needs a key.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.filesystem, FS_ENCRYPTED_SQUASHFS | FS_GOCRYPTFS_SQUASHFS)
    }

    /// File system type as a word.
    pub fn filesystem(&self) -> Option<&'static str> {
        Some(match self.filesystem {
            FS_SQUASHFS => "squashfs",
            FS_EXT3 => "ext3",
            3 => "archive",
            4 => "raw",
            FS_ENCRYPTED_SQUASHFS => "encrypted squashfs",
            FS_GOCRYPTFS_SQUASHFS => "encrypted squashfs (gocryptfs)",
            _ => return None,
        })
    }

    /// Purpose of the partition as a word.
    pub fn role(&self) -> Option<&'static str> {
        Some(match self.part {
            1 => "system",
            PART_PRIMARY_SYSTEM => "root",
            3 => "data",
            PART_OVERLAY => "overlay",
            _ => return None,
        })
    }

    /// Architecture of the partition, as in [`std::env::consts::ARCH`].
    pub fn architecture(&self) -> Option<&'static str> {
        ARCHITECTURES.iter().find(|(known, _)| *known == self.architecture).map(|(_, name)| *name)
    }
}

/// Group number in the form of the group field of a signature or a link.
pub fn group_link(group: u32) -> u32 {
    group | GROUP_MASK
}

impl fmt::Display for Link {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => write!(out, "group {group}"),
            Self::Object(id) => id.fmt(out),
        }
    }
}
