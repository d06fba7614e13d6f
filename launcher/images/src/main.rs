//! Runs `coracle-images`. `coracle` executes it with the words of the user ([`CommandLine`]).
#![forbid(unsafe_code)]

use std::process::ExitCode;

use coracle::report::{Kind, Refusal};
use coracle_images::{carry_out, exit_status};
use coracle_orders::CommandLine;

fn main() -> ExitCode {
    read().and_then(|given| carry_out(&given)).unwrap_or_else(|refusal| {
        eprintln!("{refusal}");
        ExitCode::from(exit_status(&refusal))
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
