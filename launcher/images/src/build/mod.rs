//! Builds images: one file from a source.
#![forbid(unsafe_code)]

mod assembly;
pub mod command;
mod conventions;
mod definition;
pub mod draft;
mod image;
mod layer;
pub mod pull;
mod root;
mod sif;
mod squashfs;
mod time;
mod unpack;
mod workshop;
