//! Mounts a root whose changes are kept in a directory of the user: its `upper` is the overlay's upper layer, and its
//! `work` the kernel's work directory.
//!
//! The kernel uses the mounter's credentials for both, for as long as the mount is used. So the mount is made with few
//! privileges beyond the user's ([`sys::with_overlay_rights`]): an image must not create files there that the user
//! could not. But CAP_DAC_OVERRIDE is among these privileges, and the first thing that the kernel does is to empty its
//! work directory (fs/overlayfs/super.c, `ovl_workdir_create`). So the work directory must be empty for certain: it is
//! made here, below a directory that only root may enter, and given to the user after the mount. The work directory of
//! the previous mount is removed before, with the user's credentials.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Identity};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, RenameFlags};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag};
use nix::unistd::UnlinkatFlags;

use super::root::{READ_AND_WRITE, by_descriptor, make_directory, overlay_context, overlay_refused, write_into};

/// Names in the user's directory.
const UPPER: &str = "upper";
const WORK: &str = "work";
/// File whose lock keeps other containers out while one is mounted.
const LOCK: &str = ".coracle.lock";
/// Number of tries for a directory that another process is mounting, each after 10 ms.
const LOCK_TRIES: u32 = 300;
/// Limits on the removal of the previous `work`: depth of directories, and number of names.
const MAX_DEPTH: u32 = 8;
const MAX_NAMES: u32 = 100_000;

/// Lock on a kept overlay's directory, held until it is dropped, because checking that no other overlay uses it and
/// mounting it are two steps. The file belongs to the user and only they may open it, since flock(2) needs only an open
/// file.
struct OverlayLock {
    _file: Flock<File>,
}

impl OverlayLock {
    /// Takes the lock. EBUSY if another process keeps it; EPERM if the file is not the user's.
    fn take(directory: &OwnedFd, identity: &Identity) -> sys::Result<Self> {
        let failed = |errno| sys::Error::new(format!("open({LOCK:?})"), errno);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        let open = || nix::fcntl::openat(directory, LOCK, flags, mode).map_err(failed);
        let mut file = File::from(sys::with_fs_identity(identity, open)??);
        let stat = stat(&file)?;
        let regular = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        if !regular || stat.st_uid != identity.uid || stat.st_mode & 0o077 != 0 {
            return Err(failed(Errno::EPERM));
        }
        for _ in 0..LOCK_TRIES {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self { _file: lock }),
                Err((back, Errno::EWOULDBLOCK)) => file = back,
                Err((_, errno)) => return Err(sys::Error::new(format!("flock({LOCK:?})"), errno)),
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err(sys::Error::new(format!("flock({LOCK:?})"), Errno::EBUSY))
    }
}

