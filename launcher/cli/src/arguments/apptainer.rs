//! Names replacements for options of Apptainer's exec, run and shell that Coracle does not have.
#![forbid(unsafe_code)]

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Options, and what to use instead.
const INSTEAD: &[(&[&str], &str)] = &[
    (
        &["--contain", "-c", "--containall", "-C"],
        "not needed in part: --no-home hides your home, --clean-env the variables; /tmp and processes are shared",
    ),
    (&["--overlay", "-o"], "--overlay=DIR takes a directory of yours"),
    (&["--no-mount"], "not there: --no-home hides your home; what else is shown is the site's choice"),
    (&["--no-eval", "--no-init", "--no-https", "--nohttps", "--no-umask"], "not needed: leave it out"),
    (&["--fakeroot", "-f", "--userns", "-u"], "not needed: containers run in a user namespace, as you"),
    (&["--pid", "-p", "--no-pid", "--ipc", "-i", "--uts", "--sharens"], "not there: processes and IPC are the node's"),
    (&["--net", "-n", "--network", "--network-args", "--dns", "--hostname"], "not there: the network is the node's"),
    (&["--scratch", "-S"], "--bind=tmpfs:DST[:SIZE] is an empty directory in memory"),
    (&["-W"], "--bind=tmpfs:/tmp gives a /tmp of its own"),
    (&["--fusemount"], "not there: mount it on the node and use --bind"),
    (&["--nvccli"], "not needed: --gpu=auto shows the GPUs and their driver"),
    (
        &["--security", "--add-caps", "--drop-caps", "--allow-setuid", "--keep-privs", "--no-privs"],
        "not there: containers have no more rights than you",
    ),
    (&["--app"], "not there: run the program of the app by its path below /scif/apps"),
    (&["--env-file"], "--env=NAME=VALUE sets a variable, and may be repeated"),
    (
        &["--docker-login", "--authfile", "--disable-cache"],
        "coracle pull fetches an image and reads the logins of docker and podman",
    ),
    (
        &["--cpus", "--cpuset-cpus", "--memory", "--memory-swap", "--pids-limit", "--apply-cgroups"],
        "not there: Slurm limits what a job uses",
    ),
    (&["--compat"], "--no-home --clean-env --writable is the nearest"),
];

/// Error with the replacement of an Apptainer option, instead of clap's tip about a similar option.
pub fn explained(mut error: Error) -> Error {
    if error.kind() != ErrorKind::UnknownArgument {
        return error;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return error };
    let name = given.split('=').next().unwrap_or(given).to_owned();
    let Some((_, instead)) = INSTEAD.iter().find(|(names, _)| names.contains(&name.as_str())) else { return error };
    error.remove(ContextKind::SuggestedArg);
    error.remove(ContextKind::TrailingArg);
    let tip = format!("{name} is an option of Apptainer; {instead}");
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    error
}
