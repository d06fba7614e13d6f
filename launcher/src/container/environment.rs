//! Environment of a step's tasks, evaluated once for each node.
//!
//! An image's environment is read, and where it has to be run, run, by a child that is the user inside
//! the container. What comes back is the user's own doing: root only hands it on.
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

/// Time limit for an image's scripts, as with Apptainer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest environment, in bytes: execve(2) takes a quarter of the stack, 2 MiB as a rule, and at most 6 MiB.
pub const MAX_LEN: usize = 4 << 20;

/// The environment scripts of a SIF.
const SCRIPTS: &str = "/.singularity.d/env";
/// A SIF's entry point.
const RUNSCRIPT: &str = "/.singularity.d/runscript";
/// The entry point that enroot writes, and the variables beside it.
const ENROOT_RC: &str = "/etc/rc";
const ENROOT_ENVIRONMENT: &str = "/etc/environment";
/// The folders that ld.so(8) searches before its own.
const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
/// The shell of an image.
const SHELL: &str = "/bin/sh";
/// Variable with the entry point's words for our program inside.
const ENTRYPOINT: &str = "SLURM_CORACLE_ENTRYPOINT";

/// Inputs of an environment's evaluation.
pub struct Inputs<'a> {
    /// The job's environment on the node.
    pub host: &'a [Pair],
    /// Rules for the environment.
    pub rules: Rules,
    /// User's name of the image, for messages.
    pub shown: String,
    /// Identity of this image among others.
    pub id: OsString,
    /// True if Slurm's commands are inside.
    pub commands: bool,
    /// True if the image's entry point is wanted.
    pub entrypoint: bool,
    /// Our program that says its environment.
    pub helper: &'a Path,
    /// The open image, if it is a SIF.
    pub sif: Option<&'a File>,
    /// The step whose tasks it is for, if it is for any.
    pub step: Option<Step<'a>>,
}

/// Environment of the tasks in a container.
#[derive(Debug)]
pub struct TaskEnvironment {
    /// [`Change`]s from the job's environment, in a file in memory.
    pub changes: OwnedFd,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// True if the image has the entry point that was wanted.
    pub entrypoint: bool,
    /// Each variable with its origin, a line each.
    pub listing: OwnedFd,
}

impl TaskEnvironment {
    /// Their changes, and `others` behind them.
    pub fn followed_by(&self, others: &[Change]) -> Result<OwnedFd, Refusal> {
        if others.is_empty() {
            return self.changes.try_clone().map_err(|cause| system(sys::Error::from_io("dup()", &cause)));
        }
        let own = sys::read_whole(&self.changes, MAX_LEN).map_err(system)?;
        sys::memory_file(&[own, Change::to_bytes(others)].concat()).map_err(system)
    }

    /// `host` as it is inside.
    pub fn applied_to(&self, host: &[Pair]) -> Result<Vec<Pair>, Refusal> {
        let changes = sys::read_whole(&self.changes, MAX_LEN).map_err(system)?;
        let changes = Change::from_bytes(&changes).ok_or_else(garbled)?;
        Ok(apply_changes(host, changes))
    }
}

fn garbled() -> Refusal {
    Refusal::new(Kind::Internal, "the container's environment", "cannot be read")
}

/// Takes the words of the image's entry point out of an environment that was made for it.
pub fn take_entrypoint(environment: &mut Vec<Pair>) -> Result<Vec<OsString>, Refusal> {
    let at = environment.iter().position(|(name, _)| name == ENTRYPOINT).ok_or_else(garbled)?;
    let (_, text) = environment.swap_remove(at);
    let text = text.into_string().map_err(|_| garbled())?;
    text.split(' ').map(|word| unescape(word).map_err(Refusal::from)).collect()
}

/// Parses a job's environment as the plugin sends it: `NAME=VALUE`, each with a NUL behind it.
pub fn parse_pairs(bytes: &[u8]) -> Vec<Pair> {
    let pair = |variable: &[u8]| {
        let at = variable.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
        Some((OsString::from_vec(variable[..at].to_vec()), OsString::from_vec(variable[at + 1..].to_vec())))
    };
    bytes.split(|byte| *byte == 0).filter_map(pair).collect()
}

/// Changes for a step on the node whose job script is in a container: it gets the node's environment back.
pub fn host_changes(host: &[Pair]) -> Result<OwnedFd, Refusal> {
    let mut changes = record(host).map(|record| undo(&record, host)).unwrap_or_default();
    changes.extend(INSIDE.iter().chain([&OUTER]).map(|name| Change::Unset(name.into())));
    sys::memory_file(&Change::to_bytes(&changes)).map_err(system)
}

/// Changes for a step on the node whose job script is in no container: none.
pub fn no_changes() -> Result<OwnedFd, Refusal> {
    sys::memory_file(&Change::to_bytes(&[])).map_err(system)
}

fn system(error: sys::Error) -> Refusal {
    Refusal::system("the container's environment", &error)
}

/// Evaluates the environment in `namespace`, as `identity`; nothing, if the image's shell has to run for that and it is
/// too early.
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
    // A script may leave processes behind: they end with the child.
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

