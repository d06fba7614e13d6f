//! The SPANK plugin: `spank_coracle.so`.
//!
//! It runs inside Slurm's own programs, in slurmstepd as root. So it does little: it reads options, starts the
//! launcher, and moves each task into the namespace that the launcher returns. `submit` has the hooks of srun, sbatch
//! and salloc, `stepd` those of the node, in Slurm's order. Only `face` and `slurm` call C.
//!
//! Two rules of Slurm determine the design (docs/decisions.md). If a hook of the node other than task_init fails, the
//! step ends with exit status 0 or the node is drained; so each hook records its cause, and task_init reports it. Only
//! slurm_error reaches the user.

mod arguments;
mod face;
mod het;
mod notes;
mod slurm;
mod stepd;
mod submit;
