//! Which Slurm this program is part of. Functions that only some releases have, or only some of Slurm's programs, are
//! found at run time: a reference to one that is missing would keep a whole plugin from loading, since Rust links with
//! BIND_NOW.

use std::ffi::{CStr, c_long, c_void};

/// The releases that the tests have run on, as major and minor.
const TESTED: &[(u32, u32)] = &[(22, 5)];
/// The number in the upper half of slurm_api_version(3), for each of them (META, API_CURRENT).
const API: &[(u32, (u32, u32))] = &[(38, (22, 5))];

/// The number that `plugin_version` of a plugin has to have for the Slurm that this process is part of; nothing, if
/// that is none that has been tested.
pub fn plugin_version() -> Option<u32> {
    let version = symbol(c"slurm_api_version")?;
    // SAFETY: slurm.h has `long slurm_api_version(void)` in every release.
    let version = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_long>(version) }();
    let release = u32::try_from(version >> 16).ok().and_then(|api| API.iter().find(|(known, _)| *known == api));
    let (_, (major, minor)) = release.filter(|(_, release)| TESTED.contains(release))?;
    Some(major << 16 | minor << 8)
}

/// A function of the programs and libraries that are loaded.
pub fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: `name` is NUL-terminated; RTLD_DEFAULT searches what is loaded and loads nothing.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}
