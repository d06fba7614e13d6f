//! `coracle exec`: the path that a job takes, without Slurm, for trying and debugging. Root only.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use coracle::config::Config;
use coracle::options::{Id, RawOptions, Spec};
use coracle::report::{Kind, Refusal};
use coracle::request::{Choice, Request, What};
use coracle::sys::{self, Identity};
use coracle::wire::Here;

use nix::sys::stat::Mode;

use crate::command::{Exec, REFUSED};
use crate::place;
use crate::proxy::Proxy;
use crate::stages::{Clock, Run};

/// The command was found but cannot be executed, as shells have it.
const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
const NOT_FOUND: u8 = 127;

/// What there is to do in a container that has been entered.
struct Inside {
    /// The command.
    words: Vec<OsString>,
    /// The home of the user that this process has become.
    home: Option<PathBuf>,
}

/// Becomes the command inside the image, so that signals, status and terminal are its own.
pub fn main(arguments: &Exec) -> ExitCode {
    match enter(arguments) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(Inside { words, home })) => {
            let mut command = Command::new(&words[0]);
            if let Some(home) = &home {
                command.env("HOME", home);
            }
            let cause = command.args(&words[1..]).exec();
            let missing = cause.kind() == std::io::ErrorKind::NotFound;
            let errno = nix::errno::Errno::from_raw(cause.raw_os_error().unwrap_or_default());
            let what = if missing { "no such command in the container" } else { errno.desc() };
            eprintln!("{}", Refusal::new(Kind::Usage, words[0].to_string_lossy(), what));
            ExitCode::from(if missing { NOT_FOUND } else { NOT_EXECUTABLE })
        }
        Err(refusal) => {
            eprintln!("{refusal}");
            ExitCode::from(REFUSED)
        }
    }
}

/// Enters the container; answers what to become, or nothing when only the plan was asked for.
fn enter(arguments: &Exec) -> Result<Option<Inside>, Refusal> {
    let usage = |object: &str, cause: &str| Refusal::new(Kind::Usage, object, cause);
    if !nix::unistd::geteuid().is_root() {
        return Err(usage("exec", "only root can do this").hint("in a job, use srun --container=IMAGE"));
    }
    let command = match arguments.command.as_slice() {
        [] if !arguments.plan => {
            return Err(usage("exec", "the command is missing").hint("coracle exec IMAGE COMMAND…"));
        }
        words => words.to_vec(),
    };
    let directory = std::env::current_dir().map_err(|cause| Refusal::new(Kind::Workdir, ".", cause.to_string()))?;
    let mut raw = RawOptions::default();
    let given = arguments.binds.iter().map(|bind| (Id::Bind, bind));
    for (id, value) in given.chain(arguments.digest.iter().map(|digest| (Id::Digest, digest))) {
        Spec::of(id).iter().for_each(|spec| raw.take(spec, value.clone()));
    }
    let Choice::Container(request) = Request::parse(&raw, &arguments.image, &directory)? else {
        return Err(usage("none", "there is no container to enter"));
    };
    let What::Image(image) = request.what else {
        return Err(usage("step", "only a job can join a step"));
    };
    let identity = identity_of(arguments.user.as_deref())?;
    let config = Config::load(&arguments.config)?;
    let deadline = Instant::now() + config.start_timeout.0;
    let settings = request.settings.or(config.options.0.clone());
    let clock = Clock::start();
    let (client, helper, files) = (None, place::helper(), Vec::new());
    let mut run = Run { image, settings, client, helper, files, environment: Vec::new(), config, identity, clock };
    let proxy = Proxy::start(&run.identity, deadline)?;
    let loaded = run.load(&proxy)?;
    let home: Option<PathBuf> = loaded.account.home.clone();
    let here = Here { directory: directory.clone(), pmix: None };
    let umask = nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let container = run.build(&proxy, &loaded, &here, None)?;
    nix::sys::stat::umask(umask);
    drop(proxy);
    if arguments.plan {
        print!("{}", container.plan);
        return Ok(None);
    }
    let system = |error: sys::Error| Refusal::system("entering the container", &error);
    sys::enter_mount_namespace(&container.namespace).map_err(system)?;
    nix::unistd::chdir(&directory)
        .map_err(|errno| Refusal::new(Kind::Workdir, directory.display().to_string(), errno.desc()))?;
    sys::set_no_new_privileges().map_err(system)?;
    sys::drop_capabilities().map_err(system)?;
    sys::become_user(&run.identity).map_err(system)?;
    Ok(Some(Inside { words: command, home: home.filter(|_| arguments.user.is_some()) }))
}

/// The ids of `user`, or this process' own.
fn identity_of(user: Option<&str>) -> Result<Identity, Refusal> {
    let Some(name) = user else {
        let groups = nix::unistd::getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect();
        return Ok(Identity { uid: 0, gid: nix::unistd::getgid().as_raw(), groups });
    };
    let unknown = || Refusal::new(Kind::Usage, name, "no such user");
    let user = nix::unistd::User::from_name(name).ok().flatten().ok_or_else(unknown)?;
    let text = CString::new(std::ffi::OsStr::new(name).as_bytes()).map_err(|_| unknown())?;
    let groups = nix::unistd::getgrouplist(&text, user.gid).map_err(|_| unknown())?;
    let groups = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
    Ok(Identity { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
}
