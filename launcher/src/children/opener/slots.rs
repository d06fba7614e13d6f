//! Limit on the number of openers of one user on this node.
//!
//! A user's file system that does not answer keeps the process that opens a file on it in uninterruptible sleep, long
//! after its step was refused. Each of these processes holds a lock (fcntl(2), F_OFD_SETLK) on one byte of a file of
//! root. The kernel releases the lock when the process has ended. Each user has their own file: a process that an image
//! has taken over could lock all of the file that it holds.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal};
use coracle::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Directory of root on each node, with a lock file for each user, named by the user id. The files stay empty: a lock
/// may lie beyond the end of the file.
const DIRECTORY: &str = "/run/coracle/opener-slots";
/// Limit on the openers of one user at a time. A node starts fewer steps of a user at once.
pub const LIMIT: u32 = 256;

/// Slot of one opener of a user. It is free again when the last process that holds its descriptor ends.
#[derive(Debug)]
pub struct Slot(File);

impl Slot {
    /// Takes a free slot of the user `uid`.
    pub fn take(uid: u32) -> Result<Self, Refusal> {
        Self::take_in(Path::new(DIRECTORY), uid)
    }

    fn take_in(directory: &Path, uid: u32) -> Result<Self, Refusal> {
        let path: PathBuf = directory.join(uid.to_string());
        let open = || File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let opened = open().or_else(|_| {
            std::fs::DirBuilder::new().mode(0o755).recursive(true).create(directory)?;
            open()
        });
        let failed = |call: &str, errno: Errno| {
            Refusal::system(path.display().to_string(), &sys::Error::new(call.to_owned(), errno))
        };
        let file = opened.map_err(|cause| {
            failed("open(O_RDWR|O_CREAT)", Errno::from_raw(cause.raw_os_error().unwrap_or(libc::EIO)))
        })?;
        for index in 0..LIMIT {
            let lock = libc::flock { l_type: WRITE, l_whence: START, l_start: index.into(), l_len: 1, l_pid: 0 };
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)) {
                Ok(_) => return Ok(Self(file)),
                Err(Errno::EAGAIN | Errno::EACCES) => {}
                Err(errno) => return Err(failed("fcntl(F_OFD_SETLK)", errno)),
            }
        }
        let cause = format!("{LIMIT} processes that open files for you wait on this node");
        Err(Refusal::new(Kind::System, format!("user {uid}"), cause)
            .hint("a file system does not answer: one of your own (fusermount3 -u DIR), or one of the site's"))
    }

    /// Descriptor that holds the lock.
    pub fn file(&self) -> &File {
        &self.0
    }
}

/// F_WRLCK and SEEK_SET, in the types of `struct flock`.
const WRITE: libc::c_short = 1;
const START: libc::c_short = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_can_pass_the_directories_that_the_first_opener_makes() {
        use std::os::unix::fs::PermissionsExt;
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("coracle/opener-slots");
        let slot = Slot::take_in(&directory, 7).unwrap();
        // The socket of the store is in the upper one.
        for (path, wanted) in [(directory.parent().unwrap(), 0o755), (&directory, 0o755), (&directory.join("7"), 0o600)]
        {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, wanted, "{}", path.display());
        }
        drop(slot);
    }

    #[test]
    fn a_user_has_no_more_slots_than_the_limit_and_others_have_theirs() {
        let directory = tempfile::tempdir().unwrap();
        let take = |uid| Slot::take_in(directory.path(), uid);
        let mut held: Vec<Slot> = (0..LIMIT).map(|_| take(7).unwrap()).collect();
        let refusal = take(7).unwrap_err();
        assert_eq!(refusal.line(), "coracle: user 7: 256 processes that open files for you wait on this node [system]");
        take(8).unwrap();
        take(6).unwrap();
        // A copy of the descriptor, such as a child process has, keeps the slot.
        let copy = held[9].file().try_clone().unwrap();
        held.remove(9);
        assert!(take(7).is_err());
        drop(copy);
        take(7).unwrap();
    }
}
