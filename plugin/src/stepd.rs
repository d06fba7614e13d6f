//! Implements the hooks in slurmstepd and the tasks that it forks, in Slurm's order.
//!
//! No hook before task_init fails: it records the cause and continues. task_init runs as the user before any program of
//! the user. It reports the cause and ends the task.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, OsString, c_int};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle::env::Change;
use coracle::mpi::SERVER_FOLDER;
use coracle::options::{Naming, RawOptions};
use coracle::report::{Kind, Refusal};
use coracle::request::{BATCH_STEP, Choice, MAX_LEN, NODE, Request, Scope, is_script};
use coracle::sys::{self, Channel, Identity, MountNamespace, Received, Release, SharedFlags};
use coracle::wire::{Answer, Hello, Here, Start};

use crate::arguments::Arguments;
use crate::face::{self, Spank};
use crate::het;
use crate::slurm;
use crate::submit::{CONTAINER, CONTAINER_GIVEN, REQUEST, STEPS};

/// Step that holds a job's allocation and runs no program (slurm.h, SLURM_EXTERN_CONT).
const EXTERN_STEP: u32 = 0xffff_fffc;

/// Exit status of a refused task (docs/messages.md).
const REFUSED: c_int = 125;
/// Directory that slurmstepd enters when it cannot enter the job's (slurmd/slurmstepd/mgr.c).
const FALLBACK: &str = "/tmp";
/// Maximum waiting time of a task. The launcher gives up earlier (start_timeout, at most 45 s, and 60 s for the image's
/// scripts); this limit is for a launcher that hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// Name of a waiting task, so that scancel reaches it: see [`sys::while_cancellable`].
const WAITING: &CStr = c"coracle-wait";
/// Name of the node in slurmstepd's own environment.
const NODE_NAME: &CStr = c"SLURMD_NODENAME";
/// Maximum length of the changes to an environment, in bytes.
const MAX_CHANGES: usize = 4 << 20;
/// Path inside of `coracle-inside`, under the name that makes it run an entry point.
const ENTRYPOINT: &CStr = c"/run/coracle/entrypoint";
/// Variable that holds the command's first word.
const COMMAND: &CStr = c"SLURM_CORACLE_COMMAND";

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

/// State of the step.
#[derive(Default)]
pub struct State {
    /// True if the job's environment has been read.
    read: bool,
    /// True if a container was requested, or the site may have one for the step.
    wanted: bool,
    /// True if the launcher is asked about steps without a request.
    defaults: bool,
    /// Answer of the launcher to this task, once there is one.
    place: Option<Place>,
    /// Reason why no task may start.
    cause: Option<Refusal>,
    /// True if the cause concerns this task only.
    alone: bool,
    channel: Option<Channel>,
    flags: Option<SharedFlags>,
    directory: Option<PathBuf>,
    naming: Naming,
    job: u32,
    step: u32,
    nodes: u32,
    tasks: u32,
    forked: u32,
    /// The job's user; the step is ended as that user.
    identity: Option<Identity>,
    /// Jobs of a heterogeneous step's components; empty for other steps.
    components: Vec<u32>,
}

impl State {
    /// Records why no task may start; the first cause counts.
    pub fn refuse(&mut self, cause: Refusal) {
        self.wanted = true;
        self.cause.get_or_insert(cause);
        // Without a shared page, each task would report it.
        if self.flags.is_none() {
            self.flags = SharedFlags::new().ok();
        }
    }

    /// Like [`Self::refuse`], for a cause that concerns only a step with a container.
    pub fn refuse_if_wanted(&mut self, cause: Refusal) {
        if self.wanted {
            self.refuse(cause);
        }
    }
}

/// Container that a task is to run in.
#[derive(Default)]
struct Place {
    /// Changes to the task's environment.
    changes: Vec<Change>,
    /// Notes for the user.
    notes: Vec<String>,
    /// Directory in which the task starts, if it is not the job's.
    workdir: Option<PathBuf>,
    /// True if the image's entry point runs the command.
    entrypoint: bool,
    /// True in the container, false on the node.
    inside: bool,
    /// Request that the task's steps inherit, if that is the site's default.
    steps: Option<OsString>,
}

