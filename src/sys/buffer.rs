//! Holds memory for a message.

use std::ptr::NonNull;

use super::{Error, Result};

/// Memory whose pages exist once they are written to (mmap(2), MAP_ANONYMOUS). Most messages fill a fraction of it, and
/// the allocator would zero all of it.
#[derive(Debug)]
pub(super) struct Buffer<const LENGTH: usize> {
    start: NonNull<u8>,
}

// SAFETY: the mapping belongs to this value alone.
unsafe impl<const LENGTH: usize> Send for Buffer<LENGTH> {}

impl<const LENGTH: usize> Buffer<LENGTH> {
    /// Makes one of `LENGTH` zeros.
    pub(super) fn new() -> Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that is in use.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, access, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start }),
            _ => Err(Error::last("mmap(MAP_ANONYMOUS)")),
        }
    }

    /// All of it.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has LENGTH initialized bytes, and is reached through this value alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), LENGTH) }
    }
}

impl<const LENGTH: usize> Drop for Buffer<LENGTH> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and no reference into it outlives the value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_zero_at_first_and_keeps_what_is_written() {
        let mut buffer = Buffer::<10_000>::new().unwrap();
        assert!(buffer.bytes().len() == 10_000 && buffer.bytes().iter().all(|byte| *byte == 0));
        buffer.bytes()[9_999] = 7;
        assert_eq!(buffer.bytes().last(), Some(&7));
    }
}
