//! Tests of the request of a step, and of the plan for it.
#![forbid(unsafe_code)]

use super::super::fake::FakeJob;
use super::*;

const IMAGE: &str = "2:image=/img/a.sif;as=a.sif";
const OTHER: &str = "2:image=/img/b.sif;as=b.sif";
/// Step of an ordinary srun.
const SRUN: u32 = 0;
/// Shell of salloc.
const INTERACTIVE: u32 = 0xffff_fffa;

fn named(request: StepRequest) -> Result<Option<String>, String> {
    match request {
        Ok(None) => Ok(None),
        Ok(Some(Choice::Host)) => Ok(Some("none".into())),
        Ok(Some(Choice::Container(request))) => Ok(Some(request.what.to_string())),
        Err((form, _)) => Err(form.into_string().unwrap()),
    }
}

fn read(job: FakeJob) -> Result<Option<String>, String> {
    named(read_request(&job))
}

fn choice(form: &str) -> StepRequest {
    Ok(Some(Choice::from_env(form.as_ref()).unwrap()))
}

#[test]
fn a_job_without_variables_has_no_request() {
    assert_eq!(read(FakeJob::new()), Ok(None));
}

#[test]
fn the_request_wins_over_slurms_variable_and_over_the_jobs() {
    let job = || FakeJob::new().with("SLURM_CONTAINER", "c.sif").with("SLURM_CORACLE_STEPS", OTHER);
    assert_eq!(read(job().with("SLURM_CORACLE_REQUEST", IMAGE)), Ok(Some("a.sif".into())));
    assert_eq!(read(job().with("SLURM_CORACLE_REQUEST", "none")), Ok(Some("none".into())));
    assert_eq!(read(job()), Ok(Some("c.sif".into())));
}

#[test]
fn the_request_of_a_component_wins_over_the_plain_one() {
    let job = || {
        FakeJob::new()
            .id(71)
            .with("SLURM_HET_SIZE", "2")
            .with("SLURM_JOB_ID_HET_GROUP_0", "70")
            .with("SLURM_JOB_ID_HET_GROUP_1", "71")
            .with("SLURM_CORACLE_REQUEST", IMAGE)
    };
    assert_eq!(read(job().with("SLURM_CORACLE_REQUEST_HET_GROUP_1", OTHER)), Ok(Some("b.sif".into())));
    assert_eq!(read(job().with("SLURM_CORACLE_REQUEST_HET_GROUP_1", "nothing")), Ok(None));
    assert_eq!(read(job().with("SLURM_CORACLE_REQUEST_HET_GROUP_0", OTHER)), Ok(Some("a.sif".into())));
}

#[test]
fn a_job_that_is_no_component_has_the_plain_request() {
    let job = FakeJob::new().id(99).with("SLURM_HET_SIZE", "1").with("SLURM_JOB_ID_HET_GROUP_0", "70");
    let job = job.with("SLURM_CORACLE_REQUEST", IMAGE).with("SLURM_CORACLE_REQUEST_HET_GROUP_0", OTHER);
    assert_eq!(read(job), Ok(Some("a.sif".into())));
}

#[test]
fn a_step_inherits_and_a_job_script_does_not() {
    let job = || FakeJob::new().with("SLURM_CORACLE_STEPS", IMAGE);
    for (step, wanted) in [(SRUN, Some("a.sif")), (INTERACTIVE, Some("a.sif")), (BATCH_STEP, None)] {
        assert_eq!(read(job().step(step)), Ok(wanted.map(str::to_owned)), "{step}");
    }
}

#[test]
fn slurms_variable_is_an_image_beside_the_working_directory() {
    for (directory, path) in
        [(Some("/home/alice"), "/home/alice/a.sif"), (Some("relative"), "/a.sif"), (None, "/a.sif")]
    {
        let job = FakeJob::new().with("SLURM_CONTAINER", "a.sif");
        let job = directory.into_iter().fold(job, |job, directory| job.with("PWD", directory));
        let Ok(Some(Choice::Container(request))) = read_request(&job) else { panic!() };
        assert_eq!(request.image().unwrap().path, Path::new(path));
    }
}

#[test]
fn an_empty_variable_of_slurm_is_no_image() {
    assert_eq!(read(FakeJob::new().with("SLURM_CONTAINER", "")), Ok(None));
}

#[test]
fn a_request_that_cannot_be_read_comes_with_its_form() {
    for (name, form) in [("SLURM_CORACLE_REQUEST", "1:x"), ("SLURM_CORACLE_STEPS", ""), ("SLURM_CONTAINER", "x://y")] {
        assert_eq!(read(FakeJob::new().with(name, form)), Err(form.into()), "{name}");
    }
}

#[test]
fn a_request_that_is_too_long_is_no_shorter_one() {
    let form = format!("{IMAGE};bind={}", "x".repeat(MAX_LEN));
    assert!(read(FakeJob::new().with("SLURM_CORACLE_REQUEST", &form)).is_err());
}

