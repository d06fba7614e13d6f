//! Runs the guard of one squashfuse_ll: its parent process, which belongs to root and can break the connection
//! (fusectl).
//!
//! While the container is built, root accesses a file system whose server the user can stop at will, and waits there
//! uninterruptibly; the guard enforces the deadline. While the step runs, the same can happen to its tasks, and a task
//! that cannot be killed drains the node. So the guard breaks the connection in three cases: a task that must end has
//! waited in it for some seconds; squashfuse_ll has ended, even if another process has its descriptor; or slurmstepd
//! has ended, so that no process would kill the waiting tasks. When the last mount is gone, it ends squashfuse_ll,
//! which may be stopped.
//!
//! It is reparented to init, is in no control group of the step, holds nothing that keeps the step's namespace, and
//! ends with squashfuse_ll. It sleeps until one of the two processes ends, and reads one number every two seconds.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::read_dir;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use coracle::sys::{self, Channel, Child, FuseControl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::children::ask;

use super::Slurmstepd;

/// End of the build of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum BuildEnd {
    /// The container is built.
    Built,
    /// The container could not be built.
    Failed,
}

/// State of the mount at the end of the build of its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Verdict {
    /// The guard knows of no error.
    Fine,
    /// The deadline has passed, and the connection is broken.
    Late,
    /// squashfuse_ll has ended.
    Gone,
}

/// Time between two checks of the connection, in milliseconds.
const LOOK: u16 = 2000;
/// Number of consecutive checks at which a task waits before the guard breaks the connection. Slurm gives up after a
/// minute (UnkillableStepTimeout, slurm.conf(5)).
const PATIENCE: u32 = 3;
/// Time that a process may take to end after it has closed its files or has no mount to serve, in milliseconds.
const LAST_BREATH: u16 = 50;
const LAST_WORK: u16 = 1000;

/// One squashfuse_ll and the means to end it.
pub(super) struct Guard<'a> {
    server: Child,
    /// Control of the connection; nothing in the user's own user namespace.
    control: Option<&'a FuseControl>,
    /// slurmstepd, while it runs.
    daemon: Option<&'a OwnedFd>,
    /// True if slurmstepd of a step has ended.
    orphaned: bool,
    /// The job's control groups.
    jobs: Vec<OsString>,
    uid: u32,
}

impl<'a> Guard<'a> {
    /// Creates the guard of `server`, which runs as the user `uid`, for the step of `slurmstepd`, open as `daemon` if
    /// it runs.
    pub(super) fn new(
        server: Child,
        control: Option<&'a FuseControl>,
        daemon: Option<&'a OwnedFd>,
        slurmstepd: Option<Slurmstepd>,
        uid: u32,
    ) -> Self {
        let groups = slurmstepd.and_then(|slurmstepd| sys::Cgroups::of(slurmstepd.pid).ok());
        let jobs = groups.iter().flat_map(|groups| groups.jobs().map(OsString::from)).collect();
        Self { server, control, daemon, orphaned: slurmstepd.is_some() && daemon.is_none(), jobs, uid }
    }

    /// Runs until squashfuse_ll has ended.
    pub(super) fn stand(mut self, channel: &Channel, deadline: Instant) {
        // A kill of every process named coracle must spare the guard, because without it the launcher may hang.
        let _ = nix::sys::prctl::set_name(c"coracle-watch");
        if self.control.is_some() {
            // proctrack/cgroup of version 2 kills all processes in slurmstepd's own group.
            let _ = sys::Cgroups::of(std::process::id()).and_then(|groups| groups.leave_step());
            let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
        }
        let verdict = self.watch(channel, deadline);
        let _ = ask::answer(channel, Ok(&verdict), &[], deadline + super::LAST_WORD);
        if verdict == Verdict::Late {
            // The launcher sends before it receives. Its message must be read: otherwise the end of this process would
            // discard the verdict (unix(7), ECONNRESET).
            let _ = channel.receive(deadline + super::LAST_WORD);
        }
        match (verdict, self.control) {
            (Verdict::Fine | Verdict::Gone, Some(control)) => self.keep(control),
            // In a user namespace, it ends with the user's processes, unless the user prevents that.
            (Verdict::Fine, None) => _ = self.server.release(),
            _ => {}
        }
    }

