//! `coracle prepare`: builds the container of one step on one node and hands it to the tasks.
//!
//! The plugin starts it in slurmstepd's init_post_opt hook, while slurmstepd sets up the step. It ends when the last
//! task has its answer. Any error becomes the answer, so that each task that sends a greeting gets one.
#![forbid(unsafe_code)]

mod devices;
pub mod epilog;
pub mod join;
mod mode;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::env::Pair;
use crate::mpi::Pmi;
use crate::plan::Plan;
use crate::policy;
use coracle::report::{Kind, Refusal};
use coracle::request::{Choice, Settings, is_script};
use coracle::sys::{self, CachedStat, Channel, MountNamespace, Packet, Received};
use coracle::wire::{Answer, Hello, Here, Malformed, Start};
use nix::sys::stat::Mode;

use crate::children::in_container::Step;
use crate::children::opener::Opener;
use crate::container::environment::{self, TaskEnvironment};
use crate::container::host_mpi::Replacement;
use crate::container::image_mpi;
use crate::container::pipeline::{Container, Loaded, Run};
use crate::records::{Comment, Entry, Trail};
use mode::{EffectiveRequest, StepMode};

/// Time limit for the plugin to send its request: the message is ready when the plugin starts the launcher.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Limit on the environment of a job, in bytes: slurmctld accepts no longer one.
const MAX_ENVIRONMENT: usize = 16 << 20;
/// Time limit for tasks to arrive after the start of slurmstepd. slurmstepd closes the channel when it has no more
/// tasks.
const STRAGGLERS: Duration = Duration::from_secs(600);

/// Reads the plugin's arguments and serves its step.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let config = match arguments.as_slice() {
        [flag, path] if flag == "--config" => PathBuf::from(path),
        _ => PathBuf::from(crate::config::PATH),
    };
    match sanitize().and_then(|channel| receive_start(&channel).map(|start| (channel, start))) {
        Ok((channel, Some(Ok((start, environment))))) => {
            // By then, the descriptors of the container and the channel to slurmstepd are closed.
            let comment = Server { channel, start, environment, path: config }.serve();
            comment.iter().for_each(Comment::set);
            ExitCode::SUCCESS
        }
        Ok((channel, Some(Err(malformed)))) => {
            refuse_unread(&channel, malformed.into());
            ExitCode::SUCCESS
        }
        // A user started this command, or slurmstepd has died.
        Ok((_, None)) | Err(_) => {
            eprintln!("coracle: prepare: started by Slurm's plugin, not by hand [usage]");
            ExitCode::from(2)
        }
    }
}

/// Resets what slurmstepd may have set: signal dispositions, working directory, umask, and its exemption from the OOM
/// killer.
fn sanitize() -> sys::Result<Channel> {
    sys::reset_signals()?;
    let channel = Channel::of_parent()?;
    sys::set_undumpable()?;
    // slurmstepd has the user's groups by now, and files that the launcher creates would get them.
    let root = nix::unistd::Gid::from_raw(0);
    nix::unistd::setgroups(&[]).map_err(|errno| sys::Error::new("setgroups([])", errno))?;
    nix::unistd::setresgid(root, root, root).map_err(|errno| sys::Error::new("setresgid(0)", errno))?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    nix::unistd::chdir("/").map_err(|errno| sys::Error::new("chdir(\"/\")", errno))?;
    // The file does not exist if the kernel was built without it; nothing depends on it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    Ok(channel)
}

/// Step and environment of the job; an error if the plugin has another version.
type StartMessage = Result<(Start, Vec<Pair>), Malformed>;

fn receive_start(channel: &Channel) -> sys::Result<Option<StartMessage>> {
    let Received::Packet(Packet { data, fds, .. }) = channel.receive(Instant::now() + FIRST_WORD)? else {
        return Ok(None);
    };
    let start = match Start::from_bytes(&data) {
        Ok(start) => start,
        Err(malformed) => return Ok(Some(Err(malformed))),
    };
    let Some(environment) = fds.first() else { return Ok(None) };
    Ok(Some(Ok((start, environment::parse_pairs(&sys::read_whole(environment, MAX_ENVIRONMENT)?)))))
}

