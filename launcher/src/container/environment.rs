//! Evaluates the environment of a step's tasks, once for each node.
//!
//! A child process with the user's ids reads the image's environment inside the container, and runs its scripts if
//! necessary. The user controls the result: root only forwards it.
#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::env::names::{DIRECTORIES, passes_clean};
use crate::env::{Change, Environment, INSIDE, Item, OUTER, Pair, Record, Rules, script};
use crate::image::oci::program_in;
use crate::image::sif::{self, DATA_JSON, OCI_CONFIG};
use crate::view::{COMMANDS, GPU_ENVIRONMENT, GPU_LIBRARIES, GPU_PROGRAMS, MPI_LIBRARIES};
use coracle::report::{Kind, Refusal};
use coracle::request::Settings;
use coracle::request::escape::{escape, unescape};
use coracle::sys::{self, Identity, MountNamespace};
use coracle::wire::Answer;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag};
use nix::unistd::AccessFlags;

use crate::children::in_container::{self, Step};

/// Time limit for an image's scripts, the same as Apptainer's.
const PATIENCE: Duration = Duration::from_secs(60);
/// Limit on an environment, in bytes: execve(2) accepts a quarter of the stack, usually 2 MiB, and at most 6 MiB.
pub const MAX_LEN: usize = 4 << 20;

/// Environment scripts of a SIF.
const SCRIPTS: &str = "/.singularity.d/env";
/// Runscript of a SIF.
const RUNSCRIPT: &str = "/.singularity.d/runscript";
/// Entry point that enroot writes, and the file with its variables.
const ENROOT_RC: &str = "/etc/rc";
const ENROOT_ENVIRONMENT: &str = "/etc/environment";
/// Directories that ld.so(8) searches before its own.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
/// Shell of an image.
const SHELL: &str = "/bin/sh";
/// Variable with the words of the entry point for `coracle-inside`.
const ENTRYPOINT: &str = "SLURM_CORACLE_ENTRYPOINT";

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
    /// The step whose tasks get the environment, if there is one.
    pub step: Option<Step<'a>>,
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

fn garbled() -> Refusal {
    Refusal::new(Kind::Internal, "the container's environment", "cannot be read")
}

/// Removes the words of the image's entry point from an environment that was made for it.
pub fn take_entrypoint(environment: &mut Vec<Pair>) -> Result<Vec<OsString>, Refusal> {
    let at = environment.iter().position(|(name, _)| name == ENTRYPOINT).ok_or_else(garbled)?;
    let (_, text) = environment.swap_remove(at);
    let text = text.into_string().map_err(|_| garbled())?;
    text.split(' ').map(|word| unescape(word).map_err(Refusal::from)).collect()
}

/// Parses a job's environment as the plugin sends it: `NAME=VALUE`, each followed by a NUL.
pub fn parse_pairs(bytes: &[u8]) -> Vec<Pair> {
    let pair = |variable: &[u8]| {
        let at = variable.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
        Some((OsString::from_vec(variable[..at].to_vec()), OsString::from_vec(variable[at + 1..].to_vec())))
    };
    bytes.split(|byte| *byte == 0).filter_map(pair).collect()
}

/// Changes that restore the node's environment, for a step on the node whose job script is in a container.
pub fn host_changes(host: &[Pair]) -> Result<OwnedFd, Refusal> {
    let mut changes = record(host).map(|record| undo(&record, host)).unwrap_or_default();
    changes.extend(INSIDE.iter().chain([&OUTER]).map(|name| Change::Unset(name.into())));
    sys::memory_file(&Change::to_bytes(&changes)).map_err(system)
}

/// Empty changes, for a step on the node whose job script is in no container.
pub fn no_changes() -> Result<OwnedFd, Refusal> {
    sys::memory_file(&Change::to_bytes(&[])).map_err(system)
}

fn system(error: sys::Error) -> Refusal {
    Refusal::system("the container's environment", &error)
}

