//! Builds the container of a step from an image: ahead of slurmstepd, which still sets up the step, and again if the
//! guess about the step was wrong or a task is in another mount namespace.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::mpi::Pmi;
use crate::view::MountRequest;
use coracle::report::{Kind, Refusal};
use coracle::request::{ImageRef, is_script};
use coracle::sys::{self, MountNamespace};
use coracle::wire::Here;

use super::session::{Built, Origin, Outcome, Session};
use crate::children::in_container::Step;
use crate::container::attach::AttachedImage;
use crate::container::build::Container;
use crate::container::environment::TaskEnvironment;
use crate::container::host_fit::{HostFit, Place};
use crate::container::host_mpi::Replacement;
use crate::container::image_mpi;
use crate::container::pipeline;
use crate::container::resolve::Resolved;
use crate::container::tasks::Tasks;

/// Step that gets a container of an image.
#[derive(Clone, Copy)]
pub(super) struct ImageStep<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) image: &'a ImageRef,
    /// Directory that Slurm's PMIx server probably uses for the step, if the step has one.
    pub(super) pmix: Option<&'a Path>,
}

/// Container for the probable location of the step, and what tasks need in it.
struct Ahead {
    container: Container,
    /// Mounts of a container in this location.
    requests: Vec<MountRequest>,
    /// Environment; nothing if it could not be evaluated yet.
    variables: Option<TaskEnvironment>,
    mpi: Option<image_mpi::Answers>,
}

