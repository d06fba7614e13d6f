//! Runs `coracle-images`: makes, shows and signs images, with the privileges of the user who calls it.
//!
//! `coracle` starts it with an [`Order`] as its only argument. All code that reads networks, archives and compressed
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
use coracle_orders::Order;

fn main() -> ExitCode {
    order().and_then(|order| carry_out(&order)).unwrap_or_else(|refusal| {
        eprintln!("{refusal}");
        ExitCode::from(output::exit_status(&refusal))
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

fn carry_out(order: &Order) -> Result<ExitCode, Refusal> {
    match order {
        Order::Build(given) => build::command::main(given),
        Order::Pull(given) => build::pull::main(given),
        Order::Resolve(given) => build::pull::resolve(given),
        Order::Inspect(given) => show::inspect::main(given),
        Order::Sif(given) => show::parts::main(given),
        Order::Sign(given) => sign::main(given),
    }
}
