//! Tests of the request that srun, sbatch and salloc make.
#![forbid(unsafe_code)]

use super::super::fake::FakeCommand;
use super::*;
use crate::options::{Place, Spec};
use crate::sys::Release;

const INHERITED: &str = "2:image=/img/a.sif;as=a.sif";
const OLD: Release = Release(20, 11);

fn take(submission: &mut Submission, name: &CStr, value: &str) {
    let spec: &Spec = OPTIONS.iter().find(|spec| spec.name == name).unwrap();
    submission.options.take(spec, value.into());
}

/// Image, number of binds, and if the request is inherited.
type Shown = Option<(String, usize, bool)>;

fn shown(choice: Option<Choice>) -> Shown {
    Some(match choice? {
        Choice::Host => ("none".into(), 0, false),
        Choice::Container(request) => (request.what.to_string(), request.settings.binds.list.len(), request.inherited),
    })
}

/// Result of a command of one component with these options.
fn result(
    command: &FakeCommand,
    program: Program,
    fresh: Option<&str>,
    options: &[(&CStr, &str)],
) -> Result<Shown, String> {
    let mut submission = Submission::begin(command, Naming::Container);
    options.iter().for_each(|(name, value)| take(&mut submission, name, value));
    let groups = submission.end_options(command, program);
    let choice = submission
        .choose(command, program, fresh.map(OsStr::new), groups[0], Path::new("/d"), |image| Ok(image.into()));
    choice.map(shown).map_err(|refusal| refusal.line())
}

fn image(name: &str, binds: usize, inherited: bool) -> Result<Shown, String> {
    Ok(Some((name.into(), binds, inherited)))
}

#[test]
fn a_command_without_an_image_has_no_request() {
    for program in [Program::Srun, Program::Sbatch, Program::Salloc] {
        assert_eq!(result(&FakeCommand::new(), program, None, &[]), Ok(None), "{program:?}");
    }
}

#[test]
fn an_option_without_an_image_is_an_error() {
    for program in [Program::Srun, Program::Sbatch, Program::Salloc] {
        let line = result(&FakeCommand::new(), program, None, &[(c"container-bind", "/a")]).unwrap_err();
        assert!(line.starts_with("coracle: --container-bind: "), "{line}");
    }
}

#[test]
fn a_variable_without_an_image_is_no_error() {
    let command = FakeCommand::new().with("CORACLE_CONTAINER_BIND", "/a");
    assert_eq!(result(&command, Program::Srun, None, &[]), Ok(None));
}

#[test]
fn sruns_own_image_wins_over_the_jobs() {
    let command = FakeCommand::new().with("SLURM_CORACLE_STEPS", INHERITED);
    assert_eq!(result(&command, Program::Srun, Some("b.sif"), &[]), image("b.sif", 0, false));
    assert_eq!(result(&FakeCommand::new(), Program::Srun, Some("none"), &[]), image("none", 0, false));
}

#[test]
fn srun_inherits_the_jobs_request_with_the_options_that_were_typed() {
    let command = || FakeCommand::new().with("SLURM_CORACLE_STEPS", INHERITED);
    assert_eq!(result(&command(), Program::Srun, None, &[]), image("a.sif", 0, true));
    assert_eq!(result(&command(), Program::Srun, None, &[(c"container-bind", "/a")]), image("a.sif", 1, true));
}

#[test]
fn the_command_line_wins_over_variables_and_variables_over_the_jobs_request() {
    let command = || {
        FakeCommand::new()
            .with("SLURM_CORACLE_STEPS", &format!("{INHERITED};home=no"))
            .with("CORACLE_CONTAINER_HOME", "yes")
    };
    let home = |options: &[(&CStr, &str)]| {
        let command = command();
        let mut submission = Submission::begin(&command, Naming::Container);
        options.iter().for_each(|(name, value)| take(&mut submission, name, value));
        submission.end_options(&command, Program::Srun);
        let choice = submission.choose(&command, Program::Srun, None, 0, Path::new("/d"), |image| Ok(image.into()));
        let Ok(Some(Choice::Container(request))) = choice else { panic!() };
        request.settings.home
    };
    assert_ne!(home(&[]), home(&[(c"no-container-home", "no")]));
    assert_eq!(home(&[]), home(&[(c"container-home", "yes")]));
}

#[test]
fn sbatch_and_salloc_inherit_nothing() {
    for program in [Program::Sbatch, Program::Salloc] {
        let command = FakeCommand::new().with("SLURM_CORACLE_STEPS", INHERITED);
        assert_eq!(result(&command, program, None, &[]), Ok(None), "{program:?}");
    }
}

