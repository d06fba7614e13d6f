//! Applies whiteouts, which remove files of lower layers. Files of the same layer stay, in any order of the archive.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use coracle::report::Refusal;
use nix::sys::stat::SFlag;

use super::{Applier, errno_of, is};
use crate::build::layer::places::{Found, Place};
use crate::sources::archive::Entry;

/// Prefix of the whiteout of one name (image-spec, layer.md, "Whiteouts").
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// Name of the whiteout of all lower contents of a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Prefix of other names that aufs reserved.
const AUFS: &[u8] = b".wh..wh.";
impl Applier<'_> {
    /// Applies the whiteout `name` in `parent`.
    pub(super) fn whiteout(&mut self, parent: &Path, name: &OsStr, entry: &Entry) -> Result<(), Refusal> {
        if self.fresh.is_none() {
            // There is no layer below.
            return Ok(());
        }
        let directory = match self.directories.find(self.root, parent) {
            Found::Directory(directory) => directory,
            Found::Nothing | Found::Blocked => return Ok(()),
            Found::Wrong(cause) => return Err(self.bad(&entry.path, &cause)),
            Found::Failed(error) => return Err(self.failed(parent, &error.to_string(), error.errno())),
        };
        if name == OsStr::from_bytes(OPAQUE) {
            return self.clear_lower(&directory.path);
        }
        if name.as_bytes().starts_with(AUFS) {
            return Ok(());
        }
        let gone = OsStr::from_bytes(&name.as_bytes()[WHITEOUT.len()..]);
        if gone.is_empty() || gone == "." || gone == ".." {
            return Err(self.bad(&entry.path, "says that nothing is gone"));
        }
        let place = Place { path: directory.join(gone), name: gone.to_owned(), directory };
        self.clear_if_lower(&place)
    }

    /// Removes `place` as far as it belongs to lower layers.
    fn clear_if_lower(&mut self, place: &Place) -> Result<(), Refusal> {
        if !self.fresh.as_ref().is_some_and(|fresh| fresh.contains(&place.path)) {
            return self.clear(place);
        }
        match self.stat(place)? {
            Some(found) if is(&found, SFlag::S_IFDIR) => self.clear_lower(&place.path),
            _ => Ok(()),
        }
    }

    /// Removes files of lower layers in the directory `path`, which has no links in it.
    fn clear_lower(&mut self, path: &Path) -> Result<(), Refusal> {
        let Found::Directory(directory) = self.directories.find(self.root, path) else { return Ok(()) };
        let read = || -> io::Result<BTreeSet<_>> {
            self.root.path().join(path).read_dir()?.map(|entry| Ok(entry?.file_name())).collect()
        };
        let mut names = read().map_err(|error| self.failed(path, "readdir()", errno_of(&error)))?;
        names.extend(self.root.ledger.devices_in(path));
        for name in names {
            self.clear_if_lower(&Place { path: directory.join(&name), name, directory: directory.clone() })?;
        }
        Ok(())
    }

    /// Notes that this layer has `path`.
    pub(super) fn mark(&mut self, path: &Path) {
        if let Some(fresh) = &mut self.fresh {
            for path in path.ancestors() {
                if !fresh.insert(path.to_owned()) {
                    break;
                }
            }
        }
    }
}
