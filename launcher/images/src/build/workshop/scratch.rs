//! Holds the directory of a workshop, and removes those that earlier builds left.
//!
//! A build that is killed (SIGKILL, out of memory) cannot remove its directory. The next build does: a process that
//! works in such a directory holds a lock on it (flock(2)), which the kernel releases after the last such process.
//!
//! Locks hold on one host, but several may share the file system of a directory. So its name has the start of the boot
//! id, and a build removes only directories of its own host since its last boot.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use coracle::report::Refusal;
use coracle::sys;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::sys::wait::WaitStatus;

use crate::output::unwritable;

/// Random number of this boot of the host (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Number of its digits in a name.
const DIGITS: usize = 8;
/// Number of directories that are tried: each could be swept before it is locked.
const TRIES: u32 = 10;

/// Directory of a workshop, locked as long as a process works in it.
pub struct Scratch {
    path: PathBuf,
    /// Lock; `None` on file systems without locks, where nothing is swept.
    _lock: Option<Flock<File>>,
}

/// Result of an attempt to lock a directory.
enum Locked {
    /// No other process has it, and it still exists.
    Held(Flock<File>),
    /// Another process works in it, or it does not exist.
    Busy,
    /// The file system has no locks.
    Unsupported,
}

impl Scratch {
    /// Makes a directory in CORACLE_TMPDIR, TMPDIR, or /tmp: on a disk of this host, if there is one.
    pub fn new() -> Result<Self, Refusal> {
        let base = coracle_orders::place::scratch();
        let refuse = |error: &std::io::Error| {
            unwritable(&base.display().to_string(), error)
                .hint("CORACLE_TMPDIR names the directory in which images are made")
        };
        let base = base.canonicalize().map_err(|error| refuse(&error))?;
        let template = base.join(format!("{}XXXXXX", prefix()));
        for _ in 0..TRIES {
            let path = nix::unistd::mkdtemp(&template).map_err(|errno| refuse(&errno.into()))?;
            match lock(&path) {
                Locked::Held(lock) => return Ok(Self { path, _lock: Some(lock) }),
                Locked::Unsupported => return Ok(Self { path, _lock: None }),
                // Another build's sweep was faster.
                Locked::Busy => {}
            }
        }
        Err(refuse(&Errno::EBUSY.into()))
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directories beside it, of the same user and host, in which no process works.
    pub fn sweep_others(&self) {
        let Some(base) = self.path.parent() else { return };
        // Where other users can rename a directory, the path could lead to another one than the one that was checked.
        let trusted = base.metadata().is_ok_and(|found| found.mode() & 0o022 == 0 || found.mode() & 0o1000 != 0);
        let Ok(entries) = base.read_dir() else { return };
        for entry in entries.flatten().filter(|_| trusted) {
            let (path, name) = (entry.path(), entry.file_name());
            if !is_ours(&name) || path == self.path {
                continue;
            }
            if let Locked::Held(_lock) = lock(&path) {
                // Directories that this process cannot remove stay for a build that can.
                let _ = remove(&path);
            }
        }
    }

    /// Removes the directory and its contents, in a process with the privileges of its maker.
    pub fn remove(&self, namespace: Option<File>) {
        let path = &self.path;
        let cleaner = sys::fork(|| {
            if let Some(namespace) = namespace {
                // Without the namespace, files of other owners stay.
                let _ = nix::sched::setns(namespace, CloneFlags::CLONE_NEWUSER);
            }
            u8::from(remove(path).is_err())
        });
        let done = cleaner.and_then(sys::Child::wait);
        if !matches!(done, Ok(WaitStatus::Exited(_, 0))) {
            eprintln!("coracle: {}: could not be removed", path.display());
        }
    }
}

/// Prefix of the names on this host until its next boot.
fn prefix() -> String {
    let boot = std::fs::read_to_string(BOOT).unwrap_or_default();
    let digits: String = boot.chars().filter(char::is_ascii_hexdigit).take(DIGITS).collect();
    format!("coracle-{digits}-")
}

/// True if mkdtemp(3) made `name` from [`prefix`].
fn is_ours(name: &OsStr) -> bool {
    let prefix = prefix();
    prefix.len() > "coracle--".len()
        && name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix))
            .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Locks the directory `path`, if this user owns it.
fn lock(path: &Path) -> Locked {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let Ok(directory) = nix::fcntl::open(path, flags, Mode::empty()) else { return Locked::Busy };
    let directory = File::from(directory);
    let own = nix::unistd::geteuid().as_raw();
    if !directory.metadata().is_ok_and(|found| found.uid() == own) {
        return Locked::Busy;
    }
    let lock = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => return Locked::Busy,
        Err(_) => return Locked::Unsupported,
    };
    // The process that had the lock before may have removed it.
    match (nix::sys::stat::fstat(lock.as_fd()), nix::sys::stat::lstat(path)) {
        (Ok(held), Ok(there)) if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino) => Locked::Held(lock),
        _ => Locked::Busy,
    }
}

/// Removes a tree, also where its directories forbid it.
fn remove(path: &Path) -> std::io::Result<()> {
    let first = std::fs::remove_dir_all(path);
    if first.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
        open_up(path)?;
        return std::fs::remove_dir_all(path);
    }
    first
}

fn open_up(directory: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(directory, PermissionsExt::from_mode(0o700))?;
    for entry in directory.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_builds_have_left_only_what_nobody_holds_is_swept() {
        let top = tempfile::tempdir().unwrap();
        let base = top.path().canonicalize().unwrap();
        std::fs::set_permissions(&base, PermissionsExt::from_mode(0o1777)).unwrap();
        let make = |name: String| {
            let path = base.join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("file"), "").unwrap();
            path
        };
        let (left, held) = (make(format!("{}aaaaaa", prefix())), make(format!("{}bbbbbb", prefix())));
        let others =
            ["coracle-01234567-cccccc", "coracle-dddddd", "coracle-making.eeeeee"].map(|name| make(name.into()));
        let link = base.join(format!("{}ffffff", prefix()));
        std::os::unix::fs::symlink(&others[0], &link).unwrap();
        let Locked::Held(_lock) = lock(&held) else { panic!() };
        let path = make(format!("{}gggggg", prefix()));
        let Locked::Held(own) = lock(&path) else { panic!() };
        let scratch = Scratch { path: path.clone(), _lock: Some(own) };
        scratch.sweep_others();
        assert!(!left.exists() && held.exists() && path.exists() && link.exists());
        assert!(others.iter().all(|path| path.exists()));
        drop(_lock);
        // Where other users may rename files, nothing is removed.
        std::fs::set_permissions(&base, PermissionsExt::from_mode(0o777)).unwrap();
        scratch.sweep_others();
        assert!(held.exists());
        std::fs::set_permissions(&base, PermissionsExt::from_mode(0o755)).unwrap();
        scratch.sweep_others();
        assert!(!held.exists() && path.exists());
    }

    #[test]
    fn directories_that_forbid_it_are_removed_too() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("a");
        std::fs::create_dir_all(path.join("b/c")).unwrap();
        std::fs::write(path.join("b/c/d"), "").unwrap();
        std::fs::set_permissions(path.join("b"), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }
}
