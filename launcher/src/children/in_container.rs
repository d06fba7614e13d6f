//! Runs a child process as the user inside a container, which answers one question.
//!
//! The image and the user determine the answer. Root only forwards or prints it.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Channel, Forked, Identity, Ids, MountNamespace, Preamble};
use nix::errno::Errno;
use nix::sys::resource::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ask::{self, Failure, Reply};
use super::filter;

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

/// A child process and its question.
#[derive(Debug)]
pub struct Question<'a> {
    /// Object of messages.
    pub what: &'a str,
    /// Mount namespace of the container.
    pub namespace: &'a MountNamespace,
    /// The user.
    pub identity: &'a Identity,
    /// The step that is starting, if there is one.
    pub step: Option<Step<'a>>,
    /// Time at which the answer is late.
    pub deadline: Instant,
    /// Descriptors of this process that the child process needs.
    pub kept: &'a [BorrowedFd<'a>],
    /// True if the child process executes programs of the image. Otherwise it can only read files, and write into those
    /// of `kept`.
    pub executes: bool,
}

impl Question<'_> {
    /// Runs `work` in the child process and returns its result with its descriptors. `late` is the refusal when no
    /// answer arrives in time. Processes that the child process starts end with it.
    pub fn ask<Found: Serialize + DeserializeOwned>(
        &self,
        late: impl FnOnce() -> Refusal,
        work: impl FnOnce() -> Result<(Found, Vec<OwnedFd>), Refusal>,
    ) -> Result<Reply<Found>, Refusal> {
        let system = |error: sys::Error| Refusal::system(self.what, &error);
        let (ours, theirs) = Channel::pair().map_err(system)?;
        let work = |forked: &Forked| {
            let result = self.become_the_user(forked, &theirs).map_err(system).and_then(|()| work());
            let fds = result.iter().flat_map(|(_, fds)| fds).map(AsFd::as_fd).collect::<Vec<_>>();
            let found = result.as_ref().map(|(found, _)| found);
            u8::from(ask::answer(&theirs, found, &fds, self.deadline).is_err())
        };
        // Programs may leave processes behind, which end with the namespace.
        let child = if self.executes { sys::fork_in_pid_namespace(work) } else { sys::fork_alone(work) };
        let child = child.map_err(system)?;
        // The end of the child process closes the channel only if this process does not hold that end.
        drop(theirs);
        let received = match self.step {
            Some(step) => ours.receive_for(step.line, self.deadline),
            None => ours.receive(self.deadline),
        };
        child.end(PARTING);
        ask::decode(received).map_err(|failure| match failure {
            Failure::Refused(refusal) => refusal,
            Failure::Late => late(),
            Failure::Ended => died(self.what),
            Failure::Garbled => ask::garbled(self.what),
            Failure::System(error) if error.errno() == Errno::ECANCELED => {
                Refusal::new(Kind::System, "slurmstepd", "gave the step up")
            }
            Failure::System(error) => system(error),
        })
    }

    /// Gives up the rights of the launcher, behind what needs them: the control groups and the namespace.
    fn become_the_user(&self, forked: &Forked, channel: &Channel) -> sys::Result<()> {
        let daemon = self.step.and_then(|step| step.daemon);
        let early = self.step.is_some() && daemon.is_none();
        daemon.map_or(Ok(()), |daemon| sys::Cgroups::of(daemon)?.enter_job())?;
        sys::enter_mount_namespace(self.namespace)?;
        let kept: Vec<BorrowedFd<'_>> = self.kept.iter().copied().chain([channel.as_fd()]).collect();
        let memory = if early { EARLY_MEMORY } else { MEMORY };
        let limits =
            [(Resource::RLIMIT_AS, memory), (Resource::RLIMIT_FSIZE, FILE), (Resource::RLIMIT_CPU, EARLY_SECONDS)];
        // Programs of the image have all system calls that a task has.
        let filter = if self.executes { None } else { Some(filter::of_reader()?) };
        let preamble = Preamble {
            kept: Some(&kept),
            executes: self.executes,
            ids: Ids::Of(self.identity),
            limits: if early { &limits } else { &limits[..2] },
            filter: filter.as_ref(),
            ..Preamble::default()
        };
        preamble.enter(forked)
    }
}

/// Refusal for a child process that ended without a complete answer.
pub fn died(what: &str) -> Refusal {
    Refusal::new(Kind::Internal, what, "the process that makes it has died")
}
