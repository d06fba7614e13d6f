//! Evaluates the environment of a step's tasks, once for each node.
//!
//! A child process with the user's ids reads the image's environment inside the container, and runs its scripts if
//! necessary. The user controls the result: root only forwards it.
#![forbid(unsafe_code)]

mod entry_point;
mod job;
mod scripts;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::env::{Change, Environment, OUTER, Pair, Rules};
use crate::view::{COMMANDS, GPU_ENVIRONMENT, GPU_LIBRARIES, GPU_PROGRAMS, MPI_LIBRARIES};
use coracle::report::{Kind, Refusal};
use coracle::request::escape::escape;
use coracle::sys::{self, Channel, Identity, MemoryDraft, MountNamespace};
use serde::{Deserialize, Serialize};

use crate::children;
use crate::children::in_container::{self, Step};
use entry_point::{ENTRYPOINT, entrypoint, oci_config};
use job::{record, undo, unusable_directories};
use scripts::{find_scripts, read, source_scripts};

pub use entry_point::take_entrypoint;
pub use job::{apply_changes, host_changes, named_directories, no_changes, parse_pairs, value};

/// Time limit for an image's scripts, the same as Apptainer's.
const PATIENCE: Duration = Duration::from_secs(60);
/// Limit on an environment, in bytes: execve(2) accepts a quarter of the stack, usually 2 MiB, and at most 6 MiB.
pub const MAX_LEN: usize = 4 << 20;

/// File of the variables that enroot writes beside its entry point.
const ENROOT_ENVIRONMENT: &str = "/etc/environment";
/// Directories that ld.so(8) searches before its own.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
/// Shell of an image.
const SHELL: &str = "/bin/sh";

/// Inputs for the evaluation of an environment.
pub struct Inputs<'a> {
    /// The job's environment on the node.
    pub host: &'a [Pair],
    /// Rules for the evaluation.
    pub rules: Rules,
    /// User's name of the image, for messages.
    pub shown: String,
    /// Id that distinguishes this image from others.
    pub id: OsString,
    /// True if Slurm's commands are in the container.
    pub commands: bool,
    /// True if the image's entry point was requested.
    pub entrypoint: bool,
    /// Path of `coracle-inside`, which prints its environment.
    pub helper: &'a Path,
    /// The open image, if it is a SIF.
    pub sif: Option<&'a File>,
}

/// Step whose slurmstepd is in the control groups of its job: programs of the image may run for it.
#[derive(Clone, Copy)]
pub struct StartedStep<'a> {
    /// Channel to the process that waits for the answer.
    pub line: &'a Channel,
    /// slurmstepd's process id.
    pub daemon: u32,
}

impl<'a> From<StartedStep<'a>> for Step<'a> {
    fn from(StartedStep { line, daemon }: StartedStep<'a>) -> Self {
        Self { line, daemon: Some(daemon) }
    }
}

/// Use of the image's programs for its environment.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Programs {
    /// They run where they are needed.
    Run,
    /// They do not run yet: without them, there is no environment.
    TooEarly,
}

/// Environment of the tasks in a container.
#[derive(Debug)]
pub struct TaskEnvironment {
    /// [`Change`]s from the job's environment, in a file in memory.
    pub changes: OwnedFd,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// True if the image has the requested entry point.
    pub entrypoint: bool,
    /// Each variable with its origin, one per line.
    pub listing: OwnedFd,
}

impl TaskEnvironment {
    /// The changes of the tasks, followed by `others`.
    pub fn followed_by(&self, others: &[Change]) -> Result<OwnedFd, Refusal> {
        if others.is_empty() {
            return self.changes.try_clone().map_err(|cause| system(sys::Error::from_io("dup()", &cause)));
        }
        let own = sys::read_whole(&self.changes, MAX_LEN).map_err(system)?;
        sys::memory_file(&[own, Change::to_bytes(others)].concat()).map_err(system)
    }

    /// The environment `host` with the changes applied.
    pub fn applied_to(&self, host: &[Pair]) -> Result<Vec<Pair>, Refusal> {
        let changes = sys::read_whole(&self.changes, MAX_LEN).map_err(system)?;
        let changes = Change::from_bytes(&changes).ok_or_else(garbled)?;
        Ok(apply_changes(host, changes))
    }
}

