//! Holds the state of a step on a node, from hook to hook of slurmstepd and of the tasks that it forks.
//!
//! | phase | begins with | ends with |
//! |---|---|---|
//! | `Unread` | slurmstepd loads the plugin | init_post_opt reads the job's environment |
//! | `OnNode` | the step needs no container | |
//! | `Building` | init_post_opt starts the launcher | task_init_privileged, in each task |
//! | `Entered` | the task is in its container | task_init |
//! | `Refused` | a hook has a cause why no task may start | task_init reports it and ends the task |
//!
//! A refused step stays refused, and its first cause counts.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::{Place, Reach, Refused, silent};
use crate::report::{Kind, Refusal};
use crate::sys::{Channel, Identity, SharedFlags, own_group};

/// A task of this node was refused: the step must end, because its other tasks would wait for that one.
const FLAG_REFUSED: u32 = 1;
/// The failure is local to one task; other tasks on this node continue.
const FLAG_TASK_ONLY: u32 = 2;
/// The step has been ended.
const FLAG_KILLED: u32 = 4;
/// A task of this node is in its container, and may wait for the others.
const FLAG_ENTERED: u32 = 8;
/// The notes for the user have been printed.
const FLAG_NOTED: u32 = 16;

/// Slurm's record of the step. Without the record, the default, the step cannot be ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Job id.
    pub job: u32,
    /// Step id.
    pub step: u32,
    /// Number of nodes.
    pub nodes: u32,
    /// Number of tasks on this node.
    pub tasks: u32,
    /// The job's user; the step is ended as that user.
    pub identity: Option<Identity>,
    /// Jobs of a heterogeneous step's components; empty for other steps.
    pub components: Vec<u32>,
}

/// Flags that slurmstepd and its tasks share. Without them, which practically never happens, every task reports.
#[derive(Debug, Default)]
struct Flags(Option<SharedFlags>);

impl Flags {
    fn shared() -> Self {
        Self(SharedFlags::new().ok())
    }

    /// Sets `flag`. True if a process had set it before.
    fn raise(&self, flag: u32) -> bool {
        self.0.as_ref().is_some_and(|flags| flags.raise(flag))
    }

    fn is_raised(&self, flag: u32) -> bool {
        self.0.as_ref().is_some_and(|flags| flags.is_raised(flag))
    }
}

/// Connection to the launcher. Its end tells the launcher that no more tasks will come.
#[derive(Debug, Default)]
struct Link {
    channel: Option<Channel>,
    /// Number of tasks that slurmstepd has forked.
    forked: u32,
}

/// State of a step on a node.
#[derive(Debug)]
pub struct Step {
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Unread {
        /// True if the launcher is asked about steps without a request.
        defaults: bool,
        /// Fault of a hook before. It does not stop a step that needs no container.
        fault: Option<(Refusal, Flags)>,
    },
    OnNode,
    Building {
        facts: Facts,
        flags: Flags,
        link: Link,
        /// Working directory of the step, once user_init has run.
        directory: Option<PathBuf>,
    },
    Entered {
        facts: Facts,
        flags: Flags,
        directory: Option<PathBuf>,
        place: Place,
    },
    Refused {
        facts: Facts,
        flags: Flags,
        link: Link,
        cause: Refusal,
        reach: Reach,
    },
}

/// Result of task_init's look at the state.
#[derive(Debug, PartialEq, Eq)]
pub enum TaskStart {
    /// The task starts, on the node.
    OnNode,
    /// The task is in its place, which has to be set up.
    InPlace,
    /// The task must not start: [`Step::refusal`].
    Refused,
}

/// A step that has to be ended on all its nodes.
#[derive(Debug, PartialEq, Eq)]
pub struct Ending {
    /// Job ids of its components; one job for other steps.
    pub jobs: Vec<u32>,
    /// Step id.
    pub step: u32,
    /// The job's user.
    pub identity: Identity,
}

impl Default for Step {
    fn default() -> Self {
        Self { phase: Phase::Unread { defaults: false, fault: None } }
    }
}

impl Step {
    /// Takes the phase for a transition. A transition that does not end leaves a state in which no task starts.
    fn take(&mut self) -> Phase {
        std::mem::replace(&mut self.phase, Phase::Unread { defaults: true, fault: None })
    }

    /// Notes, in init, that the launcher is also asked about steps without a request.
    pub fn asks_for_defaults(&mut self) {
        if let Phase::Unread { defaults, .. } = &mut self.phase {
            *defaults = true;
        }
    }