#[test]
fn components_are_those_of_the_job_and_at_most_128() {
    let job = FakeJob::new().with("SLURM_HET_SIZE", "3");
    let job = job.with("SLURM_JOB_ID_HET_GROUP_0", "70").with("SLURM_JOB_ID_PACK_GROUP_1", "71");
    let job = job.with("SLURM_JOB_ID_HET_GROUP_2", "x").with("SLURM_JOB_ID_HET_GROUP_3", "73");
    assert_eq!(components(&job), [70, 71]);
    let many = (0..200).fold(FakeJob::new().with("SLURM_HET_SIZE", "4000000000"), |job, group| {
        job.with(&format!("SLURM_JOB_ID_HET_GROUP_{group}"), "70")
    });
    assert_eq!(components(&many).len(), 128);
    assert_eq!(components(&FakeJob::new().with("SLURM_JOB_ID_HET_GROUP_0", "70")), [0; 0]);
}

#[test]
fn the_extern_step_is_known_by_its_number() {
    assert!(is_extern(Some(0xffff_fffc)));
    assert!(![Some(BATCH_STEP), Some(INTERACTIVE), Some(0), None].into_iter().any(is_extern));
}

#[test]
fn a_step_without_an_image_stays_on_the_node() {
    for request in [Ok(None), Ok(Some(Choice::Host))] {
        for (step, forget_steps) in [(SRUN, false), (INTERACTIVE, false), (BATCH_STEP, true)] {
            assert_eq!(plan_step(step, false, request.clone()), Plan::OnNode { forget_steps });
        }
    }
}

#[test]
fn with_defaults_the_launcher_is_asked_about_every_step() {
    for (request, form, steps) in [(Ok(None), "", None), (Ok(Some(Choice::Host)), "none", Some("none"))] {
        for step in [SRUN, INTERACTIVE, BATCH_STEP] {
            let plan = Plan::Launch { request: form.into(), steps: steps.map(OsString::from), fault: None };
            assert_eq!(plan_step(step, true, request.clone()), plan);
        }
    }
}

#[test]
fn an_image_is_inherited_by_the_steps_in_it() {
    for step in [SRUN, INTERACTIVE, BATCH_STEP] {
        let plan = Plan::Launch { request: IMAGE.into(), steps: Some(IMAGE.into()), fault: None };
        assert_eq!(plan_step(step, false, choice(IMAGE)), plan);
    }
}

#[test]
fn a_script_of_scope_steps_stays_on_the_node() {
    let form = format!("{IMAGE};scope=steps");
    for step in [BATCH_STEP, INTERACTIVE] {
        assert_eq!(plan_step(step, false, choice(&form)), Plan::PassOn(form.clone().into()));
        // The site may have a container for the script itself.
        assert!(
            matches!(plan_step(step, true, choice(&form)), Plan::Launch { steps: Some(steps), .. } if *steps == *form)
        );
    }
    assert!(matches!(plan_step(SRUN, false, choice(&form)), Plan::Launch { .. }));
}

#[test]
fn steps_inherit_nothing_of_scope_script() {
    let form = format!("{IMAGE};scope=script");
    let steps = |defaults| match plan_step(BATCH_STEP, defaults, choice(&form)) {
        Plan::Launch { steps, .. } => steps,
        other => panic!("{other:?}"),
    };
    assert_eq!((steps(false), steps(true)), (None, Some("none".into())));
}

#[test]
fn the_launcher_gets_a_request_that_cannot_be_read() {
    let fault = Refusal::new(crate::report::Kind::Usage, "o", "c");
    for defaults in [false, true] {
        let plan = plan_step(BATCH_STEP, defaults, Err(("1:x".into(), fault.clone())));
        assert_eq!(plan, Plan::Launch { request: "1:x".into(), steps: None, fault: Some(fault.clone()) });
    }
}

fn job_with_all() -> FakeJob {
    FakeJob::new()
        .with("SLURM_CONTAINER", "c")
        .with("SLURM_SPANK__SLURM_SPANK_OPTION_coracle_container", "c")
        .with("SLURM_CORACLE_REQUEST", "1:r")
        .with("SLURM_CORACLE_REQUEST_HET_GROUP_0", "1:r")
        .with("SLURM_CORACLE_STEPS", "1:s")
        .with("SLURM_HET_SIZE", "1")
        .with("SLURM_JOB_ID_HET_GROUP_0", "70")
}

const OF_JOB: [(&str, &str); 2] = [("SLURM_HET_SIZE", "1"), ("SLURM_JOB_ID_HET_GROUP_0", "70")];

#[test]
fn tasks_see_the_request_for_their_steps_and_nothing_stale() {
    let (launch, pass) = ("1:new", "1:passed");
    for (plan, form) in [
        (Plan::Launch { request: "1:r".into(), steps: Some(launch.into()), fault: None }, Some(launch)),
        (Plan::Launch { request: "1:r".into(), steps: None, fault: None }, None),
        (Plan::PassOn(pass.into()), Some(pass)),
    ] {
        let job = job_with_all();
        pass_on(&job, &plan);
        let steps = form.map(|form| ("SLURM_CORACLE_STEPS", form));
        assert_eq!(job.variables(), steps.into_iter().chain(OF_JOB).collect::<Vec<_>>(), "{plan:?}");
    }
}

#[test]
fn on_the_node_only_a_stale_request_is_removed() {
    for forget_steps in [false, true] {
        let job = job_with_all();
        pass_on(&job, &Plan::OnNode { forget_steps });
        let names: Vec<_> = job.variables().iter().map(|(name, _)| *name).collect();
        assert!(!names.contains(&"SLURM_CORACLE_REQUEST") && names.contains(&"SLURM_CONTAINER"), "{names:?}");
        assert_eq!(names.contains(&"SLURM_CORACLE_STEPS"), !forget_steps);
    }
}
