//! Makes and reads files in memory, for data that is too long for a message (memfd_create(2)).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag};
use nix::sys::memfd::MFdFlags;

use super::{Error, Result};

/// File in memory that this process has made, and that a child process may fill. A read of it neither waits nor depends
/// on the rights of its reader, whatever the child process is.
#[derive(Debug)]
pub struct MemoryDraft(File);

impl MemoryDraft {
    /// Makes an empty one.
    pub fn new() -> Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = nix::sys::memfd::memfd_create(c"coracle", flags);
        Ok(Self(File::from(fd.map_err(|errno| Error::new("memfd_create()", errno))?)))
    }

    /// Appends to it.
    pub fn write(&self, content: &[u8]) -> Result<()> {
        (&self.0).write_all(content).map_err(|cause| Error::from_io("write(memfd)", &cause))
    }

    /// Returns the file, whose content and length stay as they are. EBUSY: a process can still change it.
    pub fn seal(self) -> Result<OwnedFd> {
        let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
        nix::fcntl::fcntl(&self.0, FcntlArg::F_ADD_SEALS(seals))
            .map_err(|errno| Error::new("fcntl(F_ADD_SEALS)", errno))?;
        Ok(self.0.into())
    }
}

impl AsFd for MemoryDraft {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns a sealed file in memory with this content.
pub fn memory_file(content: &[u8]) -> Result<OwnedFd> {
    let draft = MemoryDraft::new()?;
    draft.write(content)?;
    draft.seal()
}

/// Memory for a file of unknown length, at first.
const GROWTH: usize = 4096;

/// Reads all of a file from its start, whatever its position: sent descriptors share one. EFBIG if it is longer than
/// `limit` bytes.
pub fn read_whole(file: impl AsFd, limit: usize) -> Result<Vec<u8>> {
    let file = file.as_fd().try_clone_to_owned().map_err(|cause| Error::from_io("dup()", &cause))?;
    let file = File::from(file);
    // Memory for the limit would be zeroed for nothing. A file that grows meanwhile is read to its end.
    let known = file.metadata().map_err(|cause| Error::from_io("fstat()", &cause))?.len();
    let known = usize::try_from(known).unwrap_or(limit).min(limit);
    let mut content = vec![0; known.saturating_add(1)];
    let mut length = 0;
    loop {
        let at = length as u64;
        if length == content.len() && length <= limit {
            content.resize(length.saturating_mul(2).max(GROWTH).min(limit.saturating_add(1)), 0);
        }
        match file.read_at(&mut content[length..], at).map_err(|cause| Error::from_io("pread()", &cause))? {
            0 => break,
            more => length += more,
        }
    }
    if length > limit {
        return Err(Error::new("pread()", Errno::EFBIG));
    }
    content.truncate(length);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_changes_a_sealed_file() {
        let draft = MemoryDraft::new().unwrap();
        // A process that filled it may keep its descriptor.
        let kept = File::from(draft.as_fd().try_clone_to_owned().unwrap());
        draft.write(b"te").unwrap();
        draft.write(b"xt").unwrap();
        let sealed = draft.seal().unwrap();
        assert!(kept.write_at(b"x", 0).is_err() && kept.set_len(0).is_err() && (&kept).write_all(b"x").is_err());
        assert_eq!(read_whole(&sealed, 4).unwrap(), b"text");
        assert_eq!(read_whole(&sealed, 3).unwrap_err().errno(), Errno::EFBIG);
        // Its length says nothing about the content of a file of the kernel.
        let status = std::fs::read("/proc/self/limits").unwrap();
        assert!(status.len() > 100);
        assert_eq!(read_whole(File::open("/proc/self/limits").unwrap(), 1 << 20).unwrap(), status);
        assert_eq!(read_whole(File::open("/proc/self/limits").unwrap(), 99).unwrap_err().errno(), Errno::EFBIG);
        assert_eq!(read_whole(File::open("/dev/zero").unwrap(), 9999).unwrap_err().errno(), Errno::EFBIG);
    }
}