/// Mounts an overlay over `lower` that writes into `directory`, which is open on `path`. The user must own it, `upper`,
/// and the remains of `work`.
pub fn mount(
    lower: &[BorrowedFd<'_>],
    path: &Path,
    directory: &OwnedFd,
    identity: &Identity,
) -> Result<OwnedFd, Refusal> {
    let shown = path.display().to_string();
    let refusal = |error: &sys::Error| match error.errno() {
        Errno::ENODEV => overlay_refused("--container-overlay", error),
        Errno::EBUSY => Refusal::new(Kind::Bind, &shown, "is written to by another container on this node")
            .hint("give each step that runs at the same time a directory of its own"),
        Errno::EACCES | Errno::EPERM => {
            Refusal::new(Kind::Bind, &shown, "cannot be used as an overlay: permission denied").hint("it must be yours")
        }
        Errno::EINVAL | Errno::EOPNOTSUPP | Errno::EREMOTE => {
            Refusal::new(Kind::Bind, &shown, format!("its file system cannot keep an overlay: {error}"))
                .hint("use a directory on a disk of the node")
        }
        _ => Refusal::new(Kind::Bind, &shown, error.to_string()),
    };
    let ready = (|| {
        owned(directory, identity)?;
        let upper = sys::with_fs_identity(identity, || own_directory(directory, UPPER))??;
        owned(&upper, identity)?;
        let lock = OverlayLock::take(directory, identity)?;
        Ok((upper, lock, Fresh::make(directory)?))
    })();
    let (upper, _lock, fresh) = ready.map_err(|error| refusal(&error))?;
    let mount = |index: bool| {
        sys::with_overlay_rights(identity, || {
            let context = overlay_context(lower)?;
            write_into(&context, &upper, &fresh.work)?;
            if index {
                context.string(c"index", "on")?;
            }
            context.mount(READ_AND_WRITE)
        })?
    };
    // The kernel refuses a directory that another overlay of this node writes to only with an index. But with an index
    // it also requires the same lower mounts as the first time (ESTALE), and these are always new. So a trial mount
    // with an index comes first. It must be gone before the real mount, which otherwise would not mark the directory as
    // in use. The other overlay's `work` stays untouched until the trial has succeeded.
    if let Err(error) = mount(true).map(drop)
        && error.errno() == Errno::EBUSY
    {
        fresh.discard(identity);
        return Err(refusal(&error));
    }
    let removed = sys::with_fs_identity(identity, || remove(directory.as_fd(), WORK.as_ref(), 0, &mut 0));
    if let Err(error) = removed.and_then(|removed| removed) {
        fresh.discard(identity);
        return Err(match error.errno() {
            Errno::EACCES | Errno::EPERM | Errno::ENOTEMPTY | Errno::EMFILE => Refusal::new(
                Kind::Bind,
                format!("{shown}/{WORK}"),
                format!("cannot be emptied with your rights: {error}"),
            )
            .hint("an overlay needs it empty; move it away if something of others' is in it"),
            _ => refusal(&error),
        });
    }
    let mounted = fresh.move_to(directory, identity).and_then(|()| mount(false));
    let done = mounted.and_then(|root| fresh.give(identity).map(|()| root));
    done.map_err(|error| {
        fresh.discard(identity);
        refusal(&error)
    })
}

/// A work directory that only root can have filled.
struct Fresh<'a> {
    directory: &'a OwnedFd,
    /// Parent directory of the work directory, by its name in the user's directory. The user may rename another one to
    /// it at any time.
    name: CString,
    around: OwnedFd,
    work: OwnedFd,
}

impl<'a> Fresh<'a> {
    /// Creates it. The user may replace any name in their directory, so the opened directory is checked: in a directory
    /// of root with mode 0700, whichever it is, only root can have made `work`.
    fn make(directory: &'a OwnedFd) -> sys::Result<Self> {
        let mut random = [0u8; 16];
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
        read.map_err(|cause| sys::Error::from_io("read(\"/dev/urandom\")", &cause))?;
        let name = format!(".coracle.{:032x}", u128::from_ne_bytes(random));
        let only_ours = Mode::from_bits_truncate(0o700);
        make_directory(directory.as_fd(), Path::new(&name), only_ours)?;
        let around = open_directory(directory, &name)?;
        let found = stat(&around)?;
        if found.st_uid != nix::unistd::geteuid().as_raw() || found.st_mode & 0o777 != 0o700 {
            return Err(sys::Error::new(format!("fstat({name:?})"), Errno::EPERM));
        }
        make_directory(around.as_fd(), Path::new(WORK), only_ours)?;
        let work = open_directory(&around, WORK)?;
        let name = CString::new(name).map_err(|_| sys::Error::new("mkdirat()".to_owned(), Errno::EINVAL))?;
        Ok(Self { directory, name, around, work })
    }

    /// Moves it to its name in the user's directory, and removes its parent directory.
    fn move_to(&self, directory: &OwnedFd, identity: &Identity) -> sys::Result<()> {
        nix::fcntl::renameat2(&self.around, WORK, directory, WORK, RenameFlags::RENAME_NOREPLACE)
            .map_err(|errno| sys::Error::new(format!("renameat2({WORK:?})"), errno))?;
        self.unname(identity);
        Ok(())
    }

