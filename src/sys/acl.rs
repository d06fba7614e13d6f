//! Writes access control lists (acl(5)) in the kernel's form: linux/posix_acl_xattr.h.

use std::os::fd::{AsFd, AsRawFd};

use super::{Result, check, show};

/// The version of the form; there is no other.
const VERSION: u32 = 2;
/// The tags of an entry (linux/posix_acl.h), in the order in which the kernel wants them.
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// The id of entries that have none.
const NOBODY: u32 = u32::MAX;

/// Sets the permissions of a file or directory: `owner` for its owner, `user` for `uid`, none for all others. Bits as
/// in a mode: 4 reads, 2 writes, 1 enters. EOPNOTSUPP where the file system has no access control lists.
pub fn share_with(fd: impl AsFd, owner: u16, uid: u32, user: u16) -> Result<()> {
    let fd = fd.as_fd();
    let entries = [
        (OWNER, owner, NOBODY),
        (USER, user, uid),
        (OWNING_GROUP, 0, NOBODY),
        (MASK, user, NOBODY),
        (OTHERS, 0, NOBODY),
    ];
    let mut list = VERSION.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(bits.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    let name = c"system.posix_acl_access";
    // SAFETY: the name ends with a NUL, and the kernel reads `list.len()` bytes of `list`.
    let result = unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), list.as_ptr().cast(), list.len(), 0) };
    check(result.into(), || format!("fsetxattr({}, {name:?}, u:{uid})", show(fd)))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_mode_shows_what_the_list_gives() {
        let file = tempfile::NamedTempFile::new().unwrap();
        match share_with(file.as_file(), 4, 2001, 4) {
            // The mask stands where the group's bits were (acl(5), "Correspondence").
            Ok(()) => assert_eq!(file.as_file().metadata().unwrap().mode() & 0o777, 0o440),
            Err(error) => assert_eq!(error.errno(), Errno::EOPNOTSUPP),
        }
    }
}
