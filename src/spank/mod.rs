//! Decides for the SPANK plugin: the request of a step, the state of a step on a node, and the differences between
//! releases of Slurm.
//!
//! The plugin's own crate calls Slurm and the kernel. It cannot be linked outside of Slurm's programs, so its logic is
//! here, where unit tests reach it: [`Job`] and [`ClientCommand`] stand for Slurm.
#![forbid(unsafe_code)]

mod arguments;
mod component;
mod context;
mod inherited;
mod notes;
mod phase;
mod place;
mod reading;
mod release;
mod submission;

pub use arguments::Arguments;
pub use context::{Context, Program};
pub use notes::{configless_note, image_note, variable_notes};
pub use phase::{Ending, Facts, Step, TaskStart};
pub use place::{Place, Reach, Refused, read_answer, silent};
pub use reading::{Plan, StepRequest, components, expected_directory, is_extern, pass_on, plan_step, read_request};
pub use release::{KillPrototype, container_is_ours, executes_itself_for_scripts, kill_prototype, with_node_name};
pub use submission::{JobFact, Submission, refuse_entrypoint_of_programs, refuse_export_file, variable_of_component};

use std::ffi::{CStr, OsStr, OsString};

use crate::sys::{self, Release};

/// Slurm's variable for the value of `--container`. Slurm sets it only where it is unset, and jobs inherit it: it is
/// stale inside every job that has it.
pub const CONTAINER: &CStr = c"SLURM_CONTAINER";
/// The request, from the submit host to the nodes. The prefix makes it survive `--export=NONE`.
pub const REQUEST: &CStr = c"SLURM_CORACLE_REQUEST";
/// The request that the steps of a job inherit, set for tasks by the node.
pub const STEPS: &CStr = c"SLURM_CORACLE_STEPS";
/// Variable in which Slurm repeats `--container` of sbatch and salloc, where that is an option of the plugin.
const CONTAINER_GIVEN: &CStr = c"SLURM_SPANK__SLURM_SPANK_OPTION_coracle_container";

/// A job on a node, as Slurm describes it to the hooks of slurmstepd. The user controls its variables.
pub trait Job {
    /// Returns the job id.
    fn id(&self) -> Option<u32>;
    /// Returns the step id.
    fn step(&self) -> Option<u32>;
    /// Returns a variable of the job's environment. A value longer than `limit` bytes is cut there.
    fn variable(&self, name: &CStr, limit: usize) -> Option<OsString>;
    /// Sets a variable of the job's environment.
    fn set_variable(&self, name: &CStr, value: &CStr);
    /// Removes a variable of the job's environment.
    fn unset_variable(&self, name: &CStr);
}

/// A running srun, sbatch or salloc: its environment, and Slurm's answers about its own options.
pub trait ClientCommand {
    /// Returns the release of Slurm, if it is a tested one.
    fn release(&self) -> Option<Release>;
    /// Returns a variable of this command.
    fn variable(&self, name: &CStr) -> Option<OsString>;
    /// Sets a variable of this command. False if there is no memory for it.
    fn set_variable(&self, name: &CStr, value: &OsStr) -> bool;
    /// Removes a variable of this command.
    fn unset_variable(&self, name: &CStr);
    /// True if an option of Slurm itself was given.
    fn has_option(&self, name: &CStr) -> bool;
    /// Returns the value of an option of Slurm itself.
    fn option(&self, name: &CStr) -> Option<OsString>;
    /// Resets an option of Slurm itself, as if it had not been given. False if that is not possible.
    fn reset_option(&self, name: &CStr) -> bool;
    /// Returns the controller's record of a job, in one line (`scontrol --oneliner show job`).
    fn job_record(&self, id: &CStr) -> sys::Result<Vec<u8>>;
    /// Prints a note, which refuses nothing.
    fn note(&self, text: &str);
}

#[cfg(test)]
mod fake;
