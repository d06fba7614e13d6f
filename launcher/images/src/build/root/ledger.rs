//! Holds owners and devices of an image's files: only root could store them in a file system.
#![forbid(unsafe_code)]

mod changes;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::sources::archive::{Device, Owner};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    owner: Owner,
    mode: u32,
    device: Option<Device>,
    /// Time that replaces the file's own, in seconds.
    time: Option<i64>,
}

/// Entries by path from the root, without a leading slash.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Ledger {
    /// Notes owner and permission bits of `path`.
    pub fn own(&mut self, path: &Path, owner: Owner, mode: u32) {
        self.entries.insert(path.to_owned(), Entry { owner, mode, device: None, time: None });
    }

    /// Notes owner, permission bits and time of `path`.
    pub fn own_at(&mut self, path: &Path, owner: Owner, mode: u32, time: i64) {
        self.entries.insert(path.to_owned(), Entry { owner, mode, device: None, time: Some(time) });
    }

    /// Notes a device.
    pub fn device(&mut self, path: &Path, owner: Owner, mode: u32, device: Device) {
        self.entries.insert(path.to_owned(), Entry { owner, mode, device: Some(device), time: None });
    }

    /// True if the ledger has an entry for `path`.
    pub fn knows(&self, path: &Path) -> bool {
        self.entries.contains_key(path)
    }

    /// True if `path` is a device.
    pub fn is_device(&self, path: &Path) -> bool {
        self.entries.get(path).is_some_and(|entry| entry.device.is_some())
    }

    /// Names of the devices in the directory `path`.
    pub fn devices_in(&self, path: &Path) -> Vec<OsString> {
        let below = self.below(path).filter(|(known, entry)| entry.device.is_some() && known.parent() == Some(path));
        below.filter_map(|(known, _)| known.file_name()).map(OsStr::to_owned).collect()
    }

    /// Copies the entry of `target`, if there is one, to `path`.
    pub fn link(&mut self, target: &Path, path: &Path) {
        match self.entries.get(target).copied() {
            Some(entry) => self.entries.insert(path.to_owned(), entry),
            None => self.entries.remove(path),
        };
    }

    /// Removes the entry of `path`, but none below it.
    pub fn remove(&mut self, path: &Path) {
        self.entries.remove(path);
    }

    /// Removes the entries of `path` and of all paths below it.
    pub fn forget(&mut self, path: &Path) {
        let known: Vec<PathBuf> = self.below(path).map(|(known, _)| known.clone()).collect();
        for path in known {
            self.entries.remove(&path);
        }
    }

    /// Entries of `path` and below it. They are adjacent: paths are ordered by their components.
    fn below(&self, path: &Path) -> impl Iterator<Item = (&PathBuf, &Entry)> {
        self.entries.range(path.to_owned()..).take_while(move |(known, _)| known.starts_with(path))
    }

    /// Definitions for mksquashfs: of devices, and of files that root does not own or that `differs` reports.
    pub fn definitions(&self, differs: impl Fn(&Path, Owner, u32) -> bool) -> Definitions {
        let mut definitions = Definitions::default();
        for (path, entry) in &self.entries {
            let Entry { owner: Owner { uid, gid }, mode, device, time } = *entry;
            if path.as_os_str().is_empty() {
                definitions.root = differs(path, entry.owner, mode).then_some((entry.owner, mode));
                definitions.root_time = time;
                continue;
            }
            let rest = match device {
                None if let Some(time) = time => format!(" M {time} {mode:o} {uid} {gid}"),
                None if differs(path, entry.owner, mode) => format!(" m {mode:o} {uid} {gid}"),
                None => continue,
                Some(Device { block, major, minor }) => {
                    format!(" {} {mode:o} {uid} {gid} {major} {minor}", if block { 'b' } else { 'c' })
                }
            };
            let line = [quoted(path.as_os_str()), rest.into_bytes()].concat();
            if line.contains(&b'\n') {
                definitions.words.push(OsString::from_vec(line));
            } else {
                definitions.lines.extend(line);
                definitions.lines.push(b'\n');
            }
        }
        definitions
    }
}

/// File definitions for mksquashfs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Definitions {
    /// Lines for the file of its -pf.
    pub lines: Vec<u8>,
    /// Definitions of names with a line break, each for a -p.
    pub words: Vec<OsString>,
    /// Owner and mode of the root itself, which has options of its own.
    pub root: Option<(Owner, u32)>,
    /// Time of the root itself, if it changes.
    pub root_time: Option<i64>,
}

/// Name as mksquashfs reads it: in quotation marks, with a backslash before these and before backslashes.
fn quoted(name: &OsStr) -> Vec<u8> {
    let mut out = vec![b'"'];
    for byte in name.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            byte => out.push(*byte),
        }
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_and_devices_are_defined() {
        let mut ledger = Ledger::default();
        ledger.own(Path::new("a b"), Owner { uid: 5, gid: 6 }, 0o4755);
        ledger.own(Path::new("plain"), Owner::default(), 0o644);
        ledger.device(Path::new("d/\"n\\ull"), Owner::default(), 0o666, Device { block: false, major: 1, minor: 3 });
        ledger.own(Path::new(""), Owner { uid: 1, gid: 2 }, 0o555);
        ledger.own(Path::new("line\nbreak"), Owner { uid: 1, gid: 1 }, 0o644);
        let definitions = ledger.definitions(|_, owner, _| owner != Owner::default());
        let lines = String::from_utf8(definitions.lines).unwrap();
        assert_eq!(lines, "\"a b\" m 4755 5 6\n\"d/\\\"n\\\\ull\" c 666 0 0 1 3\n");
        assert_eq!(definitions.root, Some((Owner { uid: 1, gid: 2 }, 0o555)));
        assert_eq!(definitions.words, ["\"line\nbreak\" m 644 1 1"]);
    }

    #[test]
    fn what_is_forgotten_is_what_is_below_and_nothing_beside() {
        let mut ledger = Ledger::default();
        let null = Device { block: false, major: 1, minor: 3 };
        for path in ["d", "d/a", "d/a/null", "d.x", "d-x/y", "e"] {
            ledger.device(Path::new(path), Owner::default(), 0o666, null);
        }
        assert_eq!(ledger.devices_in(Path::new("d")), ["a"]);
        assert_eq!(ledger.devices_in(Path::new("")), ["d", "d.x", "e"]);
        ledger.forget(Path::new("d"));
        assert!(!ledger.is_device(Path::new("d/a/null")) && !ledger.is_device(Path::new("d")));
        assert!(["d.x", "d-x/y", "e"].iter().all(|path| ledger.is_device(Path::new(path))));
        ledger.link(Path::new("e"), Path::new("f"));
        ledger.link(Path::new("none"), Path::new("e"));
        assert!(ledger.is_device(Path::new("f")) && !ledger.is_device(Path::new("e")));
    }
}
