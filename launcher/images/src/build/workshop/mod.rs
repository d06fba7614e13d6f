//! Runs the work on an image in a workshop: a temporary directory, and a process that is root in a user namespace.
//!
//! This root (user_namespaces(7)) can change only files that its user can change. With a range of ids in subuid(5),
//! there are other owners, too; root has all of them. Where the kernel allows no user namespace, the process keeps its
//! ids, and only work without root is possible.
//!
//! The parent process waits for the worker, and cleans up behind it however it ends.
#![forbid(unsafe_code)]

mod scratch;

use std::ffi::OsStr;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Channel, Received};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, User};

use scratch::Scratch;

use crate::build::draft::Draft;
use crate::output::{FAILURE, exit_status, unwritable};
use crate::signals::ENDING;

/// Time limit for messages between the two processes before the work begins.
const PATIENCE: Duration = Duration::from_secs(60);
/// Added to a signal's number, as in shells.
const BY_SIGNAL: i32 = 128;

/// Owners of files that the process can make in its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// All owners: root started the process.
    All,
    /// The user, who is root inside, and 65,536 ids from 1 on, or the number in subuid(5).
    Range,
    /// The user only, who is root inside.
    Root,
    /// The user only, who is not root: there is no user namespace.
    Own,
}

/// Workshop for an image.
#[derive(Debug)]
pub struct Workshop {
    /// Directory of the process.
    pub directory: PathBuf,
    /// Owners of files that can be made there.
    pub owners: Owners,
    /// Reason why there is no user namespace.
    pub denied: Option<Refusal>,
}

/// Lets `work` make a file, gives the complete file its name, and calls `report`. If this process ends before that, it
/// leaves nothing.
pub fn make(
    draft: impl FnOnce() -> Result<Draft, Refusal>,
    work: impl FnOnce(&Workshop, &Draft) -> Result<(), Refusal>,
    report: impl FnOnce(&Draft) -> Result<(), Refusal>,
) -> Result<ExitCode, Refusal> {
    // A draft may have a name that must be removed. After the end of the work, nothing is left to interrupt.
    hold_signals()?;
    let mut draft = draft()?;
    let status = run(|workshop| work(workshop, &draft))?;
    if status == 0 {
        draft.publish()?;
        report(&draft)?;
    }
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(FAILURE)))
}

/// Runs `work` in a workshop, prints its refusals, and returns its exit status.
pub fn run(work: impl FnOnce(&Workshop) -> Result<(), Refusal>) -> Result<i32, Refusal> {
    let system = |error: sys::Error| Refusal::system("workshop", &error);
    hold_signals()?;
    let scratch = Scratch::new()?;
    // The work's children are reparented to this process, which ends them, and not to init.
    nix::sys::prctl::set_child_subreaper(true)
        .map_err(|errno| system(sys::Error::new("prctl(PR_SET_CHILD_SUBREAPER)", errno)))?;
    let (ours, theirs) = Channel::pair().map_err(system)?;
    let directory = scratch.path().to_owned();
    let worker = sys::fork(|| {
        let done = settle(&theirs, directory).and_then(|workshop| {
            // With the privileges that earlier workshops had.
            scratch.sweep_others();
            work(&workshop)
        });
        done.map_or_else(
            |refusal| {
                eprintln!("{refusal}");
                exit_status(&refusal)
            },
            |()| 0,
        )
    });
    let worker = match worker {
        Ok(worker) => worker,
        Err(error) => {
            scratch.remove(None);
            return Err(system(error));
        }
    };
    let namespace = prepare(&ours, Pid::from_raw(worker.id()));
    let (namespace, failure) = match namespace {
        Ok(namespace) => (namespace, None),
        Err(refusal) => (None, Some(refusal)),
    };
    let status = match failure {
        None => supervise(worker),
        Some(refusal) => {
            drop(worker);
            end_children();
            Err(refusal)
        }
    };
    scratch.remove(namespace);
    status
}

