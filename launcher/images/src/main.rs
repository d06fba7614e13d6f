//! Runs `coracle-images`: makes, shows and signs images, with the privileges of the user who calls it.
//!
//! `coracle` executes it with the words of the user ([`CommandLine`]). All code that reads networks, archives and compressed
//! streams is here, and not in the program that root starts for jobs.
//!
//! An image is made in a workshop: a child process that is root in a user namespace, if the kernel allows it. There one
//! of the [`sources`] becomes a root file system, which mksquashfs packs into a draft of a SIF ([`build`]). The file
//! gets its name only when it is complete.
#![forbid(unsafe_code)]

mod build;
mod output;
mod show;
mod sign;
mod signals;
mod sources;

use std::process::ExitCode;

use coracle::report::{Kind, Refusal};
use coracle_orders::{CommandLine, Order};

fn main() -> ExitCode {
    read().and_then(|given| carry_out(&given)).unwrap_or_else(|refusal| {
        eprintln!("{refusal}");
        ExitCode::from(output::exit_status(&refusal))
    })
}

fn read() -> Result<CommandLine, Refusal> {
    let words: Vec<_> = std::env::args_os().collect();
    CommandLine::read(&words).map_err(|error| {
        let said = error.to_string();
        let cause = match words.len() {
            0 | 1 => "coracle starts this program; people start coracle".into(),
            _ => format!("not an order: {}", said.lines().next().unwrap_or_default().trim_start_matches("error: ")),
        };
        Refusal::new(Kind::Usage, "coracle-images", cause).hint("coracle help lists what there is")
    })
}

fn carry_out(given: &CommandLine) -> Result<ExitCode, Refusal> {
    match &given.order {
        Order::Build(build) => build::command::main(build),
        Order::Pull(pull) if given.resolve => build::pull::resolve(pull),
        Order::Pull(pull) => build::pull::main(pull),
        Order::Inspect(inspect) => show::inspect::main(inspect),
        Order::Sif(sif) => show::parts::main(sif),
        Order::Sign(sign) => sign::main(sign),
    }
}
