//! Attaches loop devices (loop(4)): the kernel's squashfs needs a block device.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;

use nix::errno::Errno;

use super::{Error, Result, check, show};

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
/// Operation of ioctl(2) that attaches a file to a loop device (loop(4)).
pub const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Maximum number of times that another process may take a free device first: 128 tasks of other containers that
/// start at the same moment each take one.
const TRIES: u32 = 512;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h, since Linux 5.8.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A read-only loop device over a part of a file. The kernel frees it with the last descriptor or mount.
#[derive(Debug)]
pub struct LoopDevice {
    file: File,
}

/// Reason why no loop device is available.
#[derive(Debug)]
pub enum LoopError {
    /// The kernel has no loop driver, or /dev no node for its control.
    NoDriver(Error),
    /// The kernel has a free device, but /dev has no node for it.
    NoNode(Error),
    /// A system call failed.
    Failed(Error),
}

impl LoopDevice {
    /// Attaches `size` bytes of `image` from `offset` on, both in bytes.
    ///
    /// Another process may take a free device between the query and the attachment: then the next one is tried.
    pub fn attach(image: impl AsFd, offset: u64, size: u64) -> std::result::Result<Self, LoopError> {
        let image = image.as_fd();
        Self::attach_by(|device| configure_loop(device, image, offset, size))
    }

    /// Takes a free device; `configure` calls [`configure_loop`] on it, in this process or in another one.
    pub fn attach_by(configure: impl Fn(BorrowedFd<'_>) -> Result<()>) -> std::result::Result<Self, LoopError> {
        let control = open("/dev/loop-control".into()).map_err(|error| match error.errno() {
            Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => LoopError::NoDriver(error),
            _ => LoopError::Failed(error),
        })?;
        let mut last = None;
        for _ in 0..TRIES {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns a number or -1.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            let number = check(number.into(), || "ioctl(/dev/loop-control, LOOP_CTL_GET_FREE)".into());
            let number = number.map_err(LoopError::Failed)?;
            let device = PathBuf::from(format!("/dev/loop{number}"));
            let file = match open(device) {
                Ok(file) => file,
                // The node appears a moment after the device where udev makes it; a device that is going away
                // answers ENXIO.
                Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENXIO | Errno::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    last = Some(LoopError::NoNode(error));
                    continue;
                }
                Err(error) => return Err(LoopError::Failed(error)),
            };
            match configure(file.as_fd()) {
                Ok(()) => return Ok(Self { file }),
                Err(error) if matches!(error.errno(), Errno::EBUSY | Errno::EAGAIN | Errno::ENXIO) => {
                    last = Some(LoopError::Failed(error))
                }
                Err(error) => return Err(LoopError::Failed(error)),
            }
        }
        Err(last.unwrap_or_else(|| LoopError::Failed(Error::new("ioctl(LOOP_CONFIGURE)", Errno::EBUSY))))
    }

    /// Returns a path for the kernel's mount code that names this very device.
    pub fn source(&self) -> String {
        format!("/proc/self/fd/{}", self.file.as_raw_fd())
    }
}

/// Attaches `size` bytes of `image` from `offset` on to a loop device that is open for reading (loop(4),
/// LOOP_CONFIGURE). EBUSY if another process has taken the device.
pub fn configure_loop(device: BorrowedFd<'_>, image: BorrowedFd<'_>, offset: u64, size: u64) -> Result<()> {
    let config = LoopConfig {
        fd: image.as_raw_fd().cast_unsigned(),
        block_size: 0,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset,
            sizelimit: size,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            // For losetup only, and limited to 64 bytes: sysfs has the whole path.
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one loop_config, which `config` is and which outlives the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    check(result.into(), || {
        format!("ioctl({}, LOOP_CONFIGURE, {} offset={offset} size={size})", show(device), show(image))
    })?;
    Ok(())
}

fn open(path: PathBuf) -> Result<File> {
    File::open(&path).map_err(|cause| Error::from_io(format!("open({path:?})"), &cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