/// Tells each task that the plugin has another version. The step is unknown here, so there is no record.
fn refuse_unread(channel: &Channel, refusal: Refusal) {
    let (answer, end) = (Answer::Refused(refusal).to_bytes(), Instant::now() + STRAGGLERS);
    while let Ok(Received::Packet(packet)) = channel.receive(end) {
        let greeting = Hello::from_bytes(&packet.data).is_ok();
        if greeting && channel.send(&answer, &[], Instant::now() + FIRST_WORD).is_err() {
            return;
        }
    }
}

struct Server {
    channel: Channel,
    start: Start,
    environment: Vec<Pair>,
    /// Path of coracle.yaml.
    path: PathBuf,
}

/// Container for the tasks that have not arrived yet.
struct Outcome {
    /// The container, or the reason why there is none.
    built: Result<Built, Refusal>,
    /// Namespace of the build: in another one, the same paths may lead elsewhere.
    base: MountNamespace,
    /// Location of the step, if slurmstepd has sent it.
    here: Option<Here>,
    /// True if the request was to join a running step: then the namespace of the tasks does not matter.
    joined: bool,
    /// True if the record is written.
    kept: bool,
}

/// A container and its origin.
struct Built {
    namespace: MountNamespace,
    variables: TaskEnvironment,
    /// Changes that MPI needs in addition.
    mpi: image_mpi::Answers,
    /// Both sets of changes, as sent to tasks.
    changes: OwnedFd,
    /// Image; nothing if a running step was joined.
    loaded: Option<Loaded>,
    /// Plan that was applied; nothing if a running step was joined.
    plan: Option<Plan>,
    /// The running step that was joined.
    joins: Option<u32>,
}

impl Built {
    fn answer(&self, settings: &Settings, steps: Option<OsString>) -> Answer {
        let notes = [self.variables.notes.as_slice(), &self.mpi.notes].concat();
        let (workdir, entrypoint) = (settings.workdir.clone(), self.variables.entrypoint);
        Answer::Enter { notes, workdir, entrypoint, steps }
    }
}

impl Server {
    /// Answers the step's tasks and writes their records. The comment that is returned remains to be set.
    fn serve(self) -> Option<Comment> {
        let config = Config::load(&self.path);
        let asked = self.parse_request();
        let wish = match &asked {
            Ok(Some(Choice::Container(request))) => Some((**request).clone()),
            _ => None,
        };
        let effective = match &config {
            Ok(config) => asked.and_then(|choice| self.resolve_request(choice, config)),
            // The error is reported below.
            Err(_) => Ok(None),
        };
        let request = match &effective {
            Ok(Some(EffectiveRequest { request, default: true, .. })) => Some(request.clone()),
            _ => wish,
        };
        let mut trail = Trail::of(&self.start, request.as_ref(), config.as_ref());
        let mode = match config {
            Err(error) => Err(error.into()),
            Ok(config) => effective.and_then(|effective| match effective {
                Some(effective) => self.choose_mode(effective, config),
                None => Ok(StepMode::NoContainer),
            }),
        };
        let (mut run, outcome, steps) = match mode {
            Ok(StepMode::Image(mut run, steps)) => {
                let outcome = self.begin(&mut run);
                (run, outcome, steps)
            }
            Ok(StepMode::JoinStep(mut run, step)) => {
                let outcome = self.join(&mut run, step);
                (run, outcome, None)
            }
            Ok(StepMode::HostByScope) => {
                match environment::host_changes(&self.environment) {
                    Ok(changes) => {
                        self.leave(&changes);
                        trail.outside();
                    }
                    Err(refusal) => self.refuse_all(&refusal, trail),
                }
                return None;
            }
            Ok(StepMode::NoContainer) => {
                match environment::no_changes() {
                    Ok(changes) => self.leave(&changes),
                    Err(refusal) => self.refuse_all(&refusal, trail),
                }
                return None;
            }
            Err(refusal) => {
                self.refuse_all(&refusal, trail);
                return None;
            }
        };
        let (built, entered) = match outcome {
            Ok(outcome) => self.answer_all(&mut run, &mut trail, outcome, steps),
            Err(refusal) => (Err(refusal), 0),
        };
        let entry = entry(&run, built.as_ref());
        let comment = entry.path.as_deref().filter(|_| entered > 0);
        let comment = comment.and_then(|path| Comment::of(&self.start, path, entry.digest, &run.config));
        trail.end(&entry, entered);
        comment
    }

