//! Makes mounts that show other owners than the file system has (mount_setattr(2), MOUNT_ATTR_IDMAP).

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use super::mount::{MountAttr, mount_setattr};
use super::process::fork_in_user_namespace;
use super::{Error, Identity, Result};

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
/// Time after which the child process of a new namespace ends by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// A map of owners for mounts: root's files show as a user's, that user's as root's, and all others as they are.
///
/// A map is one to one (user_namespaces(7)), so root's files cannot become the user's while the user's stay their own.
#[derive(Debug)]
pub struct OwnerMap {
    /// A user namespace that exists for its maps only: no process is in it.
    namespace: OwnedFd,
}

impl OwnerMap {
    /// Makes the map, which takes a child process and CAP_SYS_ADMIN. ENOSPC: the limit user.max_user_namespaces.
    pub fn swap_root_and(identity: &Identity) -> Result<Self> {
        let namespace = user_namespace(&swapped(identity.uid), &swapped(identity.gid))?;
        Ok(Self { namespace })
    }

    /// Applies this map to the detached mount `tree`. EINVAL: the kernel does not support it, or the file system does
    /// not (squashfs before Linux 6.2, erofs before 5.19, overlay and most FUSE servers never).
    ///
    /// Never for a mount of a file system that the node has as well: the user would become the owner of root's files.
    pub fn show_in(&self, tree: impl AsFd) -> Result<()> {
        let attr = MountAttr {
            attr_set: MOUNT_ATTR_IDMAP,
            userns_fd: u64::from(self.namespace.as_raw_fd().unsigned_abs()),
            ..MountAttr::default()
        };
        mount_setattr(tree, 0, &attr, || "MOUNT_ATTR_IDMAP".into())
    }
}

/// Returns the lines of a map (user_namespaces(7)): number on disk, number shown, count.
fn swapped(id: u32) -> String {
    let last = u32::MAX - 1;
    let mut lines = Vec::new();
    let mut line = |from: u32, to: u32, count: u32| {
        if count > 0 {
            lines.push(format!("{from} {to} {count}"));
        }
    };
    if id == 0 {
        line(0, 0, last);
    } else {
        line(0, id, 1);
        line(1, 1, id - 1);
        line(id, 0, 1);
        line(id.saturating_add(1), id.saturating_add(1), last.saturating_sub(id));
    }
    lines.join("\n")
}

/// Returns a user namespace with these maps. Its first process, a child process, has ended once this returns.
fn user_namespace(uids: &str, gids: &str) -> Result<OwnedFd> {
    let child = fork_in_user_namespace(|| {
        // Long enough for the maps, and limited in case this process is left alone.
        std::thread::sleep(PATIENCE);
        0
    })?;
    let directory = format!("/proc/{}", child.id());
    for (name, map) in [("uid_map", uids), ("gid_map", gids)] {
        let path = format!("{directory}/{name}");
        std::fs::write(&path, map).map_err(|cause| Error::from_io(format!("write({path:?})"), &cause))?;
    }
    let path = format!("{directory}/ns/user");
    let namespace = File::open(&path).map_err(|cause| Error::from_io(format!("open({path:?})"), &cause))?;
    child.kill()?;
    Ok(namespace.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_user_change_places_and_nobody_else() {
        assert_eq!(swapped(0), format!("0 0 {}", u32::MAX - 1));
        assert_eq!(swapped(1), format!("0 1 1\n1 0 1\n2 2 {}", u32::MAX - 2));
        assert_eq!(swapped(2001), format!("0 2001 1\n1 1 2000\n2001 0 1\n2002 2002 {}", u32::MAX - 2002));
    }
}
