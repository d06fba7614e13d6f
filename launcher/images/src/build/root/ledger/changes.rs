//! Updates the ledger after commands that run in an image.
#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::Ledger;
use crate::build::root::Root;
use crate::sources::archive::Owner;

/// Bits of a mode that are not permissions.
const TYPE: u32 = !0o7777;

/// Attributes that the files of the ledger had on disk.
#[derive(Debug)]
pub struct Before {
    known: Vec<(PathBuf, Option<Found>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    file: (u64, u64),
    owner: Owner,
    mode: u32,
}

impl Root {
    /// Records the attributes on disk before commands run.
    pub fn before(&self) -> Before {
        Before { known: self.ledger.entries.keys().map(|path| (path.clone(), self.found(path))).collect() }
    }

    /// Updates the ledger after the commands. The disk decides about files that were replaced or removed, and about
    /// owners and permissions that were changed.
    pub fn after(&mut self, before: Before) {
        for (path, then) in before.known {
            let now = self.found(&path);
            let gone = path
                .parent()
                .is_some_and(|parent| !self.path().join(parent).symlink_metadata().is_ok_and(|found| found.is_dir()));
            match (then, now) {
                // A device, which is only in the ledger.
                (None, None) if !gone => {}
                (Some(then), Some(now)) if then.file == now.file => self.ledger.correct(&path, then, now),
                _ => {
                    self.ledger.entries.remove(&path);
                }
            }
        }
    }

    fn found(&self, path: &std::path::Path) -> Option<Found> {
        let found = self.path().join(path).symlink_metadata().ok()?;
        let owner = Owner { uid: found.uid(), gid: found.gid() };
        Some(Found { file: (found.dev(), found.ino()), owner, mode: found.mode() & !TYPE })
    }
}

impl Ledger {
    fn correct(&mut self, path: &std::path::Path, then: Found, now: Found) {
        let Some(entry) = self.entries.get_mut(path) else { return };
        if then.owner != now.owner {
            entry.owner = now.owner;
        }
        if then.mode != now.mode {
            entry.mode = now.mode;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::archive::Device;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    #[test]
    fn the_ledger_follows_what_was_changed_and_nothing_else() {
        let top = tempfile::tempdir().unwrap();
        let mut root = Root::create(&top.path().join("root")).unwrap();
        let other = Owner { uid: 5, gid: 6 };
        for name in ["kept", "replaced", "removed", "opened", "directory/device"] {
            root.write(Path::new(name), 0o640, b"x").unwrap();
            root.ledger.own(Path::new(name), other, 0o640);
        }
        let null = Device { block: false, major: 1, minor: 3 };
        root.remove(Path::new("directory/device")).unwrap();
        root.ledger.device(Path::new("directory/device"), other, 0o666, null);
        root.ledger.device(Path::new("null"), other, 0o666, null);
        let before = root.before();
        root.write(Path::new("new"), 0o640, b"x").unwrap();
        root.rename(Path::new("new"), Path::new("replaced")).unwrap();
        root.remove(Path::new("removed")).unwrap();
        std::fs::remove_dir(root.path().join("directory")).unwrap();
        std::fs::set_permissions(root.path().join("opened"), PermissionsExt::from_mode(0o644)).unwrap();
        root.after(before);
        let left: Vec<&str> = root.ledger.entries.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(left, ["kept", "null", "opened"]);
        assert_eq!(root.ledger.entries[Path::new("opened")].mode, 0o644);
        assert_eq!(root.ledger.entries[Path::new("opened")].owner, other);
    }
}
