//! The user namespace in which a user has the rights that a container takes, over what is his own anyway.
#![forbid(unsafe_code)]

use coracle::report::{Kind, Refusal};
use coracle::sys;
use nix::errno::Errno;

/// Switches of the kernel and of distributions, each with the value that forbids it.
const SWITCHES: [(&str, &str); 3] = [
    ("user.max_user_namespaces", "0"),
    // Debian's and Ubuntu's own.
    ("kernel.unprivileged_userns_clone", "0"),
    // Ubuntu's since 23.10: AppArmor lets only programs with a profile have capabilities there.
    ("kernel.apparmor_restrict_unprivileged_userns", "1"),
];
const HINT: &str = "in a job, srun --container=IMAGE does without";

/// Moves this process into one.
pub fn enter() -> Result<(), Refusal> {
    sys::enter_user_namespace().map_err(|error| refusal(&error, &|path| std::fs::read_to_string(path).ok()))
}

/// Returns the switch that keeps users from having one, if there is such a one.
pub fn forbidden() -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok();
    let (name, off) = SWITCHES.iter().find(|(name, off)| read(name).is_some_and(|value| value.trim() == *off))?;
    Some(format!("sysctl {name} is {off}: users have no user namespaces"))
}

/// Why there is none, as far as `read` can tell, which reads a file.
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

/// True if no mount is at the root (proc_pid_mountinfo(5), the fifth field): the root is then a folder of one.
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
