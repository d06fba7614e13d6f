//! Runs the commands of a definition in the image: in a mount namespace whose root is the image's directory, and in a
//! process namespace, so that no process of theirs is left.
//!
//! /dev, /proc, /sys, /tmp, /var/tmp, /etc/resolv.conf and /etc/hosts are the build's own: files written there are not
//! part of the image. Of this host, the commands see only its network.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Attributes, Forked, FsContext, Lookup, MountPropagation};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::pretence;
use crate::build::root::Root;
use crate::build::workshop::{Owners, Workshop};
use crate::output::unwritable;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables that are kept, as with Apptainer's --cleanenv, and those that make a build reproducible.
const KEPT: [&str; 10] = [
    "TERM",
    "SOURCE_DATE_EPOCH",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
/// Devices that every program may expect.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];
/// Name in /dev, which is the build's own: no package removes files there.
const APT: &str = "coracle-apt.conf";
/// apt would become a user that does not exist here.
const APT_TEXT: &str = "APT::Sandbox::User \"root\";\n";
/// Files that root may change by uid alone, without capabilities; a build by root must not.
const KERNEL: [&str; 6] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi"];
/// Files that root may read likewise.
const SECRET: [&str; 4] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kmsg"];
/// Capabilities of package managers, by number (linux/capability.h): CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID,
/// SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT and SETFCAP. None of them changes mounts or shows other processes.
const CAPABILITIES: [u8; 11] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31];
/// Exit status of a command that could not be started, and of one that this program could not prepare.
const NOT_FOUND: u8 = 127;
const BROKEN: u8 = 125;

/// Command to run.
#[derive(Debug)]
pub struct Task<'a> {
    /// Name in refusals.
    pub shown: String,
    /// Command and arguments, as in the image.
    pub words: Vec<OsString>,
    /// Variables beside those of every task.
    pub variables: Vec<(&'a str, String)>,
}

/// Runs a task, and refuses an exit status other than 0.
pub fn run(task: &Task<'_>, root: &Root, workshop: &Workshop) -> Result<(), Refusal> {
    possible(workshop)?;
    let scratch = scratch(workshop)?;
    let before = || prepare(root.path(), &scratch, workshop);
    contain(task, before, |forked| {
        let ready = sys::set_no_new_privileges().and_then(|()| sys::keep_capabilities(&CAPABILITIES));
        pretend(workshop, ready).map_or_else(|error| task.broken(&error), |()| execute(forked, task, workshop, true))
    })
}

/// Runs a program of this host, which works on the image's directory from outside.
pub fn run_outside(task: &Task<'_>, workshop: &Workshop) -> Result<(), Refusal> {
    possible(workshop)?;
    contain(
        task,
        || Ok(()),
        |forked| {
            let ready = pretend(workshop, Ok(()));
            ready.map_or_else(|error| task.broken(&error), |()| execute(forked, task, workshop, false))
        },
    )
}

/// Installs the filter for a namespace with one id: calls that would fail for lack of ids succeed without effect.
fn pretend(workshop: &Workshop, ready: sys::Result<()>) -> sys::Result<()> {
    if workshop.owners == Owners::Root { ready.and_then(|()| pretence::install()) } else { ready }
}

impl Task<'_> {
    fn broken(&self, error: &sys::Error) -> u8 {
        eprintln!("{}", Refusal::system(&self.shown, error));
        BROKEN
    }
}

/// Checks that commands can run as root in a namespace.
pub fn possible(workshop: &Workshop) -> Result<(), Refusal> {
    workshop.denied.clone().map_or(Ok(()), Err)
}

/// Directory for the files and directories that replace the image's while commands run.
fn scratch(workshop: &Workshop) -> Result<PathBuf, Refusal> {
    let scratch = workshop.directory.join("inside");
    let make = || {
        if scratch.exists() {
            return Ok(());
        }
        std::fs::create_dir(&scratch)?;
        for name in ["tmp", "var-tmp"] {
            let directory = scratch.join(name);
            std::fs::create_dir(&directory)?;
            std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o1777))?;
        }
        for name in ["resolv.conf", "hosts"] {
            std::fs::write(scratch.join(name), std::fs::read(Path::new("/etc").join(name)).unwrap_or_default())?;
        }
        Ok(())
    };
    make().map_err(|error: std::io::Error| unwritable(&scratch.display().to_string(), &error))?;
    Ok(scratch)
}

