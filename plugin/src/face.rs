//! Wraps the C interface: the symbols that Slurm looks up in the plugin, and the calls of the plugin into Slurm. All of
//! the plugin's `unsafe` is here and in [`slurm`].

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_uint};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStringExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle::options::{Argument, Naming, OPTIONS, Place, RawOptions, Spec, called};
use coracle::report::{Kind, Refusal, clean};
use coracle::sys::{self, Release, spank};

use crate::arguments::Arguments;
use crate::{slurm, stepd, submit};

/// Slurm's name for the plugin, and its kind (plugin.h).
#[unsafe(no_mangle)]
pub static plugin_name: [u8; 8] = *b"coracle\0";
#[unsafe(no_mangle)]
pub static plugin_type: [u8; 6] = *b"spank\0";
#[unsafe(no_mangle)]
pub static spank_plugin_version: c_uint = 1;
/// Release number of the plugin: Slurm refuses a plugin of another release (plugin.c, _verify_syms). It reads the
/// number after dlopen(3), so [`ANNOUNCE`] has run by then; with 0 the plugin stays refused.
#[unsafe(no_mangle)]
pub static plugin_version: AtomicU32 = AtomicU32::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static ANNOUNCE: extern "C" fn() = announce;

extern "C" fn announce() {
    if let Some(release) = sys::release() {
        plugin_version.store(release.plugin_version(), Ordering::Relaxed);
    }
}

/// Arguments of a hook.
pub struct Spank<'a> {
    handle: spank::spank_t,
    hook: PhantomData<&'a ()>,
}

/// Program that has loaded the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// srun
    Srun,
    /// sbatch or salloc
    Allocator,
    /// slurmstepd
    Stepd,
    /// slurmd
    Slurmd,
    /// Any other program, in which the plugin does nothing.
    Other,
}

/// First release with Slurm's own option `--container`, and with a record of it in the controller.
const FIRST_WITH_CONTAINER: Release = Release(21, 8);

/// True where `--container` is the plugin's option. Where Slurm has it, the plugin must not register one of that name.
pub fn container_is_ours() -> bool {
    sys::release() < Some(FIRST_WITH_CONTAINER)
}

/// Returns the program that this is.
pub fn context() -> Context {
    // SAFETY: spank_context takes nothing and may be called from any hook.
    match unsafe { spank::spank_context() } {
        spank::S_CTX_LOCAL => Context::Srun,
        spank::S_CTX_ALLOCATOR => Context::Allocator,
        spank::S_CTX_REMOTE => Context::Stepd,
        spank::S_CTX_SLURMD => Context::Slurmd,
        _ => Context::Other,
    }
}

macro_rules! items {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $item:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(&self) -> Option<$type> {
            let mut value: $type = 0;
            // SAFETY: spank.h documents this item as one pointer to this type.
            let rc = unsafe { spank::spank_get_item(self.handle, spank::$item, &raw mut value) };
            (rc == 0).then_some(value)
        })*
    };
}