    /// Waits until the container is built or the launcher has ended; breaks the mount at the deadline.
    fn watch(&mut self, channel: &Channel, deadline: Instant) -> Verdict {
        match ask::receive_question(channel, deadline) {
            Ok(Some((BuildEnd::Failed, _))) => {
                // The end of squashfuse_ll is an answer, too.
                if self.has_ended(LAST_BREATH) { Verdict::Gone } else { Verdict::Fine }
            }
            Ok(_) => Verdict::Fine,
            Err(_) => {
                self.end();
                Verdict::Late
            }
        }
    }

    /// Watches the connection of a container that is in use.
    fn keep(mut self, control: &FuseControl) {
        let mut waiting = BTreeMap::new();
        loop {
            if self.has_ended(LOOK) {
                return self.end();
            }
            match control.waiting() {
                Ok(None) => {
                    self.daemon = None;
                    self.has_ended(LAST_WORK);
                    return self.end();
                }
                Ok(Some(0)) => waiting.clear(),
                _ => {
                    let before = std::mem::take(&mut waiting);
                    let stopped = self.is_abandoned().then_some(self.server.id());
                    let stuck = self.stuck().chain(stopped);
                    waiting = stuck.map(|task| (task, before.get(&task).unwrap_or(&0) + 1)).collect();
                    if waiting.values().any(|looks| *looks >= PATIENCE) {
                        return self.end();
                    }
                }
            }
        }
    }

    /// True if squashfuse_ll has ended; waits `patience` milliseconds for that, or until slurmstepd ends.
    fn has_ended(&mut self, patience: u16) -> bool {
        let server = u32::try_from(self.server.id()).ok().and_then(|pid| sys::process_handle(pid).ok());
        let Some(server) = server else { return true };
        let mut fds = vec![PollFd::new(server.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.daemon.map(|daemon| PollFd::new(daemon.as_fd(), PollFlags::POLLIN)));
        // Interrupted, or without memory: the next check follows.
        let _ = poll(&mut fds, PollTimeout::from(patience));
        if fds.get(1).and_then(PollFd::any) == Some(true) {
            (self.daemon, self.orphaned) = (None, true);
        }
        fds.first().and_then(PollFd::any) == Some(true)
    }

    /// Breaks the connection, whichever process holds its other end, and kills squashfuse_ll.
    fn end(&mut self) {
        // It is a child of this process, so its id cannot be reused yet.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.server.id()), nix::sys::signal::Signal::SIGKILL);
        if let Some(control) = self.control {
            let _ = control.abort();
        }
    }

    /// True if squashfuse_ll is stopped and slurmstepd has ended. Tasks that wait for squashfuse_ll can then be killed,
    /// but no process does it.
    fn is_abandoned(&self) -> bool {
        let stat = read(format!("/proc/{}/stat", self.server.id()));
        self.orphaned && matches!(fields(&stat).next(), Some("T" | "t"))
    }

    /// Threads of the user that must end, and wait in a way that may prevent it.
    fn stuck(&self) -> impl Iterator<Item = i32> {
        numbers("/proc").filter(|pid| self.may_be_ours(*pid)).flat_map(move |pid| {
            numbers(format!("/proc/{pid}/task")).filter(move |thread| {
                let read = |name| read(format!("/proc/{pid}/task/{thread}/{name}"));
                let stat = read("stat");
                waits(&stat)
                    && (self.orphaned || ends(&stat, &read("status")))
                    && (!self.jobs.is_empty() || may_wait_for_fuse(&read("stack")))
            })
        })
    }

    /// False if a process certainly does not belong to this job.
    fn may_be_ours(&self, pid: i32) -> bool {
        let process = Path::new("/proc").join(pid.to_string());
        if !process.metadata().is_ok_and(|found| found.uid() == self.uid) {
            return false;
        }
        let groups = read(process.join("cgroup"));
        self.jobs.is_empty()
            || groups.split(['/', '\n']).any(|name| self.jobs.iter().any(|job| job.as_bytes() == name.as_bytes()))
    }
}

/// Text of a file in /proc; empty for a process that has ended. A thread's name may be invalid UTF-8.
fn read(path: impl AsRef<Path>) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Entries of a directory in /proc that are numbers.
fn numbers(directory: impl AsRef<Path>) -> impl Iterator<Item = i32> {
    read_dir(directory).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Fields of /proc/PID/stat after the name, which may contain any character (proc_pid_stat(5)): state, parent, and so
/// on.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace()
}

/// True for a thread in a sleep that no signal, or only a fatal one, ends.
fn waits(stat: &str) -> bool {
    fields(stat).next() == Some("D")
}

/// PF_EXITING of linux/sched.h: the thread has begun to end.
const EXITING: u32 = 0x4;
/// SIGKILL in a signal set of /proc/PID/status.
const KILL: u64 = 1 << (nix::libc::SIGKILL - 1);

/// True for a thread that has begun to end, or that has SIGKILL pending.
fn ends(stat: &str, status: &str) -> bool {
    let flags = fields(stat).nth(6).and_then(|flags| flags.parse::<u32>().ok()).unwrap_or(0);
    let pending = ["SigPnd:", "ShdPnd:"].iter().any(|key| {
        let set = status.lines().find_map(|line| line.strip_prefix(key));
        set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & KILL != 0)
    });
    flags & EXITING != 0 || pending
}

