//! `coracle`: verifies images and builds the namespaces that tasks enter.
//!
//! slurmstepd's plugin starts `coracle prepare`, as root, with a request on descriptor 3. People start the other
//! commands. [`stages`] is a whole run on one page.
#![forbid(unsafe_code)]

mod accounts;
mod alone;
mod apply;
mod attach;
mod audit;
mod bounds;
mod check;
mod clock;
mod command;
mod confine;
mod doctor;
mod document;
mod epilog;
mod exec;
mod explain;
mod facts;
mod fuse;
mod fuse_owner;
mod grant;
mod host_driver;
mod host_mpi;
mod images;
mod inside;
mod join;
mod journal;
mod kernel;
#[cfg(feature = "manual")]
mod manual;
mod metrics;
mod mpi;
mod openers;
mod place;
mod prepare;
mod proxy;
mod sandbox;
mod shelf;
mod slurm_client;
mod sources;
mod stages;
mod store;
mod survey;
mod userns;
mod variables;
mod verdict;
mod verify;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The plugin's launch is on the critical path of every step, and its arguments come from the plugin alone.
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == "prepare" => prepare::main(arguments),
        Some(first) if first == "facts" => facts::main(arguments),
        Some(first) if first == "epilog" => epilog::main(arguments),
        #[cfg(feature = "manual")]
        Some(first) if first == "manual" => manual::main(arguments),
        _ => command::main(),
    }
}
