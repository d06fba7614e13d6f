//! Folders that are made for a container.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::Entry;

/// The entries of a folder that is made, each after what is above it.
pub struct Entries<'a> {
    top: &'a Path,
    made: Vec<Entry>,
}

impl<'a> Entries<'a> {
    /// Made entries.
    pub fn into_made(self) -> Vec<Entry> {
        self.made
    }

    /// None yet, of the folder `top`.
    pub fn below(top: &'a Path) -> Self {
        Self { top, made: Vec::new() }
    }

    /// Adds one at `path`, with the folders on the way; nothing, if it lies elsewhere.
    pub fn add(&mut self, path: &Path, entry: impl FnOnce(PathBuf) -> Entry) {
        let Ok(inside) = path.strip_prefix(self.top) else { return };
        let mut so_far = PathBuf::new();
        for name in inside.parent().into_iter().flatten() {
            so_far.push(name);
            self.push(Entry::Folder(so_far.clone()));
        }
        self.push(entry(inside.to_owned()));
    }

    fn push(&mut self, entry: Entry) {
        if !self.made.contains(&entry) {
            self.made.push(entry);
        }
    }
}
