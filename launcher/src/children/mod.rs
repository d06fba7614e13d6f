//! Child processes with fewer rights, and the questions that they answer.
#![forbid(unsafe_code)]

pub mod ask;
pub mod glibc;
pub mod inside;
pub mod mpi_fit;
pub mod openers;
pub mod proxy;
pub mod verify;
