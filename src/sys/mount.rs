//! Wraps the mount calls of Linux 5.2 and 5.12: fsopen(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2).
//!
//! Every call works on descriptors. No path is looked up as root, except the fixed "/" and ".".

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};

use super::{Error, Result, check, show};

const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const MOUNT_ATTR_RDONLY: u64 = 0x1;
const MOUNT_ATTR_NOSUID: u64 = 0x2;
const MOUNT_ATTR_NODEV: u64 = 0x4;
const MOUNT_ATTR_NOEXEC: u64 = 0x8;

/// `struct mount_attr` of linux/mount.h, MOUNT_ATTR_SIZE_VER0.
#[repr(C)]
#[derive(Default)]
pub(super) struct MountAttr {
    pub(super) attr_set: u64,
    pub(super) attr_clr: u64,
    pub(super) propagation: u64,
    pub(super) userns_fd: u64,
}

/// The flags of one mount (mount_setattr(2), "attr_set").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// No write, whatever the file system allows.
    pub read_only: bool,
    /// Set-user-ID bits and file capabilities have no effect.
    pub no_suid: bool,
    /// Device nodes cannot be opened.
    pub no_dev: bool,
    /// Programs cannot be executed.
    pub no_exec: bool,
}

impl Attributes {
    fn bits(self) -> u64 {
        let mut bits = 0;
        for (on, bit) in [
            (self.read_only, MOUNT_ATTR_RDONLY),
            (self.no_suid, MOUNT_ATTR_NOSUID),
            (self.no_dev, MOUNT_ATTR_NODEV),
            (self.no_exec, MOUNT_ATTR_NOEXEC),
        ] {
            if on {
                bits |= bit;
            }
        }
        bits
    }
}

/// Propagation of mounts made below a mount (mount_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountPropagation {
    /// Receives the mounts of its source, and passes none back.
    Slave,
    /// Neither receives nor passes on mounts.
    Private,
}

/// A file system that is being configured (fsopen(2)).
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
    filesystem: &'static CStr,
}

impl FsContext {
    /// Opens a context for `filesystem`. ENODEV: the kernel does not know it.
    pub fn open(filesystem: &'static CStr) -> Result<Self> {
        // SAFETY: fsopen reads the NUL-terminated name and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_fsopen, filesystem.as_ptr(), FSOPEN_CLOEXEC) };
        let fd = check(fd, || format!("fsopen({filesystem:?})"))?;
        Ok(Self { fd: owned(fd), filesystem })
    }

    /// Sets a parameter without a value, such as `ro`.
    pub fn flag(&self, key: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None)
    }

    /// Sets `key` to `value`. Of an overlay on a kernel older than 6.5, `lowerdir` is such a string.
    pub fn string(&self, key: &CStr, value: &str) -> Result<()> {
        let text = CString::new(value)
            .map_err(|_| Error::new(format!("fsconfig({:?}, {key:?}, {value:?})", self.filesystem), Errno::EINVAL))?;
        self.config(FSCONFIG_SET_STRING, Some(key), Some(&text))
    }

    /// Makes the superblock and returns its mount, detached from every namespace.
    pub fn mount(self, attributes: Attributes) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: fsmount takes three integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_fsmount, self.fd.as_raw_fd(), FSMOUNT_CLOEXEC, attributes.bits()) };
        Ok(owned(check(fd, || format!("fsmount({:?})", self.filesystem))?))
    }

    fn config(&self, command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>) -> Result<()> {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: key and value are NUL-terminated or null, as each command wants them, and outlive the call.
        let result =
            unsafe { libc::syscall(libc::SYS_fsconfig, self.fd.as_raw_fd(), command, pointer(key), pointer(value), 0) };
        check(result, || match (key, value) {
            (Some(key), Some(value)) => format!("fsconfig({:?}, {key:?}, {value:?})", self.filesystem),
            (Some(key), None) => format!("fsconfig({:?}, {key:?})", self.filesystem),
            _ => format!("fsconfig({:?}, FSCONFIG_CMD_CREATE)", self.filesystem),
        })
        .map_err(|error| self.explain(error))?;
        Ok(())
    }

    /// Adds the message of the file system: one per read(2), ENODATA if there is none.
    fn explain(&self, mut error: Error) -> Error {
        let mut message = [0; 512];
        while let Ok(length @ 1..) = nix::unistd::read(&self.fd, &mut message) {
            // "e squashfs: …": the letter is the severity.
            let text = String::from_utf8_lossy(&message[..length]);
            error.call = format!("{} ({})", error.call, text.trim_end().trim_start_matches(['e', 'w', 'i']).trim());
        }
        error
    }
}

