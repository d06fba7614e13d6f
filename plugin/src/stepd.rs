//! Acts in slurmstepd and the tasks that it forks, hook by hook in Slurm's order.
//!
//! No hook before task_init fails: it records the cause and continues ([`Step`]). task_init runs as the user before any
//! program of the user. It reports the cause and ends the task.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsString, c_int};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle::env::Change;
use coracle::mpi::SERVER_DIRECTORY;
use coracle::options::Naming;
use coracle::report::{Kind, Refusal};
use coracle::request::{BATCH_STEP, Choice, MAX_LEN};
use coracle::spank::{
    Arguments, Context, Ending, Facts, Job, Place, Plan, Reach, Refused, Step, TaskStart, components,
    expected_directory, is_extern, pass_on, plan_step, read_answer, read_request, silent, with_node_name,
};
use coracle::sys::{self, Channel, Identity, MountNamespace};
use coracle::wire::{Hello, Here, Start};

use crate::slurm::{self, Spank};

/// Exit status of a refused task (docs/messages.md).
const REFUSED: c_int = 125;
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

/// Reads the request and starts the launcher, as root, before the step is set up. The launcher works while slurmstepd
/// sets up the step.
pub fn init_post_opt(step: &mut Step, arguments: &Arguments, spank: &Spank<'_>) {
    let id = spank.step();
    if is_extern(id) {
        return step.stay_on_node();
    }
    let plan = plan_step(id.unwrap_or_default(), arguments.defaults, read_request(spank));
    let facts = match &plan {
        Plan::OnNode { .. } => {
            step.stay_on_node();
            None
        }
        Plan::PassOn(_) => {
            step.pass_on();
            None
        }
        Plan::Launch { fault, .. } => {
            let facts = facts_of(spank);
            step.build(facts.clone(), fault.clone());
            Some(facts)
        }
    };
    // Only now: task_init would not find a request that is removed here.
    pass_on(spank, &plan);
    if let (Some(facts), Plan::Launch { request, .. }) = (facts, plan) {
        match start(&facts, arguments, spank, request) {
            Ok(channel) => step.connect(channel),
            Err(refusal) => step.refuse(refusal),
        }
    }
}

/// Returns Slurm's record of the step.
fn facts_of(spank: &Spank<'_>) -> Facts {
    let identity = match (spank.uid(), spank.gid(), spank.groups()) {
        (Some(uid), Some(gid), Some(groups)) => Some(Identity { uid, gid, groups }),
        _ => None,
    };
    Facts {
        job: spank.id().unwrap_or(0),
        step: spank.step().unwrap_or_default(),
        nodes: spank.nodes().unwrap_or(1),
        tasks: spank.local_tasks().unwrap_or(1),
        identity,
        components: components(spank),
    }
}