/// Evaluates the environment in `namespace`, as `identity`; nothing if this needs the image's shell and slurmstepd has
/// not set up the step.
pub fn evaluate(
    inputs: &Inputs<'_>,
    namespace: &MountNamespace,
    identity: &Identity,
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
    // A script may leave processes behind: they end with the child process.
    let packet =
        in_container::ask(what, namespace, identity, inputs.step, deadline, late, |answer, placed| {
            match placed.and_then(|()| evaluate_in_child(inputs, &helper)) {
                Ok(None) => answer.send(&Answer::Outside.to_bytes(), &[], deadline),
                Ok(Some(found)) => {
                    let enter =
                        Answer::Enter { notes: found.notes, workdir: None, entrypoint: found.entrypoint, steps: None };
                    answer.send(&enter.to_bytes(), &[found.changes.as_fd(), found.listing.as_fd()], deadline)
                }
                Err(refusal) => answer.send(&Answer::Refused(refusal).to_bytes(), &[], deadline),
            }
        })?;
    match Answer::from_bytes(&packet.data)? {
        Answer::Refused(refusal) => Err(refusal),
        Answer::Enter { notes, entrypoint, .. } => {
            let mut fds = packet.fds.into_iter();
            let (Some(changes), Some(listing)) = (fds.next(), fds.next()) else { return Err(in_container::died(what)) };
            Ok(Some(TaskEnvironment { changes, notes, entrypoint, listing }))
        }
        Answer::Outside => Ok(None),
    }
}

