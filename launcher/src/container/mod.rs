//! Pipeline from a request to a container.
#![forbid(unsafe_code)]

pub mod bounds;
pub mod clock;
pub mod device_rules;
pub mod environment;
pub mod grants;
pub mod host_mpi;
pub mod image_mpi;
pub mod job_facts;
pub mod local;
pub mod pipeline;
pub mod sources;
pub mod stored;
pub mod targets;
pub mod userns;