impl Spank<'_> {
    items! {
        /// Job id.
        job: u32 = S_JOB_ID;
        /// Step id.
        step: u32 = S_JOB_STEPID;
        /// The job's user.
        uid: libc::uid_t = S_JOB_UID;
        /// The job's primary group.
        gid: libc::gid_t = S_JOB_GID;
        /// Number of nodes of the step.
        nodes: u32 = S_JOB_NNODES;
        /// Number of this node among them, from 0.
        node: u32 = S_JOB_NODEID;
        /// Number of the step's tasks on this node.
        local_tasks: u32 = S_JOB_LOCAL_TASK_COUNT;
        /// Number of the step's tasks on all nodes.
        all_tasks: u32 = S_JOB_TOTAL_TASK_COUNT;
    }

    /// Returns the third number of Slurm's version (spank.h, `char **`).
    pub fn micro_release(&self) -> Option<u32> {
        let mut text: *mut c_char = std::ptr::null_mut();
        // SAFETY: spank.h documents this item as `char **`.
        let rc = unsafe { spank::spank_get_item(self.handle, spank::S_SLURM_VERSION_MICRO, &raw mut text) };
        if rc != 0 || text.is_null() {
            return None;
        }
        // SAFETY: Slurm answers with a constant of its own, NUL-terminated.
        unsafe { CStr::from_ptr(text) }.to_str().ok()?.parse().ok()
    }

    /// Returns the job's supplementary groups.
    pub fn groups(&self) -> Option<Vec<u32>> {
        let (mut list, mut count): (*mut libc::gid_t, c_int) = (std::ptr::null_mut(), 0);
        // SAFETY: spank.h documents this item as `gid_t **` and `int *`.
        let rc = unsafe {
            spank::spank_get_item(self.handle, spank::S_JOB_SUPPLEMENTARY_GIDS, &raw mut list, &raw mut count)
        };
        let count = usize::try_from(count).ok()?;
        if rc != 0 || (list.is_null() && count > 0) {
            return None;
        }
        if count == 0 {
            return Some(Vec::new());
        }
        // SAFETY: Slurm owns an array of `count` ids that lives as long as the step.
        Some(unsafe { std::slice::from_raw_parts(list, count) }.to_vec())
    }

    /// Returns Slurm's words of the step's command, if there are any: an array that lives as long as the step, of
    /// NUL-terminated strings.
    fn argv(&self) -> Option<NonNull<*mut c_char>> {
        let (mut count, mut words): (c_int, *mut *mut c_char) = (0, std::ptr::null_mut());
        // SAFETY: spank.h documents this item as `int *` and `char ***`.
        let rc = unsafe { spank::spank_get_item(self.handle, spank::S_JOB_ARGV, &raw mut count, &raw mut words) };
        NonNull::new(words).filter(|_| rc == 0 && count > 0)
    }

    /// Returns the first word of the step's command; of a batch step, the path of its script.
    pub fn command(&self) -> Option<OsString> {
        let words = self.argv()?;
        // SAFETY: `argv` has seen that the array has a first word, and Slurm keeps it.
        let first = unsafe { words.read() };
        if first.is_null() {
            return None;
        }
        // SAFETY: Slurm's string is NUL-terminated.
        Some(OsString::from_vec(unsafe { CStr::from_ptr(first) }.to_bytes().to_vec()))
    }

    /// Makes `program` the first word of the step's command, and returns the word that it replaces. Slurm looks the
    /// word up after the task hooks (task.c, exec_task), in this process alone.
    ///
    /// Tasks of --multi-prog have commands of their own, which this does not change.
    pub fn replace_command(&self, program: CString) -> Option<OsString> {
        let before = self.command()?;
        let words = self.argv()?;
        // SAFETY: `argv` has seen that the array has a first word. This process is the task's own copy of slurmstepd,
        // which becomes the command and frees no word before; the new one is never freed.
        unsafe { words.write(program.into_raw()) };
        Some(before)
    }

    /// Returns the job's environment, each variable with a NUL behind it.
    pub fn environment(&self) -> Vec<u8> {
        let mut variables: *mut *mut c_char = std::ptr::null_mut();
        // SAFETY: spank.h documents this item as `char ***`.
        let rc = unsafe { spank::spank_get_item(self.handle, spank::S_JOB_ENV, &raw mut variables) };
        let mut bytes = Vec::new();
        if rc != 0 || variables.is_null() {
            return bytes;
        }
        for index in 0.. {
            // SAFETY: Slurm owns a NULL-terminated array of strings, and changes it only between hooks.
            let variable = unsafe { *variables.add(index) };
            if variable.is_null() {
                break;
            }
            // SAFETY: as above; each string is NUL-terminated.
            bytes.extend_from_slice(unsafe { CStr::from_ptr(variable) }.to_bytes_with_nul());
        }
        bytes
    }

    /// Returns a variable of the job's environment. A value longer than `limit` bytes is cut there.
    pub fn getenv(&self, name: &CStr, limit: usize) -> Option<OsString> {
        let mut buffer = vec![0u8; limit + 1];
        let length = c_int::try_from(buffer.len()).ok()?;
        // SAFETY: `name` is NUL-terminated, and `buffer` has the length that is passed.
        let rc = unsafe { spank::spank_getenv(self.handle, name.as_ptr(), buffer.as_mut_ptr().cast(), length) };
        let end = buffer.iter().position(|byte| *byte == 0).unwrap_or(limit);
        // A value without space for its NUL gives ESPANK_NOSPACE, whose number differs between releases.
        if rc != 0 && end < limit {
            return None;
        }
        buffer.truncate(end);
        Some(OsString::from_vec(buffer))
    }

    /// Sets a variable of the job's environment.
    pub fn setenv(&self, name: &CStr, value: &CStr) {
        // SAFETY: both are NUL-terminated and copied.
        unsafe { spank::spank_setenv(self.handle, name.as_ptr(), value.as_ptr(), 1) };
    }

    /// Removes a variable of the job's environment.
    pub fn unsetenv(&self, name: &CStr) {
        // SAFETY: `name` is NUL-terminated.
        unsafe { spank::spank_unsetenv(self.handle, name.as_ptr()) };
    }

    fn register_options(&self, naming: Naming) {
        for (index, option) in OPTIONS.iter().enumerate() {
            // The numbers of getopt_long(3).
            let (has_arg, value) = match option.argument {
                Argument::Flag(_) => (0, None),
                Argument::Value(value) => (1, Some(value)),
                Argument::Maybe(value, _) => (2, Some(value)),
            };
            let mut entry = spank::spank_option {
                name: option.name_in(naming).as_ptr().cast_mut(),
                arginfo: value.map_or(std::ptr::null_mut(), |value| value.as_ptr().cast_mut()),
                usage: option.help.as_ptr().cast_mut(),
                has_arg,
                val: c_int::try_from(index).unwrap_or(c_int::MAX),
                cb: Some(option_given),
            };
            // SAFETY: Slurm copies the entry and its strings (plugstack.c, _spank_option_copy) and writes to neither.
            unsafe { spank::spank_option_register(self.handle, &raw mut entry) };
        }
        if container_is_ours() {
            self.register_container();
        }
    }

    /// Registers `--container`, which is Slurm's own option since 21.08.
    fn register_container(&self) {
        let mut entry = spank::spank_option {
            name: c"container".as_ptr().cast_mut(),
            arginfo: c"IMAGE".as_ptr().cast_mut(),
            usage: c"run in a container of this image".as_ptr().cast_mut(),
            has_arg: 1,
            val: 0,
            cb: Some(container_given),
        };
        // SAFETY: as above.
        unsafe { spank::spank_option_register(self.handle, &raw mut entry) };
    }
}