/// Reads the request and starts the launcher, as root, before the step is set up. The launcher works while slurmstepd
/// sets up the step.
pub fn init_post_opt(state: &mut State, arguments: &Arguments, spank: &Spank<'_>) {
    let step = spank.step();
    if step == Some(EXTERN_STEP) {
        return;
    }
    state.naming = arguments.naming;
    let step = step.unwrap_or_default();
    state.defaults = arguments.defaults;
    let (form, choice) = match choice_of(spank) {
        // A plugin that could not read its own arguments must not stop steps that do not need it.
        Ok(None | Some(Choice::Host)) if !arguments.defaults => {
            *state = State { read: true, ..State::default() };
            if step == BATCH_STEP {
                // The request of the job in which sbatch was called.
                spank.unsetenv(STEPS);
            }
            spank.unsetenv(REQUEST);
            return;
        }
        Ok(choice) => (choice.as_ref().map(Choice::to_env).unwrap_or_default().into(), choice),
        Err((form, refusal)) => {
            state.refuse(refusal);
            (form, None)
        }
    };
    state.read = true;
    let scope = match &choice {
        Some(Choice::Container(request)) => request.settings.scope,
        _ => None,
    };
    if is_script(step) && scope == Some(Scope::Steps) && !arguments.defaults {
        pass_on(spank, Some(&form));
        return;
    }
    state.wanted = true;
    prepare_flags(state, spank, step);
    let node = OsString::from(NODE);
    match scope {
        // Otherwise a step without a request would get the site's default.
        Some(Scope::Script) => pass_on(spank, arguments.defaults.then_some(&node)),
        _ => pass_on(spank, choice.is_some().then_some(&form)),
    }
    // A request that cannot be read goes to the launcher as well, because the launcher writes the log.
    if let Err(refusal) = start(state, arguments, spank, &form) {
        state.refuse(refusal);
    }
}

/// Sets the request that the steps of this job inherit in the environment of this step's tasks, and removes a stale
/// one.
fn pass_on(spank: &Spank<'_>, form: Option<&OsString>) {
    spank.unsetenv(CONTAINER);
    spank.unsetenv(CONTAINER_GIVEN);
    spank.unsetenv(REQUEST);
    for group in 0..u32::try_from(components(spank).len()).unwrap_or(0) {
        spank.unsetenv(&het::of_group(REQUEST, group));
    }
    match form.and_then(|form| CString::new(form.as_bytes()).ok()) {
        Some(form) => spank.setenv(STEPS, &form),
        None => spank.unsetenv(STEPS),
    }
}

/// Returns the request in the job's environment, if there is one. The user controls it, so all of it is checked again.
/// A request that cannot be read is returned with the reason.
fn choice_of(spank: &Spank<'_>) -> Result<Option<Choice>, (OsString, Refusal)> {
    let read = |form: OsString| Choice::from_env(&form).map(Some).map_err(|error| (form, error.into()));
    let group = own_group(spank);
    let of_group = |name: &CStr| group.and_then(|group| spank.getenv(&het::of_group(name, group), MAX_LEN + 1));
    if of_group(REQUEST).is_some_and(|form| form == het::NOTHING) {
        return Ok(None);
    }
    if let Some(form) = of_group(REQUEST).or_else(|| spank.getenv(REQUEST, MAX_LEN + 1)) {
        return read(form);
    }
    // The submit host has no plugin. With the plugin, Slurm's variable does not reach a node.
    let Some(image) = spank.getenv(CONTAINER, MAX_LEN).filter(|image| !image.is_empty()) else {
        // Request that a step inherits from its job. An srun with the plugin makes a request of it and removes it. If
        // it is still there, the srun had no plugin, such as one of an image.
        let inherited = spank.getenv(STEPS, MAX_LEN + 1).filter(|_| spank.step() != Some(BATCH_STEP));
        return inherited.map_or(Ok(None), read);
    };
    let directory = directory_of(spank);
    let directory = directory.as_deref().unwrap_or(Path::new("/"));
    Request::parse(&RawOptions::default(), &image, directory).map(Some).map_err(|error| (image, error.into()))
}

