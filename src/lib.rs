//! Shares code between the programs of Coracle, which runs Slurm jobs inside containers: the plugin, which runs inside
//! Slurm's own processes, the launcher, which builds namespaces, and the commands.
//!
//! A module uses only those before it:
//!
//! | module | from | to |
//! |---|---|---|
//! | [`sys`] | system calls | safe functions; the only module with `unsafe` |
//! | [`report`] | a cause | the one form in which anything is refused |
//! | [`image`] | the first bytes of a file | its container format |
//! | [`options`] | the words of srun, sbatch and salloc | [`options::RawOptions`], and checked [`options::Settings`] |
//! | [`request`] | an image and its options | a checked [`request::Request`], and its form in the job's environment |
//! | [`mod@env`] | a task's environment | changes of it, and the way back |
//! | [`mpi`] | sources of Slurm and PMIx | names of MPI that plugin and launcher share |
//! | [`configless`] | Slurm's configuration on the submit host | true if nodes would not load the plugin |
//! | [`wire`] | a request and Slurm's facts about the step | messages between plugin and launcher |
//! | [`spank`] | answers of Slurm to the plugin | the request of a step, and its state on a node |
//!
//! No parser of YAML, images or digests is here: none belongs in slurmstepd.

pub mod configless;
pub mod env;
pub mod image;
pub mod mpi;
pub mod options;
pub mod report;
pub mod request;
pub mod spank;
pub mod sys;
pub mod wire;
