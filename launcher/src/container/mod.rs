//! The pipeline from a request to a container.
#![forbid(unsafe_code)]

pub mod bounds;
pub mod clock;
pub mod confine;
pub mod environment;
pub mod grants;
pub mod host_mpi;
pub mod image_mpi;
pub mod job_facts;
pub mod local;
pub mod shelf;
pub mod sources;
pub mod stages;
pub mod targets;
pub mod userns;