/// Returns the job's `PWD`, the expected working directory. With --chdir the directory is another one.
fn directory_of(spank: &Spank<'_>) -> Option<PathBuf> {
    spank.getenv(c"PWD", MAX_LEN).map(PathBuf::from).filter(|path| path.is_absolute())
}

fn prepare_flags(state: &mut State, spank: &Spank<'_>, step: u32) {
    state.step = step;
    state.job = spank.job().unwrap_or(0);
    state.nodes = spank.nodes().unwrap_or(1);
    state.tasks = spank.local_tasks().unwrap_or(1);
    state.components = components(spank);
    if let (Some(uid), Some(gid), Some(groups)) = (spank.uid(), spank.gid(), spank.groups()) {
        state.identity = Some(Identity { uid, gid, groups });
    }
    match SharedFlags::new() {
        Ok(flags) => state.flags = Some(flags),
        Err(error) => state.refuse(Refusal::system("slurmstepd", &error)),
    }
}

/// Returns the jobs of the components of a heterogeneous step, from the job's environment: only the user's own jobs can
/// be ended with them (see [`end_step`]).
fn components(spank: &Spank<'_>) -> Vec<u32> {
    let number = |name: String| {
        let name = CString::new(name).ok()?;
        spank.getenv(&name, 16)?.to_str()?.parse::<u32>().ok()
    };
    let count = number("SLURM_HET_SIZE".into()).unwrap_or(0).min(het::MAX_COMPONENTS);
    (0..count).filter_map(|group| het::id_names(group).into_iter().find_map(number)).collect()
}

/// Returns the number of the component of a heterogeneous job that this step belongs to.
fn own_group(spank: &Spank<'_>) -> Option<u32> {
    let own = spank.job()?;
    let index = components(spank).iter().position(|job| *job == own)?;
    u32::try_from(index).ok()
}

fn start(state: &mut State, arguments: &Arguments, spank: &Spank<'_>, form: &OsStr) -> Result<(), Refusal> {
    let unknown = |what: &str| Refusal::new(Kind::Internal, "slurmstepd", format!("does not say the step's {what}"));
    // A longer word is no path.
    let command = spank.command().filter(|command| command.len() < MAX_LEN);
    let script = command.clone().filter(|_| state.step == BATCH_STEP).map(PathBuf::from);
    let message = Start {
        job: state.job,
        step: state.step,
        daemon: std::process::id(),
        nodes: state.nodes,
        node: spank.node().unwrap_or(0),
        tasks: state.tasks,
        all_tasks: spank.all_tasks().unwrap_or(state.tasks),
        command,
        identity: state.identity.clone().ok_or_else(|| unknown("user and groups"))?,
        request: form.to_owned(),
        script_folder: script.filter(|path| path.is_absolute()).and_then(|path| path.parent().map(Path::to_owned)),
        directory: directory_of(spank),
        slurm_conf: sys::get_env(c"SLURM_CONF").map(PathBuf::from).filter(|path| path.is_absolute()),
        // From slurmstepd's own environment, and not from the job's (slurmstepd.c, _init_from_slurmd).
        node_name: sys::get_env(NODE_NAME),
    };
    let launcher = arguments.launcher.as_c_str();
    let failed = |error: sys::Error| {
        Refusal::system(launcher.to_string_lossy(), &error).hint("is Coracle's launcher installed on this node?")
    };
    let (ours, theirs) = Channel::pair().map_err(failed)?;
    // Before another process has the socket: a task may send its greeting before the launcher runs.
    theirs.name_senders().map_err(failed)?;
    let words = [c"coracle", c"prepare", c"--config", arguments.config.as_c_str()];
    let environment = sys::memory_file(&spank.environment()).map_err(failed)?;
    sys::spawn_reparented(launcher, &words, &theirs).map_err(failed)?;
    ours.send(&message.to_bytes(), &[environment.as_fd()], Instant::now() + PATIENCE).map_err(failed)?;
    state.channel = Some(ours);
    Ok(())
}

