//! Enables and reads fs-verity: the kernel checks such files at each read (Documentation/filesystems/fsverity.rst).

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::{Error, Result, check, show};

const FS_IOC_ENABLE_VERITY: libc::c_ulong = 0x4080_6685;
const FS_IOC_MEASURE_VERITY: libc::c_ulong = 0xc004_6686;
const FS_VERITY_HASH_ALG_SHA256: u32 = 1;
const FS_VERITY_HASH_ALG_SHA512: u16 = 2;
/// Block size of the hash tree: the only size that every kernel with 4 KiB pages supports.
const BLOCK: u32 = 4096;
/// The longest digest (FS_VERITY_MAX_DIGEST_SIZE).
const MAX_DIGEST: u16 = 64;

/// `struct fsverity_enable_arg` of linux/fsverity.h.
#[repr(C)]
struct EnableArg {
    version: u32,
    hash_algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved1: u32,
    signature: u64,
    reserved2: [u64; 11],
}

/// `struct fsverity_digest` of linux/fsverity.h, with space for the longest digest.
#[repr(C)]
struct DigestArg {
    algorithm: u16,
    size: u16,
    digest: [u8; MAX_DIGEST as usize],
}

/// File digest of fs-verity: a hash of the root of the file's hash tree, and of its length. It is not the
/// hash of the file's bytes that `sha256sum` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerityDigest {
    algorithm: &'static str,
    bytes: Vec<u8>,
}

impl fmt::Display for VerityDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:", self.algorithm)?;
        self.bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// True for the errors of a kernel, a file system type or a single file system without fs-verity.
fn unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::ENOTTY | Errno::EOPNOTSUPP)
}

/// Makes a file read-only for good, with SHA-256, and returns its digest; `None` where there is no fs-verity.
///
/// `file` must be open for reading only, and no process may have it open for writing (ETXTBSY). It must belong to the
/// caller, who must be allowed to write to it (EACCES). The call reads the whole file. A file that has fs-verity
/// already is measured.
pub fn enable(file: impl AsFd) -> Result<Option<VerityDigest>> {
    let file = file.as_fd();
    let arg = EnableArg {
        version: 1,
        hash_algorithm: FS_VERITY_HASH_ALG_SHA256,
        block_size: BLOCK,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved1: 0,
        signature: 0,
        reserved2: [0; 11],
    };
    // SAFETY: FS_IOC_ENABLE_VERITY reads one fsverity_enable_arg, which `arg` is and which outlives the call; its salt
    // and signature are empty, so their addresses are not followed.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_ENABLE_VERITY, &raw const arg) };
    match check(result.into(), || format!("ioctl({}, FS_IOC_ENABLE_VERITY)", show(file))) {
        Err(error) if unsupported(error.errno()) => Ok(None),
        Err(error) if error.errno() != Errno::EEXIST => Err(error),
        _ => measure(file),
    }
}

/// Returns the digest that the kernel enforces for a file; `None` for a file without one. The call is fast, because it
/// does not read the file.
pub fn measure(file: impl AsFd) -> Result<Option<VerityDigest>> {
    let file = file.as_fd();
    let mut arg = DigestArg { algorithm: 0, size: MAX_DIGEST, digest: [0; MAX_DIGEST as usize] };
    // SAFETY: FS_IOC_MEASURE_VERITY writes a fsverity_digest with at most `size` bytes behind its head, which `arg` has
    // space for, and which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_MEASURE_VERITY, &raw mut arg) };
    let call = || format!("ioctl({}, FS_IOC_MEASURE_VERITY)", show(file));
    match check(result.into(), call) {
        Err(error) if error.errno() == Errno::ENODATA || unsupported(error.errno()) => return Ok(None),
        result => result?,
    };
    let (algorithm, length) = match arg.algorithm {
        1 => ("sha256", 32),
        FS_VERITY_HASH_ALG_SHA512 => ("sha512", 64),
        _ => return Err(Error::new(call(), Errno::EINVAL)),
    };
    if usize::from(arg.size) != length {
        return Err(Error::new(call(), Errno::EINVAL));
    }
    Ok(Some(VerityDigest { algorithm, bytes: arg.digest[..length].to_vec() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<EnableArg>(), 128);
        assert_eq!(size_of::<DigestArg>(), 4 + usize::from(MAX_DIGEST));
        // _IOW('f', 133, 128 bytes) and _IOWR('f', 134, 4 bytes)
        assert_eq!(FS_IOC_ENABLE_VERITY, 1 << 30 | 128 << 16 | 0x66 << 8 | 133);
        assert_eq!(FS_IOC_MEASURE_VERITY, 3 << 30 | 4 << 16 | 0x66 << 8 | 134);
    }

    #[test]
    fn where_there_is_none_there_is_no_digest() {
        // tmpfs has no fs-verity.
        let file = super::super::memory_file(b"content").unwrap();
        assert_eq!(enable(&file), Ok(None));
        assert_eq!(measure(&file), Ok(None));
        // A file without it, whatever the file system.
        assert_eq!(measure(std::fs::File::open("/proc/self/exe").unwrap()), Ok(None));
    }

    #[test]
    fn a_digest_is_written_with_its_algorithm() {
        let digest = VerityDigest { algorithm: "sha512", bytes: vec![0, 0xab, 0x10] };
        assert_eq!(digest.to_string(), "sha512:00ab10");
    }
}
