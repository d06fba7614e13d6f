//! Exports the symbols that Slurm looks up in the plugin: its hooks and the callbacks of its options. Keeps the state
//! between hooks, and lets no panic reach C.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle::options::{OPTIONS, Place, Spec};
use coracle::report::{Kind, Refusal};
use coracle::spank::{Arguments, Context, Program, Step};
use coracle::sys::{self, spank};

use crate::slurm::{self, Spank, context};
use crate::stepd;
use crate::submit;

coracle::spank_plugin!(b"coracle\0");

/// State of the plugin between hooks.
#[derive(Default)]
pub struct State {
    /// Words of plugstack.conf.
    arguments: Arguments,
    /// State in srun, sbatch and salloc.
    command: submit::State,
    /// State in slurmstepd and its tasks.
    step: Step,
    /// `panic=HOOK` of plugstack.conf.
    #[cfg(feature = "inject-panic")]
    panic: String,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// Returns the state. Slurm calls hooks one after the other, so no hook waits here. A panic that poisoned the lock has
/// been recorded.
fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the body of a hook. A panic does not unwind into C: it becomes a refusal like any other.
fn guard(
    hook: &'static str,
    body: impl FnOnce(&mut State) -> c_int,
    panicked: impl FnOnce(&mut State, Refusal) -> c_int,
) -> c_int {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut state = state();
        let state = state.get_or_insert_default();
        #[cfg(feature = "inject-panic")]
        assert!(state.panic != hook, "asked for");
        body(state)
    }));
    result.unwrap_or_else(|_| {
        let fault = Refusal::new(Kind::Internal, format!("plugin, {hook}"), "panicked");
        catch_unwind(AssertUnwindSafe(|| panicked(state().get_or_insert_default(), fault))).unwrap_or(-1)
    })
}

/// Reports a fault on the submit side: at once, and the command ends.
fn refuse(state: &mut State, fault: Refusal) -> c_int {
    slurm::complain(&fault, state.arguments.naming);
    -1
}

/// Records a fault on the node. task_init reports it, where a refusal does no harm to the node.
fn record(state: &mut State, fault: Refusal) -> c_int {
    state.step.refuse(fault);
    0
}

/// Like [`record`], in a hook after the one that reads the request.
fn record_if_wanted(state: &mut State, fault: Refusal) -> c_int {
    state.step.refuse_if_wanted(fault);
    0
}

/// Reports or records a fault, depending on the program that this is.
fn by_context(state: &mut State, fault: Refusal) -> c_int {
    if context().records_faults() { record(state, fault) } else { refuse(state, fault) }
}

/// Result of a hook: its status, or success where it has none.
trait Status {
    fn status(self) -> c_int;
}

impl Status for c_int {
    fn status(self) -> c_int {
        self
    }
}

impl Status for () {
    fn status(self) -> c_int {
        0
    }
}

macro_rules! hooks {
    ($($name:ident, $body:expr, $panicked:expr;)*) => {
        $(#[unsafe(no_mangle)]
        pub extern "C" fn $name(handle: spank::spank_t, _: c_int, _: *mut *mut c_char) -> c_int {
            let spank = Spank::of_hook(handle);
            guard(stringify!($name), |state| Status::status($body(state, &spank)), $panicked)
        })*
    };
}

/// The words behind the plugin's name in plugstack.conf.
struct Words {
    count: c_int,
    words: *mut *mut c_char,
}

impl Words {
    fn bytes(&self) -> Vec<&[u8]> {
        let count = usize::try_from(self.count).unwrap_or(0);
        if self.words.is_null() {
            return Vec::new();
        }
        // SAFETY: Slurm passes `count` NUL-terminated strings that live as long as the hook.
        (0..count).map(|index| unsafe { CStr::from_ptr(*self.words.add(index)) }.to_bytes()).collect()
    }
}

/// Registers the options outside of the guard: if Slurm called the callback of an option from there, it would wait for
/// the lock of the state for ever.
#[unsafe(no_mangle)]
pub extern "C" fn slurm_spank_init(handle: spank::spank_t, count: c_int, words: *mut *mut c_char) -> c_int {
    let spank = Spank::of_hook(handle);
    let status = guard("slurm_spank_init", |state| init(state, &Words { count, words }), by_context);
    if status != 0 || !context().has_options() {
        return status;
    }
    // Also after a fault that is only recorded: slurmstepd refuses options of a job that it does not know.
    let naming = state().get_or_insert_default().arguments.naming;
    let registered = catch_unwind(AssertUnwindSafe(|| spank.register_options(naming, option_given, container_given)));
    registered.map_or_else(|_| guard("slurm_spank_init", |state| by_context(state, panicked()), by_context), |()| 0)
}

fn panicked() -> Refusal {
    Refusal::new(Kind::Internal, "plugin, slurm_spank_init", "panicked")
}

