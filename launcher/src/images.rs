//! The commands that make images and look at them: another program does that.
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use coracle::report::{Kind, Refusal};
use coracle_orders::Order;

use crate::place;

/// Becomes the program that carries out `order`; comes back only with a refusal.
pub fn hand_over(order: &Order) -> Result<ExitCode, Refusal> {
    let program = place::images();
    let refuse = |kind, cause: String| Refusal::new(kind, program.display().to_string(), cause);
    let text = order.to_json().map_err(|error| refuse(Kind::Internal, error.to_string()))?;
    let error = Command::new(&program).arg(text).exec();
    Err(refuse(Kind::System, error.to_string()).hint("it is installed with coracle: make install"))
}
