//! The opener as a process: all of its questions, as root and as an ordinary user.
//!
//! A program with one thread, because what it tests forks: `opener [NAME]`; `opener bench` prints what a start and a
//! question cost.

#![allow(clippy::unwrap_used, missing_docs)]

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal};
use coracle::sys::{CachedStat, Identity, MountNamespace};
use coracle_launcher::children::opener::Opener;
use coracle_launcher::children::{in_container, mpi_fit};
use coracle_launcher::config::{Owner, Profile};
use coracle_launcher::plan::Shape;
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};

mod measure;

#[allow(dead_code)]
#[path = "../../tests/images/squashfs_writer.rs"]
mod squashfs_writer;

/// User without an entry in the user database.
const SOMEBODY: Identity = Identity { uid: 65533, gid: 65533, groups: Vec::new() };

type Case = (&'static str, fn(&Place));

const CASES: &[Case] = &[
    ("an_image_is_opened_and_hashed", image),
    ("paths_of_any_bytes_are_opened", bytes),
    ("errors_of_the_kernel_come_back", errors),
    ("several_paths_are_opened_in_their_order", several),
    ("files_of_root_stay_closed", closed),
    ("names_are_looked_up", names),
    ("libraries_of_an_image_are_read", libraries),
    ("a_loop_device_is_configured", loop_device),
    ("the_process_has_no_rights_and_a_filter", rights),
    ("it_ends_with_its_owner", ends),
    ("a_child_process_in_a_container_answers", in_a_container),
];

struct Place {
    scratch: tempfile::TempDir,
    identity: Identity,
    opener: Opener,
}

impl Place {
    fn new(identity: &Identity) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
        Self { scratch, identity: identity.clone(), opener: start(identity) }
    }

    fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn directory(&self) -> File {
        File::open(self.scratch.path()).unwrap()
    }
}

