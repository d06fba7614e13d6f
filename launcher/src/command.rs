//! The command line that people type.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exec;

/// Coracle refused or failed, as docker and podman have it.
pub const REFUSED: u8 = 125;

/// Run Slurm jobs inside containers
///
/// Jobs need no command of this program: srun --container=IMAGE and sbatch --container=IMAGE do it all.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, arg_required_else_help = true)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a command inside an image, without Slurm: the same path that a job takes (root only)
    Exec(Exec),
}

/// What `coracle exec` was given.
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Make SRC visible as DST, as --container-bind of srun does
    #[arg(short = 'B', long = "bind", value_name = "SRC[:DST[:ro|rw]][,...]")]
    pub binds: Vec<OsString>,
    /// Run only if this is the SHA-256 of the image file
    #[arg(long, value_name = "sha256:HEX")]
    pub digest: Option<OsString>,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = coracle::config::PATH)]
    pub config: PathBuf,
    /// Open the image and run the command as this user, with the user's groups (default: root)
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Print the plan and run nothing
    #[arg(long)]
    pub plan: bool,
    /// The image: a SIF or squashfs file
    pub image: OsString,
    /// The command, looked up in the image
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// The whole command line, to make its manual from.
#[cfg(feature = "manual")]
pub fn tree() -> clap::Command {
    <Command as clap::CommandFactory>::command()
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    match Command::try_parse() {
        Ok(Command { verb: Verb::Exec(exec) }) => exec::main(&exec),
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let _ = error.print();
            let usage = if std::env::args_os().nth(1).is_some_and(|verb| verb == "exec") { REFUSED } else { 2 };
            if error.use_stderr() { ExitCode::from(usage) } else { ExitCode::SUCCESS }
        }
    }
}
