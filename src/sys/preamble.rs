//! Gives up the rights of a child process, in one order for all of them.

use std::os::fd::BorrowedFd;

use nix::sys::resource::Resource;

use super::seccomp::Filter;
use super::{
    Forked, Identity, Result, become_user, close_others, die_with_parent, drop_capabilities, give_up_capabilities,
    limit, set_no_new_privileges, set_undumpable,
};

/// Ids of a child process.
#[derive(Debug, Clone, Copy, Default)]
pub enum Ids<'a> {
    /// Those of the parent process, with its capabilities.
    #[default]
    Kept,
    /// Those of the parent process, without a capability.
    Powerless,
    /// Those of a user, for good.
    Of(&'a Identity),
}

/// First work of a child process: it gives up all that its task does not need.
///
/// Work that needs the rights of the parent process comes before it: a control group, a mount namespace. The steps of
/// [`Preamble::enter`] have the only order in which each of them works and none undoes another one:
///
/// 1. *Descriptors.* No process of a user ever holds a descriptor of root that is not meant for it.
/// 2. *no_new_privs.* Before the ids, so that no process of the user exists without it. A filter needs it.
/// 3. *Bounding, ambient and inheritable capabilities*, for a process that executes a program. Before the ids, because
///    it needs CAP_SETPCAP.
/// 4. *Ids and groups.* The permitted and effective capabilities go with them, except for root as the user.
/// 5. *Dumpable.* After the ids: the kernel resets it to fs.suid_dumpable when they change (PR_SET_DUMPABLE(2const)).
/// 6. *Parent-death signal.* After the ids: the kernel clears it when they change (PR_SET_PDEATHSIG(2const)). A parent
///    process that has ended before sends none; its channel is closed then, and that ends the child process.
/// 7. *Limits.* After the ids: RLIMIT_NPROC counts the processes of the new user (getrlimit(2)), and a change of ids
///    beyond it is noted for the next execve. No capability is left to users that could raise a limit again.
/// 8. *Filter of system calls.* Last: it refuses the calls of the other steps. The opener and the process that parses
///    signatures install theirs themselves, behind this.
#[derive(Debug, Default)]
pub struct Preamble<'a> {
    /// Descriptors that stay open beside the standard streams; `None` keeps all, for a process whose own program needs
    /// them up to execve(2): they are close-on-exec.
    pub kept: Option<&'a [BorrowedFd<'a>]>,
    /// True if the process executes a program. The capability sets of a process that does not are empty already, but for
    /// the bounding set, which acts in execve only.
    pub executes: bool,
    /// Ids from now on.
    pub ids: Ids<'a>,
    /// Resource limits; a lower limit stays.
    pub limits: &'a [(Resource, u64)],
    /// True for a process that stays when its parent process ends.
    pub outlives_parent: bool,
    /// System calls that remain; `None` leaves all. It stays across execve.
    pub filter: Option<&'a Filter>,
}

impl Preamble<'_> {
    /// Takes all steps. After an error, the process must do nothing but report it and end.
    pub fn enter(&self, forked: &Forked) -> Result<()> {
        if let Some(kept) = self.kept {
            close_others(forked, kept)?;
        }
        set_no_new_privileges()?;
        if self.executes {
            drop_capabilities()?;
        }
        match self.ids {
            Ids::Kept => {}
            Ids::Powerless => give_up_capabilities()?,
            Ids::Of(identity) => become_user(identity)?,
        }
        set_undumpable()?;
        if !self.outlives_parent {
            die_with_parent()?;
        }
        limit(self.limits)?;
        self.filter.map_or(Ok(()), Filter::install)
    }
}
