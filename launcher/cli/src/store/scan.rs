//! Runs the site's scanner: a program that examines an image before it is kept.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal};
use coracle::request::Digest;
use coracle_launcher::config::Scanner;
use coracle_launcher::store::Scanned;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Path of the image for the scanner: its standard input.
const IMAGE: &str = "/proc/self/fd/0";
/// Length of the scanner's output that is kept, in bytes.
const WORDS: usize = 4096;
/// Time between checks for the scanner's end, and for a caller that still waits.
const LOOK: Duration = Duration::from_millis(50);

/// Owner and name of an image.
pub struct Subject<'a> {
    /// The user's name.
    pub user: &'a str,
    /// The image's name.
    pub name: &'a str,
    /// Its digest.
    pub digest: Digest,
}

/// Runs the scanner on the same inode that is kept, as this process' user. Calls `still` now and then, and stops at its
/// refusal.
pub fn scan(
    scanner: &Scanner,
    limit: Duration,
    image: &File,
    subject: &Subject<'_>,
    still: impl Fn() -> Result<(), Refusal>,
) -> Result<Scanned, Refusal> {
    let program = scanner.program.display().to_string();
    let failed = |cause: std::io::Error| Refusal::new(Kind::Store, &program, format!("the site's scanner: {cause}"));
    let (mut words, theirs) = std::io::pipe().map_err(failed)?;
    // Opened again: the scanner starts at its beginning, and does not move the offset of other descriptors.
    let again = File::open(format!("/proc/self/fd/{}", image.as_raw_fd())).map_err(failed)?;
    let mut command = Command::new(&scanner.program);
    command
        .args(&scanner.arguments)
        .arg(IMAGE)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CORACLE_USER", subject.user)
        .env("CORACLE_NAME", subject.name)
        .env("CORACLE_DIGEST", subject.digest.to_string())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(again))
        .stdout(theirs.try_clone().map_err(failed)?)
        .stderr(theirs);
    let mut child = Group(command.spawn().map_err(failed)?);
    // Closes the parent's copies of the write end.
    drop(command);
    let end = Instant::now() + limit;
    let mut kept = Vec::new();
    let status = loop {
        still()?;
        listen(&mut words, &mut kept).map_err(failed)?;
        if let Some(status) = child.0.try_wait().map_err(failed)? {
            break status;
        }
        if Instant::now() > end {
            let seconds = limit.as_secs();
            return Err(Refusal::new(
                Kind::Timeout,
                subject.name,
                format!("the site's scanner did not end within {seconds} s"),
            ));
        }
    };
    listen(&mut words, &mut kept).map_err(failed)?;
    let output = String::from_utf8_lossy(&kept).into_owned();
    match status.success() {
        true => Ok(Scanned { by: program, output }),
        false => Err(refused(subject.name, status, &output)),
    }
}

fn refused(name: &str, status: ExitStatus, output: &str) -> Refusal {
    let words = output.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it gave no reason");
    Refusal::new(Kind::Policy, name, format!("the site's scanner refused it ({status}): {words}"))
}

/// Reads the scanner's pending output. It also reads the bytes that are not kept: a full pipe would block the scanner.
fn listen(words: &mut std::io::PipeReader, kept: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let mut patience = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
    // Bounded, so that a scanner that never stops writing still meets its time limit.
    for _ in 0..64 {
        let mut poll = [PollFd::new(words.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut poll, patience)?;
        if poll[0].revents().is_none_or(|events| !events.contains(PollFlags::POLLIN)) {
            // The scanner has closed the pipe and no data is left: poll(2) would return at once.
            if poll[0].any() == Some(true) {
                std::thread::sleep(LOOK);
            }
            return Ok(());
        }
        let count = words.read(&mut buffer)?;
        let room = WORDS - kept.len();
        kept.extend_from_slice(buffer.get(..count.min(room)).unwrap_or_default());
        patience = PollTimeout::ZERO;
    }
    Ok(())
}

/// Scanner and its process group, which is killed when this is dropped.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            // The whole group may have ended by itself.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn scanned(script: &str, limit: Duration) -> Result<Scanned, Refusal> {
        let mut image = tempfile::tempfile().unwrap();
        image.write_all(b"the image").unwrap();
        let scanner = Scanner { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into(), "sh".into()] };
        let subject = Subject { user: "alice", name: "a.sif", digest: Digest([1; 32]) };
        scan(&scanner, limit, &image, &subject, || Ok(()))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_scanner_sees_the_image_and_who_and_nothing_of_ours() {
        let found = scanned("cat; echo; cat \"$1\"; echo; env | sort; ls /proc/self/fd", LONG).unwrap();
        assert!(found.output.starts_with("the image\nthe image\n"), "{}", found.output);
        for word in ["CORACLE_USER=alice", "CORACLE_NAME=a.sif", "CORACLE_DIGEST=sha256:0101"] {
            assert!(found.output.contains(word), "{}", found.output);
        }
        assert!(!found.output.contains("CARGO"), "{}", found.output);
    }

    #[test]
    fn its_status_decides_and_its_words_are_said() {
        let line = scanned("echo; echo 'found: EICAR' >&2; exit 3", LONG).unwrap_err().line();
        assert_eq!(line, "coracle: a.sif: the site's scanner refused it (exit status: 3): found: EICAR [policy]");
        assert!(scanned("kill -9 $$", LONG).unwrap_err().line().contains("refused it (signal: 9"));
        let found = scanned("yes | head -c 1000000", LONG).unwrap();
        assert_eq!(found.output.len(), WORDS);
    }

    #[test]
    fn one_that_never_stops_talking_is_ended() {
        assert_eq!(scanned("yes", Duration::from_millis(200)).unwrap_err().kind, Kind::Timeout);
    }

    #[test]
    fn one_that_does_not_end_is_ended_with_all_that_it_started() {
        let directory = tempfile::tempdir().unwrap();
        let mark = directory.path().join("mark");
        let script = format!("(sleep 1; touch {}) & echo waits; exec sleep 1000", mark.display());
        let refusal = scanned(&script, Duration::from_millis(200)).unwrap_err();
        assert_eq!(refusal.kind, Kind::Timeout);
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!mark.exists());
    }
}