impl ImageStep<'_> {
    /// Does all work that is possible before the first task arrives. An error in it is part of the outcome; an error is
    /// returned only if no task can be answered.
    pub(super) fn begin(&self) -> Result<Outcome, Refusal> {
        let base = MountNamespace::current().map_err(|error| Refusal::system("the step's namespace", &error))?;
        let mut here = None;
        let built = self.build_ahead(&mut here);
        Ok(Outcome { built, base, here, kept: false })
    }

    /// Builds the container for the location that slurmstepd sends, which `slot` receives.
    fn build_ahead(&self, slot: &mut Option<Here>) -> Result<Built, Refusal> {
        let Session { server, context, clock, .. } = self.session;
        let opener = self.session.opener()?;
        let resolved = self.session.resolve(&opener)?;
        let attached = pipeline::load(&resolved, self.image, &mut || {
            if slot.is_none() {
                *slot = Some(server.receive_location(opener.deadline())?);
                opener.enter_job(server.start.daemon)?;
            }
            Ok(())
        })?;
        let fit = HostFit::default();
        let guess = self.guess();
        let ahead = guess.as_ref().filter(|_| !attached.is_served());
        let ahead = ahead.and_then(|guess| self.try_ahead(&resolved, &attached, &fit, guess));
        let here = match slot {
            Some(here) => here,
            None => slot.insert(server.receive_location(opener.deadline())?),
        };
        clock.lap("wait");
        self.session.confine()?;
        let place = self.place(here);
        let fits = |ahead: &Ahead| ahead.requests == context.mount_requests(&fit.surroundings(&resolved, place));
        let (container, variables, mpi) = match ahead {
            Some(ahead) if fits(&ahead) => (ahead.container, ahead.variables, ahead.mpi),
            // Evaluated once per node: the image's scripts may take long and have side effects.
            Some(Ahead { container, variables, mpi, .. }) => {
                // The old container holds what only one container may have: the directory of an overlay, or the memory
                // of a server.
                drop(container);
                (pipeline::build(&resolved, &attached, place, &fit)?, variables, mpi)
            }
            None => (pipeline::build(&resolved, &attached, place, &fit)?, None, None),
        };
        container.attach_late_mounts(&resolved)?;
        let variables = self.environment(&resolved, &attached, (&container, &fit), variables)?;
        self.finish(container, &fit, (variables, mpi), attached, here)
    }

    /// Builds the container for the probable location of the step while slurmstepd still sets it up. An error in this
    /// guess does not matter.
    fn try_ahead(
        &self,
        resolved: &Resolved<'_>,
        attached: &AttachedImage,
        fit: &HostFit,
        guess: &Here,
    ) -> Option<Ahead> {
        let Session { server, context, .. } = self.session;
        let place = self.place(guess);
        let container = pipeline::build(resolved, attached, place, fit).ok()?;
        let requests = context.mount_requests(&fit.surroundings(resolved, place));
        let begun = Instant::now();
        let tasks = Tasks::of_image(resolved, attached, fit, &context.environment);
        // A script that exceeds the limits of this phase runs again when slurmstepd has set up the step.
        let variables = tasks.evaluate_ahead(&container.namespace, &server.channel).unwrap_or_default();
        let early = Step { line: &server.channel, daemon: None };
        let mpi = variables.as_ref();
        let mpi = mpi.and_then(|variables| self.ask_mpi(fit, &container.namespace, variables, guess, early).ok());
        resolved.opener.postpone(begun.elapsed());
        Some(Ahead { container, requests, variables, mpi })
    }

    /// Environment of the tasks, which may be known from an earlier container.
    fn environment(
        &self,
        resolved: &Resolved<'_>,
        attached: &AttachedImage,
        (container, fit): (&Container, &HostFit),
        known: Option<TaskEnvironment>,
    ) -> Result<TaskEnvironment, Refusal> {
        match known {
            Some(variables) => Ok(variables),
            None => Tasks::of_image(resolved, attached, fit, &resolved.context.environment)
                .evaluate(&container.namespace, Some(self.session.server.started())),
        }
    }

    /// Completes a container with all answers for its tasks. Earlier answers about MPI remain valid if the question is
    /// the same.
    fn finish(
        &self,
        container: Container,
        fit: &HostFit,
        (variables, before): (TaskEnvironment, Option<image_mpi::Answers>),
        attached: AttachedImage,
        here: &Here,
    ) -> Result<Built, Refusal> {
        let Session { server, context, .. } = self.session;
        let Container { namespace, plan, .. } = container;
        let pmi = image_mpi::pmi(here.pmix.as_deref(), &server.environment);
        let mut mpi = match before.filter(|before| before.pmi == pmi) {
            Some(before) => before,
            None => self.ask_mpi(fit, &namespace, &variables, here, server.started().into())?,
        };
        let provision = self.session.provision();
        if server.start.node == 0 {
            mpi.notes.extend(context.notes.iter().cloned());
            mpi.notes.extend(fit.driver_note(provision, attached.image().name()));
        }
        let changes = variables.followed_by(&[mpi.changes.clone(), context.gpu_changes(provision)].concat())?;
        Ok(Built { namespace, variables, mpi, changes, origin: Origin::Image(Box::new(attached), plan) })
    }

    /// Changes that MPI needs in this container, if the step may use MPI.
    fn ask_mpi(
        &self,
        fit: &HostFit,
        namespace: &MountNamespace,
        variables: &TaskEnvironment,
        here: &Here,
        step: Step<'_>,
    ) -> Result<image_mpi::Answers, Refusal> {
        let Session { server, context, clock, .. } = self.session;
        let start = &server.start;
        let pmi = image_mpi::pmi(here.pmix.as_deref(), &server.environment);
        // One node is enough to report it, and neither a job script nor an entry point is a rank.
        let told = start.node == 0 && start.all_tasks > 1 && !variables.entrypoint;
        let tasks = Some(start.all_tasks).filter(|_| told && !is_script(start.step));
        if pmi != Some(Pmi::Pmix) && tasks.is_none() {
            return Ok(image_mpi::Answers { pmi, ..image_mpi::Answers::default() });
        }
        let environment = variables.applied_to(&server.environment)?;
        let directory = context.settings.workdir.as_deref().unwrap_or(&here.directory);
        let command = start.command.as_deref();
        let question = image_mpi::Question { pmi, tasks, command, environment: &environment, directory };
        let mut found = image_mpi::look(&question, namespace, &start.identity, step);
        clock.lap("mpi");
        if start.node == 0 {
            found.notes.extend(fit.mpi().into_iter().flat_map(Replacement::doubts));
        }
        Ok(found)
    }

    /// Builds the container again if a task has another mount namespace than slurmstepd (job_container/tmpfs), or if
    /// its PMIx server was not known before. An image that was missing may exist there, in the job's own /tmp.
    pub(super) fn fit(
        &self,
        outcome: &mut Outcome,
        task: MountNamespace,
        pmix: Option<PathBuf>,
    ) -> Result<(), Refusal> {
        let system = |error: sys::Error| Refusal::system("the task's namespace", &error);
        let directory = || self.session.server.start.directory.clone().map(|directory| Here { directory, pmix: None });
        let Some(here) = outcome.here.clone().or_else(directory) else { return Ok(()) };
        let known = pmix.is_none() || pmix == here.pmix;
        if outcome.base.is(&task).map_err(system)? && (known || outcome.built.is_err()) {
            return Ok(());
        }
        // An operation that timed out once would time out again, after the tasks stop waiting.
        if outcome.built.as_ref().is_err_and(|refusal| refusal.kind == Kind::Timeout) {
            return Ok(());
        }
        // The build ahead may have failed before the step's devices were known.
        self.session.confine()?;
        let own = MountNamespace::current().map_err(system)?;
        sys::enter_mount_namespace(&task).map_err(system)?;
        let here = Here { directory: here.directory, pmix: pmix.or(here.pmix) };
        let moving = Err(Refusal::new(Kind::Internal, "the container", "is being built again"));
        let before = std::mem::replace(&mut outcome.built, moving).ok();
        let built = self.build_there(before, &here);
        *outcome = Outcome { built, base: task, here: Some(here), kept: false };
        sys::enter_mount_namespace(&own).map_err(system)
    }

    /// Probable location of the step; nothing if it cannot be predicted.
    fn guess(&self) -> Option<Here> {
        let server = self.session.server;
        let (directory, pmix) = (server.start.directory.clone()?, self.pmix.map(Path::to_owned));
        (pmix.is_some() || !server.has_pmix()).then_some(Here { directory, pmix })
    }

    fn place<'h>(&'h self, here: &'h Here) -> Place<'h> {
        let script_folder = self.session.server.start.script_folder.as_deref();
        Place { here, script_folder, provision: self.session.provision() }
    }

    /// Builds a container in the namespace of a task, in place of the one before.
    fn build_there(&self, before: Option<Built>, here: &Here) -> Result<Built, Refusal> {
        let Session { server, .. } = self.session;
        let before = before.map(|Built { namespace, origin, variables, .. }| {
            // It holds what only one container may have, and the opener, as a copy of this process, would hold it too.
            drop(namespace);
            (origin, variables)
        });
        let opener = self.session.opener()?;
        let resolved = self.session.resolve(&opener)?;
        // In that namespace, the path may lead to another file, such as one that sbcast copied to the job's own /tmp.
        let (attached, variables) = match before {
            Some((Origin::Image(attached, _), variables)) if attached.is_unchanged(&opener)? => {
                (*attached, Some(variables))
            }
            _ => {
                let admit = &mut || opener.enter_job(server.start.daemon);
                (pipeline::load(&resolved, self.image, admit)?, None)
            }
        };
        // The host's MPI may be another one in this namespace.
        let fit = HostFit::default();
        let container = pipeline::build(&resolved, &attached, self.place(here), &fit)?;
        container.attach_late_mounts(&resolved)?;
        let variables = self.environment(&resolved, &attached, (&container, &fit), variables)?;
        self.finish(container, &fit, (variables, None), attached, here)
    }
}
