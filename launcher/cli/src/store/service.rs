//! Runs `coracle store-service`: takes images from users and keeps them, under an account of its own.
//!
//! systemd starts it when a process connects to its socket (packaging/), or an administrator by hand. The kernel names
//! the caller (SO_PEERCRED). The image comes as a descriptor that the caller opened. Each caller has a process of its
//! own, so that no caller waits for another one's file system.
#![forbid(unsafe_code)]

use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Channel, Child, Identity, Listener};
use coracle_launcher::config::{Config, Owner};
use coracle_launcher::store::Reply;
use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::User;

use super::admit;
use super::say;
use crate::arguments::Service;

/// Highest number of callers at a time: of one user, and of all.
const CALLERS_OF_ONE: usize = 128;
const CALLERS: usize = 1024;
/// Time between checks for ended processes.
const LOOK: Duration = Duration::from_millis(500);
/// Idle time after which a service that systemd started ends; systemd starts it again for the next caller.
const IDLE: Duration = Duration::from_secs(60);

/// Serves until a signal ends it. If systemd started it, it also ends when it is idle.
pub fn main(given: &Service) -> Result<ExitCode, Refusal> {
    let failed = |error: sys::Error| Refusal::system("store-service", &error);
    let config = Config::load(&given.config)?;
    let passed = Listener::passed().map_err(failed)?;
    let by_hand = passed.is_none();
    let account = account(&config.store.owner)?;
    let listener = match (passed, &given.socket) {
        (Some(listener), _) => listener,
        (None, Some(path)) => listen(path)?,
        (None, None) => {
            return Err(Refusal::new(Kind::Usage, "store-service", "systemd has passed no socket")
                .hint("systemctl start coracle-store.socket, or give --socket PATH"));
        }
    };
    become_the_account(&account)?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o077));
    nix::unistd::chdir("/").map_err(|errno| failed(sys::Error::new("chdir(\"/\")", errno)))?;
    let mut callers: Vec<(u32, Child)> = Vec::new();
    let mut last = Instant::now();
    loop {
        callers = callers.into_iter().filter_map(|(uid, child)| Some((uid, child.still_running()?))).collect();
        if !callers.is_empty() {
            last = Instant::now();
        }
        let caller = match listener.accept(Instant::now() + LOOK) {
            Ok(caller) => caller,
            Err(error) if error.errno() == Errno::ETIMEDOUT && !by_hand && last.elapsed() > IDLE => {
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) if error.errno() == Errno::ETIMEDOUT => continue,
            Err(error) => return Err(failed(error)),
        };
        let Ok((uid, gid)) = caller.peer() else { continue };
        let of_one = callers.iter().filter(|(other, _)| *other == uid).count();
        if of_one >= CALLERS_OF_ONE || callers.len() >= CALLERS {
            let refusal =
                Refusal::new(Kind::Store, "the store", "too many are using it, or as many as you may; try again later");
            let _ = say(&caller, &Reply::from(refusal));
            continue;
        }
        // Settings are read anew for each caller, as for each step.
        let child = sys::fork(|| {
            drop(sys::die_with_parent());
            admit::serve(&caller, uid, gid, &given.config);
            0
        });
        match child {
            Ok(child) => callers.push((uid, child)),
            Err(error) => drop(say(&caller, &Reply::from(Refusal::system("the store", &error)))),
        }
    }
}

/// Listens at `path`; every user may connect.
fn listen(path: &Path) -> Result<Listener, Refusal> {
    let failed = |error: sys::Error| Refusal::system(path.display().to_string(), &error);
    // Socket of a killed service. A service that runs accepts the connection.
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    if is_socket && matches!(Channel::connect(path), Err(error) if error.errno() == Errno::ECONNREFUSED) {
        let _ = std::fs::remove_file(path);
    }
    nix::sys::stat::umask(Mode::from_bits_truncate(0o111));
    Listener::bind(path).map_err(failed)
}

/// Account of the store. Root can become it; another user must be it already, or no image would be trusted.
fn account(owner: &Owner) -> Result<User, Refusal> {
    let user = match owner {
        Owner::Number(uid) => User::from_uid((*uid).into()),
        Owner::Name(name) => User::from_name(name),
    };
    let user = user.ok().flatten().ok_or_else(|| {
        Refusal::new(
            Kind::Config,
            owner.to_string(),
            "the store's account (store.owner of coracle.yaml) does not exist",
        )
        .hint("systemd-sysusers makes it from sysusers.d/coracle.conf; by hand: useradd --system coracle")
    })?;
    if user.uid.is_root() {
        return Err(Refusal::new(Kind::Config, "store.owner", "the store's account must not be root"));
    }
    let us = nix::unistd::geteuid();
    if us != user.uid && !us.is_root() {
        return Err(Refusal::new(
            Kind::Usage,
            "store-service",
            format!("must run as {}, or be started by root", user.name),
        ));
    }
    Ok(user)
}

fn become_the_account(user: &User) -> Result<(), Refusal> {
    let failed = |error: sys::Error| Refusal::system("store-service", &error);
    // A process that has this account already keeps the capabilities that its unit left: CAP_CHOWN, for file systems
    // without access control lists.
    if nix::unistd::geteuid().is_root() {
        let identity = Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups: vec![user.gid.as_raw()] };
        sys::become_user(&identity).map_err(failed)?;
    }
    sys::set_no_new_privileges().map_err(failed)
}
