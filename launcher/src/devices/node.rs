//! Finds the device nodes below /dev.
#![forbid(unsafe_code)]

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use coracle::sys::DeviceRule;

/// Maximum depth of directories below /dev.
const MAX_DEPTH: usize = 4;
/// Maximum number of device nodes; no node has that many.
const MAX_NODES: usize = 20_000;

/// Device node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// Path below /dev.
    pub path: PathBuf,
    /// Type of the node.
    pub kind: Type,
    /// Major number, of the driver.
    pub major: u32,
    /// Minor number, of the device.
    pub minor: u32,
}

/// Type of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Type {
    /// A character device.
    Character,
    /// A block device.
    Block,
}

impl Node {
    /// Device node at `path`, if there is one; a link as the last component is not followed.
    pub fn at(path: &Path) -> Option<Self> {
        Self::of(path, &path.symlink_metadata().ok()?)
    }

    /// Device node at `path` from its metadata `found`; `None` for any other file.
    pub fn of(path: &Path, found: &Metadata) -> Option<Self> {
        let kind = match found.file_type() {
            kind if kind.is_char_device() => Type::Character,
            kind if kind.is_block_device() => Type::Block,
            _ => return None,
        };
        let number = |number: u64| u32::try_from(number).ok();
        let (major, minor) = (number(major(found.rdev()))?, number(minor(found.rdev()))?);
        Some(Self { path: path.to_owned(), kind, major, minor })
    }

    /// Device rule that allows this device.
    pub fn rule(&self) -> DeviceRule {
        DeviceRule { block: self.kind == Type::Block, major: self.major, minor: Some(self.minor) }
    }
}

/// Device nodes in `directory` and below, sorted by path, without those of other file systems (pts, shm). Links are not
/// followed.
pub fn all(directory: &Path) -> Vec<Node> {
    let mut found = Vec::new();
    if let Ok(top) = directory.symlink_metadata() {
        add(directory, top.dev(), 1, &mut found);
    }
    found.sort();
    found
}

fn add(directory: &Path, device: u64, depth: usize, found: &mut Vec<Node>) {
    let Ok(entries) = directory.read_dir() else { return };
    for entry in entries.filter_map(Result::ok) {
        let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
        if kind.is_dir() {
            if depth < MAX_DEPTH && path.symlink_metadata().is_ok_and(|found| found.dev() == device) {
                add(&path, device, depth + 1, found);
            }
        } else if kind.is_char_device() || kind.is_block_device() {
            if found.len() >= MAX_NODES {
                return;
            }
            found.extend(Node::at(&path));
        }
    }
}