/// Answer of the child process.
#[derive(Debug, Serialize, Deserialize)]
struct Evaluated {
    notes: Vec<String>,
    entrypoint: bool,
}

/// Files of a [`TaskEnvironment`], which the child process fills.
struct Files {
    changes: MemoryDraft,
    listing: MemoryDraft,
}

fn garbled() -> Refusal {
    Refusal::new(Kind::Internal, "the container's environment", "cannot be read")
}

fn system(error: sys::Error) -> Refusal {
    Refusal::system("the container's environment", &error)
}

/// Evaluates the environment in `namespace`, as `identity`, for tasks of `step` if they are of one.
pub fn evaluate(
    inputs: &Inputs<'_>,
    namespace: &MountNamespace,
    identity: &Identity,
    step: Option<StartedStep<'_>>,
) -> Result<TaskEnvironment, Refusal> {
    ask(inputs, namespace, identity, step.map(Step::from), Programs::Run)?.ok_or_else(garbled)
}

/// Like [`evaluate`], before slurmstepd has set up the step, which waits on `line`; nothing if this needs the image's
/// shell.
pub fn evaluate_ahead(
    inputs: &Inputs<'_>,
    namespace: &MountNamespace,
    identity: &Identity,
    line: &Channel,
) -> Result<Option<TaskEnvironment>, Refusal> {
    ask(inputs, namespace, identity, Some(Step { line, daemon: None }), Programs::TooEarly)
}

/// Asks a child process for the environment; nothing if it is too early for the programs that it needs.
fn ask(
    inputs: &Inputs<'_>,
    namespace: &MountNamespace,
    identity: &Identity,
    step: Option<Step<'_>>,
    programs: Programs,
) -> Result<Option<TaskEnvironment>, Refusal> {
    let deadline = Instant::now() + PATIENCE;
    let helper = File::open(inputs.helper).map_err(|cause| {
        let cause = sys::Error::from_io(format!("open({:?})", inputs.helper), &cause);
        Refusal::system(inputs.helper.display().to_string(), &cause).hint("is Coracle installed as a whole?")
    })?;
    let what = "the container's environment";
    let late = || {
        let limit = PATIENCE.as_secs();
        let cause = format!("its environment scripts (/.singularity.d/env) did not end within {limit} s");
        Refusal::new(Kind::Timeout, &inputs.shown, cause)
    };
    // The image's scripts may take over the child process: a file of its user's FUSE file system would keep root waiting,
    // so the files are root's own.
    let files = Files { changes: MemoryDraft::new().map_err(system)?, listing: MemoryDraft::new().map_err(system)? };
    let filled = [files.changes.as_fd(), files.listing.as_fd()];
    let kept: Vec<BorrowedFd<'_>> = [&helper].into_iter().chain(inputs.sif).map(AsFd::as_fd).chain(filled).collect();
    let executes = programs == Programs::Run;
    let question = in_container::Question { what, namespace, identity, step, deadline, kept: &kept, executes };
    let reply = question.ask(late, || Ok((evaluate_in_child(inputs, programs, &helper, &files)?, Vec::new())))?;
    match reply.found {
        Some(Evaluated { notes, entrypoint }) if reply.fds.is_empty() => {
            let [changes, listing] = [files.changes, files.listing].map(|draft| draft.seal().map_err(system));
            Ok(Some(TaskEnvironment { changes: changes?, notes, entrypoint, listing: listing? }))
        }
        None if reply.fds.is_empty() => Ok(None),
        _ => Err(children::ask::garbled(what)),
    }
}

