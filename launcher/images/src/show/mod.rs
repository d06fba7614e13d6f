//! Shows images on standard output: metadata, and objects of a SIF.
#![forbid(unsafe_code)]

pub mod inspect;
pub mod parts;
pub mod subject;
