//! Wraps system calls: the only module of the library with `unsafe`.
//!
//! File descriptors are borrowed as arguments and owned as results. An error prints like a line of strace:
//! `move_mount(7</img>, 9</proc>): EINVAL: Invalid argument`. That text is all that an administrator can send from a
//! machine to which the developers have no access.

mod acl;
mod bpf;
mod buffer;
mod cgroup;
mod devcgroup;
mod environ;
mod fuse;
mod idmap;
mod listener;
mod loopdev;
mod memory;
mod mount;
mod ns;
mod output;
mod path;
mod preamble;
mod privilege;
mod process;
mod release;
mod seccomp;
mod shared;
mod socket;
mod state;
pub mod verity;
#[cfg(feature = "spank")]
#[allow(missing_docs, non_camel_case_types, non_upper_case_globals, clippy::undocumented_unsafe_blocks)]
pub mod spank {
    //! Slurm's SPANK interface as bindgen reads it from `slurm/spank.h`.
    include!(concat!(env!("OUT_DIR"), "/spank.rs"));
}

pub use acl::share_with;
pub use bpf::{DeviceRule, MAX_DEVICE_RULES, allow_devices, has_device_rules};
pub use cgroup::{Cgroups, OWN_GROUPS, enter_with_one_thread, own_group};
pub use devcgroup::{CgroupVersion, DeviceGroups};
pub use environ::{get_env, is_of_start, set_env, unset_env};
pub use fuse::{CachedStat, FuseControl, FuseDevice};
pub use idmap::OwnerMap;
pub use listener::Listener;
pub use loopdev::{LOOP_CONFIGURE, LoopDevice, LoopError, configure_loop};
pub use memory::{MemoryDraft, memory_file, read_whole};
pub use mount::{
    Attributes, FsContext, MountPropagation, clone_tree, detach_old_root, make_private, move_mount, pivot_to,
    set_attributes,
};
pub use ns::{
    MountNamespace, enter_mount_namespace, enter_user_namespace, in_first_user_namespace, unshare_mount_namespace,
};
pub use output::output_of;
pub use path::{
    Lookup, fd_path, hint_beneath, may_open, open_again, open_beneath, open_in_root, open_untrusted, read_link_at,
};
pub use preamble::{Ids, Preamble};
pub use privilege::{
    Identity, become_user, drop_capabilities, give_up_capabilities, keep_capabilities, limit, set_no_new_privileges,
    set_undumpable, with_fs_identity, with_overlay_rights,
};
pub use process::{
    CHANNEL, Child, Forked, close_others, die_with_parent, fork, fork_alone, fork_in_pid_namespace, fork_into,
    ignore_signals, process_handle, reset_signals, restore_default_sigpipe, spawn_detached, spawn_reparented,
    unblock_sigchld, while_cancellable,
};
pub use release::{Release, release, symbol, tested};
pub use seccomp::{Argument, Call, Filter};
pub use shared::SharedFlags;
pub use socket::{Channel, Packet, Received};
pub use state::FileState;

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// A system call that failed: its name, its arguments, and the kernel's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    call: String,
    errno: Errno,
}

impl Error {
    /// Records `call`, as strace would print it, with its errno.
    pub fn new(call: impl Into<String>, errno: Errno) -> Self {
        Self { call: call.into(), errno }
    }

    /// Converts a failure of the standard library; EIO where it has no number.
    pub fn from_io(call: impl Into<String>, cause: &std::io::Error) -> Self {
        Self::new(call, Errno::from_raw(cause.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// The current `errno` of this thread, for `call`.
    fn last(call: impl Into<String>) -> Self {
        Self::new(call, Errno::last())
    }

    /// The kernel's answer.
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {:?}: {}", self.call, self.errno, self.errno.desc())
    }
}

impl std::error::Error for Error {}

/// Result of every call of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Turns the `-1` of a raw call into an [`Error`]; `call` is only evaluated then.
fn check(result: libc::c_long, call: impl FnOnce() -> String) -> Result<libc::c_long> {
    if result < 0 { Err(Error::last(call())) } else { Ok(result) }
}

/// `7</run/img>`: a descriptor as strace -y shows it.
fn show(fd: impl AsFd) -> String {
    let fd = fd.as_fd();
    match path::fd_path(fd) {
        Ok(path) => format!("{}<{}>", fd.as_raw_fd(), path.display()),
        Err(_) => fd.as_raw_fd().to_string(),
    }
}