    /// Leaves the step on the node. A plugin that could not read its own arguments does not stop such a step.
    pub fn stay_on_node(&mut self) {
        self.phase = Phase::OnNode;
    }

    /// Leaves a job script on the node whose steps run in containers. A fault before refuses it.
    pub fn pass_on(&mut self) {
        self.end_reading();
    }

    /// Leaves the phase in which the job's environment is unread: a fault counts from then on.
    fn end_reading(&mut self) {
        self.phase = match self.take() {
            Phase::Unread { fault: Some((cause, flags)), .. } => {
                Phase::Refused { facts: Facts::default(), flags, link: Link::default(), cause, reach: Reach::Step }
            }
            Phase::Unread { fault: None, .. } => Phase::OnNode,
            other => other,
        };
    }

    /// Begins to build the container of a step. `fault` is the reason why its request cannot be read.
    pub fn build(&mut self, facts: Facts, fault: Option<Refusal>) {
        let before = self.take();
        let flags = SharedFlags::new();
        let failed = flags.as_ref().err().map(|error| Refusal::system("slurmstepd", error));
        let flags = flags.map_or_else(|_| Flags::shared(), |flags| Flags(Some(flags)));
        self.phase = Phase::Building { facts, flags, link: Link::default(), directory: None };
        let earlier = match before {
            Phase::Unread { fault, .. } => fault.map(|(cause, _)| cause),
            _ => None,
        };
        [earlier, fault, failed].into_iter().flatten().for_each(|cause| self.refuse(cause));
    }

    /// Keeps the connection to the launcher. The launcher of a refused step writes the log.
    pub fn connect(&mut self, channel: Channel) {
        if let Phase::Building { link, .. } | Phase::Refused { link, .. } = &mut self.phase {
            link.channel = Some(channel);
        }
    }

    /// Records why no task of the step may start.
    pub fn refuse(&mut self, cause: Refusal) {
        self.refuse_for(cause, Reach::Step);
    }

    /// Like [`Self::refuse`], for a cause that concerns only a step with a container.
    pub fn refuse_if_wanted(&mut self, cause: Refusal) {
        if self.is_wanted() {
            self.refuse(cause);
        }
    }

    fn refuse_for(&mut self, cause: Refusal, reach: Reach) {
        self.phase = match self.take() {
            Phase::Unread { defaults, fault } => {
                Phase::Unread { defaults, fault: Some(fault.unwrap_or_else(|| (cause, Flags::shared()))) }
            }
            Phase::OnNode => {
                Phase::Refused { facts: Facts::default(), flags: Flags::shared(), link: Link::default(), cause, reach }
            }
            Phase::Building { facts, flags, link, .. } => Phase::Refused { facts, flags, link, cause, reach },
            Phase::Entered { facts, flags, .. } => Phase::Refused { facts, flags, link: Link::default(), cause, reach },
            refused @ Phase::Refused { .. } => refused,
        };
    }

    /// True if the step needs a container or may need one, or a hook has failed before that was known.
    fn is_wanted(&self) -> bool {
        !matches!(self.phase, Phase::Unread { defaults: false, fault: None } | Phase::OnNode)
    }

    /// True while the launcher builds the container.
    pub fn is_building(&self) -> bool {
        matches!(self.phase, Phase::Building { .. })
    }

    /// Returns the connection to the launcher, while it builds the container.
    pub fn channel(&self) -> Option<&Channel> {
        match &self.phase {
            Phase::Building { link, .. } => link.channel.as_ref(),
            _ => None,
        }
    }

    /// Returns the connection for a task that enters the container, or the refusal of a task without one.
    pub fn need_channel(&self) -> Result<&Channel, Refused> {
        self.channel().ok_or_else(silent)
    }

    /// Keeps the working directory of the step.
    pub fn work_in(&mut self, found: PathBuf) {
        if let Phase::Building { directory, .. } = &mut self.phase {
            *directory = Some(found);
        }
    }

    /// Keeps the result of entering the container, in a task. No descriptor of the plugin may be open when Slurm
    /// changes to the user's directory: the connection ends.
    pub fn enter(&mut self, result: Result<Place, Refused>) {
        self.phase = match self.take() {
            Phase::Building { facts, flags, directory, .. } => match result {
                Ok(place) => {
                    flags.raise(FLAG_ENTERED);
                    Phase::Entered { facts, flags, directory, place }
                }
                Err((cause, reach)) => Phase::Refused { facts, flags, link: Link::default(), cause, reach },
            },
            other => other,
        };
    }