/// False for a kernel stack on which no function waits for a FUSE file system, or for another thread that may wait for
/// one.
fn may_wait_for_fuse(stack: &str) -> bool {
    stack.trim().is_empty()
        || ["fuse", "d_alloc_parallel", "rwsem", "lock_page", "folio_wait"].iter().any(|name| stack.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "42 (a) b) D 1 42 42 0 -1 4194560 100 0 0 0\n";

    #[test]
    fn a_thread_that_waits_and_is_to_end_is_told_from_others() {
        assert!(waits(STAT));
        assert!(!waits("42 (D) S 1 42 42 0 -1 4194560 100\n"));
        assert!(!waits(""));
        let status = |own: &str, shared: &str| {
            format!("Name:\tx\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0000000000000100\n")
        };
        let (none, kill, term) = ("0000000000000000", "0000000000000100", "0000000000004000");
        for (own, shared, wanted) in [(none, none, false), (kill, none, true), (none, kill, true), (term, term, false)]
        {
            assert_eq!(ends(STAT, &status(own, shared)), wanted, "{own} {shared}");
        }
        assert!(ends("42 (x) D 1 42 42 0 -1 4194564 100\n", ""));
        assert!(!ends("", ""));
    }

    #[test]
    fn a_thread_whose_name_is_no_utf_8_is_read() {
        let thread = std::thread::spawn(|| {
            let path = "/proc/thread-self/comm";
            std::fs::write(path, b"\xff) D").unwrap();
            (read("/proc/thread-self/stat"), read("/proc/thread-self/status"))
        });
        let (stat, status) = thread.join().unwrap();
        assert_eq!(fields(&stat).next(), Some("R"), "{stat}");
        assert!(status.contains("\nShdPnd:\t"), "{status}");
    }

    #[test]
    fn a_stack_tells_only_what_it_shows() {
        assert!(may_wait_for_fuse(""));
        assert!(may_wait_for_fuse("[<0>] request_wait_answer+0x1/0x2 [fuse]\n"));
        assert!(may_wait_for_fuse("[<0>] d_alloc_parallel+0x1/0x2\n"));
        assert!(!may_wait_for_fuse(
            "[<0>] rpc_wait_bit_killable+0x1/0x2 [sunrpc]\n[<0>] nfs4_do_close+0x1/0x2 [nfsv4]\n"
        ));
    }
}
