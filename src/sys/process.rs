//! Starts, limits and ends child processes.

use std::ffi::{CStr, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};

use super::socket::wait;
use super::{Error, Result};

/// A child process of this process. It is killed when dropped: no child may outlive its purpose.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
}

impl Child {
    /// Returns its process id, which no other process has until this one has been waited for.
    pub fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Returns the child unless it has ended. Another process may have its id afterwards.
    pub fn still_running(self) -> Option<Self> {
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => Some(self),
            _ => {
                std::mem::forget(self);
                None
            }
        }
    }

    /// Releases the child: it is reparented to init when this process ends.
    pub fn release(self) -> Pid {
        let pid = self.pid;
        std::mem::forget(self);
        pid
    }

    /// Kills the child and waits for its end, for at most `patience`. A child that hangs in a file system is left to
    /// its parent at that time. For a process that is about to become another program (execve(2)), which would inherit
    /// an unknown child.
    pub fn end(self, patience: std::time::Duration) {
        let end = std::time::Instant::now() + patience;
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        // It is not waited for yet, so no other process has its id.
        let handle = u32::try_from(self.pid.as_raw()).ok().and_then(|pid| process_handle(pid).ok());
        while waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive)
            && std::time::Instant::now() < end
        {
            match &handle {
                Some(handle) => {
                    let _ = wait(&mut [PollFd::new(handle.as_fd(), PollFlags::POLLIN)], end);
                }
                None => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
        std::mem::forget(self);
    }

    /// Waits until `deadline` for the child to end by itself; `None` if it had to be killed.
    pub fn wait_until(self, deadline: std::time::Instant) -> Result<Option<WaitStatus>> {
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    let pid = self.release();
                    return Err(Error::new(format!("waitpid({pid}, WNOHANG)"), errno));
                }
                Ok(WaitStatus::StillAlive) if std::time::Instant::now() >= deadline => return Ok(None),
                Ok(WaitStatus::StillAlive) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Ok(status) => {
                    self.release();
                    return Ok(Some(status));
                }
            }
        }
    }

    /// Kills the child and waits for its end. For a child that hangs in no file system.
    pub fn kill(self) -> Result<()> {
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        self.wait().map(drop)
    }

    /// Waits for the child to end. Returns the status of waitpid(2).
    pub fn wait(self) -> Result<WaitStatus> {
        let pid = self.pid;
        std::mem::forget(self);
        loop {
            match waitpid(pid, None) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::new(format!("waitpid({pid})"), errno)),
                Ok(status) => return Ok(status),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The child may have ended by itself, or hang in a file system for longer than this process may wait. In the
        // second case the kernel, or this process' own parent, reaps it later.
        let _ = nix::sys::signal::kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
    }
}

/// Forks. `work` runs in the child and returns the child's exit status.
///
/// Refused (EBUSY) if the process has more than one thread: the child could then find a lock held for ever.
pub fn fork(work: impl FnOnce() -> u8) -> Result<Child> {
    fork_alone(|_| work())
}

/// Proof of a child that does one piece of work and then calls _exit(2). No value of its parent is dropped there,
/// unless the work itself drops it.
#[derive(Debug)]
pub struct Forked(());

/// Like [`fork`], for work that has to close descriptors of the parent.
pub fn fork_alone(work: impl FnOnce(&Forked) -> u8) -> Result<Child> {
    only_one_thread()?;
    // SAFETY: the process has a single thread, as was just seen, so the child may use everything it inherits.
    match unsafe { nix::unistd::fork() } {
        Err(errno) => Err(Error::new("fork()", errno)),
        Ok(ForkResult::Parent { child }) => Ok(Child { pid: child }),
        Ok(ForkResult::Child) => run(work),
    }
}