/// Sends the working directory to the launcher, as the user: it is known only now.
pub fn user_init(state: &mut State) -> c_int {
    let Some(channel) = state.channel.as_ref().filter(|_| state.cause.is_none()) else { return 0 };
    match std::env::current_dir() {
        Ok(directory) => {
            let here = Here { directory: directory.clone(), pmix: sys::get_env(SERVER_FOLDER).map(PathBuf::from) };
            // If the launcher has ended, the tasks see it when they ask.
            let _ = channel.send(&here.to_bytes(), &[], Instant::now() + PATIENCE);
            state.directory = Some(directory);
        }
        Err(cause) => state.refuse(Refusal::new(Kind::Workdir, "the working directory", cause.to_string())),
    }
    0
}

/// Enters the container, in each task, as root.
pub fn task_init_privileged(state: &mut State, _: &Spank<'_>) -> c_int {
    if !state.wanted || state.cause.is_some() {
        return 0;
    }
    match sys::while_cancellable(WAITING, || enter(state)) {
        Ok(place) => {
            state.place = Some(place);
            if let Some(flags) = &state.flags {
                flags.raise(FLAG_ENTERED);
            }
        }
        Err((refusal, alone)) => {
            state.alone = alone;
            state.refuse(refusal);
        }
    }
    // No descriptor of the plugin may be open when Slurm changes to the user's directory.
    state.channel = None;
    0
}

/// Greets the launcher, waits for the namespace, enters it, and gives up root's capabilities there. The flag is true if
/// the refusal concerns this task only.
fn enter(state: &State) -> Result<Place, (Refusal, bool)> {
    let system = |error: sys::Error| (Refusal::system("entering the container", &error), true);
    let silent = || (Refusal::new(Kind::Internal, "the launcher", "ended without an answer"), true);
    let deadline = Instant::now() + PATIENCE;
    let channel = state.channel.as_ref().ok_or_else(silent)?;
    let own = MountNamespace::current().map_err(system)?;
    let hello = Hello { pmix: sys::get_env(SERVER_FOLDER).map(PathBuf::from) };
    channel.send(&hello.to_bytes(), &[own.as_fd()], deadline).map_err(|_| silent())?;
    let packet = match channel.receive(deadline) {
        Ok(Received::Packet(packet)) => packet,
        Ok(Received::Closed) => return Err(silent()),
        Err(_) => return Err((Refusal::new(Kind::Timeout, "the launcher", "did not answer in time"), true)),
    };
    let mut place = match Answer::from_bytes(&packet.data).map_err(|malformed| (malformed.into(), true))? {
        Answer::Enter { notes, workdir, entrypoint, steps } => {
            Place { changes: Vec::new(), notes, workdir, entrypoint, inside: true, steps }
        }
        Answer::Outside => Place::default(),
        Answer::Refused(refusal) => return Err((refusal, false)),
    };
    let mut fds = packet.fds.iter();
    if place.inside {
        sys::enter_mount_namespace(fds.next().ok_or_else(silent)?).map_err(system)?;
    }
    let changes = sys::read_whole(fds.next().ok_or_else(silent)?, MAX_CHANGES).map_err(system)?;
    place.changes = Change::from_bytes(&changes).ok_or_else(silent)?;
    if place.inside {
        sys::set_no_new_privileges().map_err(system)?;
        sys::drop_capabilities().map_err(system)?;
    }
    Ok(place)
}

/// Prepares the task, as the user and in the container, before TaskProlog and the command.
pub fn task_init(state: &mut State, spank: &Spank<'_>) -> c_int {
    if !state.read {
        // A plugin before this one failed in init_post_opt with a positive number: Slurm then skips this plugin, and
        // continues.
        match choice_of(spank) {
            Ok(None | Some(Choice::Host)) if !state.defaults => return 0,
            _ => state.refuse(skipped("init_post_opt")),
        }
    }
    if !state.wanted {
        return 0;
    }
    let settled = match (state.cause.take(), state.place.take()) {
        (Some(cause), _) => Err(cause),
        (None, None) => {
            state.alone = true;
            Err(skipped("task_init_privileged"))
        }
        (None, Some(place)) => {
            let settled = settle(state, spank, &place);
            state.alone = settled.is_err();
            settled
        }
    };
    if let Err(refusal) = settled {
        leave(state, &refusal);
    }
    0
}

