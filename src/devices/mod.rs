//! Which device nodes a container has, and what a GPU's driver needs there besides.
//!
//! What is granted is Slurm's to say: its numbers of a step's GPUs, and the effective rules of the step's control group.
//! Nothing of the image and nothing that a user can set adds to it.
#![forbid(unsafe_code)]

mod node;

pub use node::{Node, Type, all};
