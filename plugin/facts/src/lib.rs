//! The SPANK plugin `spank_coracle_facts.so`: in slurmd's prolog and epilog it lets the launcher record, and delete,
//! the partition, account and QOS of a job.
//!
//! A separate file, for sites whose rules need these facts. If any plugin has these two hooks, slurmd starts a program
//! for each of them at every job, whatever the plugin's arguments are (prep/script, `_run_spank_job_script`).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::catch_unwind;

use coracle::sys;

coracle::spank_plugin!(b"coracle_facts\0");

/// Records the facts, as root, before the first step of a job on this node. slurmd's own environment names the job.
///
/// # Safety
/// Slurm passes `count` NUL-terminated strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_job_prolog(_: *mut c_void, count: c_int, words: *const *const c_char) -> c_int {
    // SAFETY: as of this function.
    unsafe { tell(c"write", count, words) }
}

/// Deletes the facts, as root, after the last step.
///
/// # Safety
/// Slurm passes `count` NUL-terminated strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_job_epilog(_: *mut c_void, count: c_int, words: *const *const c_char) -> c_int {
    // SAFETY: as of this function.
    unsafe { tell(c"forget", count, words) }
}

/// Runs the launcher. Always succeeds: a hook that fails here drains the node, and rules that need facts refuse
/// without them.
///
/// # Safety
/// `words` points to `count` NUL-terminated strings.
unsafe fn tell(verb: &CStr, count: c_int, words: *const *const c_char) -> c_int {
    let _ = catch_unwind(|| {
        let (mut launcher, mut config, mut wanted) =
            (c"/usr/lib/coracle/coracle-launcher", c"/etc/coracle/coracle.yaml", false);
        for index in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: as of this function; the strings live as long as the hook.
            let word = unsafe { CStr::from_ptr(*words.add(index)) };
            let value = |key: &str| {
                let value = word.to_bytes_with_nul().strip_prefix(key.as_bytes())?;
                CStr::from_bytes_with_nul(value).ok()
            };
            wanted |= word == c"job_facts=prolog";
            launcher = value("launcher=").unwrap_or(launcher);
            config = value("config=").unwrap_or(config);
        }
        if wanted {
            // A node without a launcher has no containers either.
            let _ = sys::output_of(launcher, &[c"coracle", c"facts", verb, c"--config", config], 4096);
        }
    });
    0
}
