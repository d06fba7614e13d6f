//! The process environment.
//!
//! The plugin lives in programs of Slurm that call `getenv` and `setenv` themselves, so it has to change the
//! C library's environment and not a copy.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The value of `name` in this process' environment (getenv(3)).
pub fn get_env(name: &CStr) -> Option<OsString> {
    // SAFETY: `name` is NUL-terminated. Slurm calls the hooks that use this from its main thread, which is the only one
    // that changes the environment; slurmstepd's other threads (messages, input and output) read it at most. So the
    // string stays valid until it is copied on the next line. Slurm's own code relies on the same (env.c, setenvf).
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: getenv returned a NUL-terminated string of the environment.
    let bytes = unsafe { CStr::from_ptr(value) }.to_bytes().to_vec();
    Some(OsString::from_vec(bytes))
}

/// Sets `name` for this process and what it starts (setenv(3)). False when `value` has a NUL or memory is short.
pub fn set_env(name: &CStr, value: &OsStr) -> bool {
    let Ok(value) = CString::new(value.as_bytes()) else { return false };
    // SAFETY: both are NUL-terminated and copied by setenv; see get_env for the threads.
    unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) == 0 }
}

/// Removes `name` (unsetenv(3)).
pub fn unset_env(name: &CStr) {
    // SAFETY: `name` is NUL-terminated; see get_env for the threads. The only failure is a name with `=`.
    unsafe { libc::unsetenv(name.as_ptr()) };
}