/// A detached copy of the mounts at and below `source` (open_tree(2) with OPEN_TREE_CLONE).
///
/// EINVAL if `source` belongs to another mount namespace than the caller's.
pub fn clone_tree(source: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let source = source.as_fd();
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned();
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: an empty NUL-terminated path with AT_EMPTY_PATH names the descriptor itself.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), c"".as_ptr(), flags) };
    Ok(owned(check(fd, || format!("open_tree({}, OPEN_TREE_CLONE)", show(source)))?))
}

/// Sets flags and propagation of every mount in a detached tree (mount_setattr(2) with AT_RECURSIVE).
///
/// Recursive because a bind of a tree keeps the flags of its submounts. One submount without nosuid would defeat the
/// flag.
pub fn set_attributes(tree: impl AsFd, attributes: Attributes, propagation: MountPropagation) -> Result<()> {
    let attr = MountAttr {
        attr_set: attributes.bits(),
        propagation: match propagation {
            MountPropagation::Slave => libc::MS_SLAVE,
            MountPropagation::Private => libc::MS_PRIVATE,
        },
        ..MountAttr::default()
    };
    mount_setattr(tree, libc::AT_RECURSIVE, &attr, || format!("AT_RECURSIVE, {attributes:?}"))
}

/// Calls mount_setattr on the mount that `tree` is open on; `what` names the setting in messages.
pub(super) fn mount_setattr(
    tree: impl AsFd,
    flags: libc::c_int,
    attr: &MountAttr,
    what: impl FnOnce() -> String,
) -> Result<()> {
    let tree = tree.as_fd();
    // SAFETY: `attr` is a MOUNT_ATTR_SIZE_VER0 structure that outlives the call; its size is passed with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    check(result, || format!("mount_setattr({}, {})", show(tree), what()))?;
    Ok(())
}

/// Attaches a detached mount onto the directory or file that `target` is open on.
///
/// Before Linux 6.15 `target` must itself be attached somewhere in the caller's namespace, else EINVAL.
pub fn move_mount(tree: impl AsFd, target: impl AsFd) -> Result<()> {
    let (tree, target) = (tree.as_fd(), target.as_fd());
    // SAFETY: both paths are empty NUL-terminated strings, and the flags say that the descriptors are meant.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    check(result, || format!("move_mount({}, {})", show(tree), show(target)))?;
    Ok(())
}

/// Makes every mount of this namespace private: no change made here reaches the host.
pub fn make_private() -> Result<()> {
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|errno| Error::new("mount(\"/\", MS_REC|MS_PRIVATE)", errno))
}

/// Makes the mount that `root` is open on the root of this namespace, with the old root stacked on top of it.
///
/// Follow with [`detach_old_root`]. EINVAL where the present root is the initial ramfs, which has no parent
/// mount (pivot_root(2), "EINVAL").
pub fn pivot_to(root: impl AsFd) -> Result<()> {
    let root = root.as_fd();
    nix::unistd::fchdir(root).map_err(|errno| Error::new(format!("fchdir({})", show(root)), errno))?;
    nix::unistd::pivot_root(".", ".").map_err(|errno| Error::new("pivot_root(\".\", \".\")", errno))
}

/// Drops the tree that [`pivot_to`] left on top of the new root.
pub fn detach_old_root() -> Result<()> {
    nix::mount::umount2(".", MntFlags::MNT_DETACH).map_err(|errno| Error::new("umount2(\".\", MNT_DETACH)", errno))?;
    nix::unistd::chdir(Path::new("/")).map_err(|errno| Error::new("chdir(\"/\")", errno))
}

#[allow(clippy::cast_possible_truncation, reason = "the kernel's descriptors fit an int")]
fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: every caller passes the descriptor that a successful system call has just made for it alone.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}
