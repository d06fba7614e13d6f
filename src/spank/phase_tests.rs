//! Tests of the phases of a step. A task is a fork of slurmstepd: it shares the flags and nothing else.
#![forbid(unsafe_code)]

use super::*;
use crate::sys::Received;

fn cause(text: &str) -> Refusal {
    Refusal::new(Kind::System, "o", text)
}

fn identity() -> Identity {
    Identity { uid: 2001, gid: 2001, groups: vec![] }
}

fn facts(nodes: u32, tasks: u32) -> Facts {
    Facts { job: 70, step: 3, nodes, tasks, identity: Some(identity()), components: vec![] }
}

/// A step on one node whose launcher builds a container for two tasks, and the launcher's end of the connection.
fn building_of(facts: Facts) -> (Step, Channel) {
    let (ours, theirs) = Channel::pair().unwrap();
    let mut step = Step::default();
    step.build(facts, None);
    step.connect(ours);
    (step, theirs)
}

fn building() -> (Step, Channel) {
    building_of(facts(1, 2))
}

fn entered() -> Step {
    let (mut step, _) = building();
    step.enter(Ok(Place { inside: true, ..Place::default() }));
    step
}

fn refused(text: &str) -> Step {
    let (mut step, _) = building();
    step.refuse(cause(text));
    step
}

fn flags(step: &Step) -> &Flags {
    match &step.phase {
        Phase::Building { flags, .. } | Phase::Entered { flags, .. } | Phase::Refused { flags, .. } => flags,
        Phase::Unread { .. } | Phase::OnNode => panic!("no flags"),
    }
}

fn has_ended(theirs: &Channel) -> bool {
    let soon = std::time::Instant::now() + std::time::Duration::from_millis(20);
    matches!(theirs.receive(soon), Ok(Received::Closed))
}

fn said(step: &Step) -> Option<&str> {
    step.refusal().map(|refusal| refusal.cause.as_str())
}

fn start(step: &mut Step, is_requested: bool) -> TaskStart {
    step.start_task(|| is_requested)
}

#[test]
fn a_step_without_a_container_runs_and_leaves_nothing() {
    let mut step = Step::default();
    step.stay_on_node();
    assert_eq!(start(&mut step, true), TaskStart::OnNode);
    assert_eq!((step.ending(), step.finish()), (None, None));
}

#[test]
fn a_step_goes_through_its_hooks_to_its_place() {
    let (mut step, _theirs) = building();
    assert!(step.is_building() && step.channel().is_some() && step.place().is_none());
    step.work_in("/home/alice".into());
    step.enter(Ok(Place { inside: true, ..Place::default() }));
    assert_eq!(start(&mut step, false), TaskStart::InPlace);
    let (place, directory) = step.place().unwrap();
    assert!(place.inside);
    assert_eq!(directory, Some(Path::new("/home/alice")));
    assert_eq!(step.refusal(), None);
}

#[test]
fn the_first_cause_counts() {
    let mut step = refused("first");
    step.refuse(cause("second"));
    step.refuse_task(cause("third"));
    assert_eq!(said(&step), Some("first"));
}

#[test]
fn a_refused_step_stays_refused_in_every_later_hook() {
    let mut step = refused("first");
    step.work_in("/".into());
    step.pass_on();
    step.enter(Ok(Place::default()));
    assert!(!step.is_building() && step.place().is_none() && step.channel().is_none());
    assert_eq!(start(&mut step, false), TaskStart::Refused);
    assert_eq!(start(&mut step, false), TaskStart::Refused);
    assert_eq!(said(&step), Some("first"));
}

#[test]
fn a_fault_of_init_refuses_a_step_that_needs_a_container() {
    let mut step = Step::default();
    step.refuse(cause("arguments"));
    step.build(facts(1, 1), Some(cause("request")));
    assert_eq!(start(&mut step, true), TaskStart::Refused);
    assert_eq!(said(&step), Some("arguments"));
}

#[test]
fn a_fault_of_init_does_not_stop_a_step_that_needs_no_container() {
    let mut step = Step::default();
    step.refuse(cause("arguments"));
    step.stay_on_node();
    assert_eq!(start(&mut step, true), TaskStart::OnNode);
}

#[test]
fn a_fault_of_init_refuses_a_script_whose_steps_need_containers() {
    let mut step = Step::default();
    step.pass_on();
    assert_eq!(start(&mut step, true), TaskStart::OnNode);
    let mut step = Step::default();
    step.refuse(cause("arguments"));
    step.pass_on();
    assert_eq!(start(&mut step, true), TaskStart::Refused);
    assert_eq!(said(&step), Some("arguments"));
}