/// Evaluates the environment in the child process, with the image's shell for scripts that are not plain; nothing if it
/// is too early for the shell.
fn evaluate_in_child(inputs: &Inputs<'_>, helper: &File) -> Result<Option<TaskEnvironment>, Refusal> {
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
    let files = find_scripts();
    // Programs that convert an OCI image to a SIF write scripts; otherwise, the SIF has only the configuration. The
    // configuration is also needed if the image has no shell for the scripts.
    let config = match inputs.sif.filter(|_| files.is_none() || !Path::new(SHELL).exists()) {
        Some(file) => oci_config(file, &inputs.shown)?,
        None => None,
    };
    if !rules.already_inside {
        match (files, &config) {
            (Some(files), _) => {
                if !source_scripts(inputs, &files, &mut environment, helper, &mut notes)? {
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
    Ok(Some(TaskEnvironment {
        changes: sys::memory_file(&changes).map_err(system)?,
        notes,
        entrypoint: words.is_some(),
        listing: sys::memory_file(listing.concat().as_bytes()).map_err(system)?,
    }))
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

/// Value of the first `name`, like getenv(3).
pub fn value(host: &[Pair], name: impl AsRef<OsStr>) -> Option<OsString> {
    host.iter().find(|(known, _)| known == name.as_ref()).map(|(_, value)| value.clone())
}

/// Record of the changes by the container around `host`, if there is one.
fn record(host: &[Pair]) -> Option<Record> {
    value(host, OUTER).and_then(|text| Record::from_env(&text))
}

/// Directories that the job's variables name on the node, for the variables that a container with these settings keeps.
pub fn named_directories(host: &[Pair], settings: &Settings) -> Vec<PathBuf> {
    let nodes = record(host).map(|record| apply_changes(host, undo(&record, host)));
    let host = nodes.as_deref().unwrap_or(host);
    let clean = settings.clean_env == Some(true);
    let kept = |name: &str| settings.env.iter().any(|item| matches!(item, Item::Keep(kept) if kept == name));
    let told = DIRECTORIES.iter().filter(|name| !clean || passes_clean(name.as_bytes()) || kept(name));
    told.filter_map(|name| value(host, name)).map(PathBuf::from).collect()
}

/// Variables with a directory that this process cannot search or write.
fn unusable_directories(host: &[Pair]) -> Vec<OsString> {
    let writable = |path: &Path| {
        let rights = AccessFlags::W_OK | AccessFlags::X_OK;
        path.is_absolute() && path.is_dir() && nix::unistd::access(path, rights).is_ok()
    };
    // Slurm or the job may create a missing directory, if the job can write its parent directory.
    let usable = |path: &Path| writable(path) || !path.exists() && path.parent().is_some_and(writable);
    let named = DIRECTORIES.iter().filter_map(|name| Some((name, value(host, name)?)));
    // An empty variable names no directory.
    named.filter(|(_, path)| !path.is_empty() && !usable(Path::new(path))).map(|(name, _)| name.into()).collect()
}

fn undo(record: &Record, host: &[Pair]) -> Vec<Change> {
    record.undo(|name| value(host, name))
}

/// Applies changes to an environment.
pub fn apply_changes(host: &[Pair], changes: Vec<Change>) -> Vec<Pair> {
    let touched: HashSet<&OsStr> = changes.iter().map(Change::name).collect();
    let mut pairs: Vec<Pair> = host.iter().filter(|(name, _)| !touched.contains(name.as_os_str())).cloned().collect();
    pairs.extend(changes.into_iter().filter_map(|change| match change {
        Change::Set(name, value) => Some((name, value)),
        Change::Unset(_) => None,
        Change::Without(..) | Change::Numbered(..) => {
            let list = value(host, change.name())?;
            let new = change.of_list(&list).unwrap_or(list);
            Some((change.name().to_owned(), new))
        }
    }));
    pairs
}

/// Finds the environment scripts, in the order in which they are sourced; nothing if the image has no directory for
/// them.
fn find_scripts() -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(SCRIPTS).ok()?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.as_os_str().as_bytes().ends_with(b".sh") && path.is_file())
        .collect();
    files.sort();
    Some(files)
}

/// Content of a file of the image; nothing if it is longer than the limit on scripts.
fn read(path: &Path) -> Option<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).ok()?;
    let mut text = Vec::new();
    let limit = script::MAX_SCRIPT as u64;
    let length = file.take(limit + 1).read_to_end(&mut text).ok()? as u64;
    (length <= limit).then_some(text)
}

/// Sources the scripts: plain ones here, and the rest in the image's shell, from the first one that is not plain. False
/// if it is too early for the shell.
fn source_scripts(
    inputs: &Inputs<'_>,
    files: &[PathBuf],
    environment: &mut Environment,
    helper: &File,
    notes: &mut Vec<String>,
) -> Result<bool, Refusal> {
    let mut rest = files.iter();
    while let Some(file) = rest.as_slice().first() {
        let name = file.to_string_lossy();
        let text = read(file)
            .ok_or_else(|| Refusal::new(Kind::ImageFormat, &inputs.shown, format!("its {name} cannot be read")))?;
        match script::evaluate(&name, &text, environment) {
            Ok(()) => {}
            Err(_) if Path::new(SHELL).exists() => {
                if inputs.step.is_some_and(|step| step.daemon.is_none()) {
                    return Ok(false);
                }
                return run_in_shell(inputs, rest.as_slice(), environment, helper).map(|()| true);
            }
            Err(fault) => notes.push(format!(
                "{}: {name}: line {}: {:?} is not a plain export, and the image has no {SHELL} to run it: \
                 what this file sets is missing",
                inputs.shown, fault.line, fault.text
            )),
        }
        rest.next();
    }
    Ok(true)
}

/// Sources `files` in the image's own shell and takes over its environment.
fn run_in_shell(
    inputs: &Inputs<'_>,
    files: &[PathBuf],
    environment: &mut Environment,
    helper: &File,
) -> Result<(), Refusal> {
    let failed = |cause: String| Refusal::new(Kind::ImageFormat, &inputs.shown, cause);
    let names: Vec<_> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let exported = nix::sys::memfd::memfd_create(c"environment", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .map_err(|errno| system(sys::Error::new("memfd_create()", errno)))?;
    let mut exported = File::from(exported);
    nix::fcntl::fcntl(helper, FcntlArg::F_SETFD(FdFlag::empty()))
        .map_err(|errno| system(sys::Error::new("fcntl(F_SETFD)", errno)))?;
    // The output of scripts is no output of a task.
    let mut script = environment.shell_prelude();
    script.extend_from_slice(b"\nexec 3>&1 >/dev/null 2>&1\nfor CORACLE_FILE do . \"$CORACLE_FILE\"; done\n");
    script.extend_from_slice(format!("exec /proc/self/fd/{} environment >&3\n", helper.as_raw_fd()).as_bytes());
    let output = exported.try_clone().map_err(|cause| system(sys::Error::from_io("dup()", &cause)))?;
    let status = Command::new(SHELL)
        .arg("-c")
        .arg(OsString::from_vec(script))
        .arg(SHELL)
        .args(files)
        .env_clear()
        .envs(environment.exported())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null())
        .status()
        .map_err(|cause| match cause.raw_os_error().map(Errno::from_raw) {
            // Errors of this process and its limits, not of the image.
            Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE) => {
                system(sys::Error::from_io(format!("execve({SHELL:?})"), &cause))
            }
            _ => failed(format!("its {SHELL} cannot be started: {cause}")),
        })?;
    let mut bytes = Vec::new();
    exported
        .rewind()
        .and_then(|()| exported.read_to_end(&mut bytes))
        .map_err(|cause| system(sys::Error::from_io("read(memfd)", &cause)))?;
    if !status.success() || bytes.last() != Some(&0) {
        let how = match status.code() {
            Some(code) => format!("ended the shell with status {code}"),
            None => format!("ended the shell: {status}"),
        };
        return Err(failed(format!("its environment scripts ({}) {how}", names.join(" "))));
    }
    environment.take_over(&parse_pairs(&bytes), names.first().map_or(SCRIPTS, String::as_str));
    Ok(())
}

/// Configuration of an OCI image (image-spec, config.md).
#[derive(Debug, Default)]
struct OciConfig {
    env: Vec<String>,
    entrypoint: Vec<String>,
    working_dir: Option<String>,
}

