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

use super::serve::{digest_of, image_of};
use crate::children::filter;

#[allow(dead_code)]
#[path = "../../../../tests/images/squashfs_writer.rs"]
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
    fs::create_dir(at("directory")).unwrap();
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
    let (directory, image, _) = image_of(&at("directory")).unwrap();
    assert_eq!(image, image::Image::directory());
    assert!(digest_of(&directory).unwrap_err().line().contains("a directory, which has no digest"));
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
                    Ok((file, image, length)) => {
                        // The description must be of the file that comes with it.
                        let own = image::identify(&file, std::env::consts::ARCH).unwrap();
                        opened += 1;
                        wrong += u64::from((image, length) != (own, file.metadata().unwrap().len()));
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

/// Runs `work` in a thread with the filter of the opener, which ends with that thread.
fn confined<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        coracle::sys::set_no_new_privileges().unwrap();
        filter::of_reader().unwrap().install().unwrap();
        work()
    });
    thread.join().unwrap()
}

#[test]
fn a_compromised_opener_cannot_leave_its_process() {
    use nix::errno::Errno;
    use nix::mount::{MsFlags, mount};
    use nix::sched::CloneFlags;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Gid, Pid, Uid};

    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::write(at("file"), "text").unwrap();
    let (file, other, here) = (at("file"), at("other"), scratch.path().to_owned());
    let none: Option<&Path> = None;
    let errno = |cause: std::io::Error| Errno::from_raw(cause.raw_os_error().unwrap_or(0));
    let tries: Vec<(&str, Result<(), Errno>)> = confined(move || {
        let own_namespace = fs::File::open("/proc/self/ns/mnt").unwrap();
        let mode = Mode::from_bits_truncate(0o777);
        vec![
            ("execve", nix::unistd::execve(c"/bin/true", &[c"true"], &[c""]).map(|_| ())),
            ("fork and execve", std::process::Command::new("/bin/true").status().map(drop).map_err(errno)),
            ("mount", mount(Some("none"), &here, Some("tmpfs"), MsFlags::empty(), none)),
            ("umount", nix::mount::umount(&here)),
            ("pivot_root", nix::unistd::pivot_root(&here, &here)),
            ("chroot", nix::unistd::chroot(&here)),
            ("unshare", nix::sched::unshare(CloneFlags::CLONE_NEWNS)),
            ("unshare of a user namespace", nix::sched::unshare(CloneFlags::CLONE_NEWUSER)),
            ("setns", nix::sched::setns(&own_namespace, CloneFlags::CLONE_NEWNS)),
            ("kill", kill(Pid::parent(), None)),
            ("kill of itself", kill(Pid::this(), Some(Signal::SIGURG))),
            ("setfsuid", refused_id(nix::unistd::setfsuid(Uid::from_raw(1)).as_raw())),
            ("setfsgid", refused_id(nix::unistd::setfsgid(Gid::from_raw(1)).as_raw())),
            ("capset", coracle::sys::give_up_capabilities().map_err(|error| error.errno())),
            ("process_vm_readv", read_parent()),
            ("bpf", coracle::sys::allow_devices(&own_namespace, &[]).map_err(|error| error.errno())),
            ("unlink", fs::remove_file(&file).map_err(errno)),
            ("rename", fs::rename(&file, &other).map_err(errno)),
            ("link", fs::hard_link(&file, &other).map_err(errno)),
            ("symlink", std::os::unix::fs::symlink(&file, &other).map_err(errno)),
            ("mkdir", fs::create_dir(&other).map_err(errno)),
            ("mknod", nix::unistd::mkfifo(&other, mode)),
            ("chmod", nix::sys::stat::fchmodat(AT_FDCWD, &file, mode, nix::sys::stat::FchmodatFlags::FollowSymlink)),
            ("chown", std::os::unix::fs::chown(&file, Some(1), None).map_err(errno)),
            ("truncate", nix::unistd::truncate(&file, 0)),
            ("memfd_create", coracle::sys::memory_file(b"x").map(drop).map_err(|error| error.errno())),
            ("packet socket", socket(nix::sys::socket::AddressFamily::Packet)),
            ("vsock socket", socket(nix::sys::socket::AddressFamily::Vsock)),
            ("raised limit", nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)),
            ("dumpable", coracle::sys::set_undumpable().map_err(|error| error.errno())),
            ("pidfd_open", coracle::sys::process_handle(1).map(drop).map_err(|error| error.errno())),
        ]
    });
    for (what, result) in &tries {
        assert!(matches!(result, Err(Errno::EPERM | Errno::ENOSYS)), "{what}: {result:?}");
    }
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "text");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    println!("system calls of a compromised opener: tries {} succeeded 0", tries.len());
}

/// Result of setfsuid(2) or setfsgid(2), which return the previous id, and -1 if a filter refuses them.
fn refused_id(id: u32) -> nix::Result<()> {
    if id == u32::MAX { Err(nix::errno::Errno::EPERM) } else { Ok(()) }
}

fn read_parent() -> nix::Result<()> {
    use nix::sys::uio::{RemoteIoVec, process_vm_readv};
    let mut byte = [0];
    let mut local = [std::io::IoSliceMut::new(&mut byte)];
    process_vm_readv(nix::unistd::Pid::parent(), &mut local, &[RemoteIoVec { base: 4096, len: 1 }]).map(drop)
}

fn socket(family: nix::sys::socket::AddressFamily) -> nix::Result<()> {
    use nix::sys::socket::{SockFlag, SockType, socket};
    socket(family, SockType::Datagram, SockFlag::empty(), None).map(drop)
}

#[test]
fn the_filter_leaves_what_name_services_need() {
    confined(|| {
        use nix::sys::socket::AddressFamily;
        assert!(nix::unistd::User::from_uid(0.into()).unwrap().is_some());
        assert!(nix::unistd::Group::from_gid(0.into()).unwrap().is_some());
        assert!(nix::unistd::User::from_name("nobody-has-this-name").unwrap().is_none());
        for family in [AddressFamily::Unix, AddressFamily::Inet] {
            socket(family).unwrap();
        }
        // A library of the site may start a thread, and load others.
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        let names = std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 1)).map(Iterator::count);
        assert!(names.unwrap() > 0);
        assert_eq!(nix::sys::signal::raise(nix::sys::signal::Signal::SIGURG), Ok(()));
    });
}
