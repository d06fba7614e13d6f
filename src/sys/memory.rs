//! Makes and reads files in memory, for data that is too long for a message (memfd_create(2)).

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag};
use nix::sys::memfd::MFdFlags;

use super::{Error, Result};

/// Returns a sealed file in memory with this content.
pub fn memory_file(content: &[u8]) -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = nix::sys::memfd::memfd_create(c"coracle", flags).map_err(|errno| Error::new("memfd_create()", errno))?;
    let mut file = File::from(fd);
    file.write_all(content).map_err(|cause| Error::from_io("write(memfd)", &cause))?;
    nix::fcntl::fcntl(&file, FcntlArg::F_ADD_SEALS(seals()))
        .map_err(|errno| Error::new("fcntl(F_ADD_SEALS)", errno))?;
    Ok(file.into())
}

/// Seals of a file whose content and length stay as they are.
fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// True if this is a sealed file in memory. A read of such a file neither waits nor depends on the rights of its reader.
pub fn is_sealed_memory(file: impl AsFd) -> bool {
    let found = nix::fcntl::fcntl(file, FcntlArg::F_GET_SEALS);
    found.is_ok_and(|found| SealFlag::from_bits_truncate(found).contains(seals()))
}

/// Reads all of a file from its start, whatever its position: sent descriptors share one. EFBIG if it is longer than
/// `limit` bytes.
pub fn read_whole(file: impl AsFd, limit: usize) -> Result<Vec<u8>> {
    let file = file.as_fd().try_clone_to_owned().map_err(|cause| Error::from_io("dup()", &cause))?;
    let file = File::from(file);
    let mut content = vec![0; limit.saturating_add(1)];
    let mut length = 0;
    loop {
        let at = length as u64;
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
    fn only_a_sealed_file_in_memory_is_one() {
        assert!(is_sealed_memory(memory_file(b"text").unwrap()));
        let open = nix::sys::memfd::memfd_create(c"x", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert!(!is_sealed_memory(&open));
        nix::fcntl::fcntl(&open, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        assert!(!is_sealed_memory(&open));
        for path in ["/proc/self/environ", "/dev/zero", "/"] {
            assert!(!is_sealed_memory(File::open(path).unwrap()), "{path}");
        }
    }
}
