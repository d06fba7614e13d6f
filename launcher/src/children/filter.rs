//! System calls of a process that reads files, and looks up names, with the rights of the user.
//!
//! The list is wide, because name services (NSS) load libraries of the site into the process: they read files, map
//! caches of other processes, talk to daemons over sockets and to directory servers over the network, and may start a
//! thread. The process executes nothing, starts no other process, sends no signal to one and inspects none; it makes no
//! namespace and no mount; it removes and renames no file, and changes no modes, owners, ids or capabilities. Nor does
//! it reach the large parts of the kernel that it has no use for: bpf, io_uring, perf events, keys, userfaultfd,
//! modules.
//!
//! openat2(2) is allowed with any flags: they are in memory, which a filter does not see. So the process can make an
//! empty file, and empty one. A write of data to a file fails in the opener, whose RLIMIT_FSIZE is 0, and behind 4 MiB
//! in the others. A task of the same user can do the same.
//!
//! A refused call fails and does not kill. NSS libraries try calls that they can do without (a second protocol, a
//! cache), and a site's library must not turn each start of a step into a crash.
#![forbid(unsafe_code)]

use coracle::sys::{self, Argument, Call, Filter};
use nix::libc::{self, c_long};

/// Calls with any arguments.
const ANY: &[c_long] = &[
    libc::SYS_ppoll,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_close,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_brk,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_lseek,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    // Files.
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_close_range,
    libc::SYS_pipe2,
    libc::SYS_fadvise64,
    libc::SYS_umask,
    // Waiting.
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    libc::SYS_restart_syscall,
    // Sockets; see `CONDITIONS` for their families.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Memory and threads.
    libc::SYS_mincore,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_membarrier,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_getcpu,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Signals to itself.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigsuspend,
    libc::SYS_sigaltstack,
    // Facts about the process and the node.
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// Calls that newer architectures do not have: their C library makes the others.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_poll,
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents,
    libc::SYS_select,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_signalfd,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_time,
    libc::SYS_alarm,
    libc::SYS_getpgrp,
    libc::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

/// Bits of clone(2) that make a thread, and those that make namespaces.
const THREAD: u64 = 0x0001_0000;
const NAMESPACES: u64 = 0x7e02_0080;

/// Calls that are allowed for some values of an argument.
const CONDITIONS: &[(c_long, u8, &[u64])] = &[
    (libc::SYS_socket, 0, &FAMILIES),
    (libc::SYS_socketpair, 0, &[libc::AF_UNIX as u64]),
    (libc::SYS_ioctl, 1, &IOCTLS),
    (libc::SYS_prctl, 0, &PRCTLS),
    (libc::SYS_fcntl, 1, &FCNTLS),
];
/// Copies of descriptors, their flags, and locks. F_SETOWN and F_SETSIG would have the kernel send a signal to another
/// process.
const FCNTLS: [u64; 13] = [
    libc::F_DUPFD as u64,
    libc::F_DUPFD_CLOEXEC as u64,
    libc::F_GETFD as u64,
    libc::F_SETFD as u64,
    libc::F_GETFL as u64,
    libc::F_SETFL as u64,
    libc::F_GETLK as u64,
    libc::F_SETLK as u64,
    libc::F_SETLKW as u64,
    libc::F_OFD_GETLK as u64,
    libc::F_OFD_SETLK as u64,
    libc::F_OFD_SETLKW as u64,
    libc::F_GET_SEALS as u64,
];
/// Sockets of daemons (nscd, sssd, nslcd, systemd-userdbd), of directory servers, and of the resolver of host names,
/// which asks the kernel for its addresses.
const FAMILIES: [u64; 4] = [libc::AF_UNIX as u64, libc::AF_INET as u64, libc::AF_INET6 as u64, libc::AF_NETLINK as u64];
/// Attaching an image; questions of isatty(3) and of network libraries about their own descriptors and the node's
/// interfaces.
const IOCTLS: [u64; 9] = [
    sys::LOOP_CONFIGURE,
    libc::TCGETS,
    libc::FIONREAD,
    libc::FIONBIO,
    libc::FIOCLEX,
    libc::SIOCGIFCONF,
    libc::SIOCGIFADDR,
    libc::SIOCGIFFLAGS,
    libc::SIOCGIFINDEX,
];
/// Name of a thread, names of its memory, and what the initialization of libcap reads.
const PRCTLS: [u64; 5] = [
    libc::PR_SET_NAME as u64,
    libc::PR_GET_NAME as u64,
    libc::PR_SET_VMA as u64,
    libc::PR_CAPBSET_READ as u64,
    libc::PR_GET_SECUREBITS as u64,
];

/// Filter for a process that only reads: the opener, and the processes in a container that execute nothing.
pub(super) fn of_reader() -> sys::Result<Filter> {
    let mut calls: Vec<Call<'_>> = Vec::with_capacity(ANY.len() + OLD.len() + 16);
    calls.extend(ANY.iter().chain(OLD).map(|call| Call::Any(*call)));
    let low = u64::from(u32::MAX);
    let conditions: Vec<(c_long, Vec<Argument>)> = CONDITIONS
        .iter()
        .map(|(call, index, values)| {
            (*call, values.iter().map(|value| Argument { index: *index, mask: low, value: *value }).collect())
        })
        .collect();
    calls.extend(conditions.iter().map(|(call, arguments)| Call::With(*call, arguments)));
    // A thread, not a process. The flags of clone3(2) are in memory: after ENOSYS the C library calls clone(2).
    let thread = [Argument { index: 0, mask: THREAD | NAMESPACES, value: THREAD }];
    calls.extend([Call::With(libc::SYS_clone, &thread), Call::Absent(libc::SYS_clone3)]);
    // Reads limits; a new limit (the third argument) may be that of another process.
    let reads = [Argument { index: 2, mask: u64::MAX, value: 0 }];
    calls.push(Call::With(libc::SYS_prlimit64, &reads));
    // raise(3) and abort(3): to this process only.
    let own = [Argument { index: 0, mask: low, value: u64::from(std::process::id()) }];
    calls.push(Call::With(libc::SYS_tgkill, &own));
    Filter::new(&calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls that no reader may ever have, beside those that the tests of attacks make.
    const NEVER: &[c_long] = &[
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_send_signal,
        libc::SYS_process_madvise,
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_mount_setattr,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_clone3,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_userfaultfd,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_open_by_handle_at,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setgroups,
        libc::SYS_capset,
        libc::SYS_fchmod,
        libc::SYS_fchownat,
        libc::SYS_unlinkat,
        libc::SYS_renameat2,
        libc::SYS_linkat,
        libc::SYS_mkdirat,
        libc::SYS_mknodat,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
        libc::SYS_setxattr,
        libc::SYS_utimensat,
        libc::SYS_quotactl,
        libc::SYS_seccomp,
        libc::SYS_setrlimit,
        libc::SYS_personality,
    ];

    #[test]
    fn the_list_has_no_call_that_leads_out_of_the_process() {
        let listed = |call: &c_long| {
            ANY.contains(call) || OLD.contains(call) || CONDITIONS.iter().any(|(other, ..)| call == other)
        };
        let wrong: Vec<_> = NEVER.iter().filter(|call| listed(call)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(listed(&libc::SYS_openat2));
    }

    #[test]
    fn no_descriptor_sends_a_signal_to_another_process() {
        let fcntl = CONDITIONS.iter().find(|(call, ..)| *call == libc::SYS_fcntl).unwrap();
        // F_SETOWN, F_SETSIG and F_SETOWN_EX (fcntl(2)).
        assert_eq!((fcntl.1, [8, 10, 15].iter().any(|command| fcntl.2.contains(command))), (1, false));
        assert!(!ANY.contains(&libc::SYS_fcntl) && !IOCTLS.contains(&0x8901), "FIOSETOWN is an ioctl");
    }
}