    /// Runs the tasks on the node.
    fn leave(&self, changes: &OwnedFd) {
        self.each_task(|_, _, _| self.answer(&Answer::Outside, &[changes.as_fd()]));
    }

    /// Does all work that is possible before the first task arrives. An error in it is part of the outcome; an error is
    /// returned only if no task can be answered.
    fn begin(&self, run: &mut Run) -> Result<Outcome, Refusal> {
        let base = MountNamespace::current().map_err(|error| Refusal::system("the step's namespace", &error))?;
        let mut here = None;
        let built = self.build_ahead(run, &mut here);
        Ok(Outcome { built, base, here, joined: false, kept: false })
    }

    /// Joins the container of a running step.
    fn join(&self, run: &mut Run, step: Option<u32>) -> Result<Outcome, Refusal> {
        let base = MountNamespace::current().map_err(|error| Refusal::system("the step's namespace", &error))?;
        let built = join::find(&self.start, step).and_then(|found| {
            run.clock.lap("find");
            run.image = found.image;
            if run.config.any_rule(|rule| rule.user_options.is_some()) {
                policy::options(&self.resolve_policy(&run.config)?.rules, &run.used)?;
            }
            self.receive_location(Instant::now() + run.config.start_timeout.0)?;
            self.confine(run)?;
            let variables = run.evaluate_environment(None, &found.namespace, Some(self.step()))?;
            let (namespace, joins) = (found.namespace, Some(found.step));
            let (mpi, changes) = (image_mpi::Answers::default(), variables.followed_by(&run.joined_changes())?);
            Ok(Built { namespace, variables, mpi, changes, loaded: None, plan: None, joins })
        });
        Ok(Outcome { built, base, here: None, joined: true, kept: false })
    }

    fn build_ahead(&self, run: &mut Run, slot: &mut Option<Here>) -> Result<Built, Refusal> {
        let deadline = Instant::now() + run.config.start_timeout.0;
        let opener = Opener::of_step(&self.start.identity, deadline)?;
        let daemon = self.start.daemon;
        let loaded = run.load(&opener, &mut || {
            if slot.is_none() {
                *slot = Some(self.receive_location(deadline)?);
                opener.enter_job(daemon)?;
            }
            Ok(())
        })?;
        // Built for the probable location of the step while slurmstepd still sets it up. An error in this guess does
        // not matter.
        let guess = self.guess(run);
        let script = self.start.script_folder.as_deref();
        let mut mpi = None;
        let ahead = guess.as_ref().filter(|_| !loaded.is_served()).and_then(|guess| {
            let container = run.build(&opener, &loaded, guess, script).ok()?;
            let requests = run.mount_requests(&run.surroundings(guess, &loaded, script));
            let begun = Instant::now();
            let early = Step { daemon: None, ..self.step() };
            let variables = run.try_evaluate_environment(Some(&loaded.opened), &container.namespace, Some(early));
            // A script that exceeds the limits of this phase runs again when slurmstepd has set up the step.
            let variables = variables.unwrap_or_default();
            if let Some(variables) = &variables {
                mpi = self.ask_mpi(run, &container.namespace, variables, guess, early).ok();
            }
            opener.postpone(begun.elapsed());
            Some((container, variables, requests))
        });
        let here = match slot {
            Some(here) => here,
            None => slot.insert(self.receive_location(opener.deadline())?),
        };
        run.clock.lap("wait");
        self.confine(run)?;
        let same = |requests: &_| *requests == run.mount_requests(&run.surroundings(here, &loaded, script));
        let (container, variables) = match ahead {
            Some((container, variables, requests)) if same(&requests) => (container, variables),
            ahead => {
                // Evaluated once per node: the image's scripts may take long and have side effects.
                let variables = ahead.and_then(|(container, variables, _)| {
                    // The old container holds what only one container may have: the directory of an overlay, or the
                    // memory of a server.
                    drop(container);
                    variables
                });
                (run.build(&opener, &loaded, here, script)?, variables)
            }
        };
        run.attach_late_mounts(&opener, &container)?;
        let variables = match variables {
            Some(variables) => variables,
            None => run.evaluate_environment(Some(&loaded.opened), &container.namespace, Some(self.step()))?,
        };
        self.finish(run, container, (variables, mpi), loaded, here)
    }