/// Runs `work` in a child of the first process of a process namespace. The first process reaps reparented processes.
///
/// The child sees the first process in its /proc. So after `before`, that process has the same root as the child, no
/// open files, and denies access to itself.
fn contain(
    task: &Task<'_>,
    before: impl FnOnce() -> sys::Result<()>,
    work: impl FnOnce(&Forked) -> u8,
) -> Result<(), Refusal> {
    let system = |error: sys::Error| Refusal::system(&task.shown, &error);
    let child = sys::fork_in_pid_namespace(|forked| {
        let alone = before().and_then(|()| sys::close_others(forked, &[])).and_then(|()| sys::set_undumpable());
        if let Err(error) = alone {
            return task.broken(&error);
        }
        let Ok(child) = sys::fork_alone(work) else { return BROKEN };
        let own = child.release();
        loop {
            match waitpid(None::<Pid>, None) {
                Ok(WaitStatus::Exited(pid, status)) if pid == own => return u8::try_from(status).unwrap_or(BROKEN),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == own => {
                    return u8::try_from(128 + signal as i32).unwrap_or(BROKEN);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return BROKEN,
            }
        }
    });
    match child.and_then(sys::Child::wait).map_err(system)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, status) => {
            Err(Refusal::new(Kind::Build, &task.shown, format!("ended with exit status {status}")))
        }
        other => Err(Refusal::new(Kind::Build, &task.shown, format!("was ended: {other:?}"))),
    }
}

/// Becomes the command.
fn execute(forked: &Forked, task: &Task<'_>, workshop: &Workshop, inside: bool) -> u8 {
    let Some((program, arguments)) = task.words.split_first() else { return BROKEN };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().stdin(Stdio::null()).current_dir("/");
    command.env("PATH", PATH).env("HOME", if inside { "/root" } else { "/" }).env("USER", "root").env("LANG", "C");
    command.envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    if inside && workshop.owners == Owners::Root {
        command.env("APT_CONFIG", format!("/dev/{APT}"));
    }
    command.envs(task.variables.iter().map(|(name, value)| (name, value)));
    let error = match sys::reset_signals().and_then(|()| sys::close_others(forked, &[])) {
        Ok(()) => command.exec().to_string(),
        Err(error) => error.to_string(),
    };
    let program = program.display().to_string();
    eprintln!("{}", Refusal::new(Kind::Build, &task.shown, format!("{program} cannot be started: {error}")));
    NOT_FOUND
}

/// Makes the directory `root` the root of this process, with the mounts that a command needs.
fn prepare(root: &Path, scratch: &Path, workshop: &Workshop) -> sys::Result<()> {
    sys::unshare_mount_namespace()?;
    let top = sys::clone_tree(open(root)?, false)?;
    sys::set_attributes(&top, Attributes::default(), MountPropagation::Private)?;
    sys::move_mount(&top, open(root)?)?;
    let top = open(root)?;
    let inert = Attributes { no_suid: true, no_dev: true, no_exec: true, ..Attributes::default() };

    // Where files of this host's /proc are hidden, no second proc can be mounted (mount_namespaces(7)): bind that one.
    let proc = match FsContext::open(c"proc").and_then(|context| context.mount(inert)) {
        Ok(proc) => proc,
        Err(_) => copy("/proc", true)?,
    };
    attach(&proc, &top, "/proc")?;
    for (path, hidden) in KERNEL.iter().map(|path| (path, false)).chain(SECRET.iter().map(|path| (path, true))) {
        shut(&top, Path::new(path), hidden)?;
    }
    let system = copy("/sys", true)?;
    sys::set_attributes(&system, Attributes { read_only: true, ..inert }, MountPropagation::Private)?;
    attach(&system, &top, "/sys")?;
    devices(&top, workshop)?;
    for (name, target) in
        [("tmp", "/tmp"), ("var-tmp", "/var/tmp"), ("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts")]
    {
        match attach(&copy(scratch.join(name), false)?, &top, target) {
            // A link of the image may lead to a missing path, such as one in /run.
            Err(error) if error.errno() == Errno::ENOENT => {}
            other => other?,
        }
    }
    sys::pivot_to(&top)?;
    sys::detach_old_root()
}

