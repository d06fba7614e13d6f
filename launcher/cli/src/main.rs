//! Starts `coracle`: the command for users and workflow tools.
#![forbid(unsafe_code)]

mod arguments;
mod attach;
mod config_check;
mod dispatch;
mod doctor;
mod document;
mod exec;
mod explain;
mod images;
mod log;
#[cfg(feature = "manual")]
mod manual;
mod store;
mod verify;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Commands of the launcher that the plugin line of an older installation expects in this program.
const OF_THE_LAUNCHER: [&str; 3] = ["prepare", "facts", "epilog"];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if OF_THE_LAUNCHER.iter().any(|command| first == *command) => {
            let program = coracle_launcher::place::launcher();
            let error = Command::new(&program).arg(first).args(arguments).exec();
            eprintln!("coracle: {}: {error}", program.display());
            ExitCode::FAILURE
        }
        #[cfg(feature = "manual")]
        Some(first) if first == "manual" => manual::main(arguments),
        _ => dispatch::main(),
    }
}
