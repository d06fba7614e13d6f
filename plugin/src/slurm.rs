//! Calls Slurm: the SPANK interface, slurm_error(3), and functions of Slurm's programs that are found by dlsym(3).
//!
//! Slurm promises no prototype of the latter, so each is listed here with the releases that have it. Checked in slurm.h,
//! src/common/slurm_opt.h, src/common/read_config.h and src/common/run_command.h of the tags 20.11 to 26.05:
//!
//! | function | prototype |
//! |---|---|
//! | `slurm_kill_job_step` | `(uint32_t, uint32_t, uint16_t)` up to 23.02, `(uint32_t, uint32_t, uint16_t, uint16_t)` from 23.11, `(slurm_step_id_t *, uint16_t, uint16_t)` from 25.11 |
//! | `slurm_option_isset`, `slurm_option_reset` | `bool (slurm_opt_t *, const char *)` |
//! | `slurm_option_get` | `char *(slurm_opt_t *, const char *)` |
//! | `slurm_get_extra_conf_path` | `char *(char *)`, `char *(const char *)` from 26.05 |
//! | `run_command_init` | `int (int, char **, char *)` from 24.11 |
//!
//! A release that is not in the table of tested releases does not load the plugin ([`sys::release`]).

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::ptr::NonNull;

use coracle::options::{Argument, Naming, OPTIONS, called};
use coracle::report::{Refusal, clean};
use coracle::spank::{Context, Job, KillPrototype, container_is_ours, executes_itself_for_scripts, kill_prototype};
use coracle::sys::{self, spank, symbol};

/// Callback of an option (spank.h, `spank_opt_cb_f`).
type Callback = extern "C" fn(c_int, *const c_char, c_int) -> c_int;

/// Arguments of a hook.
pub struct Spank<'a> {
    handle: spank::spank_t,
    hook: PhantomData<&'a ()>,
}

impl Spank<'_> {
    /// Wraps the handle that Slurm has passed to a hook, for as long as the hook runs.
    pub fn of_hook(handle: spank::spank_t) -> Self {
        Self { handle, hook: PhantomData }
    }
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
        job_id: u32 = S_JOB_ID;
        /// Step id.
        step_id: u32 = S_JOB_STEPID;
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

    /// Registers the plugin's options, for which Slurm calls `given`, and `--container`, for which it calls
    /// `container_given`, on releases without that option.
    pub fn register_options(&self, naming: Naming, given: Callback, container_given: Callback) {
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
                cb: Some(given),
            };
            // SAFETY: Slurm copies the entry and its strings (plugstack.c, _spank_option_copy) and writes to neither.
            unsafe { spank::spank_option_register(self.handle, &raw mut entry) };
        }
        if container_is_ours(sys::release()) {
            self.register_container(container_given);
        }
    }

    /// Registers `--container`, which is Slurm's own option since 21.08.
    fn register_container(&self, given: Callback) {
        let mut entry = spank::spank_option {
            name: c"container".as_ptr().cast_mut(),
            arginfo: c"IMAGE".as_ptr().cast_mut(),
            usage: c"run in a container of this image".as_ptr().cast_mut(),
            has_arg: 1,
            val: 0,
            cb: Some(given),
        };
        // SAFETY: as above.
        unsafe { spank::spank_option_register(self.handle, &raw mut entry) };
    }
}

