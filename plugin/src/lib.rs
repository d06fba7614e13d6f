//! The SPANK plugin: `spank_coracle.so`.
//!
//! It runs inside Slurm's own programs, in slurmstepd as root. So it does little: it reads options, starts the
//! launcher, and moves each task into the namespace that the launcher returns. Its decisions are in [`coracle::spank`],
//! which unit tests reach; here is what acts on them. `slurm` calls Slurm, `submit` acts in srun, sbatch and salloc,
//! `stepd` on the node, and `hooks` has the functions that Slurm calls. Only `slurm` and `hooks` touch C.
//!
//! Two rules of Slurm determine the design (docs/decisions.md). If a hook of the node other than task_init fails, the
//! step ends with exit status 0 or the node is drained; so each hook records its cause, and task_init reports it. Only
//! slurm_error reaches the user.

mod hooks;
mod notes;
mod slurm;
mod stepd;
mod submit;
