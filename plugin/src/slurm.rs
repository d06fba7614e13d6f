//! Calls functions of Slurm's programs that are not part of the SPANK interface, found by dlsym(3).
//!
//! Slurm promises no prototype of these, so each is listed here with the releases that have it. Checked in slurm.h,
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

use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use coracle::sys::{self, Release, symbol};

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
    let status = if release >= Release(25, 11) {
        type Kill = extern "C" fn(*mut StepId, u16, u16) -> c_int;
        // SAFETY: the prototype of 25.11 and later, see the table above.
        let kill = unsafe { std::mem::transmute::<*mut c_void, Kill>(kill) };
        let mut id = StepId { sluid: 0, job, component: NO_VAL, step };
        kill(&raw mut id, signal, 0)
    } else if release >= Release(23, 11) {
        type Kill = extern "C" fn(u32, u32, u16, u16) -> c_int;
        // SAFETY: the prototype from 23.11 to 25.05, see the table above.
        let kill = unsafe { std::mem::transmute::<*mut c_void, Kill>(kill) };
        kill(job, step, signal, 0)
    } else {
        type Kill = extern "C" fn(u32, u32, u16) -> c_int;
        // SAFETY: the prototype up to 23.02, see the table above.
        let kill = unsafe { std::mem::transmute::<*mut c_void, Kill>(kill) };
        kill(job, step, signal)
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

/// Lets this slurmstepd execute TaskProlog itself, on the releases that execute a program of the node first.
///
/// 24.11.0 to 24.11.6 execute slurmstepd's own file for each script, inside the task's root, where its loader and
/// libraries are missing (fixed in 24.11.7 by `direct_exec`). A launcher that does not exist makes run_command() start
/// scripts directly. slurmd's log then has one line about it.
pub fn execute_scripts_directly(micro: Option<u32>) {
    let affected = sys::release() == Some(Release(24, 11)) && micro.is_some_and(|micro| micro < 7);
    let Some(init) = symbol(c"run_command_init").filter(|_| affected) else { return };
    type Init = extern "C" fn(c_int, *mut *mut c_char, *const c_char) -> c_int;
    // SAFETY: the prototype of 24.11, see the table above. It copies the path, and takes no arguments for count 0.
    let init = unsafe { std::mem::transmute::<*mut c_void, Init>(init) };
    init(0, std::ptr::null_mut(), c"/dev/null/none".as_ptr());
}