/// Flag of linux/sched.h; the constant of libc is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Like [`fork`]; the child begins in a control group of version 2, whose directory `group` is (CLONE_INTO_CGROUP,
/// clone(2)). No process waits for that, as it would if a process moved.
///
/// The C library does not know of the child: its record of its own thread is the parent's (the thread id of raise(3)
/// and of robust mutexes). `work` may use neither. An abort(3) in it ends in the trap behind the signal.
pub fn fork_into(group: impl AsFd, work: impl FnOnce() -> u8) -> Result<Child> {
    let group = group.as_fd();
    let call = || format!("clone3(CLONE_INTO_CGROUP, {})", super::show(group));
    fork_with(CLONE_INTO_CGROUP, group.as_raw_fd().cast_unsigned().into(), call, work)
}

/// Like [`fork_into`]; the child begins in a user namespace of its own, which has no maps yet (user_namespaces(7)).
pub(super) fn fork_in_user_namespace(work: impl FnOnce() -> u8) -> Result<Child> {
    let flag = libc::CLONE_NEWUSER.cast_unsigned().into();
    fork_with(flag, 0, || "clone3(CLONE_NEWUSER)".into(), work)
}

fn fork_with(flag: u64, cgroup: u64, call: impl FnOnce() -> String, work: impl FnOnce() -> u8) -> Result<Child> {
    only_one_thread()?;
    // SAFETY: clone_args consists of integers, for which 0 stands for what is not wanted.
    let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
    wanted.flags = flag;
    wanted.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    wanted.cgroup = cgroup;
    // SAFETY: the kernel reads as many bytes as are passed, which `wanted` has. Without CLONE_VM and a stack this is
    // fork(2), but for libc's handlers, which are there for other threads: of these there are none.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const wanted, size_of::<libc::clone_args>()) };
    match libc::pid_t::try_from(pid) {
        Ok(0) => run(|_| work()),
        Ok(pid) if pid > 0 => Ok(Child { pid: Pid::from_raw(pid) }),
        _ => Err(Error::last(call())),
    }
}

fn only_one_thread() -> Result<()> {
    match std::fs::read_dir("/proc/self/task").map(Iterator::count).unwrap_or(0) {
        1 => Ok(()),
        threads => Err(Error::new(format!("fork() with {threads} threads"), Errno::EBUSY)),
    }
}

/// Runs the work of a forked child.
fn run(work: impl FnOnce(&Forked) -> u8) -> ! {
    let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&Forked(())))).unwrap_or(125);
    // SAFETY: _exit ends the child at once; the parent's buffers and destructors are not run twice.
    unsafe { libc::_exit(status.into()) }
}

/// Like [`fork`], in a PID namespace of its own (pid_namespaces(7)). `work` is its first process. When that process
/// ends, or this one, all processes of the namespace end. Needs CAP_SYS_ADMIN.
pub fn fork_in_pid_namespace(work: impl FnOnce(&Forked) -> u8) -> Result<Child> {
    fork(|| {
        // The middle process is the one that is killed, so the first process of the namespace has to end with it.
        let started = die_with_parent().and_then(|()| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID)
                .map_err(|errno| Error::new("unshare(CLONE_NEWPID)", errno))?;
            fork_alone(|forked| match die_with_parent() {
                Ok(()) => work(forked),
                Err(_) => 1,
            })
        });
        match started.and_then(Child::wait) {
            Ok(WaitStatus::Exited(_, status)) => u8::try_from(status).unwrap_or(1),
            _ => 1,
        }
    })
}

/// Returns a pidfd, which becomes readable when the process ends (pidfd_open(2)). ESRCH: it has ended.
pub fn process_handle(pid: u32) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: the call takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    let fd = super::check(fd, || format!("pidfd_open({pid})"))?;
    let fd = libc::c_int::try_from(fd).map_err(|_| Error::new("pidfd_open()", Errno::EBADF))?;
    // SAFETY: the call has just made this descriptor.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}

/// Time limit for `before` of [`spawn_detached`], in seconds.
const BEFORE: libc::c_uint = 5;
/// Descriptors below this number are replaced by [`spawn_detached`], those above are closed: a log is opened early.
const REPLACED: libc::c_int = 1024;

