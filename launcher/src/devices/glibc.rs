//! Compares the glibc version that a driver's files require with that of an image.
#![forbid(unsafe_code)]

use crate::elf::{self, Libraries};

/// Prefix of glibc's symbol versions.
pub(super) const PREFIX: &str = "GLIBC_";
const LIBC: &str = "libc.so.6";
/// Maximum length of a version; all are shorter.
const MAX_LEN: usize = 24;

/// Newest version that the C library of a tree defines. `None` if it is not glibc (musl), or not for this machine.
///
/// Callers are unprivileged processes: the files are untrusted.
pub fn image_glibc(libraries: &Libraries) -> Option<String> {
    let found = libraries.find(LIBC).ok()??;
    found.library.newest(PREFIX).filter(|version| is_glibc_version(version)).map(str::to_owned)
}

/// True if the untrusted `text` is a valid version such as `GLIBC_2.36`.
pub fn is_glibc_version(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= MAX_LEN && text.strip_prefix(PREFIX).is_some_and(|rest| rest.split('.').all(number))
}

/// True if a C library with versions up to `has` lacks `wanted`. An invalid `wanted` is never lacking; an invalid `has`
/// lacks every version.
pub fn too_old(wanted: &str, has: &str) -> bool {
    elf::newest([wanted, has].into_iter(), PREFIX).is_some_and(|newest| newest != has)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::{Machine, Root};

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (wanted, has, old) in [
            ("GLIBC_2.27", "GLIBC_2.17", true),
            ("GLIBC_2.27", "GLIBC_2.27", false),
            ("GLIBC_2.4", "GLIBC_2.36", false),
            ("GLIBC_2.2.5", "GLIBC_2.2", true),
            ("GLIBC_2.27", "nonsense", true),
            ("nonsense", "GLIBC_2.27", false),
        ] {
            assert_eq!(too_old(wanted, has), old, "{wanted} {has}");
        }
    }

    #[test]
    fn a_version_is_a_version() {
        assert!(is_glibc_version("GLIBC_2.36") && is_glibc_version("GLIBC_2.2.5"));
        for text in
            ["", "GLIBC_", "GLIBC_2.", "GLIBC_+2.1", "GLIBC_PRIVATE", "2.36", "GLIBC_2.36\n", &"GLIBC_2".repeat(9)]
        {
            assert!(!is_glibc_version(text), "{text:?}");
        }
    }

    #[test]
    fn this_node_has_one_and_an_empty_tree_has_none() {
        let node = Libraries::new(Root::node().unwrap(), Machine::own()).unwrap();
        assert!(image_glibc(&node).is_some_and(|version| is_glibc_version(&version)));
        let scratch = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(scratch.path()).unwrap();
        let empty = Libraries::new(Root::of_mount(root.into()), Machine::own()).unwrap();
        assert_eq!(image_glibc(&empty), None);
    }
}
