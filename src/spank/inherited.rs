//! Finds the request that a step inherits from its job.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::component::{MAX_COMPONENTS, NOTHING, id_names, is_het, of_group, variable};
use super::{ClientCommand, REQUEST, STEPS, container_is_ours};
use crate::options::RawOptions;
use crate::report::{Kind, Refusal};
use crate::request::{Choice, NODE, Request};

/// Request that the job has for its steps.
#[derive(Debug, Default)]
pub struct Inherited {
    plain: Option<OsString>,
    groups: Vec<(u32, OsString)>,
}

impl Inherited {
    /// Takes the request out of this command's environment.
    pub fn take(command: &impl ClientCommand) -> Self {
        let mut inherited = Self { plain: command.variable(STEPS), groups: Vec::new() };
        for name in [REQUEST, STEPS] {
            command.unset_variable(name);
        }
        for group in 0..MAX_COMPONENTS {
            if let Some(form) = command.variable(&of_group(STEPS, group)) {
                inherited.groups.push((group, form));
            }
            for name in [REQUEST, STEPS] {
                command.unset_variable(&of_group(name, group));
            }
        }
        inherited
    }

    /// Returns the request that a step of this component inherits from its job.
    pub fn choice(&self, command: &impl ClientCommand, group: u32) -> Result<Option<Choice>, Refusal> {
        let read = |form: &OsStr| {
            let named = |refusal: Refusal| Refusal { object: STEPS.to_string_lossy().into_owned(), ..refusal };
            Choice::from_env(form).map(Some).map_err(|error| named(error.into()))
        };
        let own = self.groups.iter().find(|(known, _)| *known == group);
        match (own, &self.plain, group) {
            (Some((_, form)), _, _) if form == NOTHING => Ok(None),
            (Some((_, form)), _, _) => read(form),
            // sbatch gives each component its own environment, and the script has that of the first component.
            (None, plain, group @ 1..) if is_het(command) && command.variable(c"SLURM_JOB_ID").is_some() => {
                match plain.as_deref().map(read).transpose()?.flatten() {
                    Some(_) if container_is_ours(command.release()) => {
                        Err(unknown(group, "this release of Slurm does not record its image")
                            .hint("give the step --container=IMAGE, or --container=none"))
                    }
                    // See [`super::component::known_to_steps`].
                    None if container_is_ours(command.release()) => Ok(None),
                    plain => of_controller(command, group, plain),
                }
            }
            (None, Some(form), _) => read(form),
            (None, None, _) => Ok(None),
        }
    }
}

fn unknown(group: u32, cause: &str) -> Refusal {
    Refusal::new(Kind::System, format!("component {group} of the job"), cause)
}

/// Returns the controller's record of a component's image; all of `first`, the request of the first component, if it is
/// the same image.
fn of_controller(command: &impl ClientCommand, group: u32, first: Option<Choice>) -> Result<Option<Choice>, Refusal> {
    let unknown = |cause: &str| unknown(group, cause);
    let id = id_names(group).iter().find_map(|name| variable(command, name));
    let id = id.and_then(|id| CString::new(id.as_bytes()).ok()).ok_or_else(|| unknown("its job id is not known"))?;
    let said = command.job_record(&id);
    let said = said.map_err(|error| unknown(&format!("scontrol does not say which image it has: {error}")))?;
    let text = String::from_utf8_lossy(&said);
    let Some(image) = image_in(&text) else { return Ok(None) };
    if image == NODE {
        return Ok(Some(Choice::Host));
    }
    if let Some(Choice::Container(first)) = first
        && first.image().is_some_and(|known| known.typed == image)
    {
        return Ok(Some(Choice::Container(first)));
    }
    let directory = variable(command, "SLURM_SUBMIT_DIR").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    Ok(Some(Request::parse(&RawOptions::default(), OsStr::new(image), &directory)?))
}

