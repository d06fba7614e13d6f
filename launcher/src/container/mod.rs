//! Pipeline from a request to a container.
#![forbid(unsafe_code)]

pub mod attach;
pub mod bounds;
pub mod build;
pub mod clock;
pub mod context;
pub mod device_rules;
pub mod environment;
pub mod grants;
pub mod host_fit;
pub mod host_mpi;
pub mod image_mpi;
pub mod job_facts;
pub mod judge;
pub mod local;
pub mod open;
pub mod pipeline;
pub mod planned;
pub mod resolve;
pub mod sources;
pub mod stored;
pub mod targets;
pub mod tasks;
pub mod userns;
