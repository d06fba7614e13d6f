//! Images: from a source to one file.
#![forbid(unsafe_code)]

pub mod assembly;
pub mod command;
mod image;
pub mod pull;
pub mod time;