#[test]
fn a_job_on_the_node_is_inherited_and_takes_no_option() {
    let command = || FakeCommand::new().with("SLURM_CORACLE_STEPS", "none");
    assert_eq!(result(&command(), Program::Srun, None, &[]), image("none", 0, false));
    assert!(result(&command(), Program::Srun, None, &[(c"container-bind", "/a")]).is_err());
}

#[test]
fn a_step_of_a_job_of_scope_script_runs_on_the_node() {
    let command = || FakeCommand::new().with("SLURM_CORACLE_STEPS", &format!("{INHERITED};scope=script"));
    let quiet = command();
    assert_eq!(result(&quiet, Program::Srun, None, &[]), image("none", 0, false));
    assert_eq!(quiet.notes(), [""; 0]);
    let noted = command();
    assert_eq!(result(&noted, Program::Srun, None, &[(c"container-bind", "/a")]), image("none", 0, false));
    let note = "--container-bind: no effect on a step that --container-scope=script leaves on the node";
    assert_eq!(noted.notes(), [note]);
}

#[test]
fn the_shell_of_salloc_has_the_request_of_salloc() {
    // salloc repeats its image, and its own variables would take precedence over what was typed at salloc.
    let command = FakeCommand::new()
        .option("interactive", "yes")
        .with("SLURM_CORACLE_STEPS", &format!("{INHERITED};scope=script"))
        .with("CORACLE_CONTAINER_BIND", "/a");
    assert_eq!(result(&command, Program::Srun, Some("a.sif"), &[]), image("a.sif", 0, true));
    let fresh = FakeCommand::new().option("interactive", "yes").with("CORACLE_CONTAINER_BIND", "/a");
    assert_eq!(result(&fresh, Program::Srun, Some("a.sif"), &[]), image("a.sif", 1, false));
}

#[test]
fn an_option_beside_the_node_has_a_note() {
    let command = FakeCommand::new();
    let options = [(c"no-container-home", "no")];
    assert_eq!(result(&command, Program::Sbatch, Some("none"), &options), image("none", 0, false));
    assert_eq!(command.notes(), ["--no-container-home: no effect with --container=none"]);
}

#[test]
fn only_an_image_that_is_used_is_imported() {
    let import = |fresh: Option<&str>, stored: &str| {
        let command = FakeCommand::new().with("SLURM_CORACLE_STEPS", stored);
        let submission = Submission::begin(&command, Naming::Container);
        let mut imported = Vec::new();
        let fresh = fresh.map(OsStr::new);
        let choice = submission.choose(&command, Program::Srun, fresh, 0, Path::new("/d"), |image| {
            imported.push(image.to_owned());
            Ok(OsString::from("/pulled.sif").into())
        });
        (shown(choice.unwrap()).unwrap().0, imported)
    };
    assert_eq!(import(Some("docker://x"), INHERITED), ("/pulled.sif".into(), vec!["docker://x".into()]));
    assert_eq!(import(None, INHERITED), ("a.sif".into(), vec![]));
}

#[test]
fn a_failed_import_is_the_refusal() {
    let submission = Submission::begin(&FakeCommand::new(), Naming::Container);
    let fresh = Some(OsStr::new("docker://x"));
    let refusal = Refusal::new(Kind::Registry, "docker://x", "no such image");
    let choice =
        submission.choose(&FakeCommand::new(), Program::Srun, fresh, 0, Path::new("/d"), |_| Err(refusal.clone()));
    assert_eq!(choice, Err(refusal));
}

#[test]
fn a_component_without_options_has_those_of_the_one_before() {
    let command = FakeCommand::new();
    let mut submission = Submission::begin(&command, Naming::Coracle);
    let binds = |submission: &Submission| {
        let fresh = Some(OsStr::new("a.sif"));
        let choice = submission.choose(&command, Program::Sbatch, fresh, 0, Path::new("/d"), |image| Ok(image.into()));
        shown(choice.unwrap()).unwrap().1
    };
    take(&mut submission, c"container-bind", "/a");
    take(&mut submission, c"container-bind", "/b");
    assert_eq!(submission.end_options(&command, Program::Sbatch), [0]);
    assert_eq!(binds(&submission), 2);
    assert_eq!(submission.end_options(&command, Program::Sbatch), [1]);
    assert_eq!(binds(&submission), 2);
    take(&mut submission, c"container-bind", "/c");
    assert_eq!(submission.end_options(&command, Program::Sbatch), [2]);
    assert_eq!(binds(&submission), 1);
    assert_eq!(submission.options.naming(), Naming::Coracle);
}

#[test]
fn the_end_of_options_lets_slurm_set_its_variable_anew() {
    let command = FakeCommand::new();
    let mut submission = Submission::begin(&command, Naming::Container);
    command.set_variable(CONTAINER, "a.sif".as_ref());
    submission.end_options(&command, Program::Sbatch);
    assert_eq!(command.variables(), []);
}

