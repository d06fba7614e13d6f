//! `coracle-images`: makes images, as whoever asks for it.
//!
//! `coracle` starts it with an [`Order`] as its only argument. What takes networks, archives and compressed streams is
//! here, and not in the program that root starts for jobs.
//!
//! An image is made in a [`workshop`]: a process of its own that is root in a user namespace, if the kernel allows it.
//! There a [`source`] becomes a [`root`], which [`squashfs`] packs and [`sif`] writes into a [`draft`]; only what is
//! whole gets the name that was asked for.
#![forbid(unsafe_code)]

mod archive;
mod build;
mod conventions;
mod definition;
mod digest;
mod draft;
mod inspect;
mod json;
mod layer;
mod oci;
mod output;
mod packing;
mod parts;
mod platform;
mod registry;
mod root;
mod scratch;
mod sif;
mod sign;
mod signals;
mod source;
mod squashfs;
mod subject;
mod unpack;
mod workshop;

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
        Order::Inspect(given) => inspect::main(given),
        Order::Sif(given) => parts::main(given),
        Order::Sign(given) => sign::main(given),
    }
}
