//! Answers the tasks of a step that gets a container, and records it.
#![forbid(unsafe_code)]

use std::cell::{Cell, OnceCell};
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use crate::plan::Plan;
use coracle::report::Refusal;
use coracle::sys::{self, MountNamespace};
use coracle::wire::{Answer, Here};

use super::Server;
use super::ahead::ImageStep;
use super::devices::StepDevices;
use super::mode::StepRequest;
use crate::children::opener::Opener;
use crate::container::attach::AttachedImage;
use crate::container::clock::Clock;
use crate::container::context::Context;
use crate::container::environment::TaskEnvironment;
use crate::container::grants::Provision;
use crate::container::image_mpi;
use crate::container::job_facts::EffectivePolicy;
use crate::container::resolve::Resolved;
use crate::records::{Entry, Trail};

/// Step that gets a container, and the facts that hold for all tries to build it.
pub(super) struct Session<'a> {
    pub(super) server: &'a Server,
    pub(super) context: Context,
    /// Devices of the container before the control groups of the step are known.
    pub(super) guess: Provision,
    /// Effective policy, once it had to be resolved.
    pub(super) policy: OnceCell<EffectivePolicy>,
    /// Opener that was started before, until it is used.
    opener: Cell<Option<Result<Opener, Refusal>>>,
    /// Devices of the step, once slurmstepd is in its control groups.
    pub(super) devices: OnceCell<StepDevices>,
    pub(super) clock: Clock,
}

/// Container for the tasks that have not arrived yet.
pub(super) struct Outcome {
    /// The container, or the reason why there is none.
    pub(super) built: Result<Built, Refusal>,
    /// Namespace of the build: in another one, the same paths may lead elsewhere.
    pub(super) base: MountNamespace,
    /// Location of the step, if slurmstepd has sent it.
    pub(super) here: Option<Here>,
    /// True if the record is written.
    pub(super) kept: bool,
}

/// A container and its origin.
pub(super) struct Built {
    pub(super) namespace: MountNamespace,
    pub(super) variables: TaskEnvironment,
    /// Changes that MPI needs in addition.
    pub(super) mpi: image_mpi::Answers,
    /// Both sets of changes, as sent to tasks.
    pub(super) changes: OwnedFd,
    pub(super) origin: Origin,
}

/// Origin of a container.
pub(super) enum Origin {
    /// It was built from this image, by this plan.
    Image(Box<AttachedImage>, Plan),
    /// It belongs to this running step.
    Step(u32),
}

impl<'a> Session<'a> {
    /// Starts the first phase.
    pub(super) fn new(server: &'a Server, request: StepRequest) -> Self {
        let StepRequest { context, provision, policy, opener } = request;
        let known = OnceCell::new();
        if let Some(policy) = policy {
            known.get_or_init(|| policy);
        }
        Self {
            server,
            context,
            guess: provision,
            policy: known,
            opener: Cell::new(opener),
            devices: OnceCell::new(),
            clock: Clock::start(),
        }
    }

    /// Takes the opener that was started before, or starts one.
    pub(super) fn opener(&self) -> Result<Opener, Refusal> {
        let deadline = Instant::now() + self.context.config.start_timeout.0;
        self.opener.take().unwrap_or_else(|| Opener::of_step(&self.server.start.identity, deadline))
    }

    /// Resolves the effective policy, if that has not been done, and checks the requested options.
    pub(super) fn resolve<'s>(&'s self, opener: &'s Opener) -> Result<Resolved<'s>, Refusal> {
        let policy = match self.policy.get() {
            Some(policy) => policy,
            None => {
                let policy = self.context.resolve_policy(opener)?;
                self.policy.get_or_init(|| policy)
            }
        };
        Resolved::new(&self.context, policy, opener, &self.clock)
    }

    /// Answers every task and counts those that enter. All of them are answered even if one has ended: closing a socket
    /// with an unread greeting resets the tasks that still wait (unix(7)). A container of `image` is built again for a
    /// task in whose namespace it does not fit.
    pub(super) fn answer_all(
        &self,
        trail: &mut Trail<'_>,
        outcome: Result<Outcome, Refusal>,
        image: Option<ImageStep<'_>>,
        steps: Option<&OsString>,
    ) -> (Result<Built, Refusal>, u32) {
        let mut outcome = match outcome {
            Ok(outcome) => outcome,
            Err(refusal) => return (Err(refusal), 0),
        };
        let mut entered = 0;
        self.server.each_task(|hello, task, sender| {
            // At once if possible: the task may end while the container is built again, and its process id be another's.
            let known = self.devices.get().is_some();
            if known {
                self.adopt(sender)?;
            }
            if let (Some(image), Some(task)) = (image, task) {
                image.fit(&mut outcome, task, hello.pmix)?;
            }
            if !known {
                self.adopt(sender)?;
            }
            self.keep(trail, &mut outcome);
            match &outcome.built {
                Ok(built) => {
                    let fds = [built.namespace.as_fd(), built.changes.as_fd()];
                    self.server.answer(&self.answer(built, steps), &fds)?;
                    entered += 1;
                    Ok(())
                }
                Err(refusal) => Err(refusal.clone()),
            }
        });
        (outcome.built, entered)
    }

    fn answer(&self, built: &Built, steps: Option<&OsString>) -> Answer {
        let notes = [built.variables.notes.as_slice(), &built.mpi.notes].concat();
        let workdir = self.context.settings.workdir.clone();
        Answer::Enter { notes, workdir, entrypoint: built.variables.entrypoint, steps: steps.cloned() }
    }

    /// Writes the record of a container before any task gets it.
    fn keep(&self, trail: &mut Trail<'_>, outcome: &mut Outcome) {
        let file = self.context.config.audit.file.is_some();
        if std::mem::replace(&mut outcome.kept, true) || outcome.built.is_err() || !file {
            return;
        }
        let begun = Instant::now();
        if let Err(refusal) = trail.begin(&self.entry(outcome.built.as_ref())) {
            outcome.built = Err(refusal);
        }
        self.clock.add("record", begun.elapsed());
    }

    /// Record of a container, or of the reason why there is none.
    pub(super) fn entry<'e>(&'e self, built: Result<&'e Built, &'e Refusal>) -> Entry<'e> {
        let Self { context, clock, .. } = self;
        let entry =
            Entry { settings: Some((&context.settings, &context.config)), clock: Some(clock), ..Entry::default() };
        match built.map(|built| &built.origin) {
            Err(refusal) => Entry { refusal: Some(refusal), ..entry },
            Ok(Origin::Step(step)) => Entry { joins: Some(*step), rule: Some("step"), ..entry },
            Ok(Origin::Image(image, plan)) => Entry {
                user: self.policy.get().and_then(|policy| policy.account.name()),
                path: sys::fd_path(&image.opened().file).ok(),
                digest: image.opened().digest,
                signers: image.opened().signers.clone(),
                rule: Some(image.rule()),
                plan: Some(plan),
                ..entry
            },
        }
    }
}
