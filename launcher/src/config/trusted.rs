//! Reads files that only root can write.
#![forbid(unsafe_code)]

use nix::libc;
use std::fs::{DirBuilder, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::Error;

/// Maximum size of a configuration file, in bytes.
pub(super) const MAX_LEN: u64 = 1 << 20;

/// Reads a file of at most `limit` bytes that only root can write.
pub fn read_trusted(path: &Path, limit: u64) -> Result<String, Error> {
    whole(path, open_trusted(path)?, limit)
}

/// Reads a file of any owner.
pub(super) fn text(path: &Path) -> Result<String, Error> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    whole(path, file.map_err(|cause| Error::Read(path.to_owned(), cause))?, MAX_LEN)
}

/// Checks that only root can write a file.
pub fn trust(path: &Path) -> Result<(), Error> {
    open_trusted(path).map(drop)
}

/// Refuses a directory if users other than root can write it or a directory above it.
pub fn trust_directory(path: &Path) -> Result<(), Error> {
    on_trusted_way(path)?;
    let found = path.symlink_metadata().map_err(|cause| Error::Read(path.to_owned(), cause))?;
    trusted(path, &found, found.is_dir(), "a directory")
}

fn whole(path: &Path, file: File, limit: u64) -> Result<String, Error> {
    // One byte more than the file has: otherwise the string grows from nothing, and doubles before the end is found.
    let expected = file.metadata().map_or(0, |found| found.len()).min(limit);
    let mut text = String::with_capacity(usize::try_from(expected).unwrap_or_default().saturating_add(1));
    let length = file.take(limit + 1).read_to_string(&mut text).map_err(|cause| Error::Read(path.to_owned(), cause))?;
    if length as u64 > limit {
        return Err(Error::Untrusted { path: path.to_owned(), why: format!("longer than {limit} bytes") });
    }
    Ok(text)
}

/// Opens a file that only root can write: the file itself, and each directory from / on, belongs to root, is writable
/// only by root, and is no symbolic link.
///
/// The descent from / makes this safe against concurrent changes: a directory that only root can write stays so.
pub fn open_trusted(path: &Path) -> Result<File, Error> {
    on_trusted_way(path)?;
    let found = path.symlink_metadata().map_err(|cause| Error::Read(path.to_owned(), cause))?;
    trusted(path, &found, found.is_file(), "a regular file")?;
    File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|cause| Error::Read(path.to_owned(), cause))
}

/// Makes a directory that only root can enter, and the one above it; both may exist.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    for (directory, mode) in path.parent().map(|above| (above, 0o755)).into_iter().chain([(path, 0o700)]) {
        match DirBuilder::new().mode(mode).create(directory) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(cause),
            _ => {}
        }
    }
    Ok(())
}

/// Opens a file of root for appending, and creates it if it is missing (mode 0640); directories are not created. File
/// and directories must meet the requirements of [`open_trusted`]. The file must also have only one name: a second name
/// could be one of root's files elsewhere.
///
/// The descriptor is readable, too.
pub fn append_trusted(path: &Path) -> Result<File, Error> {
    let write = |cause| Error::Write(path.to_owned(), cause);
    on_trusted_way(path).map_err(|error| match error {
        Error::Read(_, cause) => write(cause),
        untrusted => untrusted,
    })?;
    let file = File::options()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|cause| match path.symlink_metadata() {
            Ok(found) => trusted(path, &found, found.is_file(), "a regular file").err().unwrap_or_else(|| write(cause)),
            Err(_) => write(cause),
        })?;
    let found = file.metadata().map_err(write)?;
    trusted(path, &found, found.is_file(), "a regular file")?;
    match found.nlink() {
        // 0: the file was unlinked or replaced after it was opened. It is still the requested file.
        0 | 1 => Ok(file),
        names => Err(Error::Untrusted { path: path.to_owned(), why: format!("has {names} names, and must have one") }),
    }
}

/// Checks each directory above `path`.
fn on_trusted_way(path: &Path) -> Result<(), Error> {
    let mut directories: Vec<&Path> = path.ancestors().skip(1).collect();
    directories.reverse();
    for directory in directories.into_iter().filter(|directory| !directory.as_os_str().is_empty()) {
        let found = directory.symlink_metadata().map_err(|cause| Error::Read(path.to_owned(), cause))?;
        trusted(directory, &found, found.is_dir(), "a directory")?;
    }
    Ok(())
}

fn trusted(path: &Path, found: &Metadata, right_type: bool, wanted: &str) -> Result<(), Error> {
    let untrusted = |why| Err(Error::Untrusted { path: path.to_owned(), why });
    if found.file_type().is_symlink() {
        return untrusted(format!("a symbolic link where {wanted} is wanted"));
    }
    if !right_type {
        return untrusted(format!("not {wanted}"));
    }
    if found.uid() != 0 {
        return untrusted(format!("belongs to user {}, and must belong to root", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return untrusted(format!("writable by others than root (mode {:04o})", found.mode() & 0o7777));
    }
    Ok(())
}
