//! Coracle runs Slurm jobs inside containers. This library is what its two programs share: the plugin, which
//! lives inside Slurm's own processes, and the launcher, which verifies images and builds namespaces.
//!
//! The rooms stand in the order in which the data flows, and a room uses only those before it:
//!
//! | room | from | to |
//! |---|---|---|
//! | [`options`] | what srun, sbatch and salloc were given | [`options::RawOptions`] |
//! | [`request`] | raw options | a checked [`request::Request`], and its form in the job's environment |
//! | [`wire`] | a request and Slurm's facts about the step | messages between plugin and launcher |
#![cfg_attr(feature = "launcher", doc = "| [`config`] | coracle.yaml | [`config::Config`] |")]
#![cfg_attr(feature = "launcher", doc = "| [`policy`] | config and an image's provenance | [`policy::Grant`] |")]
#![cfg_attr(feature = "launcher", doc = "| [`image`] | an open file | [`image::Image`]: what the kernel may mount |")]
#![cfg_attr(feature = "launcher", doc = "| [`mpi`] | the step's PMIx server | what MPI needs to see |")]
#![cfg_attr(
    feature = "launcher",
    doc = "| [`view`] | all of the above | [`view::Want`]: what should be visible where |"
)]
#![cfg_attr(
    feature = "launcher",
    doc = "| [`plan`] | wants, and what the image has | [`plan::Plan`]: the steps, as data |"
)]
//!
//! What executes a plan is not here but in the launcher's `apply`. [`report`] holds the one form in which
//! anything is refused, and [`sys`] is the only room with `unsafe`.

pub mod image;
pub mod options;
pub mod report;
pub mod request;
pub mod sys;
pub mod wire;

#[cfg(feature = "launcher")]
pub mod config;
#[cfg(feature = "launcher")]
pub mod mpi;
#[cfg(feature = "launcher")]
pub mod plan;
#[cfg(feature = "launcher")]
pub mod policy;
#[cfg(feature = "launcher")]
pub mod view;
