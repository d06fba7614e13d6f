//! Visits all files of a directory before it is packed.
//!
//! An image contains all files of a directory, or is not made. Times that a squashfs cannot hold are clamped.
#![forbid(unsafe_code)]

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal};
use coracle::sys;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::AccessFlags;

use super::{Root, inside};
use crate::sources::archive::Owner;

/// Permission bits of a mode; its type is above them.
const PERMISSIONS: u32 = 0o7777;

/// Clamps a time to the range of a squashfs: 1970 to 2106.
pub fn clamp(time: i64) -> i64 {
    time.clamp(0, u32::MAX.into())
}

/// Refuses the directory `typed` with the first path that this process cannot read.
///
/// mksquashfs and cp name files in the order in which they meet them, which can change.
pub fn check_readable(typed: &Path) -> Result<(), Refusal> {
    walk(typed, &mut |path, found| {
        if !found.is_file() {
            return Ok(());
        }
        // With the effective ids, as opening it would be.
        nix::unistd::faccessat(nix::fcntl::AT_FDCWD, &typed.join(path), AccessFlags::R_OK, AtFlags::AT_EACCESS)
            .map_err(io::Error::from)
    })
    .map_err(|(path, error)| unreadable(&typed.join(path), &error))
}

/// Refusal of a directory's file that cannot be read.
fn unreadable(path: &Path, error: &io::Error) -> Refusal {
    let reason = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EACCES | Errno::EPERM) => "you may not read it".to_owned(),
        Some(Errno::ENOENT) => "it has vanished meanwhile".to_owned(),
        Some(errno) => errno.desc().to_lowercase(),
        None => error.to_string(),
    };
    let kind = Kind::of_reading(error);
    let refusal = Refusal::new(kind, path.display().to_string(), format!("{reason}, so the image would lack it"));
    match kind {
        Kind::System => refusal,
        _ => refusal
            .hint("build as a user who may read all of the directory, or remove from it what the image does not need"),
    }
}

impl Root {
    /// Clamps the times of files on disk to the range of a squashfs.
    pub fn clamp_times(&self) -> Result<(), Refusal> {
        let top = self.path();
        walk(top, &mut |path, found| {
            let time = clamp(found.mtime());
            if time == found.mtime() {
                return Ok(());
            }
            let time = TimeSpec::new(time, 0);
            let flags = UtimensatFlags::NoFollowSymlink;
            Ok(utimensat(nix::fcntl::AT_FDCWD, &top.join(path), &time, &time, flags)?)
        })
        .map_err(|(path, error)| inside(&path, &sys::Error::from_io("utimensat()", &error)))
    }

    /// Notes clamped times in the ledger, for a directory that must stay as it is.
    pub fn note_times(&mut self) -> Result<(), Refusal> {
        let (top, all_root) = (self.path.clone(), self.all_root);
        let ledger = &mut self.ledger;
        walk(&top, &mut |path, found| {
            if clamp(found.mtime()) != found.mtime() {
                let owner = if all_root { Owner::default() } else { Owner { uid: found.uid(), gid: found.gid() } };
                ledger.own_at(path, owner, found.mode() & PERMISSIONS, clamp(found.mtime()));
            }
            Ok(())
        })
        .map_err(|(path, error)| unreadable(&top.join(path), &error))
    }
}

/// Visits every file of the directory `top`, itself first, each directory by name; passes the path below `top`.
fn walk(
    top: &Path,
    visit: &mut dyn FnMut(&Path, &std::fs::Metadata) -> io::Result<()>,
) -> Result<(), (PathBuf, io::Error)> {
    let found = top.metadata().map_err(|error| (PathBuf::new(), error))?;
    visit(Path::new(""), &found).map_err(|error| (PathBuf::new(), error))?;
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        if !path.as_os_str().is_empty() {
            let found = top.join(&path).symlink_metadata().map_err(|error| (path.clone(), error))?;
            visit(&path, &found).map_err(|error| (path.clone(), error))?;
            if !found.is_dir() {
                continue;
            }
        }
        let read =
            || -> io::Result<Vec<_>> { top.join(&path).read_dir()?.map(|entry| Ok(entry?.file_name())).collect() };
        let mut names = read().map_err(|error| (path.clone(), error))?;
        names.sort_unstable_by(|one, other| other.cmp(one));
        waiting.extend(names.iter().map(|name| path.join(name)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_a_squashfs_cannot_keep_are_clamped_or_noted() {
        let top = tempfile::tempdir().unwrap();
        let mut root = Root::create(&top.path().join("root")).unwrap();
        let set = |name: &str, time: i64| {
            let (path, time) = (root.path().join(name), TimeSpec::new(time, 0));
            utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
        };
        std::fs::create_dir(root.path().join("d")).unwrap();
        for (name, time) in [("old", -315_619_200), ("new", 1_600_000_000), ("d/late", 4_294_967_296)] {
            std::fs::write(root.path().join(name), "").unwrap();
            set(name, time);
        }
        std::os::unix::fs::symlink("gone", root.path().join("link")).unwrap();
        set("link", -1);
        root.all_root = true;
        root.note_times().unwrap();
        let lines = String::from_utf8(root.ledger.definitions(|_, _, _| false).lines).unwrap();
        assert_eq!(lines, "\"d/late\" M 4294967295 644 0 0\n\"link\" M 0 777 0 0\n\"old\" M 0 644 0 0\n");
        root.clamp_times().unwrap();
        let time = |name: &str| root.path().join(name).symlink_metadata().unwrap().mtime();
        assert_eq!((time("old"), time("new"), time("d/late"), time("link")), (0, 1_600_000_000, u32::MAX.into(), 0));
    }
}