/// Makes a part of /proc read-only, or covers it with /dev/null.
fn shut(top: &OwnedFd, path: &Path, hidden: bool) -> sys::Result<()> {
    let found = match sys::open_in_root(top, path, OFlag::O_PATH, Lookup::Links) {
        Ok(found) => found,
        // Kernels differ in which of these files they have.
        Err(error) if error.errno() == Errno::ENOENT => return Ok(()),
        Err(error) => return Err(error),
    };
    let cover = if hidden { copy("/dev/null", false)? } else { sys::clone_tree(&found, true)? };
    let inert = Attributes { no_suid: true, no_exec: true, read_only: true, ..Attributes::default() };
    sys::set_attributes(&cover, inert, MountPropagation::Private)?;
    sys::move_mount(&cover, &found)
}

fn devices(top: &OwnedFd, workshop: &Workshop) -> sys::Result<()> {
    let context = FsContext::open(c"tmpfs")?;
    context.string(c"mode", "755")?;
    let dev = context.mount(Attributes { no_suid: true, no_exec: true, ..Attributes::default() })?;
    attach(&dev, top, "/dev")?;
    // The tree is attached by now, and so are mounts opened below it.
    let dev = sys::open_in_root(top, Path::new("/dev"), OFlag::O_PATH | OFlag::O_DIRECTORY, Lookup::Links)?;
    let name =
        |call: &str, name: &str, error: &std::io::Error| sys::Error::from_io(format!("{call}(/dev/{name})"), error);
    let place = |name: &str| PathBuf::from(format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&dev)));
    for device in DEVICES {
        File::create(place(device)).map_err(|error| name("open", device, &error))?;
        attach(&copy(Path::new("/dev").join(device), false)?, &dev, device)?;
    }
    for (link, target) in DEVICE_LINKS {
        std::os::unix::fs::symlink(target, place(link)).map_err(|error| name("symlink", link, &error))?;
    }
    for (directory, mode) in [("shm", 0o1777), ("pts", 0o755)] {
        std::fs::create_dir(place(directory)).map_err(|error| name("mkdir", directory, &error))?;
        std::fs::set_permissions(place(directory), PermissionsExt::from_mode(mode))
            .map_err(|error| name("chmod", directory, &error))?;
    }
    if workshop.owners == Owners::Root {
        std::fs::write(place(APT), APT_TEXT).map_err(|error| name("write", APT, &error))?;
    }
    // Few commands need a terminal of their own, and some kernels allow none here.
    let terminals = FsContext::open(c"devpts").and_then(|context| {
        context.string(c"ptmxmode", "0666")?;
        context.mount(Attributes { no_suid: true, no_exec: true, ..Attributes::default() })
    });
    if let Ok(terminals) = terminals {
        attach(&terminals, &dev, "pts")?;
    }
    Ok(())
}

/// Opens a file or directory of this host.
fn open(path: &Path) -> sys::Result<OwnedFd> {
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(libc_path()).open(path);
    opened.map(OwnedFd::from).map_err(|error| sys::Error::from_io(format!("open({path:?})"), &error))
}

fn libc_path() -> i32 {
    OFlag::O_PATH.bits()
}

fn copy(path: impl AsRef<Path>, recursive: bool) -> sys::Result<OwnedFd> {
    sys::clone_tree(open(path.as_ref())?, recursive)
}

/// Attaches a mount at `path` below `top`; links are followed inside `top`.
fn attach(tree: impl AsFd, top: impl AsFd, path: &str) -> sys::Result<()> {
    let target = sys::open_in_root(top, Path::new(path), OFlag::O_PATH, Lookup::Links)?;
    sys::move_mount(tree, target)
}

/// Shell text that sources an image's variables, as its runtimes do, and becomes the command in its arguments.
///
/// An image's PATH may lack the directories of a system's programs: they are appended, as in jobs.
pub const WITH_VARIABLES: &str = "\
    for file in /.singularity.d/env/*.sh; do if [ -f \"$file\" ]; then . \"$file\"; fi; done
    for file in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin; do
        case :$PATH: in *:\"$file\":*) ;; *) PATH=${PATH:+$PATH:}$file ;; esac
    done
    export PATH
    exec \"$@\"";
