//! Maps commands to the code that carries them out, and errors to exit statuses.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use coracle::report::Kind;
use coracle::sys;

use crate::arguments::{CommandLine, Settings, Verb};
use crate::attach;
use crate::config_check;
use crate::doctor;
use crate::exec;
use crate::explain;
use crate::images;
use crate::log;
use crate::store;
use crate::verify;

/// Status if Coracle refused or failed, as in docker and podman.
const REFUSED: u8 = 125;
/// Status if a command that manages something failed.
const BAD: u8 = 1;
/// Status of a wrong command line.
const WRONG: u8 = 2;
/// Commands that run a program: the status of a refusal must differ from that of the program.
const RUNNING: [&str; 4] = ["exec", "run", "shell", "explain"];

fn is_running(verb: &Verb) -> bool {
    matches!(verb, Verb::Exec(_) | Verb::Run(_) | Verb::Shell(_) | Verb::Explain(_))
}

/// True if users read the output page by page.
fn is_printing(verb: &Verb) -> bool {
    matches!(verb, Verb::Explain(_) | Verb::Doctor(_) | Verb::Ls(_) | Verb::Log(_) | Verb::Config(_))
}

/// Reads the command line and runs its command.
pub fn main() -> ExitCode {
    let (done, failure) = match CommandLine::read(std::env::args_os()) {
        Ok(CommandLine { verb, silence }) => {
            if is_printing(&verb) {
                // If that fails, a page that is not read to its end ends in the message of a panic.
                let _ = sys::restore_default_sigpipe();
            }
            (
                match &verb {
                    Verb::Exec(exec) if exec.job.is_some() => attach::main(exec),
                    Verb::Exec(exec) => exec::exec(exec),
                    Verb::Run(run) => exec::run(run),
                    Verb::Shell(shell) => exec::shell(shell),
                    Verb::Explain(explain) => explain::main(explain),
                    Verb::Doctor(doctor) => doctor::main(doctor),
                    Verb::Image(order) => images::main(order, silence.silent > 0),
                    Verb::Cp(copy) => store::cp(copy),
                    Verb::Ls(list) => store::ls(list),
                    Verb::Rm(remove) => store::rm(remove),
                    Verb::StoreService(service) => store::serve(service),
                    Verb::Verify(verify) => verify::main(verify),
                    Verb::Log(log) => log::main(log),
                    Verb::Config(Settings::Check(check)) => config_check::main(check),
                },
                if is_running(&verb) { REFUSED } else { BAD },
            )
        }
        Err(error) => {
            // Help and version go to standard output and are no error.
            let _ = error.print();
            let known = |word: OsString| RUNNING.iter().any(|verb| word == *verb);
            let verb = std::env::args_os().skip(1).find(|word| !word.to_string_lossy().starts_with('-'));
            let usage = if verb.is_some_and(known) { REFUSED } else { WRONG };
            return if error.use_stderr() { ExitCode::from(usage) } else { ExitCode::SUCCESS };
        }
    };
    done.unwrap_or_else(|refusal| {
        eprintln!("{refusal}");
        ExitCode::from(if refusal.kind == Kind::Usage && failure == BAD { WRONG } else { failure })
    })
}
