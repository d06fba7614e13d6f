//! Builds images: one file from a source.
#![forbid(unsafe_code)]

mod assembly;
pub mod command;
pub mod conventions;
pub mod definition;
pub mod draft;
mod image;
pub mod layer;
pub mod pull;
mod root;
mod sif;
mod squashfs;
mod time;
mod unpack;
mod workshop;