/// Runs `work` in a process reparented to init, with /dev/null at every descriptor, for at most `limit`.
///
/// For work that may be lost: the caller may have threads, so the copy can find a lock held for ever, and the alarm
/// then ends it. Descriptors are replaced instead of closed. Code that still writes to an old number (a log) would
/// otherwise write into the next file with that number.
///
/// The process between the two runs `before`, and this process waits for it: at most five seconds.
pub fn spawn_detached(limit: std::time::Duration, before: impl FnOnce(), work: impl FnOnce()) -> Result<()> {
    let seconds = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX);
    // SAFETY: see above for what a copy of a process with threads may and may not do. The middle child only forks and
    // ends, so the copy belongs to init, and this process is left with nothing to wait for.
    unsafe {
        match libc::fork() {
            -1 => return Err(Error::last("fork()")),
            0 => {
                // For `before` as well: the caller waits for this process.
                libc::signal(libc::SIGALRM, libc::SIG_DFL);
                libc::alarm(BEFORE);
                let unblocked = SigSet::empty().thread_set_mask().is_ok();
                if unblocked {
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(before));
                }
                if libc::fork() != 0 {
                    libc::_exit(0);
                }
                libc::setsid();
                // A child process does not inherit its parent's alarm (alarm(2)).
                libc::alarm(seconds);
                let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
                let replace = |fd| libc::fcntl(fd, libc::F_GETFD) < 0 || libc::dup2(null, fd) == fd;
                let above = REPLACED.cast_unsigned();
                if unblocked
                    && null >= 0
                    && (0..REPLACED).all(replace)
                    && libc::syscall(libc::SYS_close_range, above, u32::MAX, 0) == 0
                {
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                }
                libc::_exit(0);
            }
            middle => Child { pid: Pid::from_raw(middle) }.wait()?,
        };
    }
    Ok(())
}

/// Closes all descriptors but the standard streams and `kept`, in a child that is to hold no others. Other values that
/// the child itself has opened must be forgotten, not dropped.
pub fn close_others(_: &Forked, kept: &[BorrowedFd<'_>]) -> Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).filter(|fd| *fd > 2).collect();
    kept.sort_unstable();
    let mut first = 3;
    for last in kept.into_iter().map(|fd| fd - 1).chain([u32::MAX]) {
        // Neighbours have no descriptors between them.
        if last >= first {
            // SAFETY: the numbers are plain integers. Values of the parent own these descriptors. This process drops
            // none of them: it ends in _exit(2) after its work, as `Forked` proves.
            let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
            super::check(result, || format!("close_range({first}, {last})"))?;
        }
        first = first.max(last.saturating_add(2));
    }
    Ok(())
}

/// Ends this process when its parent ends (PR_SET_PDEATHSIG(2const)), so that it cannot be left behind.
pub fn die_with_parent() -> Result<()> {
    // SAFETY: this operation takes only integers.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    super::check(result.into(), || "prctl(PR_SET_PDEATHSIG)".into())?;
    Ok(())
}

/// Runs `work` in a task that can be cancelled meanwhile.
///
/// Slurm sends no signal to a process that is still called slurmstepd (proctrack/linuxproc), so the thread takes
/// another name (PR_SET_NAME(2const)). slurmstepd blocks the signals that end a job until a task is about to
/// execve: with only SIGKILL to end it, a cancelled job would last for KillWait (slurm.conf(5)).
pub fn while_cancellable<T>(name: &CStr, work: impl FnOnce() -> T) -> T {
    let mut ends = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        // SAFETY: the default action runs no code of ours.
        let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
        ends.add(signal);
    }
    let mask = ends.thread_swap_mask(SigmaskHow::SIG_UNBLOCK);
    let before = std::fs::read("/proc/thread-self/comm").ok();
    let rename = |name: &CStr| {
        // SAFETY: PR_SET_NAME reads a NUL-terminated string of which it takes 15 bytes. It cannot fail.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    };
    rename(name);
    let answer = work();
    let before = before.map(|name| name.strip_suffix(b"\n").map(<[u8]>::to_vec).unwrap_or(name));
    if let Some(before) = before.and_then(|name| std::ffi::CString::new(name).ok()) {
        rename(&before);
    }
    // Slurm unblocks all of them itself before the task's own program.
    let _ = mask.and_then(|mask| mask.thread_set_mask());
    answer
}

/// Restores the default action of every signal and unblocks all: ignored signals stay ignored across execve(2).
pub fn reset_signals() -> Result<()> {
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) }
            .map_err(|errno| Error::new(format!("signal({signal}, SIG_DFL)"), errno))?;
    }
    SigSet::empty().thread_set_mask().map_err(|errno| Error::new("sigprocmask(SIG_SETMASK, {})", errno))
}

