//! Handles components of heterogeneous jobs: each has a request of its own, and all of them travel in one environment.
//!
//! Variables carry the number of their component, as in Slurm's own `SLURM_JOB_ID_HET_GROUP_1`. If all components
//! agree, there is only the plain variable.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, OsString};

use super::{ClientCommand, Program, container_is_ours};
use crate::report::{Kind, Refusal};
use crate::request::{Choice, NODE, Scope};

/// Maximum number of components of a heterogeneous job (slurm.h, MAX_HET_JOB_COMPS).
pub const MAX_COMPONENTS: u32 = 128;
/// Value of a component without a request where another one has a request.
pub const NOTHING: &str = "nothing";

/// Decision for one component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Number of the component; 0 for a job that is not heterogeneous.
    pub group: u32,
    /// The request, or [`NODE`]; `None` without a request.
    pub form: Option<String>,
}

/// Returns the variable `name` of one component.
pub fn of_group(name: &CStr, group: u32) -> CString {
    let text = format!("{}_HET_GROUP_{group}", name.to_string_lossy());
    CString::new(text).unwrap_or_default()
}

/// Returns Slurm's two names for the job id of a component; srun of 22.05 still has the older one.
pub fn id_names(group: u32) -> [String; 2] {
    ["HET", "PACK"].map(|word| format!("SLURM_JOB_ID_{word}_GROUP_{group}"))
}

/// Returns the value of a variable whose name is made at run time.
pub fn variable(command: &impl ClientCommand, name: &str) -> Option<OsString> {
    CString::new(name).ok().and_then(|name| command.variable(&name))
}

/// True inside of a heterogeneous job.
pub fn is_het(command: &impl ClientCommand) -> bool {
    let size = command.variable(c"SLURM_HET_SIZE");
    size.is_some_and(|size| size.to_str().and_then(|size| size.parse().ok()) > Some(1))
}

/// Returns the components of this command when it ends its options for the time number `call`.
pub fn groups(command: &impl ClientCommand, program: Program, call: u32) -> Vec<u32> {
    // An srun outside of a job makes a heterogeneous job of the components between its colons.
    if program != Program::Srun || !is_het(command) {
        return vec![call];
    }
    let text = command.option(c"het-group").and_then(|text| text.into_string().ok()).unwrap_or_default();
    let groups = listed(&text);
    if groups.is_empty() { vec![call] } else { groups }
}

/// Reads the value of srun(1), --het-group: numbers and ranges, or the component that srun has reached. Without it, the
/// first component is for the first command, and so on.
fn listed(text: &str) -> Vec<u32> {
    let mut groups = Vec::new();
    for part in text.split(',').map(|part| part.trim_matches(['[', ']'])) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            groups.extend(first..=last.min(MAX_COMPONENTS));
        }
    }
    groups
}

/// Writes the decisions into the environment, under each of `names`.
pub fn publish(command: &impl ClientCommand, decided: &[Decided], names: &[&CStr]) -> Result<(), Refusal> {
    let full = || Refusal::new(Kind::System, "--container", "no memory for the environment");
    let set = |name: &CStr, form: Option<&str>| match form {
        Some(form) => command.set_variable(name, OsStr::new(form)).then_some(()).ok_or_else(full),
        None => {
            command.unset_variable(name);
            Ok(())
        }
    };
    let last = decided.last().and_then(|decided| decided.form.as_deref());
    // A controller without a record of images cannot be asked for one, see [`super::inherited`].
    let agreed = (decided.len() == 1 || !container_is_ours(command.release()))
        && decided.iter().all(|decided| decided.form.as_deref() == last);
    for name in names {
        // sbatch copies the environment after each component, so the plain variable must hold that component's own
        // request.
        set(name, last)?;
        for decided in decided.iter().filter(|_| !agreed) {
            set(&of_group(name, decided.group), Some(decided.form.as_deref().unwrap_or(NOTHING)))?;
        }
    }
    Ok(())
}