impl Job for Spank<'_> {
    fn id(&self) -> Option<u32> {
        self.job_id()
    }

    fn step(&self) -> Option<u32> {
        self.step_id()
    }

    fn variable(&self, name: &CStr, limit: usize) -> Option<OsString> {
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

    fn set_variable(&self, name: &CStr, value: &CStr) {
        // SAFETY: both are NUL-terminated and copied.
        unsafe { spank::spank_setenv(self.handle, name.as_ptr(), value.as_ptr(), 1) };
    }

    fn unset_variable(&self, name: &CStr) {
        // SAFETY: `name` is NUL-terminated.
        unsafe { spank::spank_unsetenv(self.handle, name.as_ptr()) };
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

/// `slurm_step_id_t` of slurm.h since 24.11.
#[repr(C)]
struct StepId {
    sluid: u64,
    job: u32,
    component: u32,
    step: u32,
}

/// Missing value of a 32-bit number (slurm.h).
const NO_VAL: u32 = 0xffff_fffe;

/// Ends all tasks of a step on all nodes. False if this Slurm has no such call, or the controller refuses.
pub fn kill_step(job: u32, step: u32) -> bool {
    let (Some(kill), Some(release)) = (symbol(c"slurm_kill_job_step"), sys::release()) else { return false };
    let signal = u16::try_from(libc::SIGKILL).unwrap_or(9);
    let status = match kill_prototype(release) {
        KillPrototype::StepId => {
            type Kill = extern "C" fn(*mut StepId, u16, u16) -> c_int;
            // SAFETY: the prototype of 25.11 and later, see the table above.
            let kill = unsafe { std::mem::transmute::<*mut c_void, Kill>(kill) };
            let mut id = StepId { sluid: 0, job, component: NO_VAL, step };
            kill(&raw mut id, signal, 0)
        }
        KillPrototype::SignalAndFlags => {
            type Kill = extern "C" fn(u32, u32, u16, u16) -> c_int;
            // SAFETY: the prototype from 23.11 to 25.05, see the table above.
            let kill = unsafe { std::mem::transmute::<*mut c_void, Kill>(kill) };
            kill(job, step, signal, 0)
        }
        KillPrototype::Signal => {
            type Kill = extern "C" fn(u32, u32, u16) -> c_int;
            // SAFETY: the prototype up to 23.02, see the table above.
            let kill = unsafe { std::mem::transmute::<*mut c_void, Kill>(kill) };
            kill(job, step, signal)
        }
    };
    status == 0
}

/// Returns a function of slurm_opt.h, and the `slurm_opt_t` of this srun, sbatch or salloc.
fn option_function(name: &CStr) -> Option<(*mut c_void, *mut c_void)> {
    Some((symbol(name)?, symbol(c"opt")?))
}

/// True if an option of Slurm itself was given to this srun, sbatch or salloc; false in a program without options.
pub fn option_is_set(name: &CStr) -> bool {
    let Some((function, options)) = option_function(c"slurm_option_isset") else { return false };
    type IsSet = extern "C" fn(*mut c_void, *const c_char) -> bool;
    // SAFETY: the prototype of every release, see the table above; `opt` is the program's own slurm_opt_t.
    let function = unsafe { std::mem::transmute::<*mut c_void, IsSet>(function) };
    function(options, name.as_ptr())
}

/// Resets an option of Slurm itself, as if it had not been given. False in a program without options.
pub fn reset_option(name: &CStr) -> bool {
    let Some((function, options)) = option_function(c"slurm_option_reset") else { return false };
    type Reset = extern "C" fn(*mut c_void, *const c_char) -> bool;
    // SAFETY: the prototype of every release, see the table above; `opt` is the program's own slurm_opt_t.
    let function = unsafe { std::mem::transmute::<*mut c_void, Reset>(function) };
    function(options, name.as_ptr())
}

/// Returns the value of an option of Slurm itself as text; srun may have set it itself.
pub fn option_value(name: &CStr) -> Option<OsString> {
    let (function, options) = option_function(c"slurm_option_get")?;
    type Get = extern "C" fn(*mut c_void, *const c_char) -> *mut c_char;
    // SAFETY: the prototype of every release, see the table above; `opt` is the program's own slurm_opt_t.
    let text = unsafe { std::mem::transmute::<*mut c_void, Get>(function) }(options, name.as_ptr());
    if text.is_null() {
        return None;
    }
    // SAFETY: the answer is a NUL-terminated string that this command owns until it ends: only Slurm's xfree, which is
    // no public symbol, could free it.
    Some(OsString::from_vec(unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()))
}

/// Returns the path of one of Slurm's configuration files, as this command would open it.
pub fn conf_path(name: &CStr) -> Option<PathBuf> {
    let function = symbol(c"slurm_get_extra_conf_path")?;
    type Get = extern "C" fn(*const c_char) -> *mut c_char;
    // SAFETY: the prototype of every release, see the table above; the name is only read.
    let text = unsafe { std::mem::transmute::<*mut c_void, Get>(function) }(name.as_ptr());
    if text.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated string that this command owns, left to the end of this command as above.
    Some(OsString::from_vec(unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()).into())
}

/// Lets this slurmstepd execute TaskProlog itself, on the releases that execute slurmstepd's own file for each script.
///
/// A launcher that does not exist makes run_command() start scripts directly. slurmd's log then has one line about it.
pub fn execute_scripts_directly(micro: Option<u32>) {
    let affected = executes_itself_for_scripts(sys::release(), micro);
    let Some(init) = symbol(c"run_command_init").filter(|_| affected) else { return };
    type Init = extern "C" fn(c_int, *mut *mut c_char, *const c_char) -> c_int;
    // SAFETY: the prototype from 24.11 on, see the table above. It copies the path, and takes no arguments for count 0.
    let init = unsafe { std::mem::transmute::<*mut c_void, Init>(init) };
    init(0, std::ptr::null_mut(), c"/dev/null/none".as_ptr());
}
