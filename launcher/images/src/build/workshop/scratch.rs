//! The directory of a workshop, and those that builds before have left.
//!
//! A build that is killed (SIGKILL, out of memory) cannot remove its directory. The next one does: a process that works
//! in such a directory holds a lock on it (flock(2)), which the kernel takes away with the last process that has it.
//!
//! Locks hold on one machine, and a directory may be on a file system of several: a name has the beginning of the boot
//! id in it, and only those of this machine since its start are swept.
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

/// Random number of this start of the machine (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Number of its digits in a name.
const DIGITS: usize = 8;
/// Number of directories that are tried: each could be swept between being made and being locked.
const TRIES: u32 = 10;

/// The directory of a workshop, which is locked as long as a process works in it.
pub struct Scratch {
    path: PathBuf,
    /// None on file systems without locks: there nothing is swept either.
    _lock: Option<Flock<File>>,
}

/// Result of an attempt to lock a directory.
enum Locked {
    /// No other process has it, and it is still there.
    Held(Flock<File>),
    /// A process works in it, or it is gone.
    Busy,
    /// The file system has no locks.
    Unsupported,
}

impl Scratch {
    /// CORACLE_TMPDIR, TMPDIR, or /tmp: on a disk of this machine, if there is one.
    pub fn new() -> Result<Self, Refusal> {
        let base = coracle_orders::place::scratch();
        let refuse = |error: &std::io::Error| {
            unwritable(&base.display().to_string(), error)
                .hint("CORACLE_TMPDIR names the folder in which images are made")
        };
        let base = base.canonicalize().map_err(|error| refuse(&error))?;
        let template = base.join(format!("{}XXXXXX", prefix()));
        for _ in 0..TRIES {
            let path = nix::unistd::mkdtemp(&template).map_err(|errno| refuse(&errno.into()))?;
            match lock(&path) {
                Locked::Held(lock) => return Ok(Self { path, _lock: Some(lock) }),
                Locked::Unsupported => return Ok(Self { path, _lock: None }),
                // A sweeper had it first.
                Locked::Busy => {}
            }
        }
        Err(refuse(&Errno::EBUSY.into()))
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directories beside it, of the same user and machine, that no process works in any more.
    pub fn sweep_others(&self) {
        let Some(base) = self.path.parent() else { return };
        // Where others can give a directory another name, it need not be the one that was looked at.
        let trusted = base.metadata().is_ok_and(|found| found.mode() & 0o022 == 0 || found.mode() & 0o1000 != 0);
        let Ok(entries) = base.read_dir() else { return };
        for entry in entries.flatten().filter(|_| trusted) {
            let (path, name) = (entry.path(), entry.file_name());
            if !is_ours(&name) || path == self.path {
                continue;
            }
            if let Locked::Held(_lock) = lock(&path) {
                // What cannot be removed is left to those who can.
                let _ = remove(&path);
            }
        }
    }

    /// Removes it with all that is in it, by a process that has the rights that its maker had.
    pub fn remove(&self, namespace: Option<File>) {
        let path = &self.path;
        let cleaner = sys::fork(|| {
            if let Some(namespace) = namespace {
                // Without it, there may be files of others, which stay.
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

/// Beginning of the names on this machine, until it starts again.
fn prefix() -> String {
    let boot = std::fs::read_to_string(BOOT).unwrap_or_default();
    let digits: String = boot.chars().filter(char::is_ascii_hexdigit).take(DIGITS).collect();
    format!("coracle-{digits}-")
}

/// True if `name` is one that mkdtemp(3) has made of [`prefix`].
fn is_ours(name: &OsStr) -> bool {
    let prefix = prefix();
    prefix.len() > "coracle--".len()
        && name
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix))
            .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Locks the directory `path`, if it is this user's.
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
        // Where others may rename what is there, nothing is removed.
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
