//! Tests of the files that are taken from the loader's list and coracle.yaml, and of the check of their owners.
#![forbid(unsafe_code)]

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use super::driver::{Making, add_known};
use super::tree::{RELEASE, Tree};
use super::*;
use crate::config::{Config, Gpu};

const DIRECTORY: &str = "/usr/lib64";

fn gpu(text: &str) -> Gpu {
    Config::parse(Path::new("c.yaml"), &format!("version: 1\ngpu: {text}\n")).unwrap().gpu
}

fn driver(tree: &Tree, text: &str, vendors: &[Vendor]) -> Driver {
    let sources = tree.sources();
    add_known(Making::new(&sources), Some(&tree.libraries()), &gpu(text), vendors).done()
}

/// Node with a driver and with links to its libraries, as packages install them.
fn node() -> Tree {
    let tree = Tree::new();
    for (stem, glibc) in [("libcuda", "GLIBC_2.27"), ("libnvidia-ml", "GLIBC_2.3"), ("libother", "GLIBC_2.99")] {
        let file = format!("{stem}.so.{RELEASE}");
        tree.library(&format!("{DIRECTORY}/{file}"), &format!("{stem}.so.1"), glibc);
        symlink(&file, tree.at(&format!("{DIRECTORY}/{stem}.so.1"))).unwrap();
    }
    tree
}

#[test]
fn the_libraries_that_are_known_are_found_by_their_names() {
    let tree = node();
    tree.put("/usr/bin/nvidia-smi", b"program");
    let found = driver(&tree, "{}", &[Vendor::Nvidia]);
    let names: Vec<_> = found.libraries.iter().map(|library| library.name.as_str()).collect();
    assert_eq!(names, ["libcuda.so.1", "libnvidia-ml.so.1"]);
    let cuda = &found.libraries[0];
    assert_eq!(cuda.source, tree.at(&format!("{DIRECTORY}/libcuda.so.{RELEASE}")));
    assert_eq!(cuda.links, [format!("libcuda.so.{RELEASE}")]);
    assert_eq!(found.glibc.as_deref(), Some("GLIBC_2.27"));
    assert_eq!(found.programs, [tree.at("/usr/bin/nvidia-smi")]);
    assert_eq!(found.found_in, ["the loader's list"]);
    assert_eq!(found.notes, [""; 0]);
    // A link to a program of another name.
    std::fs::rename(tree.at("/usr/bin/nvidia-smi"), tree.at("/usr/bin/smi")).unwrap();
    symlink("smi", tree.at("/usr/bin/nvidia-smi")).unwrap();
    assert_eq!(driver(&tree, "{}", &[Vendor::Nvidia]).programs, [Path::new("/usr/bin/nvidia-smi")]);
    // The files of other vendors come with the images.
    assert_eq!(driver(&tree, "{}", &[Vendor::Amd, Vendor::Intel]), Driver::default());
}

#[test]
fn coracle_yaml_adds_to_them() {
    let tree = node();
    tree.put("/opt/x/bin/tool", b"program");
    tree.put("/etc/x.conf", b"text");
    tree.library("/opt/x/liby.so", "", "GLIBC_2.5");
    let found = driver(
        &tree,
        "{libraries: [libother.so, /opt/x/liby.so, libnone.so, /no/libx.so], programs: [/opt/x/bin/tool, none], files: \
         [/etc/x.conf, /etc/none]}",
        &[],
    );
    let names: Vec<_> = found.libraries.iter().map(|library| library.name.as_str()).collect();
    assert_eq!(names, ["libother.so.1", "liby.so"]);
    assert_eq!(found.glibc.as_deref(), Some("GLIBC_2.99"));
    assert_eq!(found.programs, [tree.at("/opt/x/bin/tool")]);
    assert_eq!(found.files, [Placed { source: tree.at("/etc/x.conf"), target: "/etc/x.conf".into() }]);
    let notes = [
        "libnone.so: not in the loader's list of this node",
        "/no/libx.so: not on this node",
        "none: not among the programs of this node",
        "/etc/none: not on this node",
    ];
    assert_eq!(found.notes, notes);
}

