//! Unprivileged child processes, and the questions that they answer.
#![forbid(unsafe_code)]

pub mod ask;
mod filter;
pub mod glibc;
pub mod in_container;
pub mod mpi_fit;
pub mod opener;
pub mod verify;
