//! Whose the files of an image are, and its devices: what only root could write down in a file system.
#![forbid(unsafe_code)]

mod changes;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The owner of a file in the image, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// A device of the image, which is no file of the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Of blocks, or else of characters.
    pub block: bool,
    /// Its major number.
    pub major: u32,
    /// Its minor number.
    pub minor: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    owner: Owner,
    mode: u32,
    device: Option<Device>,
}

/// By path from the root, without a slash in front.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Ledger {
    /// Notes whose `path` is, and its permission bits.
    pub fn own(&mut self, path: &Path, owner: Owner, mode: u32) {
        self.entries.insert(path.to_owned(), Entry { owner, mode, device: None });
    }

    /// Notes a device.
    pub fn device(&mut self, path: &Path, owner: Owner, mode: u32, device: Device) {
        self.entries.insert(path.to_owned(), Entry { owner, mode, device: Some(device) });
    }

    /// Forgets `path` and all below it.
    pub fn forget(&mut self, path: &Path) {
        self.forget_below(path);
        self.entries.remove(path);
    }

    /// Forgets all below `path`.
    pub fn forget_below(&mut self, path: &Path) {
        self.entries.retain(|known, _| known == path || !known.starts_with(path));
    }

    /// The definitions that mksquashfs takes (its -pf): those of devices, and of files that are not root's or that
    /// `differs` from what the folder has.
    ///
    /// `None` of a name that cannot be written in such a file: one with a line break.
    pub fn definitions(&self, differs: impl Fn(&Path, Owner, u32) -> bool) -> Result<Vec<u8>, PathBuf> {
        let mut out = Vec::new();
        for (path, entry) in &self.entries {
            let Entry { owner: Owner { uid, gid }, mode, device } = *entry;
            let line = match device {
                None if differs(path, entry.owner, mode) => format!(" m {mode:o} {uid} {gid}\n"),
                None => continue,
                Some(Device { block, major, minor }) => {
                    format!(" {} {mode:o} {uid} {gid} {major} {minor}\n", if block { 'b' } else { 'c' })
                }
            };
            out.extend(quoted(path.as_os_str()).ok_or_else(|| path.clone())?);
            out.extend(line.as_bytes());
        }
        Ok(out)
    }
}

/// A name as mksquashfs reads it: in quotation marks, with a backslash before these and before backslashes.
fn quoted(name: &OsStr) -> Option<Vec<u8>> {
    let mut out = vec![b'"'];
    let name = if name.is_empty() { OsStr::new("/") } else { name };
    for byte in name.as_bytes() {
        match byte {
            b'\n' => return None,
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            byte => out.push(*byte),
        }
    }
    out.push(b'"');
    Some(out)
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
        let text = ledger.definitions(|_, owner, _| owner != Owner::default()).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "\"a b\" m 4755 5 6\n\"d/\\\"n\\\\ull\" c 666 0 0 1 3\n");
        ledger.forget(Path::new("d"));
        ledger.own(Path::new("line\nbreak"), Owner { uid: 1, gid: 1 }, 0o644);
        assert_eq!(ledger.definitions(|_, owner, _| owner != Owner::default()), Err("line\nbreak".into()));
    }
}
