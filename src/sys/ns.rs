//! Mount namespaces (mount_namespaces(7)).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;

use super::{Error, Result};

/// A mount namespace, held by its file under /proc. It lives as long as the descriptor does.
#[derive(Debug)]
pub struct MountNamespace {
    fd: OwnedFd,
}

impl MountNamespace {
    /// The one that the calling thread is in.
    pub fn current() -> Result<Self> {
        let path = "/proc/thread-self/ns/mnt";
        let file = File::open(path).map_err(|cause| Error::from_io(format!("open({path:?})"), &cause))?;
        Ok(Self { fd: file.into() })
    }

    /// Takes a descriptor that came over a socket. That it is a mount namespace is checked by setns(2) itself.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// True when both are the same namespace: one nsfs inode each (namespaces(7)).
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

/// Gives the calling process a copy of its mount namespace.
pub fn unshare_mount_namespace() -> Result<()> {
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).map_err(|errno| Error::new("unshare(CLONE_NEWNS)", errno))
}
