//! Attacks on the opening of images, in the process that opens them; each prints its counts.
#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::image;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::Mode;

use super::{digest_of, image_of};

#[allow(dead_code)]
#[path = "../../../tests/images/squashfs_writer.rs"]
mod squashfs_writer;

fn refused(path: &Path) -> String {
    image_of(path).expect_err("no such file is an image").line()
}

#[test]
fn what_is_no_image_file_is_refused_and_not_waited_for() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    let memory = coracle::sys::memory_file(b"hsqs").unwrap();
    // The longest possible file, all of it a hole; then the same with a squashfs superblock.
    let (empty, full) = (at("empty"), at("full"));
    let hole = |path: &PathBuf| {
        let file = fs::File::create(path).unwrap();
        let mut length = i64::MAX as u64;
        while file.set_len(length).is_err() {
            length /= 2;
        }
        (file, length)
    };
    hole(&empty);
    let (file, length) = hole(&full);
    let mut superblock = squashfs_writer::squashfs().bytes;
    superblock.truncate(96);
    superblock[40..48].copy_from_slice(&(length / 4096 * 4096).to_le_bytes());
    file.write_all_at(&superblock, 0).unwrap();
    let cases = [
        (at("fifo"), "a FIFO, not an image file"),
        (at("socket"), "a socket, not an image file"),
        ("/dev/null".into(), "a device, not an image file"),
        ("/dev/zero".into(), "a device, not an image file"),
        ("/proc/version".into(), "a file of the kernel's own"),
        ("/proc/meminfo".into(), "a file of the kernel's own"),
        ("/sys/kernel/uevent_seqnum".into(), "a file of the kernel's own"),
        ("/proc/self/exe".into(), "through too many links, or through one of /proc"),
        (format!("/proc/self/fd/{}", memory.as_raw_fd()).into(), "through too many links, or through one of /proc"),
        ("/proc/self/root/etc/passwd".into(), "through too many links, or through one of /proc"),
        (empty, "not an image: it starts neither like"),
        (full, "damaged squashfs: "),
    ];
    for (path, says) in &cases {
        let line = refused(path);
        assert!(line.contains(says), "{}: {line}", path.display());
    }
    // A directory is opened with O_PATH only; the site's policy decides if it may run.
    assert!(image_of(&at("folder")).unwrap().1.starts_with(b"directory"));
    let folder = image_of(&at("folder")).unwrap().0;
    assert!(digest_of(&folder).unwrap_err().line().contains("a directory, which has no digest"));
    println!("no image files: tries {} opened 0", cases.len());
}

#[test]
fn an_image_that_is_exchanged_while_it_is_opened_is_one_or_the_other() {
    let times: u64 = std::env::var("CORACLE_TRIES").map_or(20_000, |tries| tries.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let good = squashfs_writer::squashfs().bytes;
    fs::write(at("x.sif"), &good).unwrap();
    fs::write(at("bad.sif"), "text").unwrap();
    nix::unistd::mkfifo(&at("fifo.sif"), Mode::S_IRWXU).unwrap();
    fs::write(at("longer.sif"), [&good[..], &[0; 4096]].concat()).unwrap();
    let wanted = fs::metadata(at("x.sif")).unwrap().ino();
    for other in ["bad.sif", "fifo.sif", "longer.sif"] {
        let (done, exchanged) = (AtomicBool::new(false), AtomicU64::new(0));
        let (mut opened, mut refused, mut wrong) = (0_u64, 0_u64, 0_u64);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let (one, two) = (at("x.sif"), at(other));
                    renameat2(AT_FDCWD, &one, AT_FDCWD, &two, RenameFlags::RENAME_EXCHANGE).unwrap();
                    exchanged.fetch_add(1, Ordering::Relaxed);
                }
            });
            for _ in 0..times {
                match image_of(&at("x.sif")) {
                    Ok((file, said)) => {
                        // The description must be of the file that comes with it.
                        let length = file.metadata().unwrap().len();
                        let image = image::identify(&file, std::env::consts::ARCH).unwrap();
                        let own = format!("{}\0{length}", image.to_words());
                        opened += 1;
                        wrong += u64::from(said != own.as_bytes());
                    }
                    Err(_) => refused += 1,
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        if fs::metadata(at("x.sif")).unwrap().ino() != wanted {
            renameat2(AT_FDCWD, &at("x.sif"), AT_FDCWD, &at(other), RenameFlags::RENAME_EXCHANGE).unwrap();
        }
        let exchanged = exchanged.into_inner();
        println!("{other}: {exchanged} exchanges, tries {times}: opened {opened}, refused {refused}, wrong {wrong}");
        assert_eq!(wrong, 0);
        assert!(opened > 0 && refused > 0);
    }
}
