//! Child processes with fewer rights, and the questions that they answer.
#![forbid(unsafe_code)]

pub mod ask;
pub mod inside;
pub mod openers;
pub mod proxy;
pub mod verify;
