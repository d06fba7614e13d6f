//! Attacks on the look-ups that everything else rests on, each with its figures: tries, and how many succeeded.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coracle::sys;
use nix::fcntl::{OFlag, RenameFlags, renameat2};

type Inode = (u64, u64);

fn inode(file: impl AsFd) -> Inode {
    let stat = nix::sys::stat::fstat(file).unwrap();
    (stat.st_dev, stat.st_ino)
}

fn open_directory(path: &Path) -> OwnedFd {
    sys::open_untrusted(path, OFlag::O_PATH | OFlag::O_DIRECTORY).unwrap()
}

/// Opens `name` in `directory` again and again while its part `one` is exchanged with `other`; says how often that was
/// right, refused and wrong, and how often they were exchanged.
fn race(directory: &Path, name: &str, one: &str, other: &str, times: u64) -> (u64, u64, u64, u64) {
    let (top, done, exchanged) = (open_directory(directory), AtomicBool::new(false), AtomicU64::new(0));
    let right = inode(sys::open_beneath(&top, Path::new(name), OFlag::O_PATH).unwrap());
    let (mut good, mut refused, mut wrong) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(&top, one, &top, other, RenameFlags::RENAME_EXCHANGE).unwrap();
                exchanged.fetch_add(1, Ordering::Relaxed);
            }
        });
        for _ in 0..times {
            match sys::open_beneath(&top, Path::new(name), OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
                Ok(file) if inode(&file) == right => good += 1,
                Ok(_) => wrong += 1,
                Err(_) => refused += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    (good, refused, wrong, exchanged.into_inner())
}

#[test]
fn a_path_that_is_exchanged_while_it_is_opened_never_leads_out() {
    // CORACLE_TRIES: more than what every run of the tests takes time for.
    let times = std::env::var("CORACLE_TRIES").map_or(100_000, |tries| tries.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let (inside, outside) = (scratch.path().join("inside"), scratch.path().join("outside"));
    for directory in [&inside.join("sub"), &outside] {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("x.sif"), "image").unwrap();
    }
    fs::write(inside.join("x.sif"), "image").unwrap();
    std::os::unix::fs::symlink(outside.join("x.sif"), inside.join("link.sif")).unwrap();
    std::os::unix::fs::symlink("../outside", inside.join("sublink")).unwrap();
    for (what, name, one, other) in [
        ("the file and a link that leads out", "x.sif", "x.sif", "link.sif"),
        ("its directory and a link that leads out", "sub/x.sif", "sub", "sublink"),
    ] {
        let (good, refused, wrong, exchanged) = race(&inside, name, one, other, times);
        println!("{what}: {exchanged} exchanges, tries {times}: right {good}, refused {refused}, wrong {wrong}");
        assert_eq!(wrong, 0);
        // Both sides of the race were seen, or it proves nothing.
        assert!(good > 0 && refused > 0, "right {good}, refused {refused}");
        let back = sys::open_beneath(open_directory(&inside), Path::new(name), OFlag::O_PATH).is_ok();
        if !back {
            let top = open_directory(&inside);
            renameat2(&top, one, &top, other, RenameFlags::RENAME_EXCHANGE).unwrap();
        }
    }
}

/// All files below a directory, by following nothing.
fn below(directory: &Path, found: &mut HashSet<Inode>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            below(&entry.path(), found);
        } else if entry.file_type().unwrap().is_file() {
            found.insert(inode(fs::File::open(entry.path()).unwrap()));
        }
    }
}

#[test]
fn no_spelling_of_a_path_is_taken_for_one_below_the_directory() {
    let tries = 100_000;
    let scratch = tempfile::tempdir().unwrap();
    let base = scratch.path().canonicalize().unwrap();
    for directory in ["img", "img2", "imgx", "Img", "img/sub", "img/img", "img2/img", "img "] {
        fs::create_dir_all(base.join(directory)).unwrap();
        fs::write(base.join(directory).join("a.sif"), "image").unwrap();
    }
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, base.join(name)).unwrap();
    link("../img2/a.sif", "img/out.sif");
    link("../img2", "img/out");
    link("../img/a.sif", "img2/in.sif");
    link("img", "alias");
    link("..", "img/up");
    let directory = open_directory(&base.join("img"));
    let mut inside = HashSet::new();
    below(&base.join("img"), &mut inside);
    let words = [
        "img", "img2", "imgx", "Img", "img ", "sub", "a.sif", "out.sif", "in.sif", "out", "alias", "up", "..", ".", "",
    ];
    let (mut state, mut opened, mut trusted, mut wrong) = (0x5eed_u64, 0, 0, 0);
    let mut number = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..tries {
        let length = 1 + number(5);
        let parts: Vec<&str> = (0..length).map(|_| words[number(words.len())]).collect();
        // Half of the names are that of a file at their end.
        let end = if number(2) == 0 { "/a.sif" } else { "" };
        let path = PathBuf::from(format!("{}/{}{end}", base.display(), parts.join("/")));
        let Ok(file) = sys::open_untrusted(&path, OFlag::O_PATH) else { continue };
        if !fs::metadata(&path).unwrap().is_file() {
            continue;
        }
        opened += 1;
        // As the launcher asks whether an image lies below a directory of image_paths.
        let found = sys::hint_beneath(&directory, &file)
            .and_then(|relative| sys::open_beneath(&directory, &relative, OFlag::O_PATH).ok());
        let says = found.is_some_and(|found| inode(&found) == inode(&file));
        trusted += u32::from(says);
        if says != inside.contains(&inode(&file)) {
            wrong += 1;
            println!("{}: {says}", path.display());
        }
    }
    println!("paths: tries {tries}, files {opened}, below the directory {trusted}, disagreements {wrong}");
    assert_eq!(wrong, 0);
    assert!(opened > 5000 && trusted > 1000 && trusted < opened, "{opened} {trusted}");
}