/// Evaluates the environment in the child process, with the image's shell for scripts that are not plain; nothing if it
/// is too early for the shell.
fn evaluate_in_child(
    inputs: &Inputs<'_>,
    programs: Programs,
    helper: &File,
    files: &Files,
) -> Result<Option<Evaluated>, Refusal> {
    let mut rules = inputs.rules.clone();
    let record = record(inputs.host);
    // With --export=NONE or a list of names, srun passes the record, because its name begins with SLURM, but not the
    // variables that it describes. A container always has a PATH.
    let whole = value(inputs.host, "PATH").is_some();
    rules.already_inside = whole && record.as_ref().is_some_and(|record| record.id() == inputs.id);
    let host = match record.filter(|_| !rules.already_inside) {
        Some(record) => apply_changes(inputs.host, undo(&record, inputs.host)),
        None => inputs.host.to_vec(),
    };
    rules.useless = unusable_directories(&host);
    let mut environment = Environment::start(&host, &rules);
    let mut notes = Vec::new();
    let scripts = find_scripts();
    // Programs that convert an OCI image to a SIF write scripts; otherwise, the SIF has only the configuration. The
    // configuration is also needed if the image has no shell for the scripts.
    let config = match inputs.sif.filter(|_| scripts.is_none() || !Path::new(SHELL).exists()) {
        Some(file) => oci_config(file, &inputs.shown)?,
        None => None,
    };
    if !rules.already_inside {
        match (scripts, &config) {
            (Some(scripts), _) => {
                if !source_scripts(inputs, programs, &scripts, &mut environment, helper, &mut notes)? {
                    return Ok(None);
                }
            }
            (None, Some(config)) => environment.oci_env(&config.env),
            (None, None) => {
                read(Path::new(ENROOT_ENVIRONMENT)).iter().for_each(|text| environment.environment_file(text));
            }
        }
    }
    add_gpu_variables(&mut environment);
    environment.finish(&host, &rules);
    if inputs.commands {
        environment.prepend("PATH", COMMANDS);
    }
    // The content of the container decides, because a step may join one that was made with other options.
    let directories = [("PATH", GPU_PROGRAMS), (LIBRARY_PATH, GPU_LIBRARIES), (LIBRARY_PATH, MPI_LIBRARIES)];
    for (list, directory) in directories {
        match Path::new(directory).is_dir() {
            true => environment.prepend(list, directory),
            false => environment.leave_out(list, directory),
        }
    }
    if !rules.already_inside {
        let outer = crate::env::record(&inputs.id, &host, &environment).to_env();
        environment.put(OUTER, outer.into());
    }
    let words = entrypoint(config).filter(|_| inputs.entrypoint);
    if let Some(words) = &words {
        // An empty word would be lost between two blanks.
        let encoded = |word: &String| if word.is_empty() { "%".to_owned() } else { escape(OsStr::new(word)) };
        let words: Vec<String> = words.iter().map(encoded).collect();
        environment.put(ENTRYPOINT, words.join(" ").into());
    }
    let changes = Change::to_bytes(&environment.changes(inputs.host));
    if changes.len() > MAX_LEN {
        return Err(Refusal::new(Kind::System, &inputs.shown, "its environment is longer than any program can have"));
    }
    let listing: Vec<String> = environment
        .iter()
        .map(|(name, variable)| {
            let line = format!("{}={}", name.to_string_lossy(), variable.value.to_string_lossy());
            format!("{}  ({})\n", coracle::report::clean(&line), variable.origin)
        })
        .collect();
    files.changes.write(&changes).map_err(system)?;
    files.listing.write(listing.concat().as_bytes()).map_err(system)?;
    Ok(Some(Evaluated { notes, entrypoint: words.is_some() }))
}

/// Adds the variables that the driver of the container's GPUs needs. The NVIDIA variables of an image or a submitter
/// are meant for a container runtime and do not describe the GPUs of this node.
fn add_gpu_variables(environment: &mut Environment) {
    const NVIDIA: &str = "NVIDIA_VISIBLE_DEVICES";
    if environment.get(NVIDIA).is_some() {
        environment.put(NVIDIA, "void".into());
    }
    let text = read(Path::new(GPU_ENVIRONMENT)).unwrap_or_default();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(equals) = line.iter().position(|byte| *byte == b'=') else { continue };
        let (name, value) = (String::from_utf8_lossy(&line[..equals]), OsStr::from_bytes(&line[equals + 1..]));
        environment.put(&name, value.to_owned());
    }
}