#[test]
fn a_request_that_cannot_be_read_refuses_the_step() {
    let mut step = Step::default();
    step.build(facts(1, 1), Some(cause("request")));
    assert!(!step.is_building());
    assert_eq!(start(&mut step, true), TaskStart::Refused);
    assert_eq!(said(&step), Some("request"));
}

#[test]
fn a_skipped_init_post_opt_refuses_tasks_with_a_request_only() {
    for (defaults, is_requested, wanted) in [
        (false, false, TaskStart::OnNode),
        (false, true, TaskStart::Refused),
        (true, false, TaskStart::Refused),
        (true, true, TaskStart::Refused),
    ] {
        let mut step = Step::default();
        if defaults {
            step.asks_for_defaults();
        }
        assert_eq!(start(&mut step, is_requested), wanted, "defaults {defaults}, requested {is_requested}");
    }
    let mut step = Step::default();
    start(&mut step, true);
    assert_eq!(said(&step), Some("Slurm has not called its init_post_opt"));
}

#[test]
fn a_panic_in_init_post_opt_is_the_cause_of_a_requested_task() {
    let mut step = Step::default();
    step.refuse(cause("panicked"));
    assert_eq!(start(&mut step, false), TaskStart::OnNode);
    assert_eq!(start(&mut step, true), TaskStart::Refused);
    assert_eq!(said(&step), Some("panicked"));
}

#[test]
fn a_skipped_task_init_privileged_refuses_one_task() {
    let (mut step, _theirs) = building();
    assert_eq!(start(&mut step, false), TaskStart::Refused);
    assert_eq!(said(&step), Some("Slurm has not called its task_init_privileged"));
    assert!(flags(&step).is_raised(FLAG_TASK_ONLY));
}

#[test]
fn the_environment_is_read_again_only_if_it_is_unread() {
    let asked = || panic!("asked");
    let mut on_node = Step::default();
    on_node.stay_on_node();
    assert_eq!(on_node.start_task(asked), TaskStart::OnNode);
    assert_eq!(entered().start_task(asked), TaskStart::InPlace);
    assert_eq!(refused("x").start_task(asked), TaskStart::Refused);
}

#[test]
fn one_task_of_a_node_reports() {
    let step = refused("x");
    assert_eq!((said(&step), said(&step), said(&step)), (Some("x"), None, None));
}

#[test]
fn one_task_of_a_node_prints_the_notes() {
    let step = entered();
    assert_eq!([(); 3].map(|()| step.is_first_with_notes()), [true, false, false]);
    assert!(!building().0.is_first_with_notes());
}

#[test]
fn without_shared_flags_every_task_reports() {
    let mut step = refused("x");
    if let Phase::Refused { flags, .. } = &mut step.phase {
        *flags = Flags(None);
    }
    assert_eq!((said(&step), said(&step)), (Some("x"), Some("x")));
    assert_eq!(step.ending(), None);
}

#[test]
fn a_later_fault_concerns_steps_with_a_container_only() {
    let mut unread = Step::default();
    let mut on_node = Step::default();
    on_node.stay_on_node();
    for step in [&mut unread, &mut on_node] {
        step.refuse_if_wanted(cause("x"));
        assert_eq!(start(step, false), TaskStart::OnNode);
    }
    for mut step in [building().0, entered()] {
        step.refuse_if_wanted(cause("x"));
        assert_eq!(start(&mut step, false), TaskStart::Refused);
    }
}

#[test]
fn a_fault_before_the_plan_counts_with_those_after_it() {
    let mut step = Step::default();
    step.stay_on_node();
    step.refuse(cause("panicked"));
    assert_eq!(start(&mut step, false), TaskStart::Refused);
    assert_eq!(said(&step), Some("panicked"));
}

#[test]
fn the_reach_of_a_failed_entry_is_the_launchers() {
    for (reach, task_only) in [(Reach::Step, false), (Reach::Task, true)] {
        let (mut step, _theirs) = building();
        step.enter(Err((cause("x"), reach)));
        assert_eq!(start(&mut step, false), TaskStart::Refused);
        assert_eq!(said(&step), Some("x"));
        assert_eq!(flags(&step).is_raised(FLAG_TASK_ONLY), task_only);
        assert!(!flags(&step).is_raised(FLAG_ENTERED));
    }
}

#[test]
fn a_task_that_cannot_be_set_up_is_refused_alone() {
    let mut step = entered();
    step.refuse_task(cause("no directory"));
    assert_eq!(said(&step), Some("no directory"));
    assert!(flags(&step).is_raised(FLAG_TASK_ONLY) && flags(&step).is_raised(FLAG_ENTERED));
}