#[test]
fn stale_values_are_gone_before_options_are_parsed() {
    let command = FakeCommand::new()
        .with("SLURM_CONTAINER", "a.sif")
        .with("SLURM_SPANK__SLURM_SPANK_OPTION_coracle_container", "a.sif")
        .with("SLURM_SPANK__SLURM_SPANK_OPTION_coracle_container_bind", "/a")
        .with("SLURM_SPANK__SLURM_SPANK_OPTION_coracle_no_coracle_home", "(null)")
        .with("SLURM_SPANK__SLURM_SPANK_OPTION_other_x", "1")
        .with("SLURM_CORACLE_REQUEST", INHERITED)
        .with("SLURM_CORACLE_STEPS", INHERITED);
    Submission::begin(&command, Naming::Container);
    assert_eq!(command.variables(), [("SLURM_SPANK__SLURM_SPANK_OPTION_other_x", "1")]);
}

#[test]
fn what_the_container_kept_from_its_commands_is_restored() {
    let command = FakeCommand::new().with("SLURM_CORACLE_LD_PRELOAD", "/p.so").with("LD_AUDIT", "/kept.so");
    Submission::begin(&command, Naming::Container);
    assert_eq!(command.variables(), [("LD_AUDIT", "/kept.so"), ("LD_PRELOAD", "/p.so")]);
}

#[test]
fn the_image_is_slurms_and_srun_gives_it_back_from_23_02_on() {
    for (release, program, is_reset) in [
        (Release(22, 5), Program::Srun, false),
        (Release(23, 2), Program::Srun, true),
        (Release(25, 11), Program::Srun, true),
        (Release(25, 11), Program::Sbatch, false),
        (Release(25, 11), Program::Salloc, false),
    ] {
        let command = FakeCommand::new().release(release).with("SLURM_CONTAINER", "a.sif").option("container", "a.sif");
        let images = Submission::default().images_given(&command, program).unwrap();
        assert_eq!(images.image(None), Some("a.sif".into()), "{release} {program:?}");
        assert_eq!(!command.has_option(c"container"), is_reset, "{release} {program:?}");
    }
}

#[test]
fn a_component_of_srun_without_an_image_has_that_of_the_one_before() {
    let command = FakeCommand::new().with("SLURM_CONTAINER", "a.sif").option("container", "a.sif");
    let mut submission = Submission::default();
    submission.images_given(&command, Program::Srun).unwrap();
    submission.end_options(&command, Program::Srun);
    let images = submission.images_given(&command, Program::Srun).unwrap();
    assert_eq!(images.image(None), Some("a.sif".into()));
}

#[test]
fn an_srun_that_keeps_its_option_is_refused() {
    let command = FakeCommand::new().with("SLURM_CONTAINER", "a.sif").without_reset();
    let refusal = Submission::default().images_given(&command, Program::Srun).unwrap_err();
    assert!(refusal.cause.contains("does not let a plugin take the option back"), "{refusal}");
    assert!(Submission::default().images_given(&FakeCommand::new().without_reset(), Program::Srun).is_ok());
}

#[test]
fn before_21_08_the_plugin_reads_the_variable_of_each_command() {
    for (program, name) in [
        (Program::Srun, "SRUN_CONTAINER"),
        (Program::Sbatch, "SBATCH_CONTAINER"),
        (Program::Salloc, "SALLOC_CONTAINER"),
    ] {
        let command = FakeCommand::new().release(OLD).with(name, "a.sif").with("SLURM_CONTAINER", "stale");
        let mut submission = Submission::default();
        assert_eq!(submission.images_given(&command, program).unwrap().image(None), Some("a.sif".into()), "{name}");
        submission.images.take("typed.sif".into(), Place::CommandLine);
        let images = submission.images_given(&command, program).unwrap();
        assert_eq!(images.image(None), Some("typed.sif".into()), "{name}");
    }
}

#[test]
fn srun_has_variables_of_components_before_21_08() {
    let command = |release| {
        FakeCommand::new()
            .release(release)
            .with("SRUN_CONTAINER_HET_GROUP_1", "h.sif")
            .with("SRUN_CONTAINER_PACK_GROUP_1", "p.sif")
            .with("SRUN_CONTAINER_PACK_GROUP_2", "q.sif")
    };
    let of = |program, group| variable_of_component(&command(OLD), program, group);
    assert_eq!([0, 1, 2].map(|group| of(Program::Srun, group)), [None, Some("h.sif".into()), Some("q.sif".into())]);
    assert_eq!(of(Program::Sbatch, 1), None);
    assert_eq!(variable_of_component(&command(Release(22, 5)), Program::Srun, 1), None);
}

