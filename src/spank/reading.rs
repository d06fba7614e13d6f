//! Reads the request of a step on its node, and plans the step.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::component::{MAX_COMPONENTS, NOTHING, id_names, of_group};
use super::{CONTAINER, CONTAINER_GIVEN, Job, REQUEST, STEPS};
use crate::options::RawOptions;
use crate::report::Refusal;
use crate::request::{BATCH_STEP, Choice, MAX_LEN, NODE, Request, Scope, is_script};

/// Step that holds a job's allocation and runs no program (slurm.h, SLURM_EXTERN_CONT).
const EXTERN_STEP: u32 = 0xffff_fffc;

/// A request as it is in the job's environment, or the form that cannot be read with the reason.
pub type StepRequest = Result<Option<Choice>, (OsString, Refusal)>;

/// True for the step that holds a job's allocation.
pub fn is_extern(step: Option<u32>) -> bool {
    step == Some(EXTERN_STEP)
}

/// Returns the request in the job's environment, if there is one. The user controls it, so all of it is checked again.
pub fn read_request(job: &impl Job) -> StepRequest {
    let read = |form: OsString| Choice::from_env(&form).map(Some).map_err(|error| (form, error.into()));
    let group = own_group(job);
    let of_group = |name: &CStr| group.and_then(|group| job.variable(&of_group(name, group), MAX_LEN + 1));
    if of_group(REQUEST).is_some_and(|form| form == NOTHING) {
        return Ok(None);
    }
    if let Some(form) = of_group(REQUEST).or_else(|| job.variable(REQUEST, MAX_LEN + 1)) {
        return read(form);
    }
    // The submit host has no plugin. With the plugin, Slurm's variable does not reach a node.
    let Some(image) = job.variable(CONTAINER, MAX_LEN).filter(|image| !image.is_empty()) else {
        // Request that a step inherits from its job. An srun with the plugin makes a request of it and removes it. If
        // it is still there, the srun had no plugin, such as one of an image.
        let inherited = job.variable(STEPS, MAX_LEN + 1).filter(|_| job.step() != Some(BATCH_STEP));
        return inherited.map_or(Ok(None), read);
    };
    let directory = expected_directory(job);
    let directory = directory.as_deref().unwrap_or(Path::new("/"));
    Request::parse(&RawOptions::default(), &image, directory).map(Some).map_err(|error| (image, error.into()))
}

/// Returns the job's `PWD`, the expected working directory. With --chdir the directory is another one.
pub fn expected_directory(job: &impl Job) -> Option<PathBuf> {
    job.variable(c"PWD", MAX_LEN).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Returns the jobs of the components of a heterogeneous step, from the job's environment: only the user's own jobs can
/// be ended with them.
pub fn components(job: &impl Job) -> Vec<u32> {
    let number = |name: String| {
        let name = CString::new(name).ok()?;
        job.variable(&name, 16)?.to_str()?.parse::<u32>().ok()
    };
    let count = number("SLURM_HET_SIZE".into()).unwrap_or(0).min(MAX_COMPONENTS);
    (0..count).filter_map(|group| id_names(group).into_iter().find_map(number)).collect()
}

/// Returns the number of the component of a heterogeneous job that this step belongs to.
fn own_group(job: &impl Job) -> Option<u32> {
    let own = job.id()?;
    let index = components(job).iter().position(|id| *id == own)?;
    u32::try_from(index).ok()
}

/// Decision about a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// The step needs no container.
    OnNode {
        /// True if the request that steps inherit is stale: it is that of the job in which sbatch was called.
        forget_steps: bool,
    },
    /// The script stays on the node, and its steps inherit this request.
    PassOn(OsString),
    /// The launcher is asked.
    Launch {
        /// Form of the request; empty without one.
        request: OsString,
        /// Form that the steps of this one inherit.
        steps: Option<OsString>,
        /// Reason why the request cannot be read. The launcher gets it, too, because the launcher writes the log.
        fault: Option<Refusal>,
    },
}

/// Plans a step from its request. With `defaults` the launcher is also asked about steps without a request.
pub fn plan_step(step: u32, defaults: bool, request: StepRequest) -> Plan {
    let (request, choice, fault) = match request {
        Ok(None | Some(Choice::Host)) if !defaults => {
            return Plan::OnNode { forget_steps: step == BATCH_STEP };
        }
        Ok(choice) => (choice.as_ref().map(Choice::to_env).unwrap_or_default().into(), choice, None),
        Err((form, refusal)) => (form, None, Some(refusal)),
    };
    let scope = match &choice {
        Some(Choice::Container(request)) => request.settings.scope,
        _ => None,
    };
    if is_script(step) && scope == Some(Scope::Steps) && !defaults {
        return Plan::PassOn(request);
    }
    let steps = match scope {
        // Otherwise a step without a request would get the site's default.
        Some(Scope::Script) => defaults.then(|| OsString::from(NODE)),
        _ => choice.is_some().then(|| request.clone()),
    };
    Plan::Launch { request, steps, fault }
}

/// Sets the request that the steps of this job inherit in the environment of this step's tasks, and removes a stale
/// one.
pub fn pass_on(job: &impl Job, plan: &Plan) {
    let form = match plan {
        Plan::OnNode { forget_steps } => {
            if *forget_steps {
                job.unset_variable(STEPS);
            }
            return job.unset_variable(REQUEST);
        }
        Plan::PassOn(form) => Some(form),
        Plan::Launch { steps, .. } => steps.as_ref(),
    };
    job.unset_variable(CONTAINER);
    job.unset_variable(CONTAINER_GIVEN);
    job.unset_variable(REQUEST);
    for group in 0..u32::try_from(components(job).len()).unwrap_or(0) {
        job.unset_variable(&of_group(REQUEST, group));
    }
    match form.and_then(|form| CString::new(form.as_bytes()).ok()) {
        Some(form) => job.set_variable(STEPS, &form),
        None => job.unset_variable(STEPS),
    }
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
