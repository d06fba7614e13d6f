//! Tests of the fit of hosts' libraries to images, and of the messages about misfits.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{Config, Profile};
use crate::elf::{Libraries, Machine, Root};

use crate::elf::elf_writer::{Says, library};

const LIBC: Says<'_> = Says {
    soname: "libc.so.6",
    needed: &[],
    old_run_path: "",
    run_path: "",
    wanted: &[],
    defined: &["GLIBC_2.2.5", "GLIBC_2.9", "GLIBC_2.31", "GLIBC_PRIVATE"],
};
const MPI: Says<'_> = Says {
    soname: "libmpi.so.40",
    needed: &["libpal.so.40", "libz.so.1", "libc.so.6"],
    wanted: &[("libc.so.6", &["GLIBC_2.2.5", "GLIBC_2.31"])],
    defined: &[],
    ..LIBC
};
const PAL: Says<'_> = Says { soname: "libpal.so.40", needed: &["libc.so.6"], wanted: &[], defined: &[], ..LIBC };
const Z: Says<'_> = Says { soname: "libz.so.1", needed: &["libc.so.6"], wanted: &[], defined: &["ZLIB_1.2.0"], ..LIBC };

/// Tree with these libraries, each at its path.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, Says<'_>)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, says)| tree.put(path, &library(says)));
        tree
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn root(&self) -> Root {
        Root::of_mount(File::open(self.0.path()).unwrap().into())
    }
}

/// Image with glibc 2.31, zlib and an MPI of its own.
fn image() -> Tree {
    Tree::new(&[("lib64/libc.so.6", LIBC), ("lib64/libz.so.1", Z), ("usr/lib/libmpi.so.40", MPI)])
}

fn profile(text: &str) -> Profile {
    let text = format!("version: 1\nmpi:\n  ours: {text}\n");
    Config::parse(Path::new("c.yaml"), &text).unwrap().mpi.get("ours").unwrap().clone()
}

fn ours() -> Profile {
    profile("{libraries: [/opt/libmpi.so.40], dependencies: [/opt/libpal.so.40]}")
}

