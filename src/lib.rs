//! Coracle runs Slurm jobs inside containers. This library is what its two programs share: the plugin, which
//! lives inside Slurm's own processes, and the launcher, which verifies images and builds namespaces.
//!
//! The rooms stand in the order in which the data flows, and a room uses only those before it:
//!
//! | room | from | to |
//! |---|---|---|
//! | [`configless`] | Slurm's configuration on the submit host | true if nodes would not load the plugin |
//! | [`options`] | what srun, sbatch and salloc were given | [`options::RawOptions`] |
//! | [`request`] | raw options | a checked [`request::Request`], and its form in the job's environment |
//! | [`wire`] | a request and Slurm's facts about the step | messages between plugin and launcher |
//! | `config` | coracle.yaml | `Config` |
//! | `policy` | config, and where an image comes from | `Grant` |
//! | [`image`] | an open file | [`image::Image`]: what the kernel may mount |
//! | `store` | an image that its user wants to keep | a file that nobody changes any more, and its `Record` |
//! | `signature` | a SIF, and the keys that are accepted | who has signed it |
//! | `elf` | a shared object, or a tree of them | what a library needs and has, and where it is |
//! | `devices` | Slurm's grant, and what the node has in /dev | device nodes, and what a driver needs |
//! | [`mpi`] | the step's PMIx server | what MPI needs to see |
//! | [`mod@env`] | the job's environment, and what the image says | the tasks' environment, as changes |
//! | `view` | all of the above | `Want`: what should be visible where |
//! | `plan` | wants, and what the image has there | `Plan`: the steps, as data |
//!
//! The plugin gets only the rooms without the feature `launcher`: what parses YAML or hashes has no place there.
//!
//! Execution of a plan is not here but in the launcher's `apply`. [`report`] holds the one form in which
//! anything is refused, and [`sys`] is the only room with `unsafe`.

pub mod configless;
pub mod env;
pub mod image;
pub mod mpi;
pub mod options;
pub mod report;
pub mod request;
pub mod sys;
pub mod wire;

#[cfg(feature = "launcher")]
pub mod config;
#[cfg(feature = "launcher")]
pub mod devices;
#[cfg(feature = "launcher")]
pub mod elf;
#[cfg(feature = "launcher")]
pub mod plan;
#[cfg(feature = "launcher")]
pub mod policy;
#[cfg(feature = "launcher")]
pub mod signature;
#[cfg(feature = "launcher")]
pub mod store;
#[cfg(feature = "launcher")]
pub mod view;