    /// Decides, in task_init, if the task starts. `is_requested` reads the job's environment; it is asked only if
    /// init_post_opt has not run.
    pub fn start_task(&mut self, is_requested: impl FnOnce() -> bool) -> TaskStart {
        match &self.phase {
            Phase::OnNode => return TaskStart::OnNode,
            Phase::Entered { .. } => return TaskStart::InPlace,
            Phase::Refused { .. } => {}
            Phase::Building { .. } => self.refuse_for(skipped("task_init_privileged"), Reach::Task),
            // A plugin before this one failed in init_post_opt with a positive number: Slurm then skips this plugin,
            // and continues.
            Phase::Unread { defaults, .. } => {
                if !defaults && !is_requested() {
                    return TaskStart::OnNode;
                }
                self.refuse(skipped("init_post_opt"));
                self.end_reading();
            }
        }
        TaskStart::Refused
    }

    /// Returns the place of a task that has entered it, and the working directory of its step.
    pub fn place(&self) -> Option<(&Place, Option<&Path>)> {
        match &self.phase {
            Phase::Entered { place, directory, .. } => Some((place, directory.as_deref())),
            _ => None,
        }
    }

    /// True for the first task of the node that prints the notes.
    pub fn is_first_with_notes(&self) -> bool {
        match &self.phase {
            Phase::Entered { flags, .. } => !flags.raise(FLAG_NOTED),
            _ => false,
        }
    }

    /// Refuses one task that could not be set up in its place.
    pub fn refuse_task(&mut self, cause: Refusal) {
        self.refuse_for(cause, Reach::Task);
    }

    /// Refuses a task after a panic in task_init itself: no later hook can report it. False if the task starts.
    pub fn refuse_after_panic(&mut self, fault: Refusal) -> bool {
        if !self.is_wanted() {
            return false;
        }
        self.refuse(fault.clone());
        self.end_reading();
        if let Phase::Refused { cause, .. } = &mut self.phase {
            *cause = fault;
        }
        true
    }

    /// Marks a refused task for slurmstepd, which then ends the step. Returns the cause for the first task of the node,
    /// which reports it.
    pub fn refusal(&self) -> Option<&Refusal> {
        let Phase::Refused { flags, cause, reach, .. } = &self.phase else { return None };
        let first = !flags.raise(FLAG_REFUSED);
        if *reach == Reach::Task {
            flags.raise(FLAG_TASK_ONLY);
        }
        first.then_some(cause)
    }

    /// Counts a forked task, in slurmstepd. The connection ends with the last one.
    pub fn count_fork(&mut self) {
        if let Phase::Building { facts, link, .. } | Phase::Refused { facts, link, .. } = &mut self.phase {
            link.forked += 1;
            if link.forked >= facts.tasks {
                link.channel = None;
            }
        }
    }

    /// Returns the step once if it has to be ended on all nodes, in slurmstepd, when a task has ended. Otherwise tasks
    /// would wait for a refused one until the time limit.
    pub fn ending(&self) -> Option<Ending> {
        let (Phase::Building { facts, flags, .. } | Phase::Refused { facts, flags, .. }) = &self.phase else {
            return None;
        };
        let here = flags.is_raised(FLAG_TASK_ONLY) || flags.is_raised(FLAG_ENTERED);
        let others = here || facts.nodes > 1 || !facts.components.is_empty();
        if !flags.is_raised(FLAG_REFUSED) || !others || flags.raise(FLAG_KILLED) {
            return None;
        }
        let jobs = if facts.components.is_empty() { vec![facts.job] } else { facts.components.clone() };
        Some(Ending { jobs, step: facts.step, identity: facts.identity.clone()? })
    }

    /// Ends the state. Returns the name of the control group that the launcher may have made for the step.
    pub fn finish(&mut self) -> Option<String> {
        match std::mem::take(self).phase {
            Phase::Building { facts, .. } | Phase::Entered { facts, .. } | Phase::Refused { facts, .. } => {
                Some(own_group(facts.job, facts.step))
            }
            Phase::Unread { .. } | Phase::OnNode => None,
        }
    }
}

fn skipped(hook: &str) -> Refusal {
    Refusal::new(Kind::Internal, "plugin", format!("Slurm has not called its {hook}"))
        .hint("does another plugin before it in plugstack.conf fail there?")
}

#[cfg(test)]
#[path = "phase_tests.rs"]
mod tests;