#[test]
fn a_panic_in_task_init_ends_tasks_of_containers_only() {
    let mut on_node = Step::default();
    on_node.stay_on_node();
    assert!(!on_node.refuse_after_panic(cause("panicked")));
    assert!(!Step::default().refuse_after_panic(cause("panicked")));
    let mut faulty = Step::default();
    faulty.refuse(cause("first"));
    let mut with_defaults = Step::default();
    with_defaults.asks_for_defaults();
    for mut step in [entered(), building().0, refused("first"), faulty, with_defaults] {
        assert!(step.refuse_after_panic(cause("panicked")));
        assert_eq!(said(&step), Some("panicked"));
    }
}

#[test]
fn the_connection_ends_with_the_last_forked_task() {
    let (mut step, theirs) = building();
    step.count_fork();
    assert!(step.channel().is_some() && !has_ended(&theirs));
    step.count_fork();
    assert!(step.channel().is_none() && has_ended(&theirs));
}

#[test]
fn the_connection_of_a_refused_step_stays_until_all_tasks_are_forked() {
    let (mut step, theirs) = building();
    step.refuse(cause("x"));
    assert!(!has_ended(&theirs));
    step.count_fork();
    assert!(!has_ended(&theirs));
    step.count_fork();
    assert!(has_ended(&theirs));
}

#[test]
fn the_launcher_of_a_refused_request_stays_connected() {
    let (ours, theirs) = Channel::pair().unwrap();
    let mut step = Step::default();
    step.build(facts(1, 1), Some(cause("request")));
    step.connect(ours);
    assert!(!has_ended(&theirs));
    step.count_fork();
    assert!(has_ended(&theirs));
}

#[test]
fn a_task_has_no_connection_once_it_has_entered() {
    for result in [Ok(Place::default()), Err((cause("x"), Reach::Step))] {
        let (mut step, theirs) = building();
        step.enter(result);
        assert!(has_ended(&theirs));
    }
}

#[test]
fn a_task_without_a_connection_is_refused_alone() {
    let mut step = Step::default();
    step.build(facts(1, 1), None);
    let (refusal, reach) = step.need_channel().unwrap_err();
    assert_eq!((refusal.cause.as_str(), reach), ("ended without an answer", Reach::Task));
}

#[test]
fn a_step_is_ended_if_a_refused_task_leaves_others_waiting() {
    let het = Facts { components: vec![70, 71], ..facts(1, 2) };
    for (facts, raised, ends) in [
        (facts(1, 2), FLAG_REFUSED, false),
        (facts(2, 2), FLAG_REFUSED, true),
        (het, FLAG_REFUSED, true),
        (facts(1, 2), FLAG_REFUSED | FLAG_TASK_ONLY, true),
        (facts(1, 2), FLAG_REFUSED | FLAG_ENTERED, true),
        (facts(2, 2), 0, false),
        (facts(2, 2), FLAG_ENTERED | FLAG_TASK_ONLY | FLAG_NOTED, false),
    ] {
        let (step, _theirs) = building_of(facts);
        flags(&step).raise(raised);
        assert_eq!(step.ending().is_some(), ends, "flags {raised}");
    }
}

#[test]
fn a_step_is_ended_once() {
    let (step, _theirs) = building_of(facts(2, 1));
    flags(&step).raise(FLAG_REFUSED);
    assert_eq!(step.ending(), Some(Ending { jobs: vec![70], step: 3, identity: identity() }));
    assert_eq!(step.ending(), None);
}

#[test]
fn all_components_of_a_step_are_ended() {
    let (step, _theirs) = building_of(Facts { components: vec![70, 71], ..facts(1, 1) });
    flags(&step).raise(FLAG_REFUSED);
    assert_eq!(step.ending().map(|ending| ending.jobs), Some(vec![70, 71]));
}

#[test]
fn a_step_whose_user_is_unknown_is_not_ended() {
    let (step, _theirs) = building_of(Facts { identity: None, ..facts(2, 1) });
    flags(&step).raise(FLAG_REFUSED);
    assert_eq!(step.ending(), None);
}

#[test]
fn a_step_with_a_container_has_a_control_group_of_its_own() {
    for mut step in [building().0, entered(), refused("x")] {
        assert_eq!(step.finish().as_deref(), Some("coracle_70_3"));
        assert_eq!(step.finish(), None);
    }
}

#[test]
fn no_task_starts_in_a_transition_that_does_not_end() {
    let mut step = entered();
    let _ = step.take();
    assert_eq!(start(&mut step, false), TaskStart::Refused);
}
