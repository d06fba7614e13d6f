//! Selects the device nodes of a container, and the files that a GPU's driver needs there.
//!
//! Slurm determines the grant: by its numbers of a step's GPUs, and by the effective rules of the step's control group.
//! Neither an image nor a user's setting can add to it.
#![forbid(unsafe_code)]

pub mod cdi;
mod driver;
mod error;
mod glibc;
mod gpu;
mod grant;
mod gres;
mod known;
mod node;
mod selection;
mod source;

pub use driver::{Driver, Library, Placed, find};
pub use error::Error;
pub use glibc::{image_glibc, is_glibc_version, too_old};
pub use gpu::Vendor;
pub use grant::{Grant, Granted, JOB_GPUS, STEP_GPUS};
pub use gres::{GPU, Unit, detected, detects, units};
pub use node::{Node, Type, all};
pub use selection::{Choice, Devices, PTS, STORES};
pub use source::{Sources, Unfit, What};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tree;