fn hold_signals() -> Result<(), Refusal> {
    let held = wait_signals().thread_block();
    held.map_err(|errno| Refusal::system("workshop", &sys::Error::new("sigprocmask()", errno)))
}

fn wait_signals() -> SigSet {
    let mut set: SigSet = ENDING.into_iter().collect();
    set.add(Signal::SIGCHLD);
    set
}

/// Waits for the worker, and ends it when this process gets a signal.
fn supervise(worker: sys::Child) -> Result<i32, Refusal> {
    let signals = wait_signals();
    let system = |errno| Refusal::system("workshop", &sys::Error::new("sigwait()", errno));
    let own = Pid::from_raw(worker.id());
    let status = loop {
        let signal = signals.wait().map_err(system)?;
        if signal != Signal::SIGCHLD {
            break BY_SIGNAL + signal as i32;
        }
        // One signal may stand for several children.
        let mut ended = None;
        loop {
            match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, status)) if pid == own => ended = Some(status),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == own => ended = Some(BY_SIGNAL + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        if let Some(status) = ended {
            worker.release();
            end_children();
            return Ok(status);
        }
    };
    drop(worker);
    end_children();
    Ok(status)
}

/// Ends all children of this process, and their children, which are reparented to it.
fn end_children() {
    let children = format!("/proc/self/task/{}/children", std::process::id());
    loop {
        let text = std::fs::read_to_string(&children).unwrap_or_default();
        // A pid is not reused before waitpid(2).
        for pid in text.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        match waitpid(None::<Pid>, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Sets up the worker's side: its namespace, whose ids the parent maps.
fn settle(line: &Channel, directory: PathBuf) -> Result<Workshop, Refusal> {
    let system = |error: sys::Error| Refusal::system("workshop", &error);
    sys::die_with_parent().map_err(system)?;
    wait_signals().thread_unblock().map_err(|errno| system(sys::Error::new("sigprocmask()", errno)))?;
    let made = nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS);
    let word = made.err().map_or(0, |errno| errno as i32);
    line.send(&word.to_le_bytes(), &[], Instant::now() + PATIENCE).map_err(system)?;
    let owners = match line.receive(Instant::now() + PATIENCE).map_err(system)? {
        Received::Packet(packet) => Owners::from_byte(packet.data.first().copied()),
        Received::Closed => None,
    };
    // Modes belong to the image, and do not depend on the user's umask.
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let owners = owners.ok_or_else(|| Refusal::new(Kind::Internal, "workshop", "whoever gives it its ids has gone"))?;
    let denied = made.err().map(denied);
    if denied.is_none() {
        sys::make_private().map_err(system)?;
    }
    Ok(Workshop { directory, owners, denied })
}

/// Sets up the parent's side of [`settle`]. Returns the worker's user namespace, if it has one: its files are removed
/// from there.
fn prepare(line: &Channel, worker: Pid) -> Result<Option<File>, Refusal> {
    let system = |error: sys::Error| Refusal::system("workshop", &error);
    let word = match line.receive(Instant::now() + PATIENCE).map_err(system)? {
        Received::Packet(packet) => packet.data.try_into().map(i32::from_le_bytes).unwrap_or(Errno::EIO as i32),
        // The worker has reported why.
        Received::Closed => return Ok(None),
    };
    let (owners, namespace) = if word == 0 {
        let owners = map(worker)?;
        let path = format!("/proc/{worker}/ns/user");
        let opened = File::open(&path);
        (owners, Some(opened.map_err(|error| system(sys::Error::from_io(format!("open({path:?})"), &error)))?))
    } else {
        (Owners::Own, None)
    };
    line.send(&[owners.to_byte()], &[], Instant::now() + PATIENCE).map_err(system)?;
    Ok(namespace)
}

/// Gives the namespace of `worker` its ids (user_namespaces(7), "Defining user and group ID mappings").
fn map(worker: Pid) -> Result<Owners, Refusal> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let write = |name: &str, text: &str| {
        let path = format!("/proc/{worker}/{name}");
        std::fs::write(&path, text).map_err(|error| {
            Refusal::system("workshop", &sys::Error::from_io(format!("write({path:?}, {text:?})"), &error))
        })
    };
    if uid.is_root() {
        let all = format!("0 0 {}", u32::MAX);
        if write("uid_map", &all).and_then(|()| write("gid_map", &all)).is_ok() {
            return Ok(Owners::All);
        }
    } else if map_range(worker, uid.as_raw(), gid.as_raw()) {
        return Ok(Owners::Range);
    }
    write("setgroups", "deny")?;
    write("uid_map", &format!("0 {uid} 1"))?;
    write("gid_map", &format!("0 {gid} 1"))?;
    Ok(Owners::Root)
}

/// True if shadow's programs gave `worker` the ranges of this user in subuid(5) and subgid(5). These programs have the
/// necessary privilege, and check the files themselves.
fn map_range(worker: Pid, uid: u32, gid: u32) -> bool {
    let name = User::from_uid(uid.into()).ok().flatten().map(|user| user.name);
    let range = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        range_of(&text, uid, name.as_deref())
    };
    let (Some(uids), Some(gids)) = (range("/etc/subuid"), range("/etc/subgid")) else { return false };
    let give = |program: &str, own: u32, (first, count): (u32, u32)| {
        let words = [
            worker.to_string(),
            "0".into(),
            own.to_string(),
            "1".into(),
            "1".into(),
            first.to_string(),
            count.to_string(),
        ];
        let status =
            Command::new(program).args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    // The groups first: while the users are not mapped, a failure leaves everything to do.
    give("newgidmap", gid, gids) && give("newuidmap", uid, uids)
}

/// First range of a user in subuid(5): first number and length.
fn range_of(text: &str, uid: u32, name: Option<&str>) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        if Some(whose) != name && whose.parse() != Ok(uid) {
            return None;
        }
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (count > 0).then_some((first, count))
    })
}

