//! Builds a node with a driver for the tests.
#![forbid(unsafe_code)]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Sources;
use crate::elf::elf_writer::{Says, library};
use crate::elf::{Libraries, Machine, Root};

/// Release of the driver in tests/gpus.
pub(super) const RELEASE: &str = "550.54.15";
/// Parts of the driver that have no SONAME but the file name.
const INNER: [&str; 6] = ["-eglcore", "-glcore", "-glsi", "-tls", "-rtcore", "-gpucomp"];

pub(super) struct Tree {
    pub(super) directory: tempfile::TempDir,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Path in the tree.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    pub(super) fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        self.mode(&path, 0o644);
    }

    pub(super) fn mode(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// Adds a library that requires `glibc` of the C library.
    pub(super) fn library(&self, path: &str, soname: &str, glibc: &str) {
        let wanted = ["GLIBC_2.2.5", glibc];
        self.put(path, &library(&Says { soname, wanted: &[("libc.so.6", &wanted)], ..Says::default() }));
    }

    /// Adds all files that the specification `text` mounts.
    pub(super) fn fill(&self, text: &str) {
        for path in text.lines().filter_map(|line| line.trim().strip_prefix("hostPath: ")) {
            let name = path.rsplit('/').next().unwrap();
            match name.strip_suffix(RELEASE).and_then(|rest| rest.strip_suffix('.')) {
                Some(stem) if stem.ends_with(".so") => {
                    let inner = INNER.iter().any(|part| stem.contains(part));
                    let soname = if inner { name.to_owned() } else { format!("{stem}.1") };
                    let glibc = if stem == "libcuda.so" { "GLIBC_2.27" } else { "GLIBC_2.4" };
                    self.library(path, &soname, glibc);
                }
                _ if name.contains(".so") => {
                    self.library(
                        path,
                        &name.split_inclusive(".so").next().map(|stem| format!("{stem}.1")).unwrap(),
                        "GLIBC_2.4",
                    );
                }
                _ => self.put(path, b"data"),
            }
        }
    }

    /// Sources whose files belong to the user who runs the test.
    pub(super) fn sources(&self) -> Sources {
        let root = File::open(self.directory.path()).unwrap();
        Sources::below(root.into(), nix::unistd::getuid().as_raw())
    }

    pub(super) fn libraries(&self) -> Libraries {
        let root = File::open(self.directory.path()).unwrap();
        Libraries::new(Root::of_mount(root.into()), Machine::own()).unwrap()
    }
}
