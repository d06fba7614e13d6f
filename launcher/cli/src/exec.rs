//! Runs `coracle exec`, `run` and `shell`: a container as in a job, without Slurm.
//!
//! Root builds it as a job's launcher does, for root or for another user. Other users build it in a user namespace of
//! their own, without further privileges.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use coracle::options::{Id, RawOptions, Spec};
use coracle::report::{Kind, Refusal};
use coracle::sys;
use coracle::wire::Here;
use coracle_launcher::env::Pair;

use nix::sys::stat::Mode;

use crate::arguments::{Common, Exec, Run, Shell};
use crate::images;
use coracle_launcher::children::opener::Opener;
use coracle_launcher::container::clock::Clock;
use coracle_launcher::container::environment;
use coracle_launcher::container::host_fit::{HostFit, Place};
use coracle_launcher::container::local::{self, LocalRequest, LocalRun};
use coracle_launcher::container::pipeline;
use coracle_launcher::container::resolve::{Resolved, admit_at_once};
use coracle_launcher::container::tasks::Tasks;

/// Status of a command that was found but cannot be executed, as in shells.
const NOT_EXECUTABLE: u8 = 126;
/// Status of a command that was not found.
const NOT_FOUND: u8 = 127;
/// Shells of an image, in order of preference.
const SHELLS: [&[&str]; 2] = [&["/bin/bash", "--norc"], &["/bin/sh"]];