    /// Gives it to the user with the usual mode: the user could not put anything in it before.
    fn give(&self, identity: &Identity) -> sys::Result<()> {
        nix::unistd::fchown(&self.work, Some(identity.uid.into()), Some(identity.gid.into()))
            .map_err(|errno| sys::Error::new(format!("fchown({WORK:?})"), errno))?;
        nix::sys::stat::fchmod(&self.work, Mode::from_bits_truncate(0o755))
            .map_err(|errno| sys::Error::new(format!("fchmod({WORK:?})"), errno))
    }

    /// Removes it and the kernel's directories in it. If that fails, it is left to the user, whose next start removes
    /// it.
    fn discard(&self, identity: &Identity) {
        for below in ["work", "index"] {
            let _ = nix::unistd::unlinkat(&self.work, below, UnlinkatFlags::RemoveDir);
        }
        let _ = self.give(identity);
        let _ = nix::unistd::unlinkat(&self.around, WORK, UnlinkatFlags::RemoveDir);
        self.unname(identity);
    }

    /// Removes the parent directory with the user's credentials, because the user may have moved another one to its
    /// name.
    fn unname(&self, identity: &Identity) {
        let remove = || nix::unistd::unlinkat(self.directory, self.name.as_c_str(), UnlinkatFlags::RemoveDir);
        let _ = sys::with_fs_identity(identity, remove);
    }
}

fn stat(fd: impl AsFd) -> sys::Result<FileStat> {
    nix::sys::stat::fstat(fd).map_err(|errno| sys::Error::new("fstat()", errno))
}

/// EPERM if it is not the user's.
fn owned(fd: &OwnedFd, identity: &Identity) -> sys::Result<()> {
    let own = stat(fd)?.st_uid == identity.uid;
    own.then_some(()).ok_or_else(|| sys::Error::new("fstat()", Errno::EPERM))
}

fn open_directory(at: impl AsFd, name: &str) -> sys::Result<OwnedFd> {
    sys::open_beneath(at, Path::new(name), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// Opens a directory, which is made if it is missing.
fn own_directory(directory: &OwnedFd, name: &str) -> sys::Result<OwnedFd> {
    match make_directory(directory.as_fd(), Path::new(name), Mode::from_bits_truncate(0o755)) {
        Err(error) if error.errno() != Errno::EEXIST => Err(error),
        _ => open_directory(directory, name),
    }
}

/// Removes `name` and its content with the file system credentials of this process, which must be the user's. Root's
/// launcher does this, so there are limits: ENOTEMPTY and EMFILE beyond them.
fn remove(at: BorrowedFd<'_>, name: &OsStr, depth: u32, names: &mut u32) -> sys::Result<()> {
    *names += 1;
    let failed = |errno| sys::Error::new(format!("unlinkat({name:?})"), errno);
    if *names > MAX_NAMES {
        return Err(failed(Errno::EMFILE));
    }
    match nix::unistd::unlinkat(at, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTDIR) => return nix::unistd::unlinkat(at, name, UnlinkatFlags::NoRemoveDir).map_err(failed),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) if depth < MAX_DEPTH => {}
        Err(errno) => return Err(failed(errno)),
    }
    // The kernel's own directory has no mode bits.
    let _ = nix::sys::stat::fchmodat(at, name, Mode::from_bits_truncate(0o700), FchmodatFlags::FollowSymlink);
    let directory = sys::open_beneath(at, Path::new(name), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let list = |cause: &std::io::Error| sys::Error::from_io(format!("readdir({name:?})"), cause);
    for entry in std::fs::read_dir(by_descriptor(&directory)).map_err(|cause| list(&cause))? {
        remove(directory.as_fd(), &entry.map_err(|cause| list(&cause))?.file_name(), depth + 1, names)?;
    }
    nix::unistd::unlinkat(at, name, UnlinkatFlags::RemoveDir).map_err(failed)
}
