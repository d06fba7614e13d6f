//! Makes, shows and signs images, with the privileges of the user who asks for it.
//!
//! All code that reads networks, archives and compressed streams is here, and not in the program that root starts for
//! jobs.
//!
//! An image is made in a workshop: a child process that is root in a user namespace, if the kernel allows it. There one
//! of the `sources` becomes a root file system, which mksquashfs packs into a draft of a SIF (`build`). The file gets
//! its name only when it is complete.
#![forbid(unsafe_code)]

mod build;
mod output;
mod show;
mod sign;
mod signals;
mod sources;

use std::process::ExitCode;

use coracle::report::Refusal;
use coracle_orders::{CommandLine, Order};

pub use output::exit_status;

/// Readers of hostile bytes, for the fuzz targets.
pub mod readers {
    pub use crate::build::conventions::oci_environment;
    pub use crate::build::definition::{Definition, parse};
    pub use crate::build::layer::parts;
    pub use crate::sources::archive::{Entry, Kind, Reader, reader};
    pub use crate::sources::oci::manifest::{Choice, Descriptor, Index, Manifest};
    pub use crate::sources::oci::{Image, from_docker_archive, from_layout_archive};
    pub use crate::sources::platform::Processor;
    pub use crate::sources::registry::{LONGEST_CONFIG, Name, Part, registry_parts};
}

/// Carries out an order of `coracle`.
pub fn carry_out(given: &CommandLine) -> Result<ExitCode, Refusal> {
    match &given.order {
        Order::Build(build) => build::command::main(build),
        Order::Pull(pull) if given.resolve => build::pull::resolve(pull),
        Order::Pull(pull) => build::pull::main(pull),
        Order::Inspect(inspect) => show::inspect::main(inspect),
        Order::Sif(sif) => show::parts::main(sif),
        Order::Sign(sign) => sign::main(sign),
    }
}
