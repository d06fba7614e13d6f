//! Tests of reading shared objects, and of the messages about invalid ones.
#![forbid(unsafe_code)]

use super::*;
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::elf::elf_writer::{ADDRESS, Says, library};

const MPI: Says<'_> = Says {
    soname: "libmpi.so.40",
    needed: &["libopen-rte.so.40", "libc.so.6"],
    old_run_path: "",
    run_path: "/opt/mpi/lib:$ORIGIN",
    wanted: &[("libopen-rte.so.40", &["ORTE_1"]), ("libc.so.6", &["GLIBC_2.2.5", "GLIBC_2.34", "(GLIBC_2.99)"])],
    defined: &["MPI_1", "MPI_2"],
};

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn read(bytes: &[u8]) -> Result<Library, Error> {
    Library::read(&file(bytes))
}

fn fault(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

/// Error of MPI's file with the bytes at `at` replaced by `number`.
fn changed(at: usize, number: &[u8]) -> String {
    let mut bytes = library(&MPI);
    bytes[at..at + number.len()].copy_from_slice(number);
    fault(&bytes)
}

/// Offset of the value of the dynamic entry `tag`.
fn value_of(tag: u64) -> usize {
    let bytes = library(&MPI);
    let entries = bytes[64 + 2 * 56..].chunks(16);
    64 + 2 * 56 + 16 * entries.take_while(|entry| entry[..8] != tag.to_le_bytes()).count() + 8
}

#[test]
fn a_library_says_what_the_loader_would_read() {
    let found = read(&library(&MPI)).unwrap();
    assert_eq!(found.machine, Machine::own());
    assert_eq!(found.machine.to_string(), std::env::consts::ARCH);
    assert_eq!(found.soname.as_deref(), Some("libmpi.so.40"));
    assert_eq!(found.needed, ["libopen-rte.so.40", "libc.so.6"]);
    assert_eq!((found.old_run_path, found.run_path.as_deref()), (None, Some("/opt/mpi/lib:$ORIGIN")));
    let wanted: Vec<_> = found.wanted.iter().map(|one| (one.library.as_str(), one.versions.join(" "))).collect();
    assert_eq!(
        wanted,
        [("libopen-rte.so.40", "ORTE_1".to_owned()), ("libc.so.6", "GLIBC_2.2.5 GLIBC_2.34".to_owned())],
        "what it can do without is not wanted"
    );
    assert_eq!(found.defined, ["MPI_1", "MPI_2"]);
    let bare = read(&library(&Says { old_run_path: "/opt/lib", ..Says::default() })).unwrap();
    assert_eq!((bare.soname, bare.old_run_path.as_deref()), (None, Some("/opt/lib")));
    assert!(bare.needed.is_empty() && bare.wanted.is_empty() && bare.defined.is_empty());
}

#[test]
fn this_program_and_its_libc_are_read() {
    let own = Library::read(&File::open(std::env::current_exe().unwrap()).unwrap()).unwrap();
    assert!(own.loader.is_some_and(|loader| loader.starts_with('/') && loader.contains("ld")));
    assert_eq!(own.machine, Machine::own());
    assert!(own.needed.iter().any(|needed| needed == "libc.so.6"), "{:?}", own.needed);
    let wanted = own.wanted.iter().find(|wanted| wanted.library == "libc.so.6").unwrap();

    let libraries = Libraries::new(Root::node().unwrap(), Machine::own()).unwrap();
    let libc = libraries.find("libc.so.6").unwrap().unwrap();
    assert_eq!(libc.library.soname.as_deref(), Some("libc.so.6"));
    assert!(wanted.versions.iter().all(|version| libc.library.defined.contains(version)), "{wanted:?}");
    assert!(libc.library.newest("GLIBC_").is_some());
    assert!(libraries.find("no-such-library.so.1").unwrap().is_none());
}

#[test]
fn the_newest_version_is_the_one_with_the_highest_numbers() {
    let of = |versions: &[&str]| newest(versions.iter().copied(), "GLIBC_").map(str::to_owned);
    assert_eq!(of(&["GLIBC_2.9", "GLIBC_2.36", "GLIBC_2.4", "GLIBC_PRIVATE", "OTHER_9"]).unwrap(), "GLIBC_2.36");
    assert_eq!(of(&["GLIBC_2.2", "GLIBC_2.2.6"]).unwrap(), "GLIBC_2.2.6");
    assert_eq!(of(&["GLIBC_PRIVATE"]), None);
}

#[test]
fn what_is_no_library_is_named() {
    assert_eq!(fault(b""), "not an ELF file");
    assert_eq!(
        fault(b"#!/bin/sh\nexec /opt/mpi/bin/mpirun \"$@\" and more of a script than a header has bytes"),
        "not an ELF file"
    );
    assert_eq!(changed(16, &1_u16.to_le_bytes()), "an ELF file of type 1, which is no shared object");
    assert_eq!(
        changed(64 + 56, &6_u32.to_le_bytes()),
        "an ELF file without a dynamic section, which is no shared object"
    );
    assert_eq!(changed(56, &u16::MAX.to_le_bytes()), "an ELF file with too many program headers");
    assert_eq!(changed(54, &1_u16.to_le_bytes()), "a damaged ELF file: the size of its program headers");
    assert_eq!(changed(64 + 56 + 32, &u64::MAX.to_le_bytes()), "an ELF file with too many dynamic entries");
    assert_eq!(changed(64 + 56 + 8, &u64::MAX.to_le_bytes()), "a damaged ELF file: its dynamic section is cut");
    assert_eq!(changed(value_of(5), &8_u64.to_le_bytes()), "a damaged ELF file: its strings lie outside of it");
    assert_eq!(
        changed(value_of(1), &u64::MAX.to_le_bytes()),
        "a damaged ELF file: a string lies outside of its strings"
    );
    assert_eq!(changed(value_of(0x6fff_fffe), &ADDRESS.to_le_bytes()), "a damaged ELF file: its versions are cut");
    assert_eq!(changed(value_of(0x6fff_ffff), &9_u64.to_le_bytes()), "a damaged ELF file: its versions are cut");
    assert_eq!(changed(value_of(0x6fff_fffd), &u64::MAX.to_le_bytes()), "an ELF file with too many versions");
    let mut bytes = library(&MPI);
    bytes.pop();
    *bytes.last_mut().unwrap() = b'x';
    assert_eq!(fault(&bytes), "a damaged ELF file: a string does not end");
}

#[test]
fn a_library_that_is_cut_is_an_error_wherever_it_is_cut() {
    let whole = library(&MPI);
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
}

/// Loader's list in the current format.
fn cache(entries: &[(&str, &str, u64)]) -> Vec<u8> {
    let count = u32::try_from(entries.len()).unwrap();
    let mut out = [b"glibc-ld.so.cache1.1".as_slice(), &count.to_le_bytes()].concat();
    out.resize(48, 0);
    let mut strings = Vec::new();
    let mut add = |text: &str| {
        let at = u32::try_from(48 + 24 * entries.len() + strings.len()).unwrap();
        strings.extend_from_slice(text.as_bytes());
        strings.push(0);
        at
    };
    for (name, path, capabilities) in entries {
        for word in [0x303, add(name), add(path), 0] {
            out.extend(word.to_le_bytes());
        }
        out.extend(capabilities.to_le_bytes());
    }
    [out, strings].concat()
}

fn listed(bytes: &[u8]) -> Vec<(String, String, bool)> {
    let cache = Cache::new(bytes.to_vec(), Machine::own()).unwrap();
    let entries = cache.entries();
    entries.map(|one| (one.name.into(), one.path.display().to_string(), one.is_special)).collect()
}

#[test]
fn the_loaders_list_is_read_in_each_of_its_forms() {
    let entries = [("libmpi.so.40", "/opt/v3/libmpi.so.40", 1 << 62), ("libmpi.so.40", "/opt/libmpi.so.40", 0)];
    let expected =
        entries.map(|(name, path, capabilities)| (name.to_owned(), path.to_owned(), capabilities != 0)).to_vec();
    let newer = cache(&entries);
    assert_eq!(listed(&newer), expected);
    // One entry of 12 bytes after the old header, and the padding in front of the newer format.
    let mut old = b"ld.so-1.7.0\0\x01\0\0\0\x03\0\0\0\0\0\0\0\x05\0\0\0".to_vec();
    let both = [old.as_slice(), &[0; 4], &newer].concat();
    assert_eq!(listed(&both), expected);
    old.extend_from_slice(b"liba\0/lib/liba\0");
    assert_eq!(listed(&old), [("liba".to_owned(), "/lib/liba".to_owned(), false)]);
    assert!(Cache::new(b"no list".to_vec(), Machine::own()).is_none());
    assert!(Cache::new(Vec::new(), Machine::own()).is_none());
}

#[test]
fn a_list_that_says_too_much_has_what_is_there() {
    let mut bytes = cache(&[("liba.so", "/liba.so", 0), ("libb.so", "/libb.so", 0)]);
    bytes[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(listed(&bytes).len() >= 2);
    bytes[48 + 8..48 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(!listed(&bytes).iter().any(|one| one.0 == "liba.so"));
}

/// Tree with these files.
fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = tree.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    tree
}

fn libraries(tree: &tempfile::TempDir) -> Libraries {
    Libraries::new(Root::of_mount(File::open(tree.path()).unwrap().into()), Machine::own()).unwrap()
}

fn places(found: &[Found]) -> Vec<&str> {
    found.iter().map(|found| found.path.to_str().unwrap()).collect()
}

#[test]
fn a_library_is_found_where_the_loader_would_take_it() {
    let mpi = library(&MPI);
    let mut other = mpi.clone();
    other[18..20].copy_from_slice(&EM_386.to_le_bytes());
    let list = cache(&[("libmpi.so.40", "/opt/mpi/lib/libmpi.so.40", 0)]);
    let tuple = Machine::own().tuple().unwrap();
    let tree = tree(&[
        ("etc/ld.so.cache", &list),
        ("opt/mpi/lib/libmpi.so.40.30.4", &mpi),
        (&format!("usr/lib/{tuple}/libmpi.so.40"), &mpi),
        ("usr/lib/libmpi.so.12", b"/* GNU ld script */"),
        ("usr/lib64/libmpi.so.40", &other),
        ("more/libmpi.so.40", &mpi),
    ]);
    // Links resolve inside the tree, and a dangling one is no library.
    symlink("/opt/mpi/lib/libmpi.so.40.30.4", tree.path().join("opt/mpi/lib/libmpi.so.40")).unwrap();
    symlink("/usr/lib", tree.path().join("lib")).unwrap();
    symlink("../../../../etc/nowhere", tree.path().join("usr/lib/libmpi_cxx.so.40")).unwrap();
    let libraries = libraries(&tree);
    assert_eq!(libraries.find("libmpi.so.40").unwrap().unwrap().path, Path::new("/opt/mpi/lib/libmpi.so.40"));
    assert!(libraries.find("libmpi.so.12").unwrap().is_none());
    assert!(libraries.find("libmpi_cxx.so.40").unwrap().is_none());
    assert_eq!(
        places(&libraries.everywhere("libmpi.so.40", &[PathBuf::from("/more")]).unwrap()),
        [
            "/more/libmpi.so.40",
            "/opt/mpi/lib/libmpi.so.40",
            &format!("/lib/{tuple}/libmpi.so.40"),
            &format!("/usr/lib/{tuple}/libmpi.so.40")
        ]
    );
    let names = libraries.names(&[PathBuf::from("/opt/mpi/lib")]);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(names, ["libmpi.so.40", "libmpi.so.40.30.4"], "a list says all but what lies elsewhere");
}

#[test]
fn a_tree_without_a_list_has_its_usual_directories() {
    let mpi = library(&MPI);
    for list in [None, Some(b"nonsense".as_slice())] {
        let mut files = vec![("lib64/libmpi.so.40", mpi.as_slice())];
        files.extend(list.map(|list| ("etc/ld.so.cache", list)));
        let tree = tree(&files);
        let found = libraries(&tree).find("libmpi.so.40").unwrap().unwrap();
        assert_eq!(found.path, Path::new("/lib64/libmpi.so.40"));
        assert!(libraries(&tree).names(&[]).contains("libmpi.so.40"));
    }
    assert!(libraries(&tree(&[])).find("libmpi.so.40").unwrap().is_none());
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let tree = tree(&[("usr/lib/liba.so.1", &[])]);
    let fifo = tree.path().join("usr/lib/libmpi.so.40");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(tree.path().join("usr/lib/libb.so.1")).unwrap();
    for name in ["libmpi.so.40", "liba.so.1", "libb.so.1"] {
        assert!(libraries(&tree).find(name).unwrap().is_none(), "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(changes in proptest::collection::vec((0_usize..800, any::<u8>()), 1..12)) {
        let mut bytes = library(&MPI);
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        let _ = read(&bytes);
    }

    #[test]
    fn no_numbers_are_too_odd(at in 0_usize..100, number in prop_oneof![Just(u64::MAX), Just(1 << 63), any::<u64>(), 0_u64..4096]) {
        let mut bytes = library(&MPI);
        let at = at * 8 % (bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        let _ = read(&bytes);
    }

    #[test]
    fn no_list_is_too_odd(changes in proptest::collection::vec((0_usize..200, any::<u8>()), 1..12), old in any::<bool>()) {
        let mut bytes = cache(&[("liba.so", "/liba.so", 0), ("libb.so", "/libb.so", 1)]);
        if old {
            bytes = [b"ld.so-1.7.0\0\x01\0\0\0\x03\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0".as_slice(), &bytes].concat();
        }
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        if let Some(cache) = Cache::new(bytes, Machine::own()) {
            prop_assert!(cache.entries().count() <= 200);
        }
    }
}
