//! Reads the node's file system, or a directory tree in its place.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::seen::{Aspect, Seen};

/// Limit on the length of a file, in bytes, well above that of a slurm.conf of ten thousand lines.
const MAX_LEN: u64 = 4 << 20;

/// File system of a node. Paths are absolute on the node; `root` is their prefix.
pub struct Node<'a> {
    root: &'a Path,
    /// Everything that was looked up, if that is recorded.
    seen: Option<RefCell<Seen>>,
}

impl<'a> Node<'a> {
    /// Creates the node below `root`, which is "/" except in tests and contains no symbolic link.
    pub fn new(root: &'a Path) -> Self {
        Self { root, seen: None }
    }

    /// Creates a node that records what is looked up, with its state before.
    pub fn recording(root: &'a Path) -> Self {
        Self { root, seen: Some(RefCell::default()) }
    }

    /// Returns the record; an empty one if nothing was recorded.
    pub fn into_seen(self) -> Seen {
        self.seen.map(RefCell::into_inner).unwrap_or_default()
    }

    fn note(&self, path: &Path, aspect: Aspect) {
        if let Some(seen) = &self.seen {
            seen.borrow_mut().add(&self.at(path), aspect);
        }
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Real path of `path`; nothing if it does not exist.
    pub fn real(&self, path: &Path) -> Option<PathBuf> {
        self.note(path, Aspect::Place);
        let real = fs::canonicalize(self.at(path)).ok()?;
        let real = Path::new("/").join(real.strip_prefix(self.root).ok()?);
        self.note(&real, Aspect::Name);
        Some(real)
    }

    /// Real path of the directory `path`.
    pub fn real_directory(&self, path: &Path) -> Option<PathBuf> {
        self.real(path).filter(|real| self.at(real).is_dir())
    }

    /// True if `path` exists, with links resolved.
    pub fn exists(&self, path: &Path) -> bool {
        self.note(path, Aspect::Place);
        self.at(path).exists()
    }

    /// True if `path` itself is a directory, not a link to one.
    pub fn is_plain_directory(&self, path: &Path) -> bool {
        self.note(path, Aspect::Name);
        fs::symlink_metadata(self.at(path)).is_ok_and(|found| found.is_dir())
    }

    /// Target of the symbolic link `path`.
    pub fn link(&self, path: &Path) -> Option<PathBuf> {
        self.note(path, Aspect::Name);
        fs::read_link(self.at(path)).ok()
    }

    /// Opens a regular file, without waiting for a FIFO.
    pub fn open(&self, path: &Path) -> Option<File> {
        self.note(path, Aspect::Content);
        let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(self.at(path)).ok()?;
        file.metadata().is_ok_and(|found| found.is_file()).then_some(file)
    }

    /// Content of a regular file within the length limit.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let file = self.open(path)?;
        let expected = usize::try_from(file.metadata().ok()?.len().min(MAX_LEN)).ok()?;
        // One byte more than the file has; otherwise the buffer doubles before the end of the file is found.
        let mut bytes = Vec::with_capacity(expected.saturating_add(1));
        let length = file.take(MAX_LEN).read_to_end(&mut bytes).ok()?;
        u64::try_from(length).is_ok_and(|length| length < MAX_LEN).then_some(bytes)
    }

    /// Content of a regular file as text.
    pub fn text(&self, path: &Path) -> Option<String> {
        self.bytes(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Names of the entries of a directory.
    pub fn names(&self, directory: &Path) -> Vec<String> {
        self.note(directory, Aspect::Content);
        let Ok(entries) = fs::read_dir(self.at(directory)) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// Files that match `pattern`, sorted; `*` only in the last name, as in plugstack.conf.
    pub fn glob(&self, pattern: &Path) -> Vec<PathBuf> {
        let (Some(directory), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|name| name.to_str()))
        else {
            return Vec::new();
        };
        if !name.contains('*') {
            return vec![pattern.to_owned()];
        }
        let mut names = self.names(directory);
        // glob(7): a leading dot is not matched by `*`.
        names.retain(|found| (!found.starts_with('.') || name.starts_with('.')) && matches(name, found));
        names.sort();
        names.iter().map(|name| directory.join(name)).collect()
    }
}

/// True if `name` matches `pattern`, in which each `*` stands for any text.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(start) else { return false };
    let Some((middle, end)) = rest.rsplit_once('*') else { return name.ends_with(rest) };
    // The earliest match of each part leaves the most text for the parts after it.
    let mut name = name;
    for part in middle.split('*') {
        let Some((_, behind)) = name.split_once(part) else { return false };
        name = behind;
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, yes, no) in [
            ("*.conf", "a.conf", "a.conf~"),
            ("a*", "a", "b"),
            ("*", "x", ""),
            ("a*b*c", "a-b-b-c", "a-c-b"),
            ("*aa*a", "aaa", "aa"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(no.is_empty() || !matches(pattern, no), "{pattern} {no}");
        }
    }
}
