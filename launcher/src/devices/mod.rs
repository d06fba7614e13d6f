//! Which device nodes a container has, and what a GPU's driver needs there besides.
//!
//! The grant is Slurm's to say: its numbers of a step's GPUs, and the effective rules of the step's control group.
//! Nothing of the image and nothing that a user can set adds to it.
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
