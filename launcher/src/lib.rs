//! Resolves what the tasks of a step ask for, and builds the namespace that they enter.
//!
//! The layers stand in the order in which the data flows, and a layer uses only those before it. Request, wire and
//! system calls are in the crate `coracle`, which the plugin shares.
//!
//! | layer | from | to |
//! |---|---|---|
//! | [`place`] | this program's own path | the paths of the other parts of the installation |
//! | [`config`] | coracle.yaml | [`config::Config`] |
//! | [`policy`] | config, and the origin of an image | the effective policy, and a verdict |
//! | [`image`] | an open file | [`image::Image`]: the part that the kernel may mount |
//! | [`store`] | an image of the site's store | its [`store::Record`] |
//! | [`elf`] | a shared object, or a tree of them | its needs, and where they are |
//! | [`devices`] | Slurm's grant, and the node's /dev | device nodes, and the files of a driver |
//! | [`mpi`] | the step's PMIx server, and the image's library | what both need to meet |
//! | [`mod@env`] | the job's environment, and the image's | the tasks' environment, as changes |
//! | [`view`] | all of the above | requests for mounts |
//! | [`plan`] | these, and what the image has there | [`plan::Plan`]: the steps, as data |
//! | [`children`] | a question | the answer of a child process with fewer rights |
//! | [`slurm`] | the node's slurm.conf and programs | Slurm's commands for the inside of a container |
//! | [`apply`] | a plan | a mount namespace |
//! | [`container`] | a request | a container: the pipeline from request to namespace |
//! | [`records`] | a container | records for the site and for the user |
//! | [`step`] | a question of the plugin's | the container of a step |
#![forbid(unsafe_code)]

pub mod apply;
pub mod children;
pub mod config;
pub mod container;
pub mod devices;
pub mod elf;
pub mod env;
pub mod image;
pub mod mpi;
pub mod place;
pub mod plan;
pub mod policy;
pub mod records;
pub mod slurm;
pub mod step;
pub mod store;
pub mod view;