/// Configuration among a SIF's data objects, if there is one.
fn oci_config(file: &File, shown: &str) -> Result<Option<OciConfig>, Refusal> {
    let broken = |cause: String| Refusal::new(Kind::ImageFormat, shown, format!("its {OCI_CONFIG} {cause}"));
    // A truncated file is an error of the image, any other error one of the file system.
    let unread = |cause: std::io::Error| match cause.kind() {
        std::io::ErrorKind::UnexpectedEof => broken(format!("cannot be read: {cause}")),
        _ => Refusal::new(Kind::ImageUnreadable, shown, format!("its {OCI_CONFIG} cannot be read: {cause}")),
    };
    let length = file.metadata().map_err(unread)?.len();
    let found = sif::object(file, length, DATA_JSON, OCI_CONFIG).map_err(|error| error.refuse(shown))?;
    let Some((offset, size)) = found else { return Ok(None) };
    let mut text = vec![0; usize::try_from(size).map_err(|_| broken("is too long".into()))?];
    file.read_exact_at(&mut text, offset).map_err(unread)?;
    parse_config(&text).map(Some).map_err(|error| broken(format!("is no JSON of an OCI image: {error}")))
}

/// Parses the configuration alone, as Apptainer writes it, or that of the whole image with it under `config`.
fn parse_config(text: &[u8]) -> Result<OciConfig, String> {
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let config = value.get("config").filter(|inner| inner.is_object()).unwrap_or(&value);
    let list = |name: &str| match config.get(name) {
        // Go writes an empty list as null.
        None | Some(serde_json::Value::Null) => Ok(Vec::new()),
        Some(list) => {
            let words = list.as_array().map(|list| list.iter().map(|word| word.as_str().map(str::to_owned)).collect());
            words.flatten().ok_or_else(|| format!("{name} is no list of strings"))
        }
    };
    match config.is_object() {
        true => Ok(OciConfig {
            env: list("Env")?,
            entrypoint: list("Entrypoint")?,
            working_dir: config.get("WorkingDir").and_then(serde_json::Value::as_str).map(str::to_owned),
        }),
        false => Err("not an object".into()),
    }
}

/// Words of the image's entry point, if it has one.
fn entrypoint(config: Option<OciConfig>) -> Option<Vec<String>> {
    let config = config.filter(|config| !config.entrypoint.is_empty());
    // An image without a shell cannot run a script.
    if Path::new(RUNSCRIPT).exists() && (config.is_none() || Path::new(SHELL).exists()) {
        return Some(vec![RUNSCRIPT.to_owned()]);
    }
    if let Some(OciConfig { mut entrypoint, working_dir, .. }) = config {
        if let Some(program) = entrypoint.first_mut() {
            *program = program_in(working_dir.as_deref(), program);
        }
        return Some(entrypoint);
    }
    Path::new(ENROOT_RC).is_file().then(|| vec![SHELL.to_owned(), ENROOT_RC.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oci_configuration_is_read_alone_or_within_its_image() {
        for text in [
            r#"{"Env":["A=1","B=x y"],"Entrypoint":["/bin/echo","entry"],"Cmd":["c"],"User":"1000"}"#,
            r#"{"architecture":"amd64","config":{"Env":["A=1","B=x y"],"Entrypoint":["/bin/echo","entry"]}}"#,
        ] {
            let config = parse_config(text.as_bytes()).unwrap();
            assert_eq!(config.env, ["A=1", "B=x y"]);
            assert_eq!(entrypoint(Some(config)), Some(vec!["/bin/echo".to_owned(), "entry".to_owned()]));
        }
        let relative = br#"{"Entrypoint":["./start.sh","./x"],"WorkingDir":"/app"}"#;
        let words = entrypoint(Some(parse_config(relative).unwrap()));
        assert_eq!(words, Some(vec!["/app/start.sh".to_owned(), "./x".to_owned()]));
        let empty = parse_config(br#"{"Env":null,"Entrypoint":null}"#).unwrap();
        assert!(empty.env.is_empty() && empty.entrypoint.is_empty());
        for wrong in ["", "[]", r#"{"Env":"A=1"}"#, r#"{"config":{"Entrypoint":[1]}}"#] {
            assert!(parse_config(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_jobs_environment_is_taken_apart_at_the_first_equals_sign() {
        let found = parse_pairs(b"A=1\0B==\0=x\0C\0D=\0");
        let shown: Vec<_> = found.iter().map(|(name, value)| format!("{name:?} {value:?}")).collect();
        assert_eq!(shown, [r#""A" "1""#, r#""B" "=""#, r#""D" """#]);
    }
}