/// Finishes the set-up of a task that is in its container.
fn settle(state: &State, spank: &Spank<'_>, place: &Place) -> Result<(), Refusal> {
    let text = |text: &OsStr| CString::new(text.as_bytes()).ok();
    if !place.notes.is_empty() && state.flags.as_ref().is_none_or(|flags| !flags.raise(FLAG_NOTED)) {
        place.notes.iter().for_each(|note| face::note(note));
    }
    for change in &place.changes {
        match change {
            Change::Set(name, value) => {
                if let (Some(name), Some(value)) = (text(name), text(value)) {
                    spank.setenv(&name, &value);
                }
            }
            Change::Unset(name) => text(name).iter().for_each(|name| spank.unsetenv(name)),
            Change::Without(name, _) | Change::Numbered(name, _) => {
                let Some(name) = text(name) else { continue };
                let new = spank.getenv(&name, MAX_LEN).and_then(|list| text(&change.of_list(&list)?));
                new.iter().for_each(|new| spank.setenv(&name, new));
            }
        }
    }
    if !place.inside {
        return Ok(());
    }
    place.steps.iter().filter_map(|steps| text(steps)).for_each(|steps| spank.setenv(STEPS, &steps));
    match &place.workdir {
        Some(workdir) => {
            go_to(workdir)?;
            text(workdir.as_os_str()).iter().for_each(|workdir| spank.setenv(c"PWD", workdir));
        }
        None => enter_directory(state.directory.as_deref())?,
    }
    if place.entrypoint {
        let command = spank.replace_command(ENTRYPOINT.into()).and_then(|command| text(&command));
        let command = command.ok_or_else(|| Refusal::new(Kind::Internal, "slurmstepd", "did not say the command"))?;
        spank.setenv(COMMAND, &command);
    }
    sys::unblock_sigchld().map_err(|error| Refusal::system("slurmstepd", &error))
}

fn skipped(hook: &str) -> Refusal {
    Refusal::new(Kind::Internal, "plugin", format!("Slurm has not called its {hook}"))
        .hint("does another plugin before it in plugstack.conf fail there?")
}

/// Enters the working directory of the step, unless the task is there. If Slurm cannot enter the job's directory, it
/// enters /, reports that, and starts the task there.
fn enter_directory(directory: Option<&Path>) -> Result<(), Refusal> {
    let Some(directory) = directory else {
        return Err(Refusal::new(Kind::Internal, "slurmstepd", "did not say the working directory"));
    };
    let now = std::env::current_dir().ok();
    // slurmstepd has entered its own fallback because the directory is only in the job's private tree
    // (job_container/tmpfs), and the task has found it there.
    let found = directory == Path::new(FALLBACK) && now.as_deref().is_some_and(|now| now != Path::new("/"));
    if found || now.as_deref() == Some(directory) {
        return Ok(());
    }
    go_to(directory)
}

fn go_to(directory: &Path) -> Result<(), Refusal> {
    nix::unistd::chdir(directory).map_err(|errno| {
        Refusal::new(
            Kind::Workdir,
            directory.display().to_string(),
            format!("cannot be entered in the container: {}", errno.desc()),
        )
    })
}

/// Reports a refusal once for the node and ends this task.
fn leave(state: &State, refusal: &Refusal) -> ! {
    // Without the shared page, which practically never happens, every task reports.
    let first = state.flags.as_ref().is_none_or(|flags| !flags.raise(FLAG_REFUSED));
    if let Some(flags) = state.flags.as_ref().filter(|_| state.alone) {
        flags.raise(FLAG_TASK_ONLY);
    }
    if first {
        face::complain(&with_node_name(refusal), state.naming);
    }
    face::exit_task(REFUSED)
}