/// Variables behind a command with these decisions.
fn published(command: &FakeCommand, program: Program, forms: &[Option<&str>]) -> Vec<(&'static str, &'static str)> {
    let mut submission = Submission::default();
    for (group, form) in (0..).zip(forms) {
        let choice = form.map(|form| Choice::from_env(form.as_ref()).unwrap());
        submission.decide(group, choice.as_ref());
    }
    submission.publish(command, program).unwrap();
    command.variables()
}

#[test]
fn jobs_have_the_request_for_their_steps_and_steps_have_none() {
    let (request, steps) = (("SLURM_CORACLE_REQUEST", INHERITED), ("SLURM_CORACLE_STEPS", INHERITED));
    for (program, wanted) in
        [(Program::Srun, &[request][..]), (Program::Sbatch, &[request, steps]), (Program::Salloc, &[request, steps])]
    {
        assert_eq!(published(&FakeCommand::new(), program, &[Some(INHERITED)]), wanted, "{program:?}");
    }
}

fn inside() -> FakeCommand {
    FakeCommand::new()
        .with("SLURM_CORACLE_OUTER", "1:x;PATH=+/image,+/node;NEW=+1,-;CHANGED=+a,+b")
        .with("CORACLE_IMAGE", "/img/a.sif")
        .with("PATH", "/image")
        .with("NEW", "1")
        .with("CHANGED", "by the user")
}

#[test]
fn a_command_for_the_node_leaves_the_environment_of_the_container() {
    for program in [Program::Srun, Program::Sbatch] {
        let left = published(&inside(), program, &[None]);
        assert_eq!(left, [("CHANGED", "by the user"), ("PATH", "/node")], "{program:?}");
    }
    let left = published(&inside(), Program::Srun, &[Some("none")]);
    assert_eq!(left, [("CHANGED", "by the user"), ("PATH", "/node"), ("SLURM_CORACLE_REQUEST", "none")]);
}

#[test]
fn salloc_and_commands_with_an_image_keep_the_environment() {
    let kept = |variables: Vec<(&str, &str)>| variables.contains(&("PATH", "/image"));
    assert!(kept(published(&inside(), Program::Salloc, &[None])));
    assert!(kept(published(&inside(), Program::Srun, &[Some(INHERITED)])));
    assert!(kept(published(&inside(), Program::Sbatch, &[None, Some(INHERITED)])));
}

#[test]
fn sbatch_alone_checks_that_its_script_knows_other_images() {
    for (program, fails) in [(Program::Sbatch, true), (Program::Salloc, false), (Program::Srun, false)] {
        let mut submission = Submission::default();
        submission.decide(0, None);
        submission.decide(1, Some(&Choice::from_env(INHERITED.as_ref()).unwrap()));
        let command = FakeCommand::new().release(OLD);
        assert_eq!(submission.publish(&command, program).is_err(), fails, "{program:?}");
    }
}

#[test]
fn a_file_of_the_environment_is_refused_beside_an_image() {
    let command = FakeCommand::new().option("export-file", "f");
    let fails = |program, image: Option<&str>| refuse_export_file(&command, program, image.map(OsStr::new)).is_err();
    assert!(fails(Program::Sbatch, Some("a.sif")) && fails(Program::Salloc, Some("a.sif")));
    assert!(!fails(Program::Srun, Some("a.sif")));
    assert!(!fails(Program::Sbatch, Some("none")) && !fails(Program::Sbatch, None));
    assert!(refuse_export_file(&FakeCommand::new(), Program::Sbatch, Some("a.sif".as_ref())).is_ok());
}

#[test]
fn an_entry_point_is_refused_beside_several_programs() {
    let request = |form: &str| Request::from_env(form.as_ref()).unwrap();
    let (with, without) = (request(&format!("{INHERITED};entrypoint=yes")), request(INHERITED));
    let programs = FakeCommand::new().option("multi-prog", "yes");
    assert!(refuse_entrypoint_of_programs(&programs, &with).is_err());
    assert!(refuse_entrypoint_of_programs(&programs, &without).is_ok());
    assert!(refuse_entrypoint_of_programs(&FakeCommand::new(), &with).is_ok());
}

#[test]
fn facts_of_a_step_are_those_of_its_job() {
    let facts = [JobFact::Partition, JobFact::Account, JobFact::Qos];
    let of = |command: &FakeCommand| facts.map(|fact| fact.value(command).into_string().unwrap());
    let typed = || FakeCommand::new().option("partition", "p").option("account", "a").option("qos", "q");
    assert_eq!(of(&typed()), ["p", "a", "q"]);
    let in_job = typed().with("SLURM_JOB_ID", "70").with("SLURM_JOB_PARTITION", "P").with("SLURM_JOB_QOS", "Q");
    assert_eq!(of(&in_job), ["P", "", "Q"]);
    assert_eq!(of(&FakeCommand::new().with("SLURM_JOB_ACCOUNT", "stale")), ["", "", ""]);
}