/// Unblocks SIGCHLD for this thread, and for programs that it executes.
///
/// Slurm 25.05 and 25.11.0 start tasks with it blocked (slurmstepd.c, `_main_thread_init`). A shell that does not unblock
/// it itself (busybox) never returns from `wait`.
pub fn unblock_sigchld() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_unblock().map_err(|errno| Error::new("sigprocmask(SIG_UNBLOCK, {SIGCHLD})", errno))
}

/// Restores the default action of SIGPIPE: a write into a pipe without a reader ends the process, as that of any command
/// (pipe(7)). Rust ignores the signal, and a print that fails is a panic.
pub fn restore_default_sigpipe() -> Result<()> {
    // SAFETY: the default action runs no code of ours.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl) }
        .map(drop)
        .map_err(|errno| Error::new("signal(SIGPIPE, SIG_DFL)", errno))
}

/// Descriptor of the channel in a program started by [`spawn_reparented`].
pub const CHANNEL: libc::c_int = 3;
/// Enough for a handful of system calls.
const STACK: usize = 64 * 1024;

/// Data that the two child processes share with the caller, whose memory they run in.
struct Start<'a> {
    program: &'a CStr,
    arguments: Vec<*const libc::c_char>,
    channel: libc::c_int,
    null: libc::c_int,
    inner_stack: *mut c_void,
    errno: libc::c_int,
}

/// Starts `program`, reparented to init, with an empty environment, /dev/null as its standard streams and
/// `channel` at descriptor 3. No other descriptor of this process stays open in it.
///
/// slurmstepd waits for any child, and one that is no task costs its step 100 ms. So the middle process ends at
/// once, and the program is reparented to init. vfork (CLONE_VM|CLONE_VFORK) instead of fork: slurmstepd may be
/// large, and a copy of its page tables takes most of the time (docs/decisions.md, "reparented by two vforks").
/// All signals stay blocked across the execve; the program unblocks them (see [`reset_signals`]).
pub fn spawn_reparented(program: &CStr, arguments: &[&CStr], channel: impl AsFd) -> Result<()> {
    let null = std::fs::File::open("/dev/null").map_err(|cause| Error::from_io("open(\"/dev/null\")", &cause))?;
    let (channel, null) = (above_standard(channel.as_fd())?, above_standard(null.as_fd())?);
    let mut stacks = [vec![0u8; STACK], vec![0u8; STACK]];
    let [outer_stack, inner_stack] = stacks.each_mut().map(|stack| top(stack));
    let mut argv: Vec<*const libc::c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    argv.push(std::ptr::null());
    let mut start =
        Start { program, arguments: argv, channel: channel.as_raw_fd(), null: null.as_raw_fd(), inner_stack, errno: 0 };

    // A handler of slurmstepd that ran in a child would run on its small stack and in shared memory.
    let mut before = SigSet::empty();
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before))
        .map_err(|errno| Error::new("sigprocmask(SIG_BLOCK)", errno))?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: `middle` only makes system calls. CLONE_VFORK keeps this thread stopped until the child has ended,
    // so the child has `start` and its own stack to itself, and both outlive it.
    let pid = unsafe { libc::clone(middle, outer_stack, flags, (&raw mut start).cast()) };
    let cloned = Errno::last();
    let restored = nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    if pid < 0 {
        return Err(Error::new("clone(CLONE_VM|CLONE_VFORK)", cloned));
    }
    Child { pid: Pid::from_raw(pid) }.wait()?;
    restored.map_err(|errno| Error::new("sigprocmask(SIG_SETMASK)", errno))?;
    if start.errno != 0 {
        return Err(Error::new(format!("execve({program:?})"), Errno::from_raw(start.errno)));
    }
    Ok(())
}