/// Action inside.
enum Action<'a> {
    Command(&'a [OsString]),
    /// The image's entry point, with these arguments.
    EntryPoint(&'a [OsString]),
    /// A shell of the image, with these arguments.
    Shell(&'a [OsString]),
    /// Nothing: `--plan` was given.
    Plan,
}

/// Action in a container that has been entered.
struct Inside {
    words: Vec<OsString>,
    environment: Vec<Pair>,
}

/// Runs a command.
pub fn exec(given: &Exec) -> Result<ExitCode, Refusal> {
    let missing = |what: &str| {
        Refusal::new(Kind::Usage, "exec", format!("the {what} is missing")).hint("coracle exec IMAGE COMMAND…")
    };
    let image = given.image.as_ref().ok_or_else(|| missing("image"))?;
    match given.command.as_slice() {
        _ if given.plan => run_in_container(&given.common, image, Action::Plan),
        [] => Err(missing("command")),
        words => run_in_container(&given.common, image, Action::Command(words)),
    }
}

/// Runs the image's entry point.
pub fn run(given: &Run) -> Result<ExitCode, Refusal> {
    run_in_container(&given.common, &given.image, Action::EntryPoint(&given.arguments))
}

/// Opens a shell.
pub fn shell(given: &Shell) -> Result<ExitCode, Refusal> {
    run_in_container(&given.common, &given.image, Action::Shell(&given.arguments))
}

/// Becomes the command inside the image: signals, status and terminal are those of the command.
fn run_in_container(common: &Common, image: &OsString, action: Action<'_>) -> Result<ExitCode, Refusal> {
    let Some(Inside { words, environment }) = enter(common, image, &action)? else { return Ok(ExitCode::SUCCESS) };
    let Some((program, arguments)) = words.split_first() else { return Ok(ExitCode::SUCCESS) };
    let cause = Command::new(program).args(arguments).env_clear().envs(environment).exec();
    let missing = cause.kind() == std::io::ErrorKind::NotFound;
    let errno = nix::errno::Errno::from_raw(cause.raw_os_error().unwrap_or_default());
    let what = if missing { "no such command in the container" } else { errno.desc() };
    let mut refusal = Refusal::new(Kind::Usage, program.to_string_lossy(), what);
    if program.as_encoded_bytes().starts_with(b"-") {
        refusal = refusal.hint("options stand in front of the image: coracle exec [OPTIONS] IMAGE COMMAND…");
    } else if missing && Path::new(program).is_relative() && program.as_encoded_bytes().contains(&b'/') {
        // As in Apptainer, the WORKDIR of an image has no effect.
        refusal = refusal.hint("it is relative to the working directory: --workdir=DIRECTORY names that of the image");
    }
    eprintln!("{refusal}");
    Ok(ExitCode::from(if missing { NOT_FOUND } else { NOT_EXECUTABLE }))
}

/// Enters the container. Returns the command to become, or `None` if only the plan was requested.
fn enter(common: &Common, image: &OsString, action: &Action<'_>) -> Result<Option<Inside>, Refusal> {
    let directory = std::env::current_dir().map_err(|cause| Refusal::new(Kind::Workdir, ".", cause.to_string()))?;
    let raw = options(common, action, &directory);
    let image = &*images::fetched(image, &common.config)?;
    let request = LocalRequest { raw, image, config: &common.config, user: common.user.as_deref() };
    let LocalRun { context, image, provision, directory } = request.prepare()?;
    local::enter_user_namespace(context.authority)?;
    let (settings, identity) = (&context.settings, &context.identity);
    let opener = Opener::start(identity, Instant::now() + context.config.start_timeout.0)?;
    let (clock, fit) = (Clock::start(), HostFit::default());
    let policy = context.resolve_policy(&opener)?;
    let resolved = Resolved::new(&context, &policy, &opener, &clock)?;
    let loaded = pipeline::load(&resolved, &image, &mut admit_at_once)?;
    let host = local::with_home(&context.environment, policy.account.home.as_deref(), common.user.is_some());
    let here = Here { directory, pmix: None };
    let place = Place { here: &here, script_folder: None, provision: &provision };
    let umask = nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let container = pipeline::build(&resolved, &loaded, place, &fit)?;
    nix::sys::stat::umask(umask);
    if let Action::Plan = action {
        print!("{}", container.plan);
        return Ok(None);
    }
    let found = Tasks::of_image(&resolved, &loaded, &fit, &host).evaluate(&container.namespace, None)?;
    let mut environment = environment::apply_changes(&found.applied_to(&host)?, context.gpu_changes(&provision));
    context.notes.iter().for_each(|note| eprintln!("coracle: note: {note}"));
    let driver_note = fit.driver_note(&provision, loaded.image().name());
    found.notes.iter().chain(&driver_note).for_each(|note| eprintln!("coracle: {note}"));
    opener.end();
    let system = |error: sys::Error| Refusal::system("entering the container", &error);
    sys::enter_mount_namespace(&container.namespace).map_err(system)?;
    let start = settings.workdir.as_ref().unwrap_or(&here.directory);
    nix::unistd::chdir(start)
        .map_err(|errno| Refusal::new(Kind::Workdir, start.display().to_string(), errno.desc()))?;
    if settings.workdir.is_some() {
        environment.retain(|(name, _)| name != "PWD");
        environment.push(("PWD".into(), start.into()));
    }
    sys::set_no_new_privileges().map_err(system)?;
    sys::drop_capabilities().map_err(system)?;
    sys::become_user(identity).map_err(system)?;
    let mut words = if found.entrypoint { environment::take_entrypoint(&mut environment)? } else { Vec::new() };
    match action {
        Action::Command(given) | Action::EntryPoint(given) => words.extend_from_slice(given),
        // The shell's own command: the entry point of the image is not used.
        Action::Shell(given) => {
            words = shell_of_the_image();
            words.extend_from_slice(given);
        }
        Action::Plan => {}
    }
    if words.is_empty() {
        return Err(Refusal::new(Kind::Usage, image.to_string(), "the image has no entry point")
            .hint("coracle exec IMAGE COMMAND… runs a command, coracle shell IMAGE opens a shell"));
    }
    Ok(Some(Inside { words, environment }))
}

/// Options from all their sources.
fn options(common: &Common, action: &Action<'_>, directory: &Path) -> RawOptions {
    let mut raw = common.raw();
    local::fill_from_variables(&mut raw);
    local::print_apptainer_note();
    local::add_apptainer_binds(&mut raw, directory, |name| std::env::var_os(name));
    if let (Action::EntryPoint(_), Some(spec)) = (action, Spec::of(Id::Entrypoint)) {
        raw.take(spec, "yes".into());
    }
    raw
}

fn shell_of_the_image() -> Vec<OsString> {
    let there = SHELLS.into_iter().find(|words| words.first().is_some_and(|program| Path::new(program).exists()));
    there.unwrap_or(&["/bin/sh"]).iter().map(OsString::from).collect()
}
