//! Reads sources of images: files, archives and registries.
#![forbid(unsafe_code)]

pub mod archive;
pub mod digest;
mod json;
pub mod oci;
pub mod platform;
pub mod registry;
mod source;

pub use source::{Source, looks_like_definition};