/// Returns a copy of `fd` that none of the dup2 calls in [`inner`] can overwrite.
fn above_standard(fd: BorrowedFd<'_>) -> Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    let copy = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(CHANNEL + 1))
        .map_err(|errno| Error::new("fcntl(F_DUPFD_CLOEXEC)", errno))?;
    // SAFETY: fcntl has just made this descriptor.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(copy) })
}

/// Returns the end of `stack`, aligned for every ABI: stacks grow downwards on every platform of Slurm.
fn top(stack: &mut [u8]) -> *mut c_void {
    let end = stack.as_mut_ptr_range().end;
    end.wrapping_sub(end.addr() % 16).cast()
}

extern "C" fn middle(argument: *mut c_void) -> libc::c_int {
    // SAFETY: `argument` is the Start of spawn_reparented, which waits until this process has ended. setsid,
    // clone and _exit are system calls; `inner` runs on a stack of its own while this process is stopped.
    unsafe {
        let start = argument.cast::<Start>();
        libc::setsid();
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        if libc::clone(inner, (*start).inner_stack, flags, argument) < 0 {
            (*start).errno = *libc::__errno_location();
        }
        libc::_exit(0)
    }
}

extern "C" fn inner(argument: *mut c_void) -> libc::c_int {
    // SAFETY: `argument` is the Start of spawn_reparented, alive until this process has called execve or _exit.
    // Only async-signal-safe calls are made, and only the descriptor table of this child is changed.
    unsafe {
        let start = argument.cast::<Start>();
        for standard in 0..CHANNEL {
            libc::dup2((*start).null, standard);
        }
        if libc::dup2((*start).channel, CHANNEL) == CHANNEL
            && libc::syscall(libc::SYS_close_range, CHANNEL + 1, u32::MAX, 0) == 0
        {
            let environment: [*const libc::c_char; 1] = [std::ptr::null()];
            libc::execve((*start).program.as_ptr(), (*start).arguments.as_ptr(), environment.as_ptr());
        }
        (*start).errno = *libc::__errno_location();
        libc::_exit(127)
    }
}

/// Signals of a fault in the process itself, or of the end of a child.
const OWN_FAULTS: [Signal; 8] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGABRT,
    Signal::SIGCHLD,
];

/// Ignores every signal that another process would send, across execve(2): only SIGKILL ends this process, only
/// SIGSTOP stops it.
pub fn ignore_signals() -> Result<()> {
    let fixed = |signal| matches!(signal, Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGCONT);
    for signal in Signal::iterator().filter(|signal| !fixed(*signal) && !OWN_FAULTS.contains(signal)) {
        // SAFETY: an ignored signal runs no code of ours.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }
            .map_err(|errno| Error::new(format!("signal({signal}, SIG_IGN)"), errno))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigchld_is_unblocked_and_no_other_signal() {
        // The mask belongs to a thread.
        let masks = std::thread::spawn(|| {
            let mut blocked = SigSet::empty();
            blocked.add(Signal::SIGCHLD);
            blocked.add(Signal::SIGUSR1);
            blocked.thread_block().unwrap();
            let before = SigSet::thread_get_mask().unwrap();
            unblock_sigchld().unwrap();
            (before, SigSet::thread_get_mask().unwrap())
        });
        let (before, after) = masks.join().unwrap();
        assert!(before.contains(Signal::SIGCHLD) && before.contains(Signal::SIGUSR1));
        assert!(!after.contains(Signal::SIGCHLD) && after.contains(Signal::SIGUSR1));
    }
}
