//! Appends lines to the files of records.
#![forbid(unsafe_code)]

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::{self, append_trusted};
use coracle::report::Refusal;

/// Time limit for waiting for steps that end at the same moment.
const PATIENCE: Duration = Duration::from_secs(2);

/// Waits for the lock of files that several launchers write.
pub fn hold(lock: &File) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Appends `line` and a newline in one write(2), which no other write interrupts: the kernel holds the file's lock
/// meanwhile (on a local file system; on NFS each client determines the end itself). It does not wait until the data is
/// on the disk.
pub fn append(path: &Path, line: &str) -> Result<(), Refusal> {
    let mut file = append_trusted(path)?;
    add(&mut file, line).map_err(|cause| config::Error::Write(path.to_owned(), cause).into())
}

pub fn add(file: &mut File, line: &str) -> io::Result<()> {
    // A line that a full disk has cut off must not corrupt this record.
    let torn = match file.metadata()?.size().checked_sub(1) {
        Some(last) => {
            let mut end = [b'\n'];
            file.read_at(&mut end, last)?;
            end != [b'\n']
        }
        None => false,
    };
    let text = format!("{}{line}\n", if torn { "\n" } else { "" });
    match file.write(text.as_bytes())? {
        written if written == text.len() => Ok(()),
        written => Err(io::Error::other(format!("only {written} of {} bytes were taken", text.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appending(directory: &Path) -> File {
        File::options().read(true).append(true).create(true).open(directory.join("a")).unwrap()
    }

    #[test]
    fn a_line_that_was_cut_off_stays_alone() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = appending(directory.path());
        add(&mut file, "one").unwrap();
        add(&mut file, "two").unwrap();
        file.write_all(b"thr").unwrap();
        add(&mut file, "four").unwrap();
        assert_eq!(std::fs::read_to_string(directory.path().join("a")).unwrap(), "one\ntwo\nthr\nfour\n");
    }

    #[test]
    fn many_at_once_tear_nothing() {
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let mut file = appending(directory.path());
                scope.spawn(move || {
                    (0..100).for_each(|_| add(&mut file, &writer.to_string().repeat(5000)).unwrap());
                });
            }
        });
        let text = std::fs::read_to_string(directory.path().join("a")).unwrap();
        let whole = |line: &str| line.len() == 5000 && line.bytes().all(|byte| byte == line.as_bytes()[0]);
        assert_eq!(text.lines().filter(|line| whole(line)).count(), 800);
        assert!(text.lines().all(|line| line.is_empty() || whole(line)));
    }

    #[test]
    fn only_a_file_of_roots_alone_is_written_to() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // Not below /tmp, which all users may write.
        let directory = tempfile::tempdir_in("/var/lib").unwrap();
        let path = directory.path().join("audit.jsonl");
        append(&path, "one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7137, 0, "no more than 0640");
        let refused = |wanted: &str| {
            let line = append(&path, "x").unwrap_err().line();
            assert!(line.contains(wanted), "{line}");
        };
        std::os::unix::fs::symlink(&path, directory.path().join("link")).unwrap();
        let line = append(&directory.path().join("link"), "x").unwrap_err().line();
        assert!(line.ends_with("/link: a symbolic link where a regular file is wanted [config]"), "{line}");
        std::fs::hard_link(&path, directory.path().join("name")).unwrap();
        refused("has 2 names, and must have one [config]");
        std::fs::remove_file(directory.path().join("name")).unwrap();
        let chmod = |path: &Path, mode| {
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        chmod(&path, 0o620);
        refused("audit.jsonl: writable by others than root (mode 0620) [config]");
        chmod(&path, 0o640);
        chmod(directory.path(), 0o770);
        refused(": writable by others than root (mode 0770) [config]");
        chmod(directory.path(), 0o755);
        append(&path, "two").unwrap();
        let nowhere = append(&directory.path().join("no/such"), "x").unwrap_err().line();
        assert!(nowhere.ends_with("/no/such: cannot be written to: No such file or directory (os error 2) [system]"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }
}
