//! Version of the C library in an image, for a GPU driver of this node that requires a minimum.
//!
//! The image's files are hostile, so the process with the user's ids reads them ([`crate::children::opener`]). Its
//! answer is checked before root uses it.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use crate::devices::{image_glibc, is_glibc_version};
use crate::elf::{Libraries, Machine, Root};
use coracle::report::{Kind, Refusal};

/// Newest version of glibc in the image that is mounted as `root`; empty without one. Runs in the process with the
/// user's ids.
pub fn answer(root: OwnedFd) -> Result<Vec<u8>, Refusal> {
    let failed =
        |cause| Refusal::new(Kind::of_reading(&cause), "", format!("the loader's list cannot be read: {cause}"));
    let libraries = Libraries::new(Root::of_mount(root), Machine::own()).map_err(failed)?;
    Ok(image_glibc(&libraries).unwrap_or_default().into_bytes())
}

/// Parses the answer of [`answer`]; an error if it is not a glibc version.
pub(super) fn parse_answer(answer: &[u8]) -> Result<Option<String>, ()> {
    match std::str::from_utf8(answer) {
        Ok("") => Ok(None),
        Ok(version) if is_glibc_version(version) => Ok(Some(version.to_owned())),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_is_believed() {
        assert_eq!(parse_answer(b""), Ok(None));
        assert_eq!(parse_answer(b"GLIBC_2.36"), Ok(Some("GLIBC_2.36".into())));
        for nonsense in [&b"GLIBC_"[..], b"GLIBC_2.36\n", b"GLIBC_2.\x1b[1m", b"2.36", b"\xff", &b"GLIBC_2".repeat(99)]
        {
            assert_eq!(parse_answer(nonsense), Err(()));
        }
    }

    #[test]
    fn a_tree_without_a_libc_has_no_version() {
        let empty = tempfile::tempdir().unwrap();
        let open = |path: &std::path::Path| std::fs::File::open(path).unwrap().into();
        assert_eq!(answer(open(empty.path())).unwrap(), b"");
        // On the test's host, the C library may be on another file system than `/`.
        assert!(parse_answer(&answer(open("/".as_ref())).unwrap()).is_ok());
    }
}
