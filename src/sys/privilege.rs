//! Changes the ids, capabilities and limits of this process (credentials(7), capabilities(7)).

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid};

use super::{Error, Result, check};

/// A user with all groups, as Slurm's step record has them. Never taken from names, images or the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

impl Identity {
    /// True for a process that is this user already, in all of its ids, and has no saved ids to return to. False for
    /// root: it has ids to change, and privileges that go with them.
    ///
    /// Outside of a job every process starts so. Such a process keeps its groups: only root changes those, and in a
    /// user namespace without setgroups(2) no process does.
    fn is_ours(&self) -> Result<bool> {
        let users = nix::unistd::getresuid().map_err(|errno| Error::new("getresuid()", errno))?;
        let groups = nix::unistd::getresgid().map_err(|errno| Error::new("getresgid()", errno))?;
        let users = [users.real, users.effective, users.saved].map(Uid::as_raw);
        let groups = [groups.real, groups.effective, groups.saved].map(Gid::as_raw);
        Ok(self.uid != 0 && users == [self.uid; 3] && groups == [self.gid; 3])
    }

    fn group_ids(&self) -> Vec<Gid> {
        self.groups.iter().copied().map(Gid::from_raw).collect()
    }
}

/// Turns this process into `identity` for good, and reads back that it happened. A process that is that user already
/// only gives up its capabilities, as the change of ids does (capabilities(7), "Effect of user ID changes").
///
/// The process must have one thread: nix calls the C library's setters, which would change the others too.
pub fn become_user(identity: &Identity) -> Result<()> {
    if identity.is_ours()? {
        return give_up_capabilities();
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    nix::unistd::setgroups(&identity.group_ids()).map_err(|errno| Error::new("setgroups()", errno))?;
    nix::unistd::setresgid(gid, gid, gid).map_err(|errno| Error::new(format!("setresgid({gid})"), errno))?;
    nix::unistd::setresuid(uid, uid, uid).map_err(|errno| Error::new(format!("setresuid({uid})"), errno))?;
    let now = nix::unistd::getresuid().map_err(|errno| Error::new("getresuid()", errno))?;
    if (now.real, now.effective, now.saved) != (uid, uid, uid) {
        return Err(Error::new(format!("setresuid({uid}) had no effect"), Errno::EPERM));
    }
    Ok(())
}

/// Empties the permitted, effective and inheritable sets of this process. For a process that keeps its ids.
pub fn give_up_capabilities() -> Result<()> {
    change_capabilities("capset(permitted=0)", |word| *word = CapData::default())
}

/// Runs `work` with the file system ids and groups of `identity`: it opens files with that user's permissions.
///
/// The kernel takes CAP_DAC_OVERRIDE and related capabilities out of the effective set while fsuid is not 0
/// (capabilities(7)). For root itself, and for a process that is that user, nothing changes. The process must have one
/// thread.
pub fn with_fs_identity<T>(identity: &Identity, work: impl FnOnce() -> T) -> Result<T> {
    if identity.is_ours()? {
        return Ok(work());
    }
    let groups = nix::unistd::getgroups().map_err(|errno| Error::new("getgroups()", errno))?;
    nix::unistd::setgroups(&identity.group_ids()).map_err(|errno| Error::new("setgroups()", errno))?;
    let back = Restore { uid: set_fs_uid(identity.uid), gid: set_fs_gid(identity.gid), groups };
    if set_fs_uid(identity.uid) != identity.uid || set_fs_gid(identity.gid) != identity.gid {
        return Err(Error::new(format!("setfsuid({}) had no effect", identity.uid), Errno::EPERM));
    }
    let answer = work();
    drop(back);
    Ok(answer)
}

/// CAP_DAC_OVERRIDE and CAP_SYS_ADMIN (capabilities(7)), as bits of a set's first word.
const MAKES_AN_OVERLAY: u32 = 1 << 1 | 1 << 21;

/// Like [`with_fs_identity`], for mounting an overlay that writes into a directory of the user.
///
/// The kernel works on an upper layer with the credentials of the process that made the mount, for as long as it is
/// used (fs/overlayfs, `override_creds`). With root's credentials it would copy dangerous files out of an image: root's
/// set-user-ID programs, device nodes, file capabilities. They take effect in that directory when a process outside of
/// the container uses it. So only these capabilities remain: CAP_SYS_ADMIN for the mount and for the overlay's own
/// attributes, and CAP_DAC_OVERRIDE for the overlay's work directory, which has no mode bits. The kernel first checks
/// the task's own access, with the task's own permissions.
pub fn with_overlay_rights<T>(identity: &Identity, work: impl FnOnce() -> T) -> Result<T> {
    // Root gains nothing from it, and a user namespace of another user gives no privileges outside.
    if identity.uid == 0 || identity.is_ours()? {
        return with_fs_identity(identity, work);
    }
    with_fs_identity(identity, || {
        let before = capabilities()?;
        let mut few = before;
        few.iter_mut().for_each(|word| word.effective = 0);
        few[0].effective = before[0].permitted & MAKES_AN_OVERLAY;
        set_capabilities("capset(effective=sys_admin,dac_override)", &few)?;
        let back = Raise(before);
        let answer = work();
        drop(back);
        Ok(answer)
    })?
}

/// Restores the effective capabilities, also after a panic of the work.
struct Raise([CapData; 2]);

impl Drop for Raise {
    fn drop(&mut self) {
        // They are permitted, so this cannot be refused. Without them, later calls fail with an error.
        let _ = set_capabilities("capset(effective)", &self.0);
    }
}

/// Restores the file system ids, also after a panic of the work.
struct Restore {
    uid: u32,
    gid: u32,
    groups: Vec<Gid>,
}

impl Drop for Restore {
    fn drop(&mut self) {
        set_fs_uid(self.uid);
        set_fs_gid(self.gid);
        // It was this process' own list a moment ago, so setting it again cannot be refused.
        let _ = nix::unistd::setgroups(&self.groups);
    }
}

/// Sets the file system user id. setfsuid(2) reports no failure: it returns the previous id, so a second call tells
/// whether the first worked.
fn set_fs_uid(uid: u32) -> u32 {
    nix::unistd::setfsuid(Uid::from_raw(uid)).as_raw()
}

fn set_fs_gid(gid: u32) -> u32 {
    nix::unistd::setfsgid(Gid::from_raw(gid)).as_raw()
}

/// Disables set-user-ID bits and file capabilities from here on, in this process and its child processes
/// (PR_SET_NO_NEW_PRIVS(2const)).
pub fn set_no_new_privileges() -> Result<()> {
    // SAFETY: this operation takes only integers.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    check(result.into(), || "prctl(PR_SET_NO_NEW_PRIVS)".into())?;
    Ok(())
}

/// Keeps other processes of the same user from inspecting this one (PR_SET_DUMPABLE(2const)).
pub fn set_undumpable() -> Result<()> {
    // SAFETY: this operation takes only integers.
    let result = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    check(result.into(), || "prctl(PR_SET_DUMPABLE)".into())?;
    Ok(())
}

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Empties the bounding, ambient and inheritable sets, so that every set is empty after the next execve.
///
/// Permitted and effective stay: slurmstepd still has to change its ids, and setegid(2) needs CAP_SETGID. An
/// execve as the user, or as root with an empty bounding set, clears both sets (capabilities(7),
/// "Transformation of capabilities during execve").
pub fn drop_capabilities() -> Result<()> {
    // SAFETY: this operation takes only integers.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    check(result.into(), || "prctl(PR_CAP_AMBIENT_CLEAR_ALL)".into())?;
    for capability in 0..64 {
        // SAFETY: this operation takes only integers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            // EINVAL: the number after the last capability of this kernel.
            if Errno::last() == Errno::EINVAL && capability > 0 {
                break;
            }
            return Err(Error::last(format!("prctl(PR_CAPBSET_DROP, {capability})")));
        }
    }
    change_capabilities("capset(inheritable=0)", |word| word.inheritable = 0)
}

