//! Holds the store's commands: `cp`, `ls` and `rm` for users, and the service that they call.
#![forbid(unsafe_code)]

mod admit;
mod client;
mod copy;
mod inspect;
mod progress;
mod scan;
mod service;

use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal};
use coracle::sys::Channel;
use coracle_launcher::store::Reply;

pub use client::{cp, has, ls, put, rm, show_stored};
pub use service::main as serve;

/// Time limit for the receiver to read a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a reply to the caller.
fn say(caller: &Channel, reply: &Reply) -> Result<(), Refusal> {
    let text =
        serde_json::to_vec(reply).map_err(|cause| Refusal::new(Kind::Internal, "the store", cause.to_string()))?;
    caller.send(&text, &[], Instant::now() + PATIENCE).map_err(|error| Refusal::system("the caller", &error))
}