    /// Completes a container with all answers for its tasks. Earlier answers about MPI remain valid if the question is
    /// the same.
    fn finish(
        &self,
        run: &mut Run,
        container: Container,
        (variables, before): (TaskEnvironment, Option<image_mpi::Answers>),
        loaded: Loaded,
        here: &Here,
    ) -> Result<Built, Refusal> {
        let Container { namespace, plan, .. } = container;
        let pmi = image_mpi::pmi(here.pmix.as_deref(), &self.environment);
        let mut mpi = match before.filter(|before| before.pmi == pmi) {
            Some(before) => before,
            None => self.ask_mpi(run, &namespace, &variables, here, self.step())?,
        };
        mpi.notes.extend(run.notes.iter().chain(&run.driver_note).filter(|_| self.start.node == 0).cloned());
        let changes = variables.followed_by(&[mpi.changes.clone(), run.gpu_changes()].concat())?;
        Ok(Built { namespace, variables, mpi, changes, loaded: Some(loaded), plan: Some(plan), joins: None })
    }

    /// Changes that MPI needs in this container, if the step may use MPI.
    fn ask_mpi(
        &self,
        run: &mut Run,
        namespace: &MountNamespace,
        variables: &TaskEnvironment,
        here: &Here,
        step: Step<'_>,
    ) -> Result<image_mpi::Answers, Refusal> {
        let pmi = image_mpi::pmi(here.pmix.as_deref(), &self.environment);
        // One node is enough to report it, and neither a job script nor an entry point is a rank.
        let told = self.start.node == 0 && self.start.all_tasks > 1 && !variables.entrypoint;
        let tasks = Some(self.start.all_tasks).filter(|_| told && !is_script(self.start.step));
        if pmi != Some(Pmi::Pmix) && tasks.is_none() {
            return Ok(image_mpi::Answers { pmi, ..image_mpi::Answers::default() });
        }
        let environment = variables.applied_to(&self.environment)?;
        let directory = run.settings.workdir.as_deref().unwrap_or(&here.directory);
        let command = self.start.command.as_deref();
        let question = image_mpi::Question { pmi, tasks, command, environment: &environment, directory };
        let mut found = image_mpi::look(&question, namespace, &self.start.identity, step);
        run.clock.lap("mpi");
        if self.start.node == 0 {
            found.notes.extend(run.mpi.iter().flat_map(Replacement::doubts));
        }
        Ok(found)
    }

