//! Collects the entries of a directory that is made for a container.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::Entry;

/// Entries of a made directory, parents before children.
pub struct Entries<'a> {
    top: &'a Path,
    made: Vec<Entry>,
}

impl<'a> Entries<'a> {
    /// Made entries.
    pub fn into_made(self) -> Vec<Entry> {
        self.made
    }

    /// Empty list for the directory `top`.
    pub fn below(top: &'a Path) -> Self {
        Self { top, made: Vec::new() }
    }

    /// Adds an entry at `path`, with its parent directories, if `path` is below `top`.
    pub fn add(&mut self, path: &Path, entry: impl FnOnce(PathBuf) -> Entry) {
        let Ok(inside) = path.strip_prefix(self.top) else { return };
        let mut so_far = PathBuf::new();
        for name in inside.parent().into_iter().flatten() {
            so_far.push(name);
            self.push(Entry::Directory(so_far.clone()));
        }
        self.push(entry(inside.to_owned()));
    }

    fn push(&mut self, entry: Entry) {
        if !self.made.contains(&entry) {
            self.made.push(entry);
        }
    }
}