#[test]
fn parts_of_glibc_and_second_libraries_are_left_out() {
    let tree = Tree::new();
    tree.library("/a/libc.so.6", "libc.so.6", "GLIBC_2.4");
    tree.library("/a/libx.so.1", "libx.so.1", "GLIBC_2.4");
    tree.library("/b/libx.so.1", "libx.so.1", "GLIBC_2.4");
    tree.library("/a/liby.so.1", "../../etc/liby.so.1", "GLIBC_2.4");
    tree.put("/a/libz.so", b"/* a script of the linker's, which is longer than the header of an ELF file is */");
    let found = driver(&tree, "{libraries: [/a/libc.so.6, /a/libx.so.1, /b/libx.so.1, /a/liby.so.1, /a/libz.so]}", &[]);
    let notes = [
        "/a/libc.so.6: a part of glibc, which is always the image's own",
        "/b/libx.so.1: a second libx.so.1",
        "/a/liby.so.1: its name is none that a library can have",
        "/a/libz.so: not an ELF file",
    ];
    assert_eq!(found.notes, notes);
    assert_eq!((found.libraries.len(), found.glibc.as_deref()), (1, Some("GLIBC_2.4")));
}

#[test]
fn what_others_could_have_written_is_left_out() {
    let tree = node();
    let cuda = tree.at(&format!("{DIRECTORY}/libcuda.so.{RELEASE}"));
    for mode in [0o664, 0o646] {
        tree.mode(&cuda, mode);
        let found = driver(&tree, "{}", &[Vendor::Nvidia]);
        assert_eq!(found.libraries.len(), 1);
        let note = |name: &str| format!("{DIRECTORY}/{name}: writable by others than root (mode {mode:04o})");
        assert_eq!(found.notes, [note("libcuda.so.1"), note(&format!("libcuda.so.{RELEASE}"))]);
    }
    let root = std::fs::File::open(tree.directory.path()).unwrap();
    let uid = nix::unistd::getuid().as_raw();
    let others = Sources::below(root.into(), uid + 1);
    let unfit = others.find(Path::new("/usr/lib64/libother.so.1")).unwrap_err().to_string();
    assert_eq!(unfit, format!("belongs to user {uid}, and must belong to root"));
}

#[test]
fn a_socket_is_taken_from_a_directory_where_nobody_can_exchange_it() {
    let tree = Tree::new();
    tree.put("/run/x/file", b"");
    let _listener = UnixListener::bind(tree.at("/run/x/socket")).unwrap();
    tree.mode(&tree.at("/run/x/socket"), 0o777);
    tree.mode(&tree.at("/run/x"), 0o755);
    let sources = tree.sources();
    let (path, what) = sources.find(Path::new("/run/x/socket")).unwrap();
    assert_eq!((path, what), (tree.at("/run/x/socket"), What::Socket));
    tree.mode(&tree.at("/run/x"), 0o777);
    assert!(matches!(sources.find(Path::new("/run/x/socket")), Err(Unfit::Place)));
    nix::unistd::mkfifo(&tree.at("/run/x/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(sources.find(Path::new("/run/x/fifo")), Err(Unfit::Kind)));
    assert!(matches!(sources.find(Path::new("/run/x")), Err(Unfit::Writable(_))));
}

#[test]
fn this_node_can_be_asked() {
    assert_eq!(find(&gpu("{driver: none}"), &[Vendor::Nvidia], &[]).unwrap(), None);
    let found = find(&gpu("{cdi: []}"), &[Vendor::Amd], &["/dev/dri/renderD128".into()]).unwrap();
    assert_eq!(found, Some(Driver::default()));
    let refused = find(&gpu("{driver: cdi, cdi: []}"), &[Vendor::Nvidia], &["/dev/nvidia0".into()]).unwrap_err();
    let line = coracle::report::Refusal::from(refused).line();
    let wanted =
        "coracle: /dev/nvidia0: gpu.driver is cdi in coracle.yaml, and no specification has this device [config]";
    assert_eq!(line, wanted);
}
