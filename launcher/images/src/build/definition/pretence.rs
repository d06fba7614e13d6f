//! Installs a seccomp filter that lets package managers work in a user namespace with root as its only user: subuid(5)
//! gave the user no other ids.
//!
//! There, the calls that give files to other users, become other users, and make device nodes fail, and package
//! managers with them. With the filter these calls succeed without effect: root owns all files and processes.
//! Charliecloud and others do the same. Programs for another architecture, such as 32 bits, are killed: their calls
//! have other numbers.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use coracle::sys;
use nix::errno::Errno;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule,
};

const NOTHING: &[libc::c_long] = &[
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
];
/// Newer architectures have only the calls that take a directory.
#[cfg(target_arch = "x86_64")]
const OLD_NOTHING: &[libc::c_long] = &[libc::SYS_chown, libc::SYS_lchown];
#[cfg(not(target_arch = "x86_64"))]
const OLD_NOTHING: &[libc::c_long] = &[];

/// Calls that make device nodes, and the number of their mode argument.
#[cfg(target_arch = "x86_64")]
const MAKING: &[(libc::c_long, u8)] = &[(libc::SYS_mknodat, 2), (libc::SYS_mknod, 1)];
#[cfg(not(target_arch = "x86_64"))]
const MAKING: &[(libc::c_long, u8)] = &[(libc::SYS_mknodat, 2)];

/// Installs the filter for this process and its descendants. It cannot be removed.
pub fn install() -> sys::Result<()> {
    let filter = filter().map_err(|_| sys::Error::new("seccomp filter", Errno::EINVAL))?;
    seccompiler::apply_filter(&filter).map_err(|_| sys::Error::new("seccomp(SECCOMP_SET_MODE_FILTER)", Errno::last()))
}

fn filter() -> Result<BpfProgram, seccompiler::Error> {
    let machine = std::env::consts::ARCH.try_into()?;
    let mut rules: BTreeMap<i64, Vec<Rule>> =
        NOTHING.iter().chain(OLD_NOTHING).map(|call| (*call, Vec::new())).collect();
    for (call, mode) in MAKING {
        let makes = |kind: libc::mode_t| {
            let is = Compare::MaskedEq(libc::S_IFMT.into());
            Rule::new(vec![Condition::new(*mode, Length::Dword, is, kind.into())?])
        };
        rules.insert(*call, vec![makes(libc::S_IFCHR)?, makes(libc::S_IFBLK)?]);
    }
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(0), machine)?.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_given_away_and_devices_made_are_neither() {
        let directory = tempfile::tempdir().unwrap();
        let script =
            "chown 12345:12345 . && chgrp 54321 . && mknod null c 1 3 && [ ! -e null ] && mkfifo pipe && [ -p pipe ]";
        // In a child process: the filter stays installed.
        let (path, mut command) = (directory.path().to_owned(), std::process::Command::new("/bin/sh"));
        let status = std::thread::spawn(move || {
            install().unwrap();
            command.args(["-c", script]).current_dir(path).status().unwrap()
        });
        assert!(status.join().unwrap().success());
    }
}