fn start(identity: &Identity) -> Opener {
    Opener::start(identity, Instant::now() + Duration::from_secs(60)).unwrap()
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let root = Uid::effective().is_root();
    let own = Identity { uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw(), groups: Vec::new() };
    let identities = if root { vec![own, SOMEBODY] } else { vec![own] };
    if words.first().is_some_and(|word| word == "bench") {
        measure(identities.last().unwrap());
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    for identity in &identities {
        for (name, case) in CASES.iter().filter(|(name, _)| words.first().is_none_or(|word| name.contains(word))) {
            let good = std::panic::catch_unwind(|| case(&Place::new(identity))).is_ok();
            println!("opener: uid {} {name} ... {}", identity.uid, if good { "ok" } else { "FAILED" });
            failed += u32::from(!good);
        }
    }
    println!("opener: {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn image(place: &Place) {
    let opener = &place.opener;
    fs::write(place.at("a.sqsh"), squashfs_writer::squashfs().bytes).unwrap();
    let opened = opener.open_image(&place.at("a.sqsh"), "it").unwrap();
    let length = fs::metadata(place.at("a.sqsh")).unwrap().len();
    assert_eq!((opened.length, opened.file.metadata().unwrap().len()), (length, length));
    let whole = fs::read(place.at("a.sqsh")).unwrap();
    let mut hasher = coracle_launcher::image::digest::Hasher::default();
    hasher.update(&whole);
    assert_eq!(opener.digest("it").unwrap(), hasher.finish());
    // A refusal has the name that the user typed.
    fs::write(place.at("text"), "text").unwrap();
    let refusal = opener.open_image(&place.at("text"), "it").unwrap_err();
    assert_eq!((refusal.kind, refusal.object.as_str()), (Kind::ImageFormat, "it"));
    let refusal = opener.open_image(&place.at("none"), "it").unwrap_err();
    assert_eq!(refusal.kind, Kind::ImageMissing);
    assert!(opener.open_image(place.scratch.path(), "it").unwrap().image.layers.is_empty());
    assert_eq!(opener.digest("it").unwrap_err().kind, Kind::Digest);
}

fn bytes(place: &Place) {
    for name in [&b"a b"[..], b"\xff\xfe", b"\xc3\xa4\n\"\\", b"\x80%41"] {
        let name = Path::new(OsStr::from_bytes(name));
        fs::create_dir(place.at(name)).unwrap();
        fs::write(place.at(name).join("file"), "text").unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        let (directory, shape) = place.opener.open_source(&place.at(name)).unwrap().unwrap();
        assert_eq!(
            (shape, File::from(directory).metadata().unwrap().ino()),
            (Shape::Directory, inode(&place.at(name)))
        );
        let file = name.join("file");
        let (_, shape) = place.opener.open_source(&place.at(&file)).unwrap().unwrap();
        assert_eq!(shape, Shape::File);
        let found = place.opener.open_beneath(place.directory().as_fd(), &file).unwrap().unwrap();
        assert_eq!(File::from(found).metadata().unwrap().ino(), inode(&place.at(&file)));
        let mut text = String::new();
        let mut read = place.opener.read_beneath(place.directory().as_fd(), &file).unwrap().unwrap();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        place.opener.try_directory(place.directory().as_fd(), name, "it").unwrap();
        let known = CachedStat::of(File::open(place.at(&file)).unwrap()).unwrap();
        assert!(place.opener.is_beneath(place.directory().as_fd(), &file, &known).unwrap());
        assert!(!place.opener.is_beneath(place.directory().as_fd(), name, &known).unwrap());
    }
}

fn errors(place: &Place) {
    std::os::unix::fs::symlink("/etc", place.at("link")).unwrap();
    let beneath = |path: &str| place.opener.open_beneath(place.directory().as_fd(), path.as_ref()).unwrap();
    assert_eq!(beneath("none").unwrap_err(), Errno::ENOENT);
    assert_eq!(beneath("link").unwrap_err(), Errno::ELOOP);
    assert_eq!(beneath("../x").unwrap_err(), Errno::EXDEV);
    assert_eq!(beneath("/etc").unwrap_err(), Errno::EXDEV);
    assert_eq!(place.opener.open_source(&place.at("none")).unwrap().unwrap_err(), Errno::ENOENT);
    let long = "x".repeat(5000);
    assert_eq!(place.opener.open_source(long.as_ref()).unwrap().unwrap_err(), Errno::ENAMETOOLONG);
}

fn several(place: &Place) {
    let long = "x".repeat(5000);
    let names: Vec<String> = (0..100).map(|number| format!("several-{number}")).collect();
    let mut paths: Vec<PathBuf> = names.iter().map(|name| place.at(name)).collect();
    for (number, path) in paths.iter().enumerate().filter(|(number, _)| number % 3 != 0) {
        fs::write(path, number.to_string()).unwrap();
    }
    paths.extend((0..20).map(|_| PathBuf::from(&long)));
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let opened = place.opener.open_sources(&paths).unwrap();
    assert_eq!(opened.len(), paths.len());
    for (number, (path, opened)) in paths.iter().zip(opened).enumerate() {
        match opened {
            Ok((file, shape)) => {
                assert_eq!(shape, Shape::File);
                assert_eq!(File::from(file).metadata().unwrap().ino(), fs::metadata(path).unwrap().ino());
            }
            Err(Errno::ENOENT) => assert!(number < 100 && number % 3 == 0, "{number}"),
            Err(errno) => assert_eq!((errno, number >= 100), (Errno::ENAMETOOLONG, true)),
        }
    }
    // The next question has its own answer.
    assert!(place.opener.open_sources(&[]).unwrap().is_empty());
    place.opener.open_source(place.scratch.path()).unwrap().unwrap();
}

fn closed(place: &Place) {
    fs::create_dir(place.at("private")).unwrap();
    fs::write(place.at("private/file"), "text").unwrap();
    fs::write(place.at("secret"), "text").unwrap();
    fs::set_permissions(place.at("secret"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(place.at("private"), Permissions::from_mode(0o700)).unwrap();
    let ours = place.identity.uid == Uid::effective().as_raw();
    let read = place.opener.read_beneath(place.directory().as_fd(), "secret".as_ref()).unwrap();
    assert_eq!(read.is_ok(), ours, "{read:?}");
    let inside = place.opener.open_source(&place.at("private/file")).unwrap();
    assert_eq!(inside.is_ok(), ours, "{inside:?}");
    let refusal = place.opener.open_image(&place.at("secret"), "it").unwrap_err();
    assert_eq!(refusal.kind, if ours { Kind::ImageFormat } else { Kind::ImageUnreadable });
}

fn names(place: &Place) {
    let account = place.opener.account(&[0, place.identity.gid, 4_000_000]).unwrap();
    let known = User::from_uid(place.identity.uid.into()).unwrap();
    assert_eq!(account.name(), known.as_ref().map(|user| user.name.as_str()));
    assert_eq!(account.home, known.map(|user| user.dir));
    let groups = [0, place.identity.gid].into_iter().filter_map(|gid| Group::from_gid(gid.into()).unwrap());
    assert!(groups.count() >= account.groups.len() && account.groups.contains(&"root:x:0:".to_owned()));
    assert_eq!(place.opener.owner(&Owner::Name("root".into())).unwrap(), Some(0));
    assert_eq!(place.opener.owner(&Owner::Name("nobody has this name".into())).unwrap(), None);
    // A look-up that was begun is the answer to that question, and to no other one.
    let groups = [0, place.identity.gid, 4_000_000];
    place.opener.begin_account(&groups).unwrap();
    assert_eq!(place.opener.account(&groups).unwrap(), account);
    place.opener.begin_account(&groups).unwrap();
    assert_eq!(place.opener.account(&[4_000_000]).unwrap().groups, [""; 0]);
    place.opener.begin_account(&groups).unwrap();
    assert_eq!(place.opener.owner(&Owner::Name("root".into())).unwrap(), Some(0));
    place.opener.open_source(place.scratch.path()).unwrap().unwrap();
}

fn libraries(place: &Place) {
    let root = File::open("/").unwrap();
    let empty = place.directory();
    assert_eq!(place.opener.glibc(empty.as_fd(), "it").unwrap(), None);
    let _ = place.opener.glibc(root.as_fd(), "it").unwrap();
    let text = r#"{"libraries": ["/nowhere/libmpi.so.40"]}"#;
    let profile: Profile = serde_json::from_str(text).unwrap();
    let question = mpi_fit::Question { image: "it".into(), name: "mine".into(), profile };
    let refusal = place.opener.fit_mpi(empty.as_fd(), question, "it").unwrap_err();
    assert!(refusal.line().contains("/nowhere/libmpi.so.40"), "{}", refusal.line());
}

fn loop_device(place: &Place) {
    fs::write(place.at("a.sqsh"), squashfs_writer::squashfs().bytes).unwrap();
    place.opener.open_image(&place.at("a.sqsh"), "it").unwrap();
    // No loop device: the kernel itself must say so, not the filter.
    let null = File::open("/dev/null").unwrap();
    let error = place.opener.configure_loop(null.as_fd(), 0, 4096).unwrap_err();
    assert_eq!(error.errno(), Errno::ENOTTY);
}

fn rights(place: &Place) {
    // It has answered, so it has given up its rights. The second answer is behind the filter.
    place.opener.account(&[]).unwrap();
    place.opener.account(&[]).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child())).unwrap();
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
    assert_eq!((value("NoNewPrivs:"), value("Seccomp:")), ("1".into(), "2".into()));
    let ids = format!("{0}\t{0}\t{0}\t{0}", place.identity.uid);
    assert_eq!((value("Uid:"), value("Threads:")), (ids, "1".into()));
    if place.identity.uid != 0 {
        assert_eq!(u64::from_str_radix(&value("CapPrm:"), 16), Ok(0));
        assert_eq!(u64::from_str_radix(&value("CapEff:"), 16), Ok(0));
    }
    let open = fs::read_dir(format!("/proc/{}/fd", child())).unwrap().flatten();
    let others = open.filter(|entry| entry.file_name().to_str().unwrap().parse::<u32>().unwrap() > 2).count();
    assert_eq!(others, 1, "only the channel");
    let limits = fs::read_to_string(format!("/proc/{}/limits", child())).unwrap();
    let limit = |key: &str| limits.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim_start().to_owned();
    assert!(limit("Max file size").starts_with("0 ") && limit("Max core file size").starts_with("0 "));
    assert!(limit("Max address space").starts_with(&(512 << 20).to_string()));
}

/// The one child process of this process.
fn child() -> u32 {
    let own = format!("/proc/self/task/{}/children", std::process::id());
    let children = fs::read_to_string(own).unwrap();
    children.split_whitespace().last().unwrap().parse().unwrap()
}

fn ends(place: &Place) {
    let opener = start(&place.identity);
    opener.account(&[]).unwrap();
    let path = PathBuf::from(format!("/proc/{}", child()));
    assert!(path.exists());
    opener.end();
    assert!(!path.exists());
}

/// Only root makes the PID namespace of such a process.
fn in_a_container(place: &Place) {
    if !Uid::effective().is_root() {
        return;
    }
    let namespace = MountNamespace::current().unwrap();
    let (what, identity) = ("it", &place.identity);
    let deadline = Instant::now() + Duration::from_secs(60);
    let kept = place.directory();
    let child = |executes| in_container::Question {
        what,
        namespace: &namespace,
        identity,
        step: None,
        deadline,
        kept: &[],
        executes,
    };
    let late = || Refusal::new(Kind::Timeout, "it", "late");
    let seen = || {
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let others = open.filter(|entry| entry.file_name().to_str().unwrap().parse::<u32>().unwrap() > 2).count();
        let program = std::process::Command::new("/bin/true").status().is_ok_and(|status| status.success());
        let uid = Uid::current().as_raw();
        // The channel, the directory that is read, and what comes with the answer.
        Ok(((uid, others, program), vec![File::open("/etc/passwd").unwrap().into()]))
    };
    for executes in [false, true] {
        let reply = child(executes).ask::<(u32, usize, bool)>(late, seen).unwrap();
        assert_eq!((reply.found, reply.fds.len()), ((identity.uid, 2, executes), 1));
    }
    let refused = child(false).ask::<()>(late, || Err(Refusal::new(Kind::Policy, "a", "no").hint("h")));
    assert_eq!(refused.unwrap_err(), Refusal::new(Kind::Policy, "a", "no").hint("h"));
    let died = child(true).ask::<()>(late, || std::process::abort());
    assert!(died.unwrap_err().line().contains("has died"));
    let brief = in_container::Question { deadline: Instant::now() + Duration::from_millis(50), ..child(false) };
    let hangs = brief.ask::<()>(late, || {
        std::thread::sleep(Duration::from_secs(60));
        Ok(((), Vec::new()))
    });
    assert_eq!(hangs.unwrap_err(), late());
    // This process keeps what the child process has closed.
    assert!(kept.metadata().is_ok());
}

fn measure(identity: &Identity) {
    const TIMES: usize = 2000;
    let median = |what: &str, work: &mut dyn FnMut()| {
        let (median, most) = measure::median(TIMES, work);
        println!("{what}: median {median:?}, 9 of 10 below {most:?}");
    };
    let place = Place::new(identity);
    let directory = place.directory();
    median("start, one question and end", &mut || {
        let opener = start(identity);
        opener.open_source("/etc".as_ref()).unwrap().unwrap();
        opener.end();
    });
    median("open_source(/etc)", &mut || drop(place.opener.open_source("/etc".as_ref()).unwrap()));
    median("open_beneath(none)", &mut || drop(place.opener.open_beneath(directory.as_fd(), "n".as_ref()).unwrap()));
    let ids: Vec<u32> = (0..64).collect();
    median("account with 64 groups", &mut || drop(place.opener.account(&ids).unwrap()));
}