hooks! {
    slurm_spank_init_post_opt, init_post_opt, by_context;
    slurm_spank_user_init, |state: &mut State, _: &Spank<'_>| stepd::user_init(&mut state.step), record_if_wanted;
    slurm_spank_task_init_privileged,
        |state: &mut State, _: &Spank<'_>| stepd::task_init_privileged(&mut state.step), record_if_wanted;
    slurm_spank_task_init, task_init, task_panicked;
    slurm_spank_task_post_fork, |state: &mut State, _: &Spank<'_>| state.step.count_fork(), ignore;
    slurm_spank_task_exit, |state: &mut State, _: &Spank<'_>| stepd::task_exit(&state.step), ignore;
    slurm_spank_exit, |state: &mut State, _: &Spank<'_>| stepd::exit(&mut state.step), ignore;
}

fn init(state: &mut State, words: &Words) -> c_int {
    // The default hook would write to slurmstepd's standard error, which may be any file.
    std::panic::set_hook(Box::new(|_| {}));
    let words = words.bytes();
    #[cfg(feature = "inject-panic")]
    let words = without_panic(state, words);
    match Arguments::parse(words) {
        Ok(arguments) => state.arguments = arguments,
        Err(fault) => return by_context(state, fault),
    }
    #[cfg(feature = "inject-panic")]
    assert!(state.panic != "slurm_spank_init", "asked for");
    if program().is_some() {
        state.command.begin(state.arguments.naming);
    }
    // Slurm skips init_post_opt after a plugin before this one that failed there.
    if context() == Context::Stepd && state.arguments.defaults {
        state.step.asks_for_defaults();
    }
    0
}

/// Takes `panic=HOOK` out of the arguments.
#[cfg(feature = "inject-panic")]
fn without_panic<'a>(state: &mut State, mut words: Vec<&'a [u8]>) -> Vec<&'a [u8]> {
    words.retain(|word| match word.strip_prefix(b"panic=") {
        Some(hook) => {
            state.panic = String::from_utf8_lossy(hook).into_owned();
            false
        }
        None => true,
    });
    words
}

fn init_post_opt(state: &mut State, spank: &Spank<'_>) -> c_int {
    if let Some(program) = program() {
        return match state.command.post_opt(&state.arguments, program) {
            Ok(()) => 0,
            Err(fault) => refuse(state, fault),
        };
    }
    if context() == Context::Stepd {
        slurm::execute_scripts_directly(spank.micro_release());
        stepd::init_post_opt(&mut state.step, &state.arguments, spank);
    }
    0
}

/// Returns the client command that this is.
fn program() -> Option<Program> {
    context().program(&std::env::args_os().next().unwrap_or_default())
}

fn task_init(state: &mut State, spank: &Spank<'_>) {
    stepd::task_init(&mut state.step, spank, state.arguments.naming);
}

/// Reports a panic in task_init itself: no later hook can report it.
fn task_panicked(state: &mut State, fault: Refusal) -> c_int {
    if state.step.refuse_after_panic(fault) {
        stepd::end_task(&state.step, state.arguments.naming);
    }
    0
}

/// Continues after a panic in a hook that no task depends on.
fn ignore(_: &mut State, _: Refusal) -> c_int {
    0
}

/// Takes `--container` on a release without that option. sbatch passes its own argument unchanged, and an argument that
/// it has read in a script as a copy.
extern "C" fn container_given(_: c_int, value: *const c_char, remote: c_int) -> c_int {
    if remote != 0 || value.is_null() {
        return 0;
    }
    let take = |state: &mut State| {
        let typed = context() == Context::Srun || sys::is_of_start(value.addr());
        let place = if typed { Place::CommandLine } else { Place::Script };
        // SAFETY: Slurm passes the option's argument, NUL-terminated, and it lives as long as this call.
        let image = OsString::from_vec(unsafe { CStr::from_ptr(value) }.to_bytes().to_vec());
        state.command.submission.images.take(image, place);
        0
    };
    guard("option", take, refuse)
}

/// Takes an option. On the node options are ignored: the request counts there.
extern "C" fn option_given(index: c_int, value: *const c_char, remote: c_int) -> c_int {
    if remote != 0 {
        return 0;
    }
    let take = |state: &mut State| {
        let spec: Option<&Spec> = usize::try_from(index).ok().and_then(|index| OPTIONS.get(index));
        let text = if value.is_null() {
            spec.and_then(Spec::implied).map(OsString::from)
        } else {
            // SAFETY: Slurm passes the option's argument, NUL-terminated, and it lives as long as this call.
            Some(OsString::from_vec(unsafe { CStr::from_ptr(value) }.to_bytes().to_vec()))
        };
        if let (Some(spec), Some(text)) = (spec, text) {
            state.command.submission.options.take(spec, text);
        }
        0
    };
    guard("option", take, refuse)
}
