//! `seeds CORPUS`: what each target starts from, below CORPUS. Needs mksquashfs and mkfs.erofs.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../tests/images/elf_writer.rs"]
mod elf_writer;
#[path = "../tests/images/sif_writer.rs"]
mod sif_writer;
#[path = "../tests/images/squashfs_writer.rs"]
mod squashfs_writer;

use sif_writer::{Part, native, sif};

fn main() {
    let corpus = PathBuf::from(std::env::args_os().nth(1).expect("usage: seeds CORPUS"));
    let tree = corpus.join("tree");
    for folder in ["a", "b/c", "empty"] {
        fs::create_dir_all(tree.join(folder)).expect("a folder can be made");
    }
    for (name, text) in [("a/short", "short"), ("b/c/long", &"long ".repeat(900)), ("b/d", "d")] {
        fs::write(tree.join(name), text).expect("a file can be written");
    }
    let _ = std::os::unix::fs::symlink("a/short", tree.join("link"));
    let mut squashfs = vec![("written".to_owned(), squashfs_writer::squashfs().bytes)];
    for how in ["gzip", "lzo", "lz4", "xz", "zstd"] {
        let out = corpus.join(format!("{how}.out"));
        run("mksquashfs", &[&tree, &out], &["-comp", how, "-b", "4096", "-noappend", "-quiet", "-no-progress"]);
        squashfs.push((how.to_owned(), fs::read(&out).expect("mksquashfs has made it")));
        fs::remove_file(&out).expect("what was made can be removed");
    }
    for (name, bytes) in &squashfs {
        put(&corpus, "squashfs_tables", name, bytes);
        put(&corpus, "squashfs_deep", name, bytes);
    }
    for one in squashfs_writer::crafted() {
        put(&corpus, "squashfs_deep", &one.name, &one.bytes);
    }
    let part = |kind| Part { filesystem: 1, kind, architecture: native(), data: &squashfs[0].1 };
    put(&corpus, "sif_header", "one", &sif(&[part(2)]));
    put(&corpus, "sif_header", "overlay", &sif(&[part(2), part(4)]));
    let out = corpus.join("erofs.out");
    run("mkfs.erofs", &[&out, &tree], &["--quiet"]);
    put(&corpus, "erofs", "plain", &fs::read(&out).expect("mkfs.erofs has made it"));
    fs::remove_file(&out).expect("what was made can be removed");
    fs::remove_dir_all(&tree).expect("what was made can be removed");
    let says = elf_writer::Says {
        soname: "libmpi.so.40",
        needed: &["libc.so.6"],
        run_path: "/opt/mpi/lib",
        wanted: &[("libc.so.6", &["GLIBC_2.34", "GLIBC_2.36"])],
        defined: &["MPI_1"],
        ..elf_writer::Says::default()
    };
    put(&corpus, "elf", "library", &elf_writer::library(&says));
    if let Ok(list) = fs::read("/etc/ld.so.cache") {
        put(&corpus, "elf", "list", &list);
    }
    put(&corpus, "config", "example", include_bytes!("../slurm-conf-examples/coracle.yaml"));
    put(&corpus, "cdi", "yaml", include_bytes!("../tests/gpus/nvidia.yaml"));
    put(&corpus, "cdi", "json", include_bytes!("../tests/gpus/nvidia.json"));
    put(&corpus, "request", "request", b"2:image=/a/b.sif;as=b.sif;bind=/x:/y:ro");
    put(&corpus, "request", "bind", b"/data:/srv:ro");
    put(&corpus, "wire", "here", b"directory=/home\0pmix=/run\0");
}

fn put(corpus: &Path, target: &str, name: &str, bytes: &[u8]) {
    let folder = corpus.join(target);
    fs::create_dir_all(&folder).expect("a folder can be made");
    fs::write(folder.join(name), bytes).expect("a seed can be written");
}

fn run(program: &str, paths: &[&PathBuf], options: &[&str]) {
    let mut command = Command::new(program);
    // mkfs.erofs wants its options first, mksquashfs last.
    if program == "mkfs.erofs" { command.args(options).args(paths) } else { command.args(paths).args(options) };
    let status = command.stdout(std::process::Stdio::null()).status();
    assert!(status.is_ok_and(|status| status.success()), "{program}: not there, or it failed");
}