/// Evaluates the environment in the child process, with the image's shell for what is left; nothing, if it is too early
/// for that.
fn evaluate_in_child(inputs: &Inputs<'_>, helper: &File) -> Result<Option<TaskEnvironment>, Refusal> {
    let mut rules = inputs.rules.clone();
    let record = record(inputs.host);
    // Of a step with --export=NONE, or with some names alone, srun sends the record, whose name is Slurm's, but not what
    // the record is about. A container always has a PATH.
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
    // What converts an OCI image to a SIF writes scripts; where it has not, there is only the configuration. It is needed,
    // too, where the image has nothing that runs a script of theirs.
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
    // The container tells, because a step can be joined that was made with other options.
    let folders = [("PATH", GPU_PROGRAMS), (LIBRARY_PATH, GPU_LIBRARIES), (LIBRARY_PATH, MPI_LIBRARIES)];
    for (list, folder) in folders {
        match Path::new(folder).is_dir() {
            true => environment.prepend(list, folder),
            false => environment.leave_out(list, folder),
        }
    }
    if !rules.already_inside {
        let outer = crate::env::record(&inputs.id, &host, &environment).to_env();
        environment.put(OUTER, outer.into());
    }
    let words = entrypoint(config).filter(|_| inputs.entrypoint);
    if let Some(words) = &words {
        // An empty word would vanish between two blanks.
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

/// Adds the variables that the driver of the container's GPUs needs. An image, or a submitter, that names NVIDIA's GPUs for a
/// container runtime knows nothing of those that are here.
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

/// The first `name`, as getenv(3) has it.
pub fn value(host: &[Pair], name: impl AsRef<OsStr>) -> Option<OsString> {
    host.iter().find(|(known, _)| known == name.as_ref()).map(|(_, value)| value.clone())
}

/// Changes that the container around `host` has made, if there is one.
fn record(host: &[Pair]) -> Option<Record> {
    value(host, OUTER).and_then(|text| Record::from_env(&text))
}

/// Directories that variables of a job name on the node, of those that a container with these settings keeps.
pub fn named_directories(host: &[Pair], settings: &Settings) -> Vec<PathBuf> {
    let nodes = record(host).map(|record| apply_changes(host, undo(&record, host)));
    let host = nodes.as_deref().unwrap_or(host);
    let clean = settings.clean_env == Some(true);
    let kept = |name: &str| settings.env.iter().any(|item| matches!(item, Item::Keep(kept) if kept == name));
    let told = DIRECTORIES.iter().filter(|name| !clean || passes_clean(name.as_bytes()) || kept(name));
    told.filter_map(|name| value(host, name)).map(PathBuf::from).collect()
}

/// Variables whose directory this process cannot see or write to.
fn unusable_directories(host: &[Pair]) -> Vec<OsString> {
    let writable = |path: &Path| {
        let rights = AccessFlags::W_OK | AccessFlags::X_OK;
        path.is_absolute() && path.is_dir() && nix::unistd::access(path, rights).is_ok()
    };
    // One that is missing may be made, by Slurm or the job, where the job could make it.
    let usable = |path: &Path| writable(path) || !path.exists() && path.parent().is_some_and(writable);
    let named = DIRECTORIES.iter().filter_map(|name| Some((name, value(host, name)?)));
    // An empty one is as good as none, and names nothing.
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

/// Finds the environment scripts, in the order in which they are sourced; nothing, if the image has no directory of them.
fn find_scripts() -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(SCRIPTS).ok()?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.as_os_str().as_bytes().ends_with(b".sh") && path.is_file())
        .collect();
    files.sort();
    Some(files)
}

/// A file of the image, unless it is longer than any that is meant to be read.
fn read(path: &Path) -> Option<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).ok()?;
    let mut text = Vec::new();
    let limit = script::MAX_SCRIPT as u64;
    let length = file.take(limit + 1).read_to_end(&mut text).ok()? as u64;
    (length <= limit).then_some(text)
}

/// Sources the scripts: the plain ones here, and from the first on that is not, the rest in the image's shell. False if
/// it is too early for that.
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

/// Lets the image's own shell source `files` and takes its environment over.
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
    // What scripts print is no output of a task.
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
            // Of this process and its limits, not of the image.
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

/// Statements of an OCI image about itself (image-spec, config.md).
#[derive(Debug, Default)]
struct OciConfig {
    env: Vec<String>,
    entrypoint: Vec<String>,
    working_dir: Option<String>,
}

/// The configuration among a SIF's data objects, if there is one.
fn oci_config(file: &File, shown: &str) -> Result<Option<OciConfig>, Refusal> {
    let broken = |cause: String| Refusal::new(Kind::ImageFormat, shown, format!("its {OCI_CONFIG} {cause}"));
    // A file that ends too early is the image's fault, and all else the file system's.
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

/// The configuration alone, as Apptainer writes it, or the whole image's with it under `config`.
fn parse_config(text: &[u8]) -> Result<OciConfig, String> {
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let config = value.get("config").filter(|inner| inner.is_object()).unwrap_or(&value);
    let list = |name: &str| match config.get(name) {
        // Go writes a list without elements as null.
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

/// The words of the image's entry point, if it has one.
fn entrypoint(config: Option<OciConfig>) -> Option<Vec<String>> {
    let config = config.filter(|config| !config.entrypoint.is_empty());
    // A script is of no use to an image that has nothing but its program.
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
