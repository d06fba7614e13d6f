//! Reads the state of a file, to tell later if it has changed.

use std::ffi::{CStr, CString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use super::{Error, Result, check};

/// State of a file (statx(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    /// Device number, and the id of the mount through which the file was reached: a device may get another file system.
    pub device: (u32, u32, u64),
    /// Inode number.
    pub inode: u64,
    /// Type and mode.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last modification, in nanoseconds since the epoch.
    pub modified: i128,
    /// Time of the last change of content or metadata.
    pub changed: i128,
}

impl FileState {
    /// State of the file that `path` leads to; of a link itself unless `follow`.
    ///
    /// With `fresh`, a network file system asks its server (AT_STATX_FORCE_SYNC), as it does when a file is opened: its
    /// cache of attributes may be a minute old (nfs(5), acregmax).
    pub fn of(path: &Path, follow: bool, fresh: bool) -> Result<Self> {
        let call = || format!("statx({path:?})");
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::new(call(), Errno::EINVAL))?;
        let sync = if fresh { libc::AT_STATX_FORCE_SYNC } else { libc::AT_STATX_SYNC_AS_STAT };
        let flags = sync | if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        let mask = libc::STATX_BASIC_STATS | libc::STATX_MNT_ID;
        let found = statx(libc::AT_FDCWD, &name, flags, mask, call)?;
        let nanoseconds =
            |time: libc::statx_timestamp| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        Ok(Self {
            device: (found.stx_dev_major, found.stx_dev_minor, found.stx_mnt_id),
            inode: found.stx_ino,
            mode: found.stx_mode.into(),
            size: found.stx_size,
            modified: nanoseconds(found.stx_mtime),
            changed: nanoseconds(found.stx_ctime),
        })
    }

    /// True for a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// Attributes of `path` below `directory` (statx(2)).
pub(super) fn statx(
    directory: RawFd,
    path: &CStr,
    flags: libc::c_int,
    mask: libc::c_uint,
    call: impl FnOnce() -> String,
) -> Result<libc::statx> {
    // SAFETY: statx is a structure of integers, for which zeros are valid.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated, and the kernel writes into `found` alone.
    let result = unsafe { libc::statx(directory, path.as_ptr(), flags, mask, &raw mut found) };
    check(result.into(), call)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_is_that_of_stat() {
        let top = tempfile::tempdir().unwrap();
        let (file, link) = (top.path().join("file"), top.path().join("link"));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        let (known, found) = (file.metadata().unwrap(), FileState::of(&link, true, true).unwrap());
        assert_eq!((found.inode, found.mode, found.size), (known.ino(), known.mode(), 4));
        assert_eq!(found.changed, i128::from(known.ctime()) * 1_000_000_000 + i128::from(known.ctime_nsec()));
        assert_eq!(found.modified, i128::from(known.mtime()) * 1_000_000_000 + i128::from(known.mtime_nsec()));
        assert!(!found.is_directory() && FileState::of(top.path(), true, false).unwrap().is_directory());
        let itself = FileState::of(&link, false, false).unwrap();
        assert_eq!((itself.inode, itself.device), (link.symlink_metadata().unwrap().ino(), found.device));
        assert_ne!(FileState::of(Path::new("/proc"), true, true).unwrap().device.2, found.device.2);
        assert_eq!(FileState::of(&top.path().join("none"), true, true).unwrap_err().errno(), Errno::ENOENT);
        assert_eq!(FileState::of(Path::new("a\0b"), true, true).unwrap_err().errno(), Errno::EINVAL);
    }
}
