//! Opens, enters and makes mount namespaces (mount_namespaces(7)).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;

use super::{Error, Result, check, show};

/// `_IO(0xb7, 0x1)` of linux/nsfs.h.
const NS_GET_USERNS: libc::c_ulong = 0xb701;

/// A mount namespace, held by its file under /proc. It lives as long as the descriptor does.
#[derive(Debug)]
pub struct MountNamespace {
    fd: OwnedFd,
}

impl MountNamespace {
    /// Opens the namespace of the calling thread.
    pub fn current() -> Result<Self> {
        let path = "/proc/thread-self/ns/mnt";
        let file = File::open(path).map_err(|cause| Error::from_io(format!("open({path:?})"), &cause))?;
        Ok(Self { fd: file.into() })
    }

    /// Opens the namespace of a process, whose directory in /proc is open. `None` if a user made it. A namespace that
    /// belongs to the current user namespace was made by a process that had CAP_SYS_ADMIN there (ioctl_nsfs(2),
    /// NS_GET_USERNS).
    pub fn of_process(process: impl AsFd) -> Result<Option<Self>> {
        let process = process.as_fd();
        // A magic link of /proc, which has no path: only plain openat(2) follows it.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(process, "ns/mnt", flags, nix::sys::stat::Mode::empty())
            .map_err(|errno| Error::new(format!("openat({}, \"ns/mnt\")", show(process)), errno))?;
        // SAFETY: NS_GET_USERNS takes no argument and returns a new descriptor or -1.
        let owner = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS) };
        let owner = match check(owner.into(), || "ioctl(ns/mnt, NS_GET_USERNS)".into()) {
            // SAFETY: the call has just made this descriptor.
            Ok(_) => unsafe { OwnedFd::from_raw_fd(owner) },
            // The owner is no ancestor of the current user namespace, and so cannot be that namespace.
            Err(error) if error.errno() == nix::errno::Errno::EPERM => return Ok(None),
            Err(error) => return Err(error),
        };
        let own = "/proc/self/ns/user";
        let own = File::open(own).map_err(|cause| Error::from_io(format!("open({own:?})"), &cause))?;
        let ours = Self { fd: owner }.is(&Self { fd: own.into() })?;
        Ok(ours.then_some(Self { fd }))
    }

    /// Takes a descriptor that came over a socket. setns(2) itself checks that it is a mount namespace.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// True if both are the same namespace: each has one nsfs inode (namespaces(7)).
    pub fn is(&self, other: &Self) -> Result<bool> {
        let stat = |ns: &Self| nix::sys::stat::fstat(&ns.fd).map_err(|errno| Error::new("fstat(ns/mnt)", errno));
        let (this, that) = (stat(self)?, stat(other)?);
        Ok((this.st_dev, this.st_ino) == (that.st_dev, that.st_ino))
    }
}

impl AsFd for MountNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Moves the calling thread into `namespace`; its root and working directory become that namespace's root.
pub fn enter_mount_namespace(namespace: impl AsFd) -> Result<()> {
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS).map_err(|errno| Error::new("setns(CLONE_NEWNS)", errno))
}

/// The inode of the user namespace that the kernel starts with (linux/nsfs.h, USER_NS_INIT_INO).
const FIRST_USER_NAMESPACE: u64 = 0xeffffffd;

/// True in the first user namespace, where root is the machine's own root (user_namespaces(7)).
pub fn in_first_user_namespace() -> Result<bool> {
    let path = "/proc/self/ns/user";
    let found = nix::sys::stat::stat(path).map_err(|errno| Error::new(format!("stat({path:?})"), errno))?;
    Ok(found.st_ino == FIRST_USER_NAMESPACE)
}

/// Moves this process into a user namespace of its own and a mount namespace that belongs to it. It has every
/// capability there. Its user and primary group keep their numbers, and no other ids are mapped
/// (user_namespaces(7), "User and group ID mappings"). No ids can be changed there: setgroups(2) is denied.
///
/// EPERM and EACCES: the kernel's configuration, a security module, or a chroot around this process. ENOSPC: the limit
/// user.max_user_namespaces. EINVAL: the kernel has none, or the process has threads.
pub fn enter_user_namespace() -> Result<()> {
    enter_user_namespace_as(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// Like [`enter_user_namespace`]; user and primary group have these numbers in the namespace.
pub(super) fn enter_user_namespace_as(inside_uid: u32, inside_gid: u32) -> Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| Error::new("unshare(CLONE_NEWUSER|CLONE_NEWNS)", errno))?;
    for (path, text) in [
        // Before the group map: an unprivileged process may not write that one otherwise.
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{inside_uid} {uid} 1")),
        ("/proc/self/gid_map", format!("{inside_gid} {gid} 1")),
    ] {
        std::fs::write(path, &text).map_err(|cause| Error::from_io(format!("write({path:?}, {text:?})"), &cause))?;
    }
    Ok(())
}

/// Gives the calling process a copy of its mount namespace.
pub fn unshare_mount_namespace() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| Error::new("unshare(CLONE_NEWNS)", errno))
}
