//! The SPANK plugin: `spank_coracle.so`.
//!
//! It lives inside Slurm's own programs, in slurmstepd as root. So it does little: it reads options, starts the
//! launcher, and puts each task into the namespace that comes back. `submit` is what happens in srun, sbatch
//! and salloc, `stepd` what happens on the node, in the order of Slurm's hooks; `face` and `slurm` are all that touches C.
//!
//! Two rules of Slurm shape everything (docs/decisions.md): a hook of the node that fails anywhere but in task_init
//! ends with exit status 0 or a drained node, so a cause is recorded where it happens and reported there; and only
//! what slurm_error says reaches the user.

mod arguments;
mod face;
mod het;
mod notes;
mod slurm;
mod stepd;
mod submit;
