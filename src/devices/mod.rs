//! Which device nodes a container has, and what a GPU's driver needs there besides.
//!
//! What is granted is Slurm's to say: its numbers of a step's GPUs, and the effective rules of the step's control group.
//! Nothing of the image and nothing that a user can set adds to it.
#![forbid(unsafe_code)]

mod gpu;
mod grant;
mod gres;
mod node;
mod selection;

pub use gpu::Vendor;
pub use grant::{Grant, JOB_GPUS, STEP_GPUS};
pub use gres::{GPU, Unit, detected, units};
pub use node::{Node, Type, all};
pub use selection::{Choice, Devices, PTS, Rule, STORES};
