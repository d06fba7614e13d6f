//! Looks up the release of Slurm that this process is part of. Functions that only some releases or programs of Slurm
//! have are found at run time: a reference to a missing one would keep a whole plugin from loading, since Rust links
//! with BIND_NOW.

use std::ffi::{CStr, c_long, c_void};

/// A release of Slurm: the first two numbers of its version, in order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32);

/// The tested releases, each with the number in the upper half of its slurm_api_version(3) (META, API_CURRENT).
const TESTED: &[(u32, Release)] = &[
    (36, Release(20, 11)),
    (38, Release(22, 5)),
    (39, Release(23, 2)),
    (40, Release(23, 11)),
    (41, Release(24, 5)),
    (42, Release(24, 11)),
    (43, Release(25, 5)),
    (44, Release(25, 11)),
    (45, Release(26, 5)),
];

/// Returns the tested releases, in order.
pub fn tested() -> impl Iterator<Item = Release> {
    TESTED.iter().map(|(_, release)| *release)
}

impl std::fmt::Display for Release {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:02}.{:02}", self.0, self.1)
    }
}

/// Returns the release of this process, if it is a tested one.
pub fn release() -> Option<Release> {
    let version = symbol(c"slurm_api_version")?;
    // SAFETY: slurm.h has `long slurm_api_version(void)` in every release.
    let version = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_long>(version) }();
    of_api(u32::try_from(version >> 16).ok()?)
}

fn of_api(api: u32) -> Option<Release> {
    TESTED.iter().find(|(known, _)| *known == api).map(|(_, release)| *release)
}

impl Release {
    /// Returns the number that `plugin_version` of a plugin must have for this release (plugin.c, `_verify_syms`).
    pub fn plugin_version(self) -> u32 {
        self.0 << 16 | self.1 << 8
    }
}

/// Exports the symbols by which Slurm knows a SPANK plugin (plugin.h): its name, a NUL-terminated byte string, its kind,
/// its version, and the release of Slurm.
#[macro_export]
macro_rules! spank_plugin {
    ($name:literal) => {
        /// Slurm's name for the plugin.
        #[unsafe(no_mangle)]
        pub static plugin_name: [u8; $name.len()] = *$name;
        /// Kind of the plugin.
        #[unsafe(no_mangle)]
        pub static plugin_type: [u8; 6] = *b"spank\0";
        /// The version of the plugin.
        #[unsafe(no_mangle)]
        pub static spank_plugin_version: std::ffi::c_uint = 1;
        /// Release number of the plugin: Slurm refuses a plugin of another release (plugin.c, _verify_syms). It reads
        /// the number after dlopen(3), so [`ANNOUNCE`] has run by then; with 0 the plugin stays refused.
        #[unsafe(no_mangle)]
        pub static plugin_version: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

        #[used]
        #[unsafe(link_section = ".init_array")]
        static ANNOUNCE: extern "C" fn() = announce;

        extern "C" fn announce() {
            // After a panic the plugin stays refused.
            let _ = std::panic::catch_unwind(|| {
                if let Some(release) = $crate::sys::release() {
                    plugin_version.store(release.plugin_version(), std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
    };
}

/// Returns the address of a function of the loaded programs and libraries.
pub fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: `name` is NUL-terminated; RTLD_DEFAULT searches what is loaded and loads nothing.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tested_releases_have_a_number() {
        assert_eq!(of_api(36).map(|release| release.to_string()).as_deref(), Some("20.11"));
        assert_eq!(of_api(38).map(Release::plugin_version), Some(0x16_0500));
        assert_eq!(of_api(45).map(Release::plugin_version), Some(0x1a_0500));
        let between = [39, 40, 41, 43, 44].map(|api| of_api(api).unwrap().to_string());
        assert_eq!(between, ["23.02", "23.11", "24.05", "25.05", "25.11"]);
        // 21.08, and a release later than any known one.
        assert_eq!([37, 46].map(of_api), [None; 2]);
    }

    #[test]
    fn releases_are_ordered_by_time() {
        assert!(TESTED.is_sorted());
        assert!(Release(22, 5) < Release(23, 11) && Release(25, 11) < Release(26, 5));
    }
}
