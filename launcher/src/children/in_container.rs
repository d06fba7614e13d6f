//! Runs a child process as the user inside a container, which answers one question.
//!
//! The image and the user determine the answer. Root only forwards or prints it.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Channel, Identity, MountNamespace, Packet, Received};
use nix::errno::Errno;
use nix::sys::resource::Resource;

/// Time limit for the end of a killed child process.
const PARTING: Duration = Duration::from_millis(100);
/// Memory limit of the child process and each process that it starts, in bytes.
const MEMORY: u64 = 2 << 30;
/// Limit on the length of a file that the child process writes, in bytes.
const FILE: u64 = 4 << 20;
/// Limits before slurmstepd is in the control groups of its job, which account and limit resources: bytes of memory,
/// and seconds of CPU time.
const EARLY_MEMORY: u64 = 256 << 20;
const EARLY_SECONDS: u64 = 5;

/// A step that is starting.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// Channel to the process that waits for the answer. When it closes, the question is dropped.
    pub line: &'a Channel,
    /// slurmstepd's process id, once Slurm has put it into the control groups of its job. Before that, no program of
    /// the image runs: it could use resources outside the job's allocation.
    pub daemon: Option<u32>,
}

/// Runs `work` as `identity` in `namespace`; `work` answers through its channel argument. `what` is the object of
/// messages, `late` the refusal when no answer arrives by `deadline`. Processes that the child process starts end with
/// it.
pub fn ask(
    what: &str,
    namespace: &MountNamespace,
    identity: &Identity,
    step: Option<Step<'_>>,
    deadline: Instant,
    late: impl FnOnce() -> Refusal,
    work: impl FnOnce(&Channel, Result<(), Refusal>) -> sys::Result<()>,
) -> Result<Packet, Refusal> {
    let system = |error: sys::Error| Refusal::system(what, &error);
    let (ours, theirs) = Channel::pair().map_err(system)?;
    let child = sys::fork_in_pid_namespace(move |_| {
        let daemon = step.and_then(|step| step.daemon);
        let placed = daemon.map_or(Ok(()), |daemon| sys::Cgroups::of(daemon)?.enter_job());
        let early = step.is_some() && daemon.is_none();
        let placed = placed.and_then(|()| become_the_user(namespace, identity, early)).map_err(system);
        u8::from(work(&theirs, placed).is_err())
    })
    .map_err(system)?;
    let received = match step {
        Some(step) => ours.receive_for(step.line, deadline),
        None => ours.receive(deadline),
    };
    child.end(PARTING);
    match received {
        Ok(Received::Packet(packet)) => Ok(packet),
        Ok(Received::Closed) => Err(died(what)),
        Err(error) if error.errno() == Errno::ETIMEDOUT => Err(late()),
        Err(error) if error.errno() == Errno::ECANCELED => {
            Err(Refusal::new(Kind::System, "slurmstepd", "gave the step up"))
        }
        Err(error) => Err(system(error)),
    }
}

/// Refusal for a child process that ended without a complete answer.
pub fn died(what: &str) -> Refusal {
    Refusal::new(Kind::Internal, what, "the process that makes it has died")
}

fn become_the_user(namespace: &MountNamespace, identity: &Identity, early: bool) -> sys::Result<()> {
    sys::enter_mount_namespace(namespace)?;
    sys::set_no_new_privileges()?;
    sys::drop_capabilities()?;
    sys::become_user(identity)?;
    // After the change of ids, which resets both (prctl(2)).
    sys::die_with_parent()?;
    sys::set_undumpable()?;
    let memory = if early { EARLY_MEMORY } else { MEMORY };
    sys::limit(&[(Resource::RLIMIT_AS, memory), (Resource::RLIMIT_FSIZE, FILE)])?;
    if early { sys::limit(&[(Resource::RLIMIT_CPU, EARLY_SECONDS)]) } else { Ok(()) }
}