/// Refuses a batch job whose script could not know that another component has an image. The script has the environment
/// of the first component, which is made before the options of the others are read.
pub fn known_to_steps(command: &impl ClientCommand, decided: &[Decided]) -> Result<(), Refusal> {
    let (Some((first, others)), true) = (decided.split_first(), container_is_ours(command.release())) else {
        return Ok(());
    };
    let image = |decided: &Decided| match Choice::from_env(OsStr::new(decided.form.as_deref().unwrap_or(NODE))) {
        Ok(Choice::Container(request)) => Some(request),
        _ => None,
    };
    let Some(other) = others.iter().find(|other| image(other).is_some()) else { return Ok(()) };
    match image(first).is_some_and(|request| request.settings.scope != Some(Scope::Script)) {
        true => Ok(()),
        false => Err(Refusal::new(
            Kind::Usage,
            "--container",
            format!(
                "component {} has it, and the first one, which has the script, has none for its steps",
                other.group
            ),
        )
        .hint("name the image in the script, at its own srun commands: this release of Slurm does not record it")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeCommand;
    use super::super::{REQUEST, STEPS};
    use super::*;
    use crate::sys::Release;

    fn decided(forms: &[Option<&str>]) -> Vec<Decided> {
        (0..).zip(forms).map(|(group, form)| Decided { group, form: form.map(str::to_owned) }).collect()
    }

    #[test]
    fn lists_and_ranges_of_components_are_read() {
        for (text, groups) in [
            ("0", &[0][..]),
            ("1,3", &[1, 3]),
            ("0-2", &[0, 1, 2]),
            ("[0-1,3]", &[0, 1, 3]),
            ("2-2", &[2]),
            ("3-1", &[]),
            ("", &[]),
            ("all", &[]),
            ("1,x,2", &[1, 2]),
            ("-1", &[]),
        ] {
            assert_eq!(listed(text), groups, "{text}");
        }
    }

    #[test]
    fn a_range_is_for_the_components_in_it_and_no_others() {
        let groups = listed("0-2");
        assert!(groups.contains(&1) && !groups.contains(&3));
    }

    #[test]
    fn a_range_without_an_end_in_sight_is_cut() {
        assert_eq!(listed("0-4294967295").len(), 129);
    }

    #[test]
    fn an_option_names_components_in_a_heterogeneous_job_only() {
        let command = FakeCommand::new().option("het-group", "1,2");
        assert_eq!(groups(&command, Program::Srun, 5), [5]);
        for (size, wanted) in [("1", &[5][..]), ("3", &[1, 2]), ("x", &[5])] {
            let command = FakeCommand::new().option("het-group", "1,2").with("SLURM_HET_SIZE", size);
            assert_eq!(groups(&command, Program::Srun, 5), wanted, "{size}");
        }
    }

    #[test]
    fn without_the_option_srun_goes_from_component_to_component() {
        let command = FakeCommand::new().with("SLURM_HET_SIZE", "3");
        assert_eq!([0, 1, 2].map(|call| groups(&command, Program::Srun, call)), [vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn sbatch_and_salloc_count_their_components() {
        let command = FakeCommand::new().with("SLURM_HET_SIZE", "3").option("het-group", "2");
        for program in [Program::Sbatch, Program::Salloc] {
            assert_eq!(groups(&command, program, 1), [1], "{program:?}");
        }
    }

    #[test]
    fn variables_of_a_component_have_its_number() {
        assert_eq!(of_group(REQUEST, 12).to_str(), Ok("SLURM_CORACLE_REQUEST_HET_GROUP_12"));
        assert_eq!(id_names(1), ["SLURM_JOB_ID_HET_GROUP_1", "SLURM_JOB_ID_PACK_GROUP_1"]);
    }

    #[test]
    fn the_request_of_a_plain_job_is_in_the_plain_variables() {
        let command = FakeCommand::new();
        publish(&command, &decided(&[Some("1:a")]), &[REQUEST, STEPS]).unwrap();
        assert_eq!(command.variables(), [("SLURM_CORACLE_REQUEST", "1:a"), ("SLURM_CORACLE_STEPS", "1:a")]);
    }

    #[test]
    fn a_job_without_a_request_has_no_variable() {
        let command = FakeCommand::new().with("SLURM_CORACLE_REQUEST", "stale");
        publish(&command, &decided(&[None]), &[REQUEST]).unwrap();
        assert_eq!(command.variables(), []);
    }

    #[test]
    fn components_that_agree_have_the_plain_variable_only() {
        let command = FakeCommand::new();
        publish(&command, &decided(&[Some("1:a"), Some("1:a")]), &[REQUEST]).unwrap();
        assert_eq!(command.variables(), [("SLURM_CORACLE_REQUEST", "1:a")]);
    }

    #[test]
    fn components_that_differ_have_a_variable_each() {
        let command = FakeCommand::new();
        publish(&command, &decided(&[Some("1:a"), None]), &[REQUEST]).unwrap();
        assert_eq!(
            command.variables(),
            [("SLURM_CORACLE_REQUEST_HET_GROUP_0", "1:a"), ("SLURM_CORACLE_REQUEST_HET_GROUP_1", "nothing"),]
        );
        publish(&command, &decided(&[Some("1:a"), None, Some("none")]), &[REQUEST]).unwrap();
        assert_eq!(command.variables()[0], ("SLURM_CORACLE_REQUEST", "none"));
        assert_eq!(command.variables()[3], ("SLURM_CORACLE_REQUEST_HET_GROUP_2", "none"));
    }

    #[test]
    fn components_that_agree_have_a_variable_each_where_the_controller_has_no_record() {
        let command = FakeCommand::new().release(Release(20, 11));
        publish(&command, &decided(&[Some("1:a"), Some("1:a")]), &[REQUEST]).unwrap();
        assert_eq!(command.variables().len(), 3);
        let command = FakeCommand::new().release(Release(20, 11));
        publish(&command, &decided(&[Some("1:a")]), &[REQUEST]).unwrap();
        assert_eq!(command.variables().len(), 1);
    }

    #[test]
    fn a_full_environment_is_an_error() {
        let command = FakeCommand::new().full();
        let refusal = publish(&command, &decided(&[Some("1:a")]), &[REQUEST]).unwrap_err();
        assert_eq!(refusal.line(), "coracle: --container: no memory for the environment [system]");
    }

    #[test]
    fn a_script_must_know_the_images_of_other_components_before_21_08() {
        let (image, script) = ("2:image=/a;as=a", "2:image=/a;as=a;scope=script");
        for (forms, fails) in [
            (&[None, Some(image)][..], true),
            (&[Some("none"), None, Some(image)], true),
            (&[Some(script), Some(image)], true),
            (&[Some(image), Some(image)], false),
            (&[Some(image), None], false),
            (&[None, Some("none")], false),
            (&[None], false),
            (&[], false),
        ] {
            let old = FakeCommand::new().release(Release(20, 11));
            assert_eq!(known_to_steps(&old, &decided(forms)).is_err(), fails, "{forms:?}");
            assert_eq!(known_to_steps(&FakeCommand::new(), &decided(forms)), Ok(()), "{forms:?}");
        }
        let old = FakeCommand::new().release(Release(20, 11));
        let refusal = known_to_steps(&old, &decided(&[None, None, Some(image)])).unwrap_err();
        assert!(refusal.cause.starts_with("component 2 has it"), "{refusal}");
    }
}
