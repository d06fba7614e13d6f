//! Parses hostile and large data: signatures, and all metadata of a squashfs.
//!
//! The program `coracle-verify` does that for the launcher, in a child process that can do nothing else ([`sandbox`]).
//! The parsers are a library because `coracle-images` creates the same data, and displays it.
#![forbid(unsafe_code)]

pub mod sandbox;
pub mod signature;
pub mod squashfs;
pub mod structure;
