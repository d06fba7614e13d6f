//! `coracle-launcher`: builds the containers of steps. Slurm's plugin starts it: in slurmstepd as root, in srun as the user.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use coracle_launcher::{container, place, step};

/// The command line makes no sense.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == "prepare" => step::main(arguments),
        Some(first) if first == "facts" => container::job_facts::main(arguments),
        Some(first) if first == "epilog" => step::epilog::main(arguments),
        // On the submit host, as the user: the image of a registry is fetched before the job is submitted.
        Some(first) if first == "pull" => hand_over(first, arguments),
        _ => {
            eprintln!("coracle-launcher: Slurm's plugin starts this program; coracle is the command for people");
            ExitCode::from(WRONG)
        }
    }
}

/// Becomes the command that fetches images.
fn hand_over(first: OsString, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let program = place::command();
    let error = Command::new(&program).arg(first).args(arguments).exec();
    eprintln!("coracle-launcher: {}: {error}", program.display());
    ExitCode::FAILURE
}
