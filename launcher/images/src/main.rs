//! Runs `coracle-images`: makes, shows and signs images, with the privileges of the user who calls it.
//!
//! `coracle` starts it with an [`Order`] as its only argument.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use coracle::report::{Kind, Refusal};
use coracle_images::{carry_out, exit_status};
use coracle_orders::Order;

fn main() -> ExitCode {
    order().and_then(|order| carry_out(&order)).unwrap_or_else(|refusal| {
        eprintln!("{refusal}");
        ExitCode::from(exit_status(&refusal))
    })
}

fn order() -> Result<Order, Refusal> {
    let refuse =
        |cause: String| Refusal::new(Kind::Usage, "coracle-images", cause).hint("coracle help lists what there is");
    let mut arguments = std::env::args().skip(1);
    let (Some(text), None) = (arguments.next(), arguments.next()) else {
        return Err(refuse("coracle starts this program; people start coracle".into()));
    };
    Order::from_json(&text).map_err(|error| refuse(format!("not an order: {error}")))
}