    /// The step after slurmstepd has sent its location: it is in the control groups of its job by then.
    fn step(&self) -> Step<'_> {
        Step { line: &self.channel, daemon: Some(self.start.daemon) }
    }

    fn receive_location(&self, deadline: Instant) -> Result<Here, Refusal> {
        match self.channel.receive(deadline) {
            Ok(Received::Packet(packet)) => Ok(Here::from_bytes(&packet.data)?),
            Ok(Received::Closed) => Err(Refusal::new(Kind::System, "slurmstepd", "gave the step up")),
            Err(error) if error.errno() == nix::errno::Errno::ETIMEDOUT => {
                Err(Refusal::new(Kind::Timeout, "slurmstepd", "did not set up the step in time"))
            }
            Err(error) => Err(Refusal::system("slurmstepd", &error)),
        }
    }

    /// Answers every task and counts those that enter. All of them are answered even if one has ended: closing a socket
    /// with an unread greeting resets the tasks that still wait (unix(7)).
    fn answer_all(
        &self,
        run: &mut Run,
        trail: &mut Trail<'_>,
        mut outcome: Outcome,
        steps: Option<OsString>,
    ) -> (Result<Built, Refusal>, u32) {
        let mut entered = 0;
        self.each_task(|hello, task, sender| {
            if let Some(task) = task {
                self.fit(run, &mut outcome, task, hello.pmix)?;
            }
            if let Some(confinement) = &run.confinement {
                devices::adopt(confinement, sender)?;
            }
            keep(run, trail, &mut outcome);
            match &outcome.built {
                Ok(built) => {
                    let fds = [built.namespace.as_fd(), built.changes.as_fd()];
                    self.answer(&built.answer(&run.settings, steps.clone()), &fds)?;
                    entered += 1;
                    Ok(())
                }
                Err(refusal) => Err(refusal.clone()),
            }
        });
        (outcome.built, entered)
    }

    fn refuse_all(&self, refusal: &Refusal, trail: Trail<'_>) {
        self.each_task(|_, _, _| Err(refusal.clone()));
        trail.end(&Entry { refusal: Some(refusal), ..Entry::default() }, 0);
    }

    /// Waits for each task of this node; a task whose greeting ends with a refusal receives it.
    fn each_task(&self, mut greet: impl FnMut(Hello, Option<MountNamespace>, Option<u32>) -> Result<(), Refusal>) {
        let end = Instant::now() + STRAGGLERS;
        let mut greeted = 0;
        while greeted < self.start.tasks {
            let Ok(Received::Packet(packet)) = self.channel.receive(end) else { return };
            // A location of the step that arrives after the launcher stopped waiting for it.
            let Ok(hello) = Hello::from_bytes(&packet.data) else { continue };
            greeted += 1;
            let task = packet.fds.into_iter().next().map(MountNamespace::from_fd);
            if let Err(refusal) = greet(hello, task, packet.sender)
                && self.answer(&Answer::Refused(refusal), &[]).is_err()
            {
                return;
            }
        }
    }

    fn answer(&self, answer: &Answer, fds: &[BorrowedFd<'_>]) -> Result<(), Refusal> {
        let deadline = Instant::now() + FIRST_WORD;
        self.channel.send(&answer.to_bytes(), fds, deadline).map_err(|error| Refusal::system("a task", &error))
    }

    /// Builds the container again if a task has another mount namespace than slurmstepd (job_container/tmpfs), or if
    /// its PMIx server was not known before. An image that was missing may exist there, in the job's own /tmp.
    fn fit(
        &self,
        run: &mut Run,
        outcome: &mut Outcome,
        task: MountNamespace,
        pmix: Option<PathBuf>,
    ) -> Result<(), Refusal> {
        let system = |error: sys::Error| Refusal::system("the task's namespace", &error);
        let directory = || self.start.directory.clone().map(|directory| Here { directory, pmix: None });
        let there = outcome.here.clone().or_else(directory).filter(|_| !outcome.joined);
        let Some(here) = there else { return Ok(()) };
        let known = pmix.is_none() || pmix == here.pmix;
        if outcome.base.is(&task).map_err(system)? && (known || outcome.built.is_err()) {
            return Ok(());
        }
        // An operation that timed out once would time out again, after the tasks stop waiting.
        if outcome.built.as_ref().is_err_and(|refusal| refusal.kind == Kind::Timeout) {
            return Ok(());
        }
        // The build ahead may have failed before the step's devices were known.
        if run.confinement.is_none() {
            self.confine(run)?;
        }
        let own = MountNamespace::current().map_err(system)?;
        sys::enter_mount_namespace(&task).map_err(system)?;
        let here = Here { directory: here.directory, pmix: pmix.or(here.pmix) };
        let moving = Err(Refusal::new(Kind::Internal, "the container", "is being built again"));
        let before = std::mem::replace(&mut outcome.built, moving).ok();
        let built = self.build_there(run, before, &here);
        *outcome = Outcome { built, base: task, here: Some(here), joined: false, kept: false };
        sys::enter_mount_namespace(&own).map_err(system)
    }

    /// Probable location of the step; nothing if it cannot be predicted.
    fn guess(&self, run: &Run) -> Option<Here> {
        let (directory, pmix) = (self.start.directory.clone()?, run.server.clone());
        (pmix.is_some() || !self.has_pmix()).then_some(Here { directory, pmix })
    }

    fn build_there(&self, run: &mut Run, before: Option<Built>, here: &Here) -> Result<Built, Refusal> {
        let before = before.map(|Built { namespace, loaded, variables, .. }| {
            // It holds what only one container may have, and the opener, as a copy of this process, would hold it too.
            drop(namespace);
            (loaded, variables)
        });
        let opener = Opener::of_step(&self.start.identity, Instant::now() + run.config.start_timeout.0)?;
        // In that namespace, the path may lead to another file, such as one that sbcast copied to the job's own /tmp.
        let (loaded, variables) = match before {
            Some((Some(loaded), variables)) if is_image_unchanged(&opener, run, &loaded)? => (loaded, Some(variables)),
            _ => (run.load(&opener, &mut || opener.enter_job(self.start.daemon))?, None),
        };
        // Depends on files that may differ in this namespace.
        run.mpi = None;
        let container = run.build(&opener, &loaded, here, self.start.script_folder.as_deref())?;
        run.attach_late_mounts(&opener, &container)?;
        let variables = match variables {
            Some(variables) => variables,
            None => run.evaluate_environment(Some(&loaded.opened), &container.namespace, Some(self.step()))?,
        };
        self.finish(run, container, (variables, None), loaded, here)
    }
}

