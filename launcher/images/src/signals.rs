//! Blocks signals until temporary files and settings are cleaned up.
#![forbid(unsafe_code)]

use coracle::report::{Kind, Refusal};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// Signals with which users end programs.
pub const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Signals that end programs, blocked until this is dropped.
pub struct HeldSignals {
    set: SigSet,
    before: SigSet,
    line: SignalFd,
}

impl HeldSignals {
    /// Blocks the signals.
    pub fn new() -> Result<Self, Refusal> {
        let failed = |errno: nix::errno::Errno| Refusal::new(Kind::System, "signals", errno.desc());
        let set: SigSet = ENDING.into_iter().collect();
        let before = SigSet::thread_get_mask().map_err(failed)?;
        set.thread_block().map_err(failed)?;
        let line = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
        Ok(Self { set, before, line })
    }

    /// True if a signal is pending.
    pub fn pending(&self) -> bool {
        let mut one = [PollFd::new(self.line.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut one, PollTimeout::ZERO), Ok(count) if count > 0)
    }

    /// Descriptor that is readable when a signal is pending.
    pub fn line(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }

    /// Unblocks the signals: pending ones take effect.
    pub fn give_in(&self) {
        let _ = self.set.thread_unblock();
    }
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}
