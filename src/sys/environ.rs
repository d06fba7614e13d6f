//! Reads and changes the process environment.
//!
//! The plugin runs in Slurm's programs, which call `getenv` and `setenv` themselves. So it has to change the C
//! library's environment and not a copy.

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

/// Sets `name` for this process and its future children (setenv(3)). False if `value` has a NUL or memory is short.
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

/// True for the address of a byte of this process' initial arguments and environment. They lie between two addresses
/// that the kernel reports in the auxiliary vector (binfmt_elf.c, `create_elf_tables`).
pub fn is_of_start(address: usize) -> bool {
    // SAFETY: getauxval takes a number and answers with one, 0 where it knows nothing.
    let [low, high] = [libc::AT_RANDOM, libc::AT_EXECFN].map(|entry| unsafe { libc::getauxval(entry) });
    usize::try_from(low).is_ok_and(|low| low != 0 && low < address)
        && usize::try_from(high).is_ok_and(|high| address < high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_of_the_start_and_copies_are_not() {
        // proc(5): the fields 48 and 49 are the addresses of the first argument and behind the last.
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let [first, end] = [45, 46].map(|index| fields[index].parse::<usize>().unwrap());
        assert!(first < end && is_of_start(first) && is_of_start(end - 1));
        let copy = String::from("--container=a.sif");
        assert!(!is_of_start(copy.as_ptr().addr()) && !is_of_start(0) && !is_of_start(usize::MAX));
        assert!(!is_of_start((&raw const copy).addr()));
    }
}
