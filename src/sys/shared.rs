//! Shares a page between slurmstepd and the tasks that it forks.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Error, Result};

/// A few flags in memory that stays shared across fork(2) (mmap(2), MAP_SHARED|MAP_ANONYMOUS).
#[derive(Debug)]
pub struct SharedFlags {
    word: NonNull<AtomicU32>,
}

// SAFETY: the page is only reached through an atomic, and is never unmapped.
unsafe impl Send for SharedFlags {}

impl SharedFlags {
    /// Makes one page, all flags clear. It lives until the process ends.
    pub fn new() -> Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that is in use.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<AtomicU32>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        match NonNull::new(page.cast::<AtomicU32>()) {
            Some(word) if page != libc::MAP_FAILED => Ok(Self { word }),
            _ => Err(Error::last("mmap(MAP_SHARED|MAP_ANONYMOUS)")),
        }
    }

    /// Sets `flag`. True if a process had set it before.
    pub fn raise(&self, flag: u32) -> bool {
        self.word().fetch_or(flag, Ordering::SeqCst) & flag != 0
    }

    /// True if any process has raised `flag`.
    pub fn is_raised(&self, flag: u32) -> bool {
        self.word().load(Ordering::SeqCst) & flag != 0
    }

    fn word(&self) -> &AtomicU32 {
        // SAFETY: `word` points to a page of this process that is mapped for good, aligned, and zero at first,
        // which is a valid AtomicU32.
        unsafe { self.word.as_ref() }
    }
}
