//! Writes SIF files (pkg/sif of github.com/apptainer/sif) in the form that Apptainer reads.
#![forbid(unsafe_code)]

use std::os::unix::fs::FileExt;

use coracle::report::Refusal;
use coracle_launcher::image::sif::{
    DATA_PARTITION, DESCRIPTOR, FS_SQUASHFS, GROUP_MASK, HEADER, MAGIC, MAGIC_AT, PART_PRIMARY_SYSTEM,
};

use crate::build::draft::Draft;
use crate::output::unwritable;

/// First line of a SIF, for its execution.
const LAUNCH: &[u8] = b"#!/usr/bin/env run-singularity\n";
/// Number of descriptors, as in Apptainer.
const SLOTS: usize = 48;
const TABLE_AT: u64 = 4096;
/// Offset of the first object, behind the table.
const DATA_AT: u64 = TABLE_AT + (SLOTS * DESCRIPTOR) as u64;
/// Alignment of partitions: the page size of every kernel that maps them.
const PAGE: u64 = 4096;
const GROUP: u32 = GROUP_MASK | 1;

/// Data object in front of the root file system.
#[derive(Debug, Clone)]
pub struct Object {
    /// Type.
    pub datatype: i32,
    /// Name.
    pub name: String,
    /// Contents.
    pub bytes: Vec<u8>,
    /// Fields of its type.
    pub extra: Vec<u8>,
}

/// Properties of an image from which its file is laid out.
#[derive(Debug)]
pub struct Layout {
    /// Data objects in front of the root file system.
    pub objects: Vec<Object>,
    /// Code of the processor in the format.
    pub architecture: [u8; 3],
    /// Time of creation, in seconds.
    pub time: i64,
    /// UUID of the image.
    pub uuid: [u8; 16],
}

impl Layout {
    /// Offset of the root file system.
    pub fn root_at(&self) -> u64 {
        let end = self.objects.iter().fold(DATA_AT, |at, object| at + object.bytes.len() as u64);
        end.next_multiple_of(PAGE)
    }

    /// Writes all but the root file system of `size` bytes, which the draft has already.
    pub fn write(&self, draft: &Draft, size: u64) -> Result<(), Refusal> {
        let root_at = self.root_at();
        let mut table = vec![0; SLOTS * DESCRIPTOR];
        let mut at = DATA_AT;
        let write =
            |bytes: &[u8], at| draft.file.write_all_at(bytes, at).map_err(|error| unwritable(draft.typed(), &error));
        let mut id = 0;
        for (slot, object) in table.chunks_exact_mut(DESCRIPTOR).zip(&self.objects) {
            id += 1;
            let bytes = object.bytes.len() as u64;
            self.describe(slot, id, object, at, bytes, 0);
            write(&object.bytes, at)?;
            at += bytes;
        }
        if let Some(slot) = table.chunks_exact_mut(DESCRIPTOR).nth(self.objects.len()) {
            let root = Object {
                datatype: DATA_PARTITION,
                name: "rootfs.squashfs".into(),
                bytes: Vec::new(),
                extra: [&FS_SQUASHFS.to_le_bytes()[..], &PART_PRIMARY_SYSTEM.to_le_bytes(), &self.architecture]
                    .concat(),
            };
            self.describe(slot, id + 1, &root, root_at, size, root_at - at);
        }
        let end = root_at + size;
        draft.file.set_len(end).map_err(|error| unwritable(draft.typed(), &error))?;
        write(&table, TABLE_AT)?;
        write(&self.header(end), 0)
    }

    /// Writes a descriptor; `padding` is the space between the object and the one before.
    fn describe(&self, slot: &mut [u8], id: u32, object: &Object, at: u64, size: u64, padding: u64) {
        let Object { datatype, name, extra, .. } = object;
        let mut put = |from: usize, bytes: &[u8]| slot[from..from + bytes.len()].copy_from_slice(bytes);
        put(0, &datatype.to_le_bytes());
        put(4, &[1]);
        put(5, &id.to_le_bytes());
        put(9, &GROUP.to_le_bytes());
        put(17, &at.to_le_bytes());
        put(25, &size.to_le_bytes());
        put(33, &(padding + size).to_le_bytes());
        put(41, &self.time.to_le_bytes());
        put(49, &self.time.to_le_bytes());
        let name = name.as_bytes();
        put(73, &name[..name.len().min(127)]);
        put(201, &extra[..extra.len().min(384)]);
    }

    fn header(&self, end: u64) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let mut put = |from: usize, bytes: &[u8]| header[from..from + bytes.len()].copy_from_slice(bytes);
        let free = SLOTS - self.objects.len() - 1;
        put(0, LAUNCH);
        put(MAGIC_AT, MAGIC);
        put(42, b"01\0");
        put(45, &self.architecture);
        put(48, &self.uuid);
        put(64, &self.time.to_le_bytes());
        put(72, &self.time.to_le_bytes());
        put(80, &(free as u64).to_le_bytes());
        put(88, &(SLOTS as u64).to_le_bytes());
        put(96, &TABLE_AT.to_le_bytes());
        put(104, &((SLOTS * DESCRIPTOR) as u64).to_le_bytes());
        put(112, &DATA_AT.to_le_bytes());
        put(120, &(end - DATA_AT).to_le_bytes());
        header
    }
}