/// Returns the image in the controller's record of a job, if it has one.
fn image_in(record: &str) -> Option<&str> {
    let (_, rest) = record.split_once(" Container=")?;
    let image = rest.split(" ").next().unwrap_or(rest).trim_end();
    (!image.is_empty() && image != "(null)").then_some(image)
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeCommand;
    use super::*;
    use crate::sys::Release;

    const FIRST: &str = "2:image=/img/a.sif;as=a.sif;home=no";

    fn image(choice: Option<Choice>) -> Option<(String, bool)> {
        match choice? {
            Choice::Host => Some(("none".into(), false)),
            Choice::Container(request) => Some((request.what.to_string(), request.settings.home.is_some())),
        }
    }

    /// A step of component 1 in a job of two components, whose script has the first component's environment.
    fn second() -> FakeCommand {
        FakeCommand::new()
            .with("SLURM_HET_SIZE", "2")
            .with("SLURM_JOB_ID", "70")
            .with("SLURM_JOB_ID_HET_GROUP_1", "71")
            .with("SLURM_SUBMIT_DIR", "/home/alice")
    }

    fn choice(command: &FakeCommand, group: u32) -> Result<Option<(String, bool)>, String> {
        let inherited = Inherited::take(command);
        inherited.choice(command, group).map(image).map_err(|refusal| refusal.line())
    }

    #[test]
    fn the_variables_of_the_job_are_taken_out_of_the_environment() {
        let command = FakeCommand::new()
            .with("SLURM_CORACLE_REQUEST", "1:x")
            .with("SLURM_CORACLE_STEPS", "none")
            .with("SLURM_CORACLE_REQUEST_HET_GROUP_0", "1:x")
            .with("SLURM_CORACLE_STEPS_HET_GROUP_127", "none")
            .with("SLURM_CORACLE_STEPS_HET_GROUP_128", "left");
        let inherited = Inherited::take(&command);
        assert_eq!(command.variables(), [("SLURM_CORACLE_STEPS_HET_GROUP_128", "left")]);
        assert_eq!(inherited.groups, [(127, OsString::from("none"))]);
    }

    #[test]
    fn a_job_without_a_request_has_none_for_its_steps() {
        assert_eq!(choice(&FakeCommand::new(), 0), Ok(None));
        let request_only = FakeCommand::new().with("SLURM_CORACLE_REQUEST", FIRST);
        assert_eq!(choice(&request_only, 0), Ok(None));
    }

    #[test]
    fn a_step_inherits_the_image_and_the_settings() {
        let command = FakeCommand::new().with("SLURM_CORACLE_STEPS", FIRST);
        assert_eq!(choice(&command, 0), Ok(Some(("a.sif".into(), true))));
        let command = FakeCommand::new().with("SLURM_CORACLE_STEPS", "none");
        assert_eq!(choice(&command, 0), Ok(Some(("none".into(), false))));
    }

    #[test]
    fn a_request_that_cannot_be_read_is_refused_under_the_name_of_its_variable() {
        let command = FakeCommand::new().with("SLURM_CORACLE_STEPS", "1:nonsense");
        let line = choice(&command, 0).unwrap_err();
        assert!(line.starts_with("coracle: SLURM_CORACLE_STEPS: "), "{line}");
    }

    #[test]
    fn the_variable_of_a_component_wins_over_the_plain_one() {
        let command = second()
            .with("SLURM_CORACLE_STEPS", FIRST)
            .with("SLURM_CORACLE_STEPS_HET_GROUP_0", "nothing")
            .with("SLURM_CORACLE_STEPS_HET_GROUP_1", "2:image=/img/b.sif;as=b.sif");
        let inherited = Inherited::take(&command);
        let of = |group| image(inherited.choice(&command, group).unwrap());
        assert_eq!((of(0), of(1)), (None, Some(("b.sif".into(), false))));
    }

    #[test]
    fn the_controller_knows_the_image_of_another_component() {
        let command = second().with("SLURM_CORACLE_STEPS", FIRST).record("71", "JobId=71 Container=b.sif Nodes=1");
        assert_eq!(choice(&command, 1), Ok(Some(("b.sif".into(), false))));
    }

    #[test]
    fn the_first_component_does_not_ask_the_controller() {
        assert_eq!(choice(&second().with("SLURM_CORACLE_STEPS", FIRST), 0), Ok(Some(("a.sif".into(), true))));
    }

    #[test]
    fn the_same_image_has_the_settings_of_the_first_component() {
        let command = second().with("SLURM_CORACLE_STEPS", FIRST).record("71", "JobId=71 Container=a.sif\n");
        assert_eq!(choice(&command, 1), Ok(Some(("a.sif".into(), true))));
    }

    #[test]
    fn a_component_without_an_image_inherits_none_from_the_first_one() {
        for record in ["JobId=71 Nodes=1", "JobId=71 Container=(null) Nodes=1", "JobId=71 Container= Nodes=1"] {
            let command = second().with("SLURM_CORACLE_STEPS", FIRST).record("71", record);
            assert_eq!(choice(&command, 1), Ok(None), "{record}");
        }
        let command = second().with("SLURM_CORACLE_STEPS", FIRST).record("71", "JobId=71 Container=none");
        assert_eq!(choice(&command, 1), Ok(Some(("none".into(), false))));
    }

    #[test]
    fn a_relative_image_of_the_controller_is_one_of_the_submit_directory() {
        let command = second().record("71", "JobId=71 Container=b.sif");
        let Ok(Some(Choice::Container(request))) = Inherited::take(&command).choice(&command, 1) else { panic!() };
        assert_eq!(request.image().unwrap().path, PathBuf::from("/home/alice/b.sif"));
    }

    #[test]
    fn a_component_without_a_job_id_or_a_record_is_refused() {
        let command = second().record("71", "x");
        command.unset_variable(c"SLURM_JOB_ID_HET_GROUP_1");
        let line = choice(&command, 1).unwrap_err();
        assert_eq!(line, "coracle: component 1 of the job: its job id is not known [system]");
        let line = choice(&second(), 1).unwrap_err();
        assert!(line.contains("component 1 of the job: scontrol does not say which image it has: "), "{line}");
    }

    #[test]
    fn before_21_08_a_component_has_to_name_its_image() {
        let old = second().release(Release(20, 11)).with("SLURM_CORACLE_STEPS", FIRST);
        let line = choice(&old, 1).unwrap_err();
        assert!(line.contains("this release of Slurm does not record its image"), "{line}");
        assert_eq!(choice(&second().release(Release(20, 11)), 1), Ok(None));
    }

    #[test]
    fn outside_of_a_heterogeneous_job_every_component_of_srun_inherits_the_same() {
        let command = FakeCommand::new().with("SLURM_CORACLE_STEPS", FIRST).with("SLURM_JOB_ID", "70");
        assert_eq!(choice(&command, 1), Ok(Some(("a.sif".into(), true))));
    }
}