/// Starts the launcher, and sends it what it has to know about the step.
fn start(facts: &Facts, arguments: &Arguments, spank: &Spank<'_>, request: OsString) -> Result<Channel, Refusal> {
    let unknown = |what: &str| Refusal::new(Kind::Internal, "slurmstepd", format!("does not say the step's {what}"));
    // A longer word is no path.
    let command = spank.command().filter(|command| command.len() < MAX_LEN);
    let script = command.clone().filter(|_| facts.step == BATCH_STEP).map(PathBuf::from);
    let message = Start {
        job: facts.job,
        step: facts.step,
        daemon: std::process::id(),
        nodes: facts.nodes,
        node: spank.node().unwrap_or(0),
        tasks: facts.tasks,
        all_tasks: spank.all_tasks().unwrap_or(facts.tasks),
        command,
        identity: facts.identity.clone().ok_or_else(|| unknown("user and groups"))?,
        request,
        script_folder: script.filter(|path| path.is_absolute()).and_then(|path| path.parent().map(Path::to_owned)),
        directory: expected_directory(spank),
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
    Ok(ours)
}

/// Sends the working directory to the launcher, as the user: it is known only now.
pub fn user_init(step: &mut Step) {
    let Some(channel) = step.channel() else { return };
    match std::env::current_dir() {
        Ok(directory) => {
            let here = Here { directory: directory.clone(), pmix: sys::get_env(SERVER_DIRECTORY).map(PathBuf::from) };
            // If the launcher has ended, the tasks see it when they ask.
            let _ = channel.send(&here.to_bytes(), &[], Instant::now() + PATIENCE);
            step.work_in(directory);
        }
        Err(cause) => step.refuse(Refusal::new(Kind::Workdir, "the working directory", cause.to_string())),
    }
}

/// Enters the container, in each task, as root.
pub fn task_init_privileged(step: &mut Step) {
    if step.is_building() {
        let result = sys::while_cancellable(WAITING, || enter(step.need_channel()?));
        step.enter(result);
    }
}

/// Greets the launcher, waits for the namespace, enters it, and gives up root's capabilities there.
fn enter(channel: &Channel) -> Result<Place, Refused> {
    let system = |error: sys::Error| (Refusal::system("entering the container", &error), Reach::Task);
    let deadline = Instant::now() + PATIENCE;
    let own = MountNamespace::current().map_err(system)?;
    let hello = Hello { pmix: sys::get_env(SERVER_DIRECTORY).map(PathBuf::from) };
    channel.send(&hello.to_bytes(), &[own.as_fd()], deadline).map_err(|_| silent())?;
    let (mut place, fds) = read_answer(channel.receive(deadline))?;
    let mut fds = fds.iter();
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

/// Prepares the task, as the user and in the container, before TaskProlog and the command. A refused task ends here.
pub fn task_init(step: &mut Step, spank: &Spank<'_>, naming: Naming) {
    let is_requested = || !matches!(read_request(spank), Ok(None | Some(Choice::Host)));
    match step.start_task(is_requested) {
        TaskStart::OnNode => {}
        TaskStart::InPlace => {
            if let Err(refusal) = settle(step, spank) {
                step.refuse_task(refusal);
                end_task(step, naming);
            }
        }
        TaskStart::Refused => end_task(step, naming),
    }
}

/// Finishes the set-up of a task that is in its place.
fn settle(step: &Step, spank: &Spank<'_>) -> Result<(), Refusal> {
    let Some((place, directory)) = step.place() else { return Ok(()) };
    if !place.notes.is_empty() && step.is_first_with_notes() {
        place.notes.iter().for_each(|note| slurm::note(note));
    }
    place.apply(spank);
    if !place.inside {
        return Ok(());
    }
    if let Some(directory) = place.directory(directory, std::env::current_dir().ok().as_deref())? {
        go_to(directory)?;
    }
    if let Some(workdir) = place.workdir.as_ref().and_then(|workdir| CString::new(workdir.as_os_str().as_bytes()).ok())
    {
        spank.set_variable(c"PWD", &workdir);
    }
    if place.entrypoint {
        let command = spank.replace_command(ENTRYPOINT.into()).and_then(|word| CString::new(word.as_bytes()).ok());
        let command = command.ok_or_else(|| Refusal::new(Kind::Internal, "slurmstepd", "did not say the command"))?;
        spank.set_variable(COMMAND, &command);
    }
    sys::unblock_sigchld().map_err(|error| Refusal::system("slurmstepd", &error))
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

/// Reports the refusal once for the node, and ends this task.
pub fn end_task(step: &Step, naming: Naming) -> ! {
    if let Some(cause) = step.refusal() {
        slurm::complain(&with_node_name(cause, sys::get_env(NODE_NAME), sys::release()), naming);
    }
    slurm::exit_task(REFUSED)
}

/// Ends the step on all nodes if this node refused. Runs in slurmstepd, as root, once for each task that has ended.
pub fn task_exit(step: &Step) {
    if let Some(ending) = step.ending() {
        end_step(&ending);
    }
}

/// Removes the control group that the launcher may have made for the step. Runs in slurmstepd, as root, when the step
/// is over. A group that cannot be removed yet is removed when the next step starts.
pub fn exit(step: &mut Step) {
    if let Some(group) = step.finish()
        && slurm::context() == Context::Stepd
        && let Ok(groups) = sys::Cgroups::of(std::process::id())
    {
        groups.remove_child(&group);
    }
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
fn end_step(ending: &Ending) {
    // The job may end, and its control group with it, before this process does.
    let leave_groups = || {
        let _ = sys::Cgroups::of(std::process::id()).and_then(|cgroups| cgroups.leave_job());
    };
    let _ = sys::spawn_detached(TELL_LIMIT, leave_groups, || {
        if sys::become_user(&ending.identity).is_err() {
            return;
        }
        let mut failed = 0;
        for wait in TELL {
            std::thread::sleep(wait);
            let known = ending.jobs.iter().filter(|job| slurm::kill_step(**job, ending.step)).count();
            // A controller that did not answer is asked again; two answers that the step is unknown are enough.
            failed = if known == 0 { failed + 1 } else { 0 };
            if failed == 2 {
                return;
            }
        }
    });
}