/// Writes the record of a container before any task gets it.
fn keep(run: &mut Run, trail: &mut Trail<'_>, outcome: &mut Outcome) {
    let file = run.config.audit.file.is_some();
    if std::mem::replace(&mut outcome.kept, true) || outcome.built.is_err() || !file {
        return;
    }
    let begun = Instant::now();
    if let Err(refusal) = trail.begin(&entry(run, outcome.built.as_ref())) {
        outcome.built = Err(refusal);
    }
    run.clock.add("record", begun.elapsed());
}

/// Record of a container, or of the reason why there is none.
fn entry<'a>(run: &'a Run, built: Result<&'a Built, &'a Refusal>) -> Entry<'a> {
    let entry = Entry { settings: Some((&run.settings, &run.config)), clock: Some(&run.clock), ..Entry::default() };
    let built = match built {
        Ok(built) => built,
        Err(refusal) => return Entry { refusal: Some(refusal), ..entry },
    };
    let loaded = built.loaded.as_ref();
    Entry {
        user: loaded.and_then(|loaded| loaded.account.name()),
        path: loaded.and_then(|loaded| sys::fd_path(&loaded.opened.file).ok()),
        digest: loaded.and_then(|loaded| loaded.opened.digest),
        signers: loaded.and_then(|loaded| loaded.opened.signers.clone()),
        joins: built.joins,
        rule: Some(loaded.map_or("step", |loaded| loaded.rule.as_str())),
        plan: built.plan.as_ref(),
        ..entry
    }
}

/// True if the image's path leads to the same file that was loaded, unchanged.
fn is_image_unchanged(opener: &Opener, run: &Run, loaded: &Loaded) -> Result<bool, Refusal> {
    // A directory can only be cloned in the namespace of its mount.
    if loaded.opened.image.is_directory() {
        return Ok(false);
    }
    // A file takes precedence over the stored image, and this namespace may have one.
    if run.stored.is_some() && run.image.file().is_some_and(|file| !matches!(opener.open_source(file), Ok(Err(_)))) {
        return Ok(false);
    }
    let Ok((found, _)) = opener.open_source(run.path())? else { return Ok(false) };
    let known = CachedStat::of(&loaded.opened.file).ok();
    Ok(CachedStat::of(&found).is_ok_and(|found| {
        known.is_some_and(|known| {
            (found.device, found.inode, found.size, found.changed)
                == (known.device, known.inode, known.size, known.changed)
        })
    }))
}