/// Prints a refusal to the user's terminal.
pub fn complain(refusal: &Refusal, naming: Naming) {
    [Some(refusal.line()), refusal.hint_line()].iter().flatten().for_each(|line| say(&called(line, naming)));
}

/// Prints a note, which refuses nothing.
pub fn note(text: &str) {
    say(&clean(&format!("coracle: note: {text}")));
}

/// Prints a line. Only slurm_error(3) reaches a terminal.
fn say(line: &str) {
    if let Ok(text) = CString::new(line) {
        // SAFETY: "%s" takes one NUL-terminated string, which is passed.
        unsafe { spank::slurm_error(c"%s".as_ptr(), text.as_ptr()) };
    }
}

/// Ends this task.
pub fn exit_task(status: c_int) -> ! {
    // SAFETY: _exit ends the process at once; no exit handler of slurmstepd, whose copy this is, may run here.
    unsafe { libc::_exit(status) }
}

/// State of the plugin between hooks.
#[derive(Default)]
pub struct State {
    /// Words of plugstack.conf.
    pub arguments: Arguments,
    /// State in srun, sbatch and salloc.
    pub submit: submit::State,
    /// State in slurmstepd and its tasks.
    pub stepd: stepd::State,
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
        assert!(state.arguments.panic != hook, "asked for");
        body(state)
    }));
    result.unwrap_or_else(|_| {
        let fault = Refusal::new(Kind::Internal, format!("plugin, {hook}"), "panicked");
        catch_unwind(AssertUnwindSafe(|| panicked(state().get_or_insert_default(), fault))).unwrap_or(-1)
    })
}

/// Reports a fault on the submit side: at once, and the command ends.
fn refuse(state: &mut State, fault: Refusal) -> c_int {
    complain(&fault, state.arguments.naming);
    -1
}

/// Records a fault on the node. task_init reports it, where a refusal does no harm to the node.
fn record(state: &mut State, fault: Refusal) -> c_int {
    state.stepd.refuse(fault);
    0
}

/// Like [`record`], in a hook after the one that reads the request.
fn record_if_wanted(state: &mut State, fault: Refusal) -> c_int {
    state.stepd.refuse_if_wanted(fault);
    0
}

/// Reports or records a fault, depending on the program that this is.
fn by_context(state: &mut State, fault: Refusal) -> c_int {
    if context() == Context::Stepd { record(state, fault) } else { refuse(state, fault) }
}