/// Lowers resource limits of this process (getrlimit(2)), soft and hard. A lower limit stays as it is: raising a hard
/// limit needs a capability that this process may not have.
pub fn limit(limits: &[(Resource, u64)]) -> Result<()> {
    for (resource, most) in limits {
        let failed = |call: &str, errno| Error::new(format!("{call}({resource:?}, {most})"), errno);
        let (soft, hard) = getrlimit(*resource).map_err(|errno| failed("getrlimit", errno))?;
        setrlimit(*resource, soft.min(*most), hard.min(*most)).map_err(|errno| failed("setrlimit", errno))?;
    }
    Ok(())
}

/// Drops all capabilities but those in `kept`, by number (linux/capability.h), from this process. execve cannot
/// restore them either.
pub fn keep_capabilities(kept: &[u8]) -> Result<()> {
    for capability in 0..64u8 {
        if kept.contains(&capability) {
            continue;
        }
        // SAFETY: this operation takes only integers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) } < 0 {
            // EINVAL: beyond the last capability of this kernel.
            if Errno::last() == Errno::EINVAL && capability > 0 {
                break;
            }
            return Err(Error::last(format!("prctl(PR_CAPBSET_DROP, {capability})")));
        }
    }
    // One bit for each capability, 32 in a word.
    let word = |number: u8| {
        let mine = kept.iter().filter(|capability| **capability / 32 == number);
        mine.fold(0u32, |word, capability| word | 1 << (capability % 32))
    };
    let words = [word(0), word(1)];
    let mut data = capabilities()?;
    for (data, word) in data.iter_mut().zip(words) {
        data.permitted &= word;
        data.effective &= word;
        data.inheritable = 0;
    }
    set_capabilities("capset(permitted)", &data)
}

/// Changes the three sets of this thread. Each word has 32 bits.
fn change_capabilities(call: &str, change: impl Fn(&mut CapData)) -> Result<()> {
    let mut data = capabilities()?;
    data.iter_mut().for_each(change);
    set_capabilities(call, &data)
}

const CAP_HEADER: CapHeader = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };

/// Returns the three sets of this thread.
fn capabilities() -> Result<[CapData; 2]> {
    let (header, mut data) = (CAP_HEADER, [CapData::default(); 2]);
    // SAFETY: version 3 reads the header and fills two CapData, which is what is passed.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    check(result, || "capget()".into())?;
    Ok(data)
}

fn set_capabilities(call: &str, data: &[CapData; 2]) -> Result<()> {
    let header = CAP_HEADER;
    // SAFETY: version 3 reads the header and two CapData, which is what is passed.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    check(result, || call.into())?;
    Ok(())
}
