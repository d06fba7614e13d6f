//! The store's commands: `cp`, `ls` and `rm` of users, and the service behind them.
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

pub use client::{Copy, List, Remove, cp, has, ls, put, rm, show_stored};
pub use service::{Service, main as serve};

/// Socket of the service, if it is not told otherwise.
const SOCKET: &str = "/run/coracle/store.sock";
/// Time limit for the other side to make room for a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says something to whoever has called.
fn say(caller: &Channel, reply: &Reply) -> Result<(), Refusal> {
    let text =
        serde_json::to_vec(reply).map_err(|cause| Refusal::new(Kind::Internal, "the store", cause.to_string()))?;
    caller.send(&text, &[], Instant::now() + PATIENCE).map_err(|error| Refusal::system("the caller", &error))
}
