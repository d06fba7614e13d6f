//! Runs the parsers of hostile data in a child process that can only compute.
//!
//! It keeps the files that it is given and a pipe for its answer, has no privileges, and may only make the system calls
//! that reading and computing need (seccomp(2)); any other call kills it. So a compromised parser can give a false
//! answer, and nothing more.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Child, Forked, Identity, Ids, Preamble};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::{Uid, dup2_stderr, dup2_stdin, dup2_stdout, pipe2};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule,
};

/// Limit on the memory that the child process may map, in bytes, including that of its parent process.
pub const MEMORY: u64 = 1 << 30;
/// Limit on an answer, in bytes.
pub const ANSWER: usize = 1 << 20;
/// Unprivileged user and group (kernel.overflowuid of proc_sys_kernel(5)) for the child process of root.
const NOBODY: u32 = 65534;
/// Time limit for the end of a killed child process.
const PARTING: Duration = Duration::from_millis(100);
/// Time limit for a child process that has answered to end by itself.
const ENDING: Duration = Duration::from_secs(1);
/// Object of a refusal, until the caller sets the real one.
const OBJECT: &str = "the process that reads what others wrote";

/// Exit statuses of the child process. 125 is that of [`sys::fork`] for a panic.
mod status {
    pub const DONE: u8 = 0;
    /// The sandbox could not be built; the pipe contains the reason.
    pub const UNBUILT: u8 = 1;
    /// The parent process closed the pipe.
    pub const EXIT_NO_READER: u8 = 2;
    pub const PANIC: u8 = 125;
}

/// Runs `work` on `files` in a sandboxed child process, for at most `limit`, and returns its answer.
///
/// The child process stays in the control groups of this process. Root's child process becomes `as_user`, or an
/// unprivileged user; any other keeps its ids. `work` may read the files, at any position, and allocate [`MEMORY`]; it
/// sees the memory of this process. It may not open a file, start a program, look up the time zone or a user's name, or
/// write to a log.
///
/// This process must have one thread (EBUSY otherwise). Errors: `timeout` if it took too long, `system` if no such
/// child process can be made, `internal` if it died.
pub fn compute(
    as_user: Option<&Identity>,
    files: &[BorrowedFd<'_>],
    limit: Duration,
    work: impl FnOnce(&[File]) -> Vec<u8>,
) -> Result<Vec<u8>, Refusal> {
    let failed = |error: sys::Error| Refusal::system(OBJECT, &error);
    let (answers, line) =
        pipe2(OFlag::O_CLOEXEC).map_err(|errno| failed(sys::Error::new("pipe2(O_CLOEXEC)", errno)))?;
    let deadline = Instant::now() + limit;
    let child = sys::fork_alone(|forked| {
        // The parent's values are copies here, and the filter may forbid the call that would close some of them.
        let mut line = ManuallyDrop::new(File::from(line));
        match enter(forked, as_user, &line, files, limit) {
            Ok(files) => {
                let answer = ManuallyDrop::new(work(&files));
                if line.write_all(&answer).is_ok() { status::DONE } else { status::EXIT_NO_READER }
            }
            Err(error) => {
                let _ = line.write_all(error.to_string().as_bytes());
                status::UNBUILT
            }
        }
    })
    .map_err(failed)?;
    let answer = read_until(answers, deadline).map_err(failed)?;
    match answer {
        Answer::Complete(bytes) => judge(child, bytes, deadline),
        Answer::TooLong => {
            child.end(PARTING);
            Err(Refusal::new(Kind::Internal, OBJECT, format!("answered more than {ANSWER} bytes")))
        }
        Answer::Late => {
            child.end(PARTING);
            Err(late(limit))
        }
    }
}

fn late(limit: Duration) -> Refusal {
    Refusal::new(Kind::Timeout, OBJECT, format!("took longer than {} s", limit.as_secs_f64()))
}

/// Result of a child process that has closed its pipe.
fn judge(child: Child, bytes: Vec<u8>, deadline: Instant) -> Result<Vec<u8>, Refusal> {
    let system = |error: sys::Error| Refusal::system(OBJECT, &error);
    let died = |cause: &str| Err(Refusal::new(Kind::Internal, OBJECT, cause));
    let status = child.wait_until(deadline.max(Instant::now() + ENDING)).map_err(system)?;
    let exited = match status {
        Some(WaitStatus::Exited(_, number)) => u8::try_from(number).ok(),
        _ => None,
    };
    match status {
        _ if exited == Some(status::DONE) => Ok(bytes),
        _ if exited == Some(status::UNBUILT) => {
            let why = String::from_utf8_lossy(&bytes).into_owned();
            Err(Refusal::new(Kind::System, OBJECT, format!("cannot be confined: {why}")))
        }
        _ if exited == Some(status::PANIC) => died("gave up: a fault of Coracle's own"),
        Some(WaitStatus::Signaled(_, Signal::SIGSYS, _)) => died("was killed for a system call that it may not make"),
        Some(WaitStatus::Signaled(_, Signal::SIGABRT, _)) => died("found no memory left, and ended"),
        Some(WaitStatus::Signaled(_, Signal::SIGXCPU | Signal::SIGKILL, _)) => {
            Err(Refusal::new(Kind::Timeout, OBJECT, "was killed: it used too much time, or the node had no memory"))
        }
        Some(status) => died(&format!("died: {status:?}")),
        None => died("did not end after its answer"),
    }
}

enum Answer {
    Complete(Vec<u8>),
    TooLong,
    Late,
}

fn read_until(answers: OwnedFd, deadline: Instant) -> sys::Result<Answer> {
    let mut answers = File::from(answers);
    let mut bytes = Vec::new();
    let mut part = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(answers.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if Instant::now() >= deadline => return Ok(Answer::Late),
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(sys::Error::new("poll()", errno)),
        }
        match answers.read(&mut part) {
            Ok(0) => return Ok(Answer::Complete(bytes)),
            Ok(count) if bytes.len() + count > ANSWER => return Ok(Answer::TooLong),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(sys::Error::from_io("read()", &cause)),
        }
    }
}

