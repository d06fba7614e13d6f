//! Writes records of a user's own steps on this node, which only that user may read.
//!
//! Each user has a file in a directory of root. An access control list lets that user read it, and only root can write
//! it. Users in the group of the file's owner, or with the same primary group, cannot read it. Its size is limited, so
//! the records of a user with many steps only displace that user's own.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{self, UserRecords, append_trusted};
use coracle::report::{Kind, Refusal};
use coracle::sys;

use super::file::{add, hold};
use super::record::Record;

/// Limit on the length of a file, in bytes. Together with the previous file, a user has twice as much on a node.
const MAX_FILE: u64 = 1 << 20;

/// File of a user, and the previous one.
fn files(directory: &Path, uid: u32) -> [PathBuf; 2] {
    ["jsonl", "jsonl.1"].map(|ending| directory.join(format!("{uid}.{ending}")))
}

/// Files of a user, which may not exist, the older one first.
pub fn of(settings: &UserRecords, uid: u32) -> Option<[PathBuf; 2]> {
    let [file, before] = files(settings.directory()?, uid);
    Some([before, file])
}

/// Appends a record for the user of the step.
pub fn append(settings: &UserRecords, record: &Record) -> Result<(), Refusal> {
    let to = |directory: &Path| append_below(directory, record.uid, &record.to_line(), MAX_FILE);
    settings.directory().map_or(Ok(()), to)
}

fn append_below(directory: &Path, uid: u32, line: &str, max: u64) -> Result<(), Refusal> {
    let [path, before] = files(directory, uid);
    let failed = |cause: io::Error| config::Error::Write(path.clone(), cause);
    // No user can open it, so only root can hold the lock.
    let lock = append_trusted(&directory.join("lock"))?;
    hold(&lock).map_err(failed)?;
    let mut file = open(&path, uid)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > 0 && length.saturating_add(line.len() as u64) >= max {
        fs::rename(&path, &before).map_err(failed)?;
        file = open(&path, uid)?;
    }
    Ok(add(&mut file, line).map_err(failed)?)
}

/// Opens a user's file. If it is empty, the user cannot read it yet and gets the permission.
fn open(path: &Path, uid: u32) -> Result<File, Refusal> {
    let file = append_trusted(path)?;
    let written = file.metadata().is_ok_and(|found| found.len() > 0);
    if !written && uid != 0 {
        sys::share_with(&file, 6, uid, 4).map_err(|error| {
            let cause = format!("user {uid} cannot be let read it: {error}");
            Refusal::new(Kind::System, path.display().to_string(), cause)
                .hint("audit: {users: DIRECTORY} on a file system with access control lists, or none")
        })?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn the_usual_directory_counts_if_it_is_there_and_another_always() {
        assert_eq!(UserRecords::None.directory(), None);
        let named = PathBuf::from("/no/such");
        assert_eq!(UserRecords::In(named.clone()).directory(), Some(named.as_path()));
        let usual = Path::new(config::USER_RECORDS);
        assert_eq!(UserRecords::Usual.directory().is_some(), usual.is_dir());
        let [before, file] = of(&UserRecords::In(named), 2001).unwrap();
        assert_eq!((before, file), ("/no/such/2001.jsonl.1".into(), "/no/such/2001.jsonl".into()));
    }

    #[test]
    fn a_users_files_are_bounded_and_keep_whole_lines() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // Not below /tmp, which all users may write.
        let directory = tempfile::tempdir_in("/var/lib").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let directory = directory.path();
                scope.spawn(move || {
                    for number in 0..100 {
                        append_below(directory, 2001, &format!("{writer} {number} {}", "x".repeat(90)), 4096).unwrap();
                    }
                });
            }
        });
        append_below(directory.path(), 2002, "other", 4096).unwrap();
        let [file, before] = files(directory.path(), 2001);
        for path in [&file, &before] {
            let found = path.metadata().unwrap();
            assert!(found.len() <= 4096 && found.uid() == 0, "{path:?}: {found:?}");
            assert_eq!(found.mode() & 0o777, 0o640, "the mask of the list: read");
            assert!(fs::read_to_string(path).unwrap().lines().all(|line| line.len() > 90));
        }
        assert_eq!(fs::read_to_string(&files(directory.path(), 2002)[0]).unwrap(), "other\n");
        assert!(fs::read_to_string(&file).unwrap().ends_with("x\n"));
        let refused = append_below(&directory.path().join("none"), 2001, "x", 4096).unwrap_err().line();
        assert!(refused.contains("/none/lock: cannot be written to: No such file"), "{refused}");
    }
}