fn denied(errno: Errno) -> Refusal {
    Refusal::new(
        Kind::System,
        "user namespace",
        format!("this machine allows you none: unshare(CLONE_NEWUSER): {}", errno.desc()),
    )
    .hint("what runs commands in the image needs one: build on a machine that has them, or as root")
}

impl Owners {
    fn to_byte(self) -> u8 {
        match self {
            Self::All => 0,
            Self::Range => 1,
            Self::Root => 2,
            Self::Own => 3,
        }
    }

    fn from_byte(byte: Option<u8>) -> Option<Self> {
        [Self::All, Self::Range, Self::Root, Self::Own].into_iter().find(|owners| Some(owners.to_byte()) == byte)
    }
}

/// Runs a program that this one needs. Its refusal contains what the program printed.
pub fn run_program(
    name: &str,
    package: &str,
    arguments: &[&OsStr],
    settle: impl FnOnce(&mut Command),
) -> Result<(), Refusal> {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    settle(&mut command);
    let output = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Refusal::new(Kind::System, name, "not found").hint(format!("it is in the package {package}"))
        }
        _ => Refusal::new(Kind::System, name, error.to_string()),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned();
    if said.contains("No space left on device") {
        return Err(unwritable(name, &std::io::Error::from_raw_os_error(Errno::ENOSPC as i32)));
    }
    Err(Refusal::new(Kind::System, name, format!("{}: {last}", output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_found_by_name_and_by_number() {
        let text = "other:1:1\nalice:100000:65536\n2001:300000:10\nempty:5:0\n";
        assert_eq!(range_of(text, 1, Some("alice")), Some((100_000, 65_536)));
        assert_eq!(range_of(text, 2001, None), Some((300_000, 10)));
        assert_eq!(range_of(text, 3, Some("nobody")), None);
        assert_eq!(range_of(text, 3, Some("empty")), None);
    }
}
