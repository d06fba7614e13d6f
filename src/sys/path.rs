//! Resolves paths without a way out of a given root (openat2(2)).

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};

use super::{Error, Result, check, show};

/// Treatment of symbolic links by [`open_in_root`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Links are followed, as if `root` were the root of the whole tree.
    Links,
    /// As `Links`; a mount below `root` ends the look-up with EXDEV.
    LinksOnMount,
    /// Any link ends the look-up with ELOOP.
    NoLinks,
    /// The last component is opened itself even if it is a link; any other link is ELOOP.
    LastIsALink,
}

/// Opens `path` with `root` as its root directory; nothing outside of `root` can be reached.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: OFlag, lookup: Lookup) -> Result<OwnedFd> {
    let root = root.as_fd();
    let (flags, resolve) = match lookup {
        Lookup::Links => (flags, ResolveFlag::empty()),
        Lookup::LinksOnMount => (flags, ResolveFlag::RESOLVE_NO_XDEV),
        Lookup::NoLinks => (flags, ResolveFlag::RESOLVE_NO_SYMLINKS),
        Lookup::LastIsALink => (flags | OFlag::O_NOFOLLOW | OFlag::O_PATH, ResolveFlag::RESOLVE_NO_SYMLINKS),
    };
    openat2(root, path, flags, resolve | ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// Opens `path` below `directory`: no link, no `..` that leaves it, no absolute path.
pub fn open_beneath(directory: impl AsFd, path: &Path, flags: OFlag) -> Result<OwnedFd> {
    openat2(
        directory,
        path,
        flags,
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS,
    )
}

/// Opens a path that a user named, as that user would: links are followed, magic links are not.
///
/// Never blocks on a FIFO and never becomes the controlling terminal.
pub fn open_untrusted(path: &Path, flags: OFlag) -> Result<OwnedFd> {
    openat2(nix::fcntl::AT_FDCWD, path, flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// Opens the file of an O_PATH descriptor again, with the present privileges of this process.
pub fn open_again(file: impl AsFd, flags: OFlag) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    nix::fcntl::open(path.as_str(), flags, nix::sys::stat::Mode::empty())
        .map_err(|errno| Error::new(format!("open({path:?}, {flags:?})"), errno))
}

/// True if this process may open `file`, which may be an O_PATH descriptor, for reading and writing. access(2) checks
/// the device rules of its control group as well (linux/device_cgroup.h, called by fs/namei.c), without a call to a
/// driver.
pub fn may_open(file: impl AsFd) -> Result<bool> {
    let file = file.as_fd();
    let (mode, flags) = (libc::R_OK | libc::W_OK, libc::AT_EMPTY_PATH | libc::AT_EACCESS);
    // SAFETY: the path is NUL-terminated; all else are integers.
    let result = unsafe { libc::syscall(libc::SYS_faccessat2, file.as_raw_fd(), c"".as_ptr(), mode, flags) };
    match check(result, || format!("faccessat2({}, R_OK|W_OK)", show(file))) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.errno(), Errno::EPERM | Errno::EACCES) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Maximum number of tries for a disturbed look-up.
const TRIES: u32 = 128;

fn openat2(directory: impl AsFd, path: &Path, flags: OFlag, resolve: ResolveFlag) -> Result<OwnedFd> {
    let directory = directory.as_fd();
    // openat2 refuses flags that open(2) would ignore, and O_PATH ignores all but a few.
    let flags = if flags.contains(OFlag::O_PATH) {
        flags & (OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)
    } else {
        flags
    };
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    let mut tries = 0;
    loop {
        tries += 1;
        match nix::fcntl::openat2(directory, path, how) {
            // A rename or mount elsewhere on the machine during a look-up with RESOLVE_IN_ROOT (openat2(2)). A file
            // under a write lease gives the same answer for as long as the holder of the lease likes.
            Err(nix::errno::Errno::EAGAIN) if tries < TRIES => {}
            Err(errno) => {
                return Err(Error::new(
                    format!("openat2({}, {path:?}, {flags:?}, {resolve:?})", show(directory)),
                    errno,
                ));
            }
            Ok(fd) => return Ok(fd),
        }
    }
}

/// Returns the target of the symbolic link that `link` is open on (O_PATH|O_NOFOLLOW).
pub fn read_link_at(link: impl AsFd) -> Result<OsString> {
    let link = link.as_fd();
    nix::fcntl::readlinkat(link, OsStr::new(""))
        .map_err(|errno| Error::new(format!("readlinkat({}, \"\")", show(link)), errno))
}

/// Returns the kernel's path of `file` below `directory`, as a hint. [`open_beneath`] has to check that the same inode
/// is there.
pub fn hint_beneath(directory: impl AsFd, file: impl AsFd) -> Option<PathBuf> {
    let (top, path) = (fd_path(directory).ok()?, fd_path(file).ok()?);
    path.strip_prefix(top).ok().map(Path::to_path_buf)
}

/// Returns the kernel's path of `fd`, for messages and as a hint; never to be opened again unchecked.
pub fn fd_path(fd: impl AsFd) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}