/// Builds the sandbox around this process and returns the files in it.
fn enter(
    forked: &Forked,
    as_user: Option<&Identity>,
    line: &File,
    files: &[BorrowedFd<'_>],
    limit: Duration,
) -> sys::Result<ManuallyDrop<Vec<File>>> {
    // A message on the standard streams, or in a log, would be a forbidden call.
    std::panic::set_hook(Box::new(|_| {}));
    sys::unset_env(c"RUST_BACKTRACE");
    log::set_max_level(log::LevelFilter::Off);
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = ManuallyDrop::new(null.map_err(|cause| sys::Error::from_io("open(\"/dev/null\")", &cause))?);
    let replaced = |errno| sys::Error::new("dup2(/dev/null)", errno);
    dup2_stdin(&*null).and_then(|()| dup2_stdout(&*null)).and_then(|()| dup2_stderr(&*null)).map_err(replaced)?;

    let copies: sys::Result<Vec<File>> = files.iter().map(copy).collect();
    let copies = ManuallyDrop::new(copies?);
    let kept: Vec<BorrowedFd<'_>> = copies.iter().map(File::as_fd).chain([line.as_fd()]).collect();

    let nobody = Identity { uid: NOBODY, gid: NOBODY, groups: Vec::new() };
    let ids = match as_user {
        Some(identity) => Ids::Of(identity),
        // Root of a user namespace is an ordinary user, and has no other ids to change to (user_namespaces(7)).
        None if Uid::effective().is_root() && sys::in_first_user_namespace()? => Ids::Of(&nobody),
        None => Ids::Powerless,
    };
    let seconds = limit.as_secs().saturating_add(1);
    let preamble = Preamble {
        kept: Some(&kept),
        ids,
        limits: &[
            (Resource::RLIMIT_AS, MEMORY),
            (Resource::RLIMIT_FSIZE, 0),
            (Resource::RLIMIT_NPROC, 0),
            (Resource::RLIMIT_CORE, 0),
            (Resource::RLIMIT_CPU, seconds),
        ],
        ..Preamble::default()
    };
    preamble.enter(forked)?;
    // The last step of the preamble, with filters that kill.
    for filter in filters(line).map_err(|_| sys::Error::new("seccomp filter", Errno::EINVAL))? {
        seccompiler::apply_filter(&filter)
            .map_err(|_| sys::Error::new("seccomp(SECCOMP_SET_MODE_FILTER)", Errno::last()))?;
    }
    Ok(copies)
}

/// Copy of a descriptor for the child process, above the standard streams, which are /dev/null.
fn copy(fd: &BorrowedFd<'_>) -> sys::Result<File> {
    // The parent's is below 3 only if it has no standard streams; its number is /dev/null by now.
    if fd.as_raw_fd() <= libc::STDERR_FILENO {
        return Err(sys::Error::new(format!("descriptor {} is a standard stream", fd.as_raw_fd()), Errno::EBADF));
    }
    let copied = fd.try_clone_to_owned();
    copied.map(File::from).map_err(|cause| sys::Error::from_io("fcntl(F_DUPFD_CLOEXEC)", &cause))
}

/// System calls that reading and computing need, with any arguments.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Two filters, of which the kernel applies the stricter result: one limits the system calls, the other permits writes
/// to the pipe only.
fn filters(line: &File) -> Result<[BpfProgram; 2], seccompiler::Error> {
    let machine = std::env::consts::ARCH.try_into()?;
    let when = |conditions: Vec<Condition>| Rule::new(conditions).map(|rule| vec![rule]);
    let mut rules: BTreeMap<i64, Vec<Rule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // No executable memory, and no shared memory.
    let executable = Compare::MaskedEq(libc::PROT_EXEC.cast_unsigned().into());
    let anonymous = (libc::MAP_ANONYMOUS | libc::MAP_PRIVATE).cast_unsigned().into();
    let mapped = vec![
        Condition::new(2, Length::Dword, executable.clone(), 0)?,
        Condition::new(3, Length::Dword, Compare::MaskedEq(anonymous), anonymous)?,
    ];
    rules.insert(libc::SYS_mmap, when(mapped)?);
    rules.insert(libc::SYS_mprotect, when(vec![Condition::new(2, Length::Dword, executable, 0)?])?);
    // The standard library uses this call for the length of a file, with a descriptor. A path could replace the empty
    // one. The child process would then know a fact about a name, but cannot pass it on.
    let empty = libc::AT_EMPTY_PATH.cast_unsigned().into();
    let about = |flags| Condition::new(flags, Length::Dword, Compare::MaskedEq(empty), empty);
    rules.insert(libc::SYS_statx, when(vec![about(2)?])?);
    rules.insert(libc::SYS_newfstatat, when(vec![about(3)?])?);
    // For abort(3) when memory is exhausted: to itself only.
    let own = u64::from(std::process::id());
    let abort = libc::SIGABRT.cast_unsigned().into();
    let signal = [(0, own), (2, abort)].map(|(at, value)| Condition::new(at, Length::Dword, Compare::Eq, value));
    rules.insert(libc::SYS_tgkill, when(signal.into_iter().collect::<Result<_, _>>()?)?);
    let calls = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, machine)?;

    let number = u64::from(line.as_raw_fd().cast_unsigned());
    let others = when(vec![Condition::new(0, Length::Dword, Compare::Ne, number)?])?;
    let refused = SeccompAction::Errno(libc::EBADF.cast_unsigned());
    let writes = SeccompFilter::new([(libc::SYS_write, others)].into(), SeccompAction::Allow, refused, machine)?;
    Ok([writes.try_into()?, calls.try_into()?])
}