/// Result of fitting `files` of a node to an image.
fn try_fit(profile: &Profile, files: &[(&str, Says<'_>)], image: &Tree) -> Result<Fit, Incompatibility> {
    let node = Tree::new(files);
    let root = image.root();
    let directories = directories_of_libraries(&root);
    fit(profile, &node.root(), &Libraries::new(root, Machine::own()).unwrap(), &directories)
}

fn cause(files: &[(&str, Says<'_>)], image: &Tree) -> String {
    try_fit(&ours(), files, image).unwrap_err().to_string()
}

const HOST: &[(&str, Says<'_>)] = &[("opt/libmpi.so.40", MPI), ("opt/libpal.so.40", PAL)];

#[test]
fn a_library_that_fits_covers_the_images_wherever_it_lies() {
    let image = image();
    for path in ["opt/mpi/5/lib/libmpi.so.40", "usr/lib64/openmpi/lib/libmpi.so.40", "srv/a/libmpi.so.40"] {
        image.put(path, &library(&MPI));
    }
    image.put(".singularity.d/env/90-environment.sh", b"export LD_LIBRARY_PATH=\"/srv/a:$LD_LIBRARY_PATH\"\n");
    let found = try_fit(&ours(), HOST, &image).unwrap();
    assert!(found.replaces() && found.is_about(&ours()));
    let places: Vec<_> = found.shown[0].over.iter().map(|over| over.place.to_str().unwrap()).collect();
    let wanted = [
        "/srv/a/libmpi.so.40",
        "/opt/mpi/5/lib/libmpi.so.40",
        "/usr/lib64/openmpi/lib/libmpi.so.40",
        "/usr/lib/libmpi.so.40",
    ];
    assert_eq!(places, wanted);
    assert_eq!((found.shown[1].soname.as_str(), found.shown[1].over.len()), ("libpal.so.40", 0));
    let of_image: Vec<_> = found.from_image.iter().map(|(name, newest)| (name.as_str(), newest.as_deref())).collect();
    assert_eq!(of_image, [("libz.so.1", None), ("libc.so.6", Some("GLIBC_2.31"))]);
}

#[test]
fn an_image_without_mpi_gets_the_hosts_for_programs_from_elsewhere() {
    let image = Tree::new(&[("lib64/libc.so.6", LIBC), ("lib64/libz.so.1", Z)]);
    assert!(!try_fit(&ours(), HOST, &image).unwrap().replaces());
}

#[test]
fn versions_that_the_image_lacks_are_named_with_those_that_it_has() {
    let newer: &[(&str, &[&str])] = &[("libc.so.6", &["GLIBC_2.2.5", "GLIBC_2.4", "GLIBC_2.38", "GLIBC_2.34"])];
    let host = [("opt/libmpi.so.40", Says { wanted: newer, ..MPI }), HOST[1]];
    assert_eq!(
        cause(&host, &image()),
        "the host's libmpi.so.40 needs GLIBC_2.38, the image's libc.so.6 has up to GLIBC_2.31"
    );
    let zlib: &[(&str, &[&str])] = &[("libz.so.1", &["ZLIB_1.2.9"])];
    let host = [HOST[0], ("opt/libpal.so.40", Says { needed: &["libz.so.1"], wanted: zlib, ..PAL })];
    assert_eq!(
        cause(&host, &image()),
        "the host's libpal.so.40 needs ZLIB_1.2.9, the image's libz.so.1 has up to ZLIB_1.2.0"
    );
    let image = image();
    fs::remove_file(image.0.path().join("lib64/libz.so.1")).unwrap();
    assert_eq!(
        cause(HOST, &image),
        "the host's libmpi.so.40 needs libz.so.1, which neither the profile nor the image has"
    );
}

#[test]
fn another_family_is_refused_and_both_are_named() {
    for (names, shown) in [
        (&["libmpich.so.12", "libmpi.so.12", "libmpich.so.12.2.2"][..], "libmpi.so.12 and libmpich.so.12"),
        (&["libmpi.so.20"][..], "libmpi.so.20"),
    ] {
        let image = Tree::new(&[("lib64/libc.so.6", LIBC), ("lib64/libz.so.1", Z)]);
        names.iter().for_each(|name| image.put(&format!("usr/lib/{name}"), &library(&Says { soname: name, ..MPI })));
        assert_eq!(cause(HOST, &image), format!("the image has {shown}, the host libmpi.so.40"));
    }
    // Another library beside the right one does no harm.
    let image = image();
    image.put("usr/lib/libmpich.so.12", &library(&MPI));
    assert!(try_fit(&ours(), HOST, &image).is_ok());
}

#[test]
fn an_image_of_another_c_library_is_refused_by_name() {
    let musl = Tree::new(&[]);
    musl.put("lib/ld-musl-x86_64.so.1", b"");
    assert_eq!(cause(HOST, &musl), "the image is made with musl (/lib/ld-musl-x86_64.so.1), the host's MPI with glibc");
    // gcompat: a libc.so.6 without glibc's versions.
    musl.put("lib/libc.so.6", &library(&Says { defined: &[], ..LIBC }));
    assert!(cause(HOST, &musl).starts_with("the image is made with musl"));
    assert_eq!(cause(HOST, &Tree::new(&[])), format!("the image has no glibc for {}", std::env::consts::ARCH));
}

#[test]
fn what_the_images_programs_may_want_the_host_must_have() {
    let versioned = Tree::new(&[
        ("lib64/libc.so.6", LIBC),
        ("lib64/libz.so.1", Z),
        ("usr/lib/libmpi.so.40", Says { defined: &["MPI_1", "MPI_3"], ..MPI }),
    ]);
    let host = [("opt/libmpi.so.40", Says { defined: &["MPI_1", "MPI_2"], ..MPI }), HOST[1]];
    assert_eq!(cause(&host, &versioned), "the image's libmpi.so.40 has MPI_3, the host's libmpi.so.40 up to MPI_2");
    assert_eq!(
        cause(HOST, &versioned),
        "the image's libmpi.so.40 has MPI_3, the host's libmpi.so.40 none of that kind"
    );
    let same = [("opt/libmpi.so.40", Says { defined: &["MPI_1", "MPI_3"], ..MPI }), HOST[1]];
    assert!(try_fit(&ours(), &same, &versioned).is_ok());
}

#[test]
fn an_older_runtime_of_the_hosts_does_not_hide_the_images() {
    let cxx = |version| Says { soname: "libstdc++.so.6", needed: &[], wanted: &[], defined: version, ..LIBC };
    let image = image();
    image.put("lib64/libstdc++.so.6", &library(&cxx(&["GLIBCXX_3.4.9", "GLIBCXX_3.4.33"])));
    let host = [HOST[0], HOST[1], ("opt/libstdc++.so.6", cxx(&["GLIBCXX_3.4.9", "GLIBCXX_3.4.30"]))];
    let with = profile("{libraries: [/opt/libmpi.so.40], dependencies: [/opt/libpal.so.40, /opt/libstdc++.so.6]}");
    let said = try_fit(&with, &host, &image).unwrap_err().to_string();
    assert_eq!(said, "the image's libstdc++.so.6 has GLIBCXX_3.4.33, the host's libstdc++.so.6 up to GLIBCXX_3.4.30");
}

#[test]
fn a_newer_dependency_of_the_images_stays_if_it_serves_the_hosts() {
    let image = image();
    image.put("lib64/libpal.so.40", &library(&Says { defined: &["PAL_9"], ..PAL }));
    let fit = try_fit(&ours(), HOST, &image).unwrap();
    assert!(fit.shown[1].stays && fit.shown[1].over.is_empty() && !fit.shown[0].stays);
    // The host's MPI requires a version that the image's newer library has dropped.
    let mpi = Says { needed: &["libpal.so.40"], wanted: &[("libpal.so.40", &["PAL_1"])], ..MPI };
    let host = [("opt/libmpi.so.40", mpi), ("opt/libpal.so.40", Says { defined: &["PAL_1"], ..PAL })];
    let said = cause(&host, &image);
    assert_eq!(said, "the image's libpal.so.40 has PAL_9, the host's libpal.so.40 up to PAL_1");
}

#[test]
fn what_is_called_otherwise_or_lies_elsewhere_is_not_taken_for_a_library() {
    let fit = try_fit(&ours(), HOST, &image()).unwrap();
    assert!(fit.is_about(&ours()));
    let forged = |place: &str| {
        let mut fit = fit.clone();
        fit.shown[0].over = vec![Over { place: place.into(), version: String::new() }];
        fit.is_about(&ours())
    };
    assert!(forged("/usr/lib/libmpi.so.40"));
    for place in ["/etc/passwd", "/proc/1/libmpi.so.40", "/usr/../libmpi.so.40", "libmpi.so.40"] {
        assert!(!forged(place), "{place}");
    }
}

#[test]
fn what_is_wrong_on_the_node_is_its_own_fault() {
    let image = image();
    assert_eq!(cause(&[HOST[0]], &image), "/opt/libpal.so.40 is not on this node");
    let nameless = [HOST[0], ("opt/libpal.so.40", Says { soname: "", ..PAL })];
    assert_eq!(cause(&nameless, &image), "/opt/libpal.so.40 has no SONAME");
    let glibc = [HOST[0], ("opt/libpal.so.40", Says { soname: "libm.so.6", ..PAL })];
    assert_eq!(cause(&glibc, &image), "/opt/libpal.so.40 is a part of glibc, which is always the image's own");
    let wants: &[(&str, &[&str])] = &[("libpal.so.40", &["PAL_2"])];
    let odd = [
        ("opt/libmpi.so.40", Says { wanted: wants, ..MPI }),
        ("opt/libpal.so.40", Says { defined: &["PAL_1"], ..PAL }),
    ];
    assert_eq!(cause(&odd, &image), "libmpi.so.40 needs PAL_2, and its libpal.so.40 does not have it");
    let node = Tree::new(HOST);
    let mut other = library(&MPI);
    other[18..20].copy_from_slice(&3_u16.to_le_bytes());
    node.put("opt/libmpi.so.40", &other);
    let libraries = Libraries::new(image.root(), Machine::own()).unwrap();
    let said = fit(&ours(), &node.root(), &libraries, &[]).unwrap_err();
    assert!(said.to_string().starts_with("/opt/libmpi.so.40 is for i386, this node is "), "{said}");
    assert!(
        said.refuse("a.sif", "ours").line().starts_with("coracle: a.sif: MPI profile ours: /opt/libmpi.so.40 is for")
    );
    node.put("opt/libmpi.so.40", b"text");
    let said = fit(&ours(), &node.root(), &libraries, &[]).unwrap_err();
    assert_eq!(said.to_string(), "/opt/libmpi.so.40: not an ELF file");
}

#[test]
fn the_name_of_the_real_file_tells_the_version() {
    let node = Tree::new(&[("opt/libmpi.so.40.30.4", MPI), HOST[1]]);
    symlink("libmpi.so.40.30.4", node.0.path().join("opt/libmpi.so.40")).unwrap();
    let files = needs(&ours(), &node.root()).unwrap();
    assert_eq!((files[0].soname.as_str(), files[0].version.as_str()), ("libmpi.so.40", "libmpi.so.40.30.4"));
}

#[test]
fn an_answer_of_a_process_that_was_taken_over_is_none() {
    let good = try_fit(&ours(), HOST, &image()).unwrap();
    assert!(good.is_about(&ours()));
    let change = |change: fn(&mut Fit)| {
        let mut fit = good.clone();
        change(&mut fit);
        fit.is_about(&ours())
    };
    assert!(!change(|fit| fit.shown.truncate(1)));
    assert!(!change(|fit| fit.shown[0].soname = "../x".into()));
    assert!(!change(|fit| fit.shown[0].soname = "..".into()));
    assert!(!change(|fit| fit.shown[0].over[0].place = PathBuf::from("x")));
}
