//! Version of the C library in an image, for a GPU driver of this node that requires a minimum.
//!
//! The image's files are hostile, so the process with the user's ids reads them ([`crate::children::opener`]). Its
//! answer is checked before root uses it.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use crate::devices::{image_glibc, is_glibc_version};
use crate::elf::{Libraries, Machine, Root};
use coracle::report::{Kind, Refusal};

/// Newest version of glibc in the image that is mounted as `root`, if it has one. Runs in the process with the user's
/// ids.
pub fn answer(root: OwnedFd) -> Result<Option<String>, Refusal> {
    let failed =
        |cause| Refusal::new(Kind::of_reading(&cause), "", format!("the loader's list cannot be read: {cause}"));
    let libraries = Libraries::new(Root::of_mount(root), Machine::own()).map_err(failed)?;
    Ok(image_glibc(&libraries))
}

/// Checks the answer of [`answer`]: nothing if it is not a glibc version.
pub(super) fn checked(version: Option<String>) -> Option<Option<String>> {
    version.as_deref().is_none_or(is_glibc_version).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_is_believed() {
        let check = |version: &str| checked(Some(version.to_owned()));
        assert_eq!(checked(None), Some(None));
        assert_eq!(check("GLIBC_2.36"), Some(Some("GLIBC_2.36".into())));
        for nonsense in ["", "GLIBC_", "GLIBC_2.36\n", "GLIBC_2.\x1b[1m", "2.36", &"GLIBC_2".repeat(99)] {
            assert_eq!(check(nonsense), None);
        }
    }

    #[test]
    fn a_tree_without_a_libc_has_no_version() {
        let empty = tempfile::tempdir().unwrap();
        let open = |path: &std::path::Path| std::fs::File::open(path).unwrap().into();
        assert_eq!(answer(open(empty.path())).unwrap(), None);
        // On the test's host, the C library may be on another file system than `/`.
        assert!(checked(answer(open("/".as_ref())).unwrap()).is_some());
    }
}
