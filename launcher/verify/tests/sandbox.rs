//! Tests of what the sandbox permits and what it stops, as root and as an ordinary user.
//!
//! A program with one thread: `sandbox [NAME]`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Identity};
use coracle_verify::sandbox::{self, compute};

const LIMIT: Duration = Duration::from_secs(60);
/// Identity of this program for its second half, if root runs it.
const SOMEBODY: Identity = Identity { uid: 65533, gid: 65533, groups: Vec::new() };

type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("work_reads_its_files_and_answers", reads),
    ("the_whole_image_room_works_inside", identifies),
    ("opening_a_file_kills", || killed(|| drop(File::open("/etc/passwd")))),
    ("making_a_socket_kills", || killed(|| drop(std::net::UdpSocket::bind("127.0.0.1:0")))),
    ("starting_a_program_kills", || killed(|| drop(Command::new("/bin/true").spawn()))),
    ("execve_kills", || killed(|| _ = nix::unistd::execve(c"/bin/true", &[c"true"], &[c""]))),
    ("a_thread_kills", || killed(|| drop(std::thread::Builder::new().spawn(|| ())))),
    ("signalling_the_parent_kills", || killed(|| _ = nix::sys::signal::kill(nix::unistd::getppid(), None))),
    ("deleting_a_file_kills", || killed(|| drop(std::fs::remove_file("/nowhere")))),
    ("reading_another_process_kills", || killed(|| drop(File::open("/proc/1/mem")))),
    ("a_hang_ends_at_the_limit", hangs),
    ("a_computation_ends_at_the_limit", spins),
    ("memory_is_bounded", allocates),
    ("other_descriptors_are_closed", descriptors),
    ("files_cannot_be_written", writes),
    ("standard_streams_lead_nowhere", streams),
    ("an_answer_is_bounded", chatters),
    ("a_panic_is_a_refusal", panics),
    ("ids_and_capabilities_are_gone", ids),
    ("a_standard_stream_is_no_file_to_look_at", standard),
];

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--watch") {
        return watch();
    }
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let root = nix::unistd::Uid::effective().is_root();
    let mut failed = run("", wanted.as_deref());
    if root {
        sys::become_user(&SOMEBODY).unwrap();
        failed += run("unprivileged ", wanted.as_deref());
    }
    println!("sandbox: {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

fn run(who: &str, wanted: Option<&str>) -> usize {
    let chosen = CASES.iter().filter(|(name, _)| wanted.is_none_or(|wanted| name.contains(wanted)));
    let results = chosen.map(|(name, case)| {
        let good = std::panic::catch_unwind(case).is_ok();
        println!("sandbox: {who}{name} ... {}", if good { "ok" } else { "FAILED" });
        usize::from(!good)
    });
    results.sum()
}

fn refusal(answer: Result<Vec<u8>, Refusal>, kind: Kind) -> String {
    let refusal = answer.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_err();
    assert_eq!(refusal.kind, kind, "{refusal}");
    refusal.cause
}

/// Checks that the filter kills the child process for `act`, not that `act` ignores an error.
fn killed(act: impl FnOnce()) {
    let answer = compute(None, &[], LIMIT, |_| {
        act();
        b"still there".to_vec()
    });
    assert_eq!(refusal(answer, Kind::Internal), "was killed for a system call that it may not make");
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn reads() {
    let (one, two) = (file(b"one"), file(&[b'2'; 100_000]));
    let answer = compute(None, &[one.as_fd(), two.as_fd()], LIMIT, |files| {
        let (mut head, mut tail) = ([0; 3], Vec::new());
        files[0].read_exact_at(&mut head, 0).unwrap();
        (&files[1]).seek(SeekFrom::Start(0)).unwrap();
        (&files[1]).read_to_end(&mut tail).unwrap();
        assert_eq!(files[1].metadata().unwrap().len(), 100_000);
        [&head[..], &tail].concat()
    });
    assert_eq!(answer.unwrap(), [b"one".as_slice(), &[b'2'; 100_000]].concat());
}

fn identifies() {
    let image = file(b"no image at all, but looked at inside");
    let answer = compute(None, &[image.as_fd()], LIMIT, |files| {
        let digest = coracle_launcher::image::digest::compute(&files[0]).unwrap();
        let found = coracle_launcher::image::identify(&files[0], "x86_64").unwrap_err();
        format!("{found} {digest}").into_bytes()
    });
    let text = String::from_utf8(answer.unwrap()).unwrap();
    assert!(text.starts_with("not an image") && text.contains(" sha256:"), "{text}");
}

fn hangs() {
    let (end, _other) = nix::unistd::pipe().unwrap();
    let (limit, start) = (Duration::from_millis(300), Instant::now());
    let answer = compute(None, &[end.as_fd()], limit, |files| {
        let _ = (&files[0]).read(&mut [0]);
        Vec::new()
    });
    assert_eq!(refusal(answer, Kind::Timeout), "took longer than 0.3 s");
    assert!(start.elapsed() >= limit);
}

fn spins() {
    let answer = compute(None, &[], Duration::from_millis(300), |_| {
        loop {
            std::hint::spin_loop();
        }
    });
    assert_eq!(refusal(answer, Kind::Timeout), "took longer than 0.3 s");
}

fn allocates() {
    let answer = compute(None, &[], LIMIT, |_| {
        let mut kept = Vec::new();
        while kept.len() < 4096 {
            kept.push(std::hint::black_box(vec![1u8; 1 << 20]));
        }
        vec![b'!'; kept.len()]
    });
    assert_eq!(refusal(answer, Kind::Internal), "found no memory left, and ended");
}

fn descriptors() {
    let (kept, other) = (file(b"kept"), file(b"other"));
    let high = nix::fcntl::fcntl(&other, nix::fcntl::FcntlArg::F_DUPFD(1500)).unwrap();
    let answer = compute(None, &[kept.as_fd()], LIMIT, |files| {
        let own = files[0].as_raw_fd();
        let open = (3..2048).filter(|number| *number != own && nix::unistd::close(*number).is_ok());
        // Only the pipe, which is closed by now: the panic reports it.
        assert!(open.count() != 1);
        Vec::new()
    });
    assert_eq!(refusal(answer, Kind::Internal), "gave up: a fault of Coracle's own");
    nix::unistd::close(high).unwrap();
}

fn writes() {
    let target = file(b"before");
    let answer = compute(None, &[target.as_fd()], LIMIT, |files| {
        format!("{:?}", (&files[0]).write(b"after").map_err(|cause| cause.raw_os_error())).into_bytes()
    });
    assert_eq!(answer.unwrap(), format!("Err(Some({}))", nix::libc::EBADF).into_bytes());
    let mut text = [0; 6];
    target.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"before");
    let answer = compute(None, &[target.as_fd()], LIMIT, |files| {
        let _ = files[0].write_at(b"after", 0);
        Vec::new()
    });
    assert_eq!(refusal(answer, Kind::Internal), "was killed for a system call that it may not make");
}

fn streams() {
    let answer = compute(None, &[], LIMIT, |_| {
        println!("must not be seen");
        let read = std::io::stdin().read(&mut [0]).ok();
        format!("{read:?}").into_bytes()
    });
    assert_eq!(answer.unwrap(), b"Some(0)");
}

fn chatters() {
    let whole = compute(None, &[], LIMIT, |_| vec![b'x'; sandbox::ANSWER]);
    assert_eq!(whole.unwrap().len(), sandbox::ANSWER);
    let more = compute(None, &[], LIMIT, |_| vec![b'x'; sandbox::ANSWER + 1]);
    assert_eq!(refusal(more, Kind::Internal), "answered more than 1048576 bytes");
}

fn panics() {
    let answer = compute(None, &[], LIMIT, |_| panic!("{}", "x".repeat(10)));
    assert_eq!(refusal(answer, Kind::Internal), "gave up: a fault of Coracle's own");
}

/// Checks the kernel's ids of the child process, which waits meanwhile for a watching process.
fn ids() {
    let (wait, go) = nix::unistd::pipe().unwrap();
    let program = std::env::current_exe().unwrap();
    // Only the watcher has the other end of the pipe: the command drops its copy at the end of this statement.
    let mut watcher = Command::new(program).arg("--watch").stdin(go).stdout(Stdio::piped()).spawn().unwrap();
    let answer = compute(None, &[wait.as_fd()], LIMIT, |files| {
        // Until the watcher, which holds the other end, has ended.
        let _ = (&files[0]).read(&mut [0]);
        Vec::new()
    });
    assert_eq!(answer.unwrap(), b"");
    let mut seen = String::new();
    watcher.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    assert!(watcher.wait().unwrap().success());
    let own = nix::unistd::Uid::effective().as_raw();
    let id = if own == 0 { 65534 } else { own };
    let none = "0000000000000000";
    let wanted = format!(
        "Uid: {id} {id} {id} {id}\nGid: {id} {id} {id} {id}\nGroups: \nCapPrm: {none}\nCapEff: {none}\nNoNewPrivs: 1\n"
    );
    assert_eq!(seen, wanted);
}

/// Finds the sibling process that has two more seccomp filters than this process, and prints its ids from /proc.
fn watch() -> ExitCode {
    let parent = nix::unistd::getppid();
    let filters = |text: &str| value(text, "Seccomp_filters:").parse().unwrap_or(0);
    let own: u32 = filters(&std::fs::read_to_string("/proc/self/status").unwrap());
    loop {
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        let texts =
            children.split_whitespace().filter_map(|id| std::fs::read_to_string(format!("/proc/{id}/status")).ok());
        if let Some(text) = texts.into_iter().find(|text| filters(text) == own + 2) {
            for key in ["Uid:", "Gid:", "Groups:", "CapPrm:", "CapEff:", "NoNewPrivs:"] {
                println!("{key} {}", value(&text, key));
            }
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn value(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn standard() {
    let input = std::io::stdin();
    let answer = compute(None, &[input.as_fd()], LIMIT, |_| b"read".to_vec());
    assert!(refusal(answer, Kind::System).starts_with("cannot be confined: descriptor 0"));
}