macro_rules! hooks {
    ($($name:ident, $body:expr, $panicked:expr;)*) => {
        $(#[unsafe(no_mangle)]
        pub extern "C" fn $name(handle: spank::spank_t, count: c_int, words: *mut *mut c_char) -> c_int {
            let spank = Spank { handle, hook: PhantomData };
            guard(stringify!($name), |state| $body(state, &spank, &Words { count, words }), $panicked)
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
    let spank = Spank { handle, hook: PhantomData };
    let status = guard("slurm_spank_init", |state| init(state, &Words { count, words }), by_context);
    if status != 0 || !matches!(context(), Context::Srun | Context::Allocator | Context::Stepd) {
        return status;
    }
    let naming = state().get_or_insert_default().arguments.naming;
    let registered = catch_unwind(AssertUnwindSafe(|| spank.register_options(naming)));
    registered.map_or_else(|_| guard("slurm_spank_init", |state| by_context(state, panicked()), by_context), |()| 0)
}

fn panicked() -> Refusal {
    Refusal::new(Kind::Internal, "plugin, slurm_spank_init", "panicked")
}

hooks! {
    slurm_spank_init_post_opt, init_post_opt, by_context;
    slurm_spank_user_init, |state: &mut State, _: &Spank<'_>, _: &Words| stepd::user_init(&mut state.stepd), record_if_wanted;
    slurm_spank_task_init_privileged,
        |state: &mut State, spank: &Spank<'_>, _: &Words| stepd::task_init_privileged(&mut state.stepd, spank), record_if_wanted;
    slurm_spank_task_init,
        |state: &mut State, spank: &Spank<'_>, _: &Words| stepd::task_init(&mut state.stepd, spank), stepd::task_panicked;
    slurm_spank_task_post_fork,
        |state: &mut State, _: &Spank<'_>, _: &Words| stepd::task_post_fork(&mut state.stepd), |_: &mut State, _| 0;
    slurm_spank_task_exit,
        |state: &mut State, _: &Spank<'_>, _: &Words| stepd::task_exit(&mut state.stepd), |_: &mut State, _| 0;
    slurm_spank_exit, |state: &mut State, _: &Spank<'_>, _: &Words| stepd::exit(&mut state.stepd), |_: &mut State, _| 0;
}

fn init(state: &mut State, words: &Words) -> c_int {
    // The default hook would write to slurmstepd's standard error, which may be any file.
    std::panic::set_hook(Box::new(|_| {}));
    let context = context();
    match Arguments::parse(words.bytes()) {
        Ok(arguments) => state.arguments = arguments,
        Err(fault) => return by_context(state, fault),
    }
    #[cfg(feature = "inject-panic")]
    assert!(state.arguments.panic != "slurm_spank_init", "asked for");
    if matches!(context, Context::Srun | Context::Allocator) {
        state.submit.options = RawOptions::named(state.arguments.naming);
        submit::init(&mut state.submit);
    }
    0
}

fn init_post_opt(state: &mut State, spank: &Spank<'_>, _: &Words) -> c_int {
    match context() {
        context @ (Context::Srun | Context::Allocator) => {
            match submit::post_opt(&mut state.submit, &state.arguments, context) {
                Ok(()) => 0,
                Err(fault) => refuse(state, fault),
            }
        }
        Context::Stepd => {
            slurm::execute_scripts_directly(spank.micro_release());
            stepd::init_post_opt(&mut state.stepd, &state.arguments, spank);
            0
        }
        _ => 0,
    }
}

/// Takes `--container` on a release without that option. sbatch passes its own argument unchanged, and an argument that
/// it has read in a script as a copy.
extern "C" fn container_given(_: c_int, value: *const c_char, remote: c_int) -> c_int {
    if remote != 0 || value.is_null() {
        return 0;
    }
    let typed = context() == Context::Srun || sys::is_of_start(value.addr());
    let place = if typed { Place::CommandLine } else { Place::Script };
    // SAFETY: Slurm passes the option's argument, NUL-terminated, and it lives as long as this call.
    let image = OsString::from_vec(unsafe { CStr::from_ptr(value) }.to_bytes().to_vec());
    let take = |state: &mut State| {
        state.submit.images.take(image, place);
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
            state.submit.options.take(spec, text);
        }
        0
    };
    guard("option", take, refuse)
}