/// Names the node in a refusal where slurmstepd does not: since 25.05 it begins its lines with the time instead
/// (src/common/log.c).
fn with_node_name(refusal: &Refusal) -> Refusal {
    match sys::get_env(NODE_NAME).filter(|_| sys::release() >= Some(Release(25, 5))) {
        Some(node) => {
            Refusal { cause: format!("{} (node {})", refusal.cause, node.to_string_lossy()), ..refusal.clone() }
        }
        None => refusal.clone(),
    }
}

/// Reports a panic in task_init itself: no later hook can report it.
pub fn task_panicked(state: &mut face::State, fault: Refusal) -> c_int {
    if !state.stepd.wanted {
        return 0;
    }
    leave(&state.stepd, &fault)
}

/// Counts a forked task, in slurmstepd, as root, once for each task.
pub fn task_post_fork(state: &mut State) -> c_int {
    state.forked += 1;
    if state.forked >= state.tasks {
        // The closed channel tells the launcher that no more tasks will come.
        state.channel = None;
    }
    0
}

/// Ends the step on all nodes if this node refused. Runs in slurmstepd, as root, once for each task that has ended.
/// Otherwise ranks on other nodes would wait for it until the time limit.
pub fn task_exit(state: &mut State) -> c_int {
    let Some(flags) = &state.flags else { return 0 };
    let here = flags.is_raised(FLAG_TASK_ONLY) || flags.is_raised(FLAG_ENTERED);
    let others = here || state.nodes > 1 || !state.components.is_empty();
    if flags.is_raised(FLAG_REFUSED) && others && !flags.raise(FLAG_KILLED) {
        end_step(state);
    }
    0
}

/// Removes the control group that the launcher may have made for the step. Runs in slurmstepd, as root, when the step
/// is over. A group that cannot be removed yet is removed when the next step starts.
pub fn exit(state: &mut State) -> c_int {
    if state.wanted
        && face::context() == face::Context::Stepd
        && let Ok(groups) = sys::Cgroups::of(std::process::id())
    {
        groups.remove_child(&sys::own_group(state.job, state.step));
    }
    *state = State::default();
    0
}

/// Waits before each call that ends the step. The first one gives the cause time to reach srun, which prints nothing
/// more of an ended step.
const TELL: [Duration; 10] = {
    let mut waits = [Duration::from_millis(30); 10];
    let mut index = 1;
    while index < waits.len() {
        waits[index] = Duration::from_millis(50 << index);
        index += 1;
    }
    waits
};
/// Upper limit for the sum of these and the time of the calls.
const TELL_LIMIT: Duration = Duration::from_secs(90);

/// Ends the step on all nodes.
///
/// Once is not enough: Slurm sends no signal to a process that is still called slurmstepd (proctrack/linuxproc). A
/// task of another node between its fork and its execve misses the signal, starts, and waits for its peers for ever. So
/// the call is repeated until the controller does not know the step. It is made as the job's user, who may end their
/// own steps and no others. It is made in a process beside slurmstepd, which must not wait for a slow controller. Where
/// the call does not exist, `srun -K` and KillOnBadExit have to end the step.
fn end_step(state: &State) {
    let Some(identity) = &state.identity else { return };
    let jobs = if state.components.is_empty() { vec![state.job] } else { state.components.clone() };
    // The job may end, and its control group with it, before this process does.
    let leave_groups = || {
        let _ = sys::Cgroups::of(std::process::id()).and_then(|cgroups| cgroups.leave_job());
    };
    let _ = sys::spawn_detached(TELL_LIMIT, leave_groups, || {
        if sys::become_user(identity).is_err() {
            return;
        }
        let mut failed = 0;
        for wait in TELL {
            std::thread::sleep(wait);
            let known = jobs.iter().filter(|job| slurm::kill_step(**job, state.step)).count();
            // A controller that did not answer is asked again; two answers that the step is unknown are enough.
            failed = if known == 0 { failed + 1 } else { 0 };
            if failed == 2 {
                return;
            }
        }
    });
}
