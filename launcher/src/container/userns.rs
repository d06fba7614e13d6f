//! Enters a user namespace, in which users have the capabilities to make a container of their own files.
#![forbid(unsafe_code)]

use coracle::report::{Kind, Refusal};
use coracle::sys;
use nix::errno::Errno;

/// Switches of the kernel and of distributions, each with the value that forbids user namespaces.
const SWITCHES: [(&str, &str); 3] = [
    ("user.max_user_namespaces", "0"),
    // Of Debian and Ubuntu.
    ("kernel.unprivileged_userns_clone", "0"),
    // Of Ubuntu since 23.10: AppArmor allows capabilities there only to programs with a profile.
    ("kernel.apparmor_restrict_unprivileged_userns", "1"),
];
const HINT: &str = "in a job, srun --container=IMAGE does without";

/// Moves this process into a new user namespace.
pub fn enter() -> Result<(), Refusal> {
    sys::enter_user_namespace().map_err(|error| refusal(&error, &|path| std::fs::read_to_string(path).ok()))
}

/// Switch that forbids user namespaces to users, if there is one.
pub fn forbidden() -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok();
    let (name, off) = SWITCHES.iter().find(|(name, off)| read(name).is_some_and(|value| value.trim() == *off))?;
    Some(format!("sysctl {name} is {off}: users have no user namespaces"))
}

/// Refusal with the reason why there is no user namespace, as far as `read`, which reads a file, shows it.
fn refusal(error: &sys::Error, read: &dyn Fn(&str) -> Option<String>) -> Refusal {
    let refuse = |cause: String| Refusal::new(Kind::System, "user namespace", cause).hint(HINT);
    let switch = SWITCHES.iter().find(|(name, off)| {
        read(&format!("/proc/sys/{}", name.replace('.', "/"))).is_some_and(|value| value.trim() == *off)
    });
    match (error.errno(), switch) {
        (Errno::ENOSPC | Errno::EUSERS | Errno::EPERM | Errno::EACCES, Some((name, off))) => {
            refuse(format!("this node allows you none: sysctl {name} is {off}"))
        }
        (Errno::ENOSPC | Errno::EUSERS, None) => {
            refuse("this node allows no more of them: sysctl user.max_user_namespaces".into())
        }
        (Errno::EPERM, None) if read("/proc/self/mountinfo").is_some_and(|mounts| in_chroot(&mounts)) => {
            refuse("the kernel makes none for a process in a chroot".into())
        }
        (Errno::EPERM | Errno::EACCES, None) => {
            refuse(format!("a security module, or a container or chroot around, allows you none: {error}"))
        }
        (Errno::EINVAL, _) => refuse(format!("the kernel of this node has none: {error}")),
        _ => Refusal::system("user namespace", error).hint(HINT),
    }
}

/// True if no mount is at the root (proc_pid_mountinfo(5), the fifth field): the root is then a directory inside a
/// mount.
fn in_chroot(mounts: &str) -> bool {
    !mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(errno: Errno, files: &[(&str, &str)]) -> String {
        let read = |path: &str| files.iter().find(|(known, _)| *known == path).map(|(_, text)| (*text).to_owned());
        refusal(&sys::Error::new("unshare(CLONE_NEWUSER)", errno), &read).line()
    }

    #[test]
    fn the_switch_that_forbids_it_is_named() {
        for (errno, path, value, wanted) in [
            (Errno::ENOSPC, "/proc/sys/user/max_user_namespaces", "0\n", "user.max_user_namespaces is 0"),
            (Errno::EPERM, "/proc/sys/kernel/unprivileged_userns_clone", "0\n", "unprivileged_userns_clone is 0"),
            (
                Errno::EACCES,
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
                "1\n",
                "apparmor_restrict_unprivileged_userns is 1",
            ),
        ] {
            let line = said(errno, &[(path, value)]);
            assert!(
                line.starts_with("coracle: user namespace: this node allows you none") && line.contains(wanted),
                "{line}"
            );
        }
        let line = said(Errno::ENOSPC, &[("/proc/sys/user/max_user_namespaces", "96365\n")]);
        assert!(line.contains("no more of them"), "{line}");
    }

    #[test]
    fn a_chroot_is_seen_by_its_missing_root() {
        let mounts = |place: &str| format!("22 1 254:0 / {place} rw,relatime shared:1 - ext4 /dev/root rw\n");
        let line = said(Errno::EPERM, &[("/proc/self/mountinfo", &mounts("/proc"))]);
        assert!(line.contains("chroot"), "{line}");
        let line = said(Errno::EPERM, &[("/proc/self/mountinfo", &mounts("/"))]);
        assert!(line.contains("security module") && line.contains("EPERM"), "{line}");
        assert!(said(Errno::EINVAL, &[]).contains("has none"));
    }
}
