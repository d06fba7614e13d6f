//! Reads the launcher's answer to a task, and applies it to the task's environment and directory.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Job, STEPS};
use crate::env::Change;
use crate::report::{Kind, Refusal};
use crate::request::MAX_LEN;
use crate::sys::{self, Received};
use crate::wire::Answer;

/// Directory that slurmstepd enters when it cannot enter the job's (slurmd/slurmstepd/mgr.c).
const FALLBACK: &str = "/tmp";

/// Place in which a task is to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Changes to the task's environment.
    pub changes: Vec<Change>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// Directory in which the task starts, if it is not the job's.
    pub workdir: Option<PathBuf>,
    /// True if the image's entry point runs the command.
    pub entrypoint: bool,
    /// True in the container, false on the node.
    pub inside: bool,
    /// Request that the task's steps inherit, if that is the site's default.
    pub steps: Option<OsString>,
}

/// Tasks that a refusal concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All tasks of the step.
    Step,
    /// One task; other tasks on this node continue.
    Task,
}

/// A refusal with its reach.
pub type Refused = (Refusal, Reach);

/// Returns the refusal of a task whose launcher ended without an answer.
pub fn silent() -> Refused {
    (Refusal::new(Kind::Internal, "the launcher", "ended without an answer"), Reach::Task)
}

/// Reads the launcher's answer. Returns the task's place without its changes, and the descriptors of the answer.
pub fn read_answer(received: sys::Result<Received>) -> Result<(Place, Vec<OwnedFd>), Refused> {
    let packet = match received {
        Ok(Received::Packet(packet)) => packet,
        Ok(Received::Closed) => return Err(silent()),
        Err(_) => {
            return Err((Refusal::new(Kind::Timeout, "the launcher", "did not answer in time"), Reach::Task));
        }
    };
    let place = match Answer::from_bytes(&packet.data).map_err(|malformed| (malformed.into(), Reach::Task))? {
        Answer::Enter { notes, workdir, entrypoint, steps } => {
            Place { changes: Vec::new(), notes, workdir, entrypoint, inside: true, steps }
        }
        Answer::Outside => Place::default(),
        Answer::Refused(refusal) => return Err((refusal, Reach::Step)),
    };
    Ok((place, packet.fds))
}

impl Place {
    /// Applies the changes to the task's environment, and hands on the request for its steps.
    pub fn apply(&self, job: &impl Job) {
        for change in &self.changes {
            match change {
                Change::Set(name, value) => {
                    if let (Some(name), Some(value)) = (text(name), text(value)) {
                        job.set_variable(&name, &value);
                    }
                }
                Change::Unset(name) => text(name).iter().for_each(|name| job.unset_variable(name)),
                Change::Without(name, _) | Change::Numbered(name, _) => {
                    let Some(name) = text(name) else { continue };
                    let new = job.variable(&name, MAX_LEN).and_then(|list| text(&change.of_list(&list)?));
                    new.iter().for_each(|new| job.set_variable(&name, new));
                }
            }
        }
        if self.inside {
            self.steps.iter().filter_map(|steps| text(steps)).for_each(|steps| job.set_variable(STEPS, &steps));
        }
    }

    /// Returns the directory that a task in the container has to enter, unless it is there. `step` is the working
    /// directory of the step, `now` that of the task.
    ///
    /// If Slurm cannot enter the job's directory, it enters /, reports that, and starts the task there.
    pub fn directory<'a>(&'a self, step: Option<&'a Path>, now: Option<&Path>) -> Result<Option<&'a Path>, Refusal> {
        if let Some(workdir) = &self.workdir {
            return Ok(Some(workdir));
        }
        let Some(directory) = step else {
            return Err(Refusal::new(Kind::Internal, "slurmstepd", "did not say the working directory"));
        };
        // slurmstepd has entered its own fallback because the directory is only in the job's private tree
        // (job_container/tmpfs), and the task has found it there.
        let found = directory == Path::new(FALLBACK) && now.is_some_and(|now| now != Path::new("/"));
        Ok((!found && now != Some(directory)).then_some(directory))
    }
}

/// Returns a text for C; `None` if it has a NUL.
fn text(text: &OsStr) -> Option<CString> {
    CString::new(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::super::fake::FakeJob;
    use super::*;
    use crate::sys::{Error, Packet};

    fn answered(answer: &Answer) -> Result<Place, Refused> {
        let packet = Packet { data: answer.to_bytes(), fds: Vec::new(), sender: None };
        read_answer(Ok(Received::Packet(packet))).map(|(place, _)| place)
    }

    #[test]
    fn a_task_that_may_enter_is_inside() {
        let answer = Answer::Enter {
            notes: vec!["n".into()],
            workdir: Some("/w".into()),
            entrypoint: true,
            steps: Some("2:image=/a".into()),
        };
        let wanted = Place {
            changes: vec![],
            notes: vec!["n".into()],
            workdir: Some("/w".into()),
            entrypoint: true,
            inside: true,
            steps: Some("2:image=/a".into()),
        };
        assert_eq!(answered(&answer), Ok(wanted));
    }

    #[test]
    fn a_task_outside_has_nothing_of_a_container() {
        assert_eq!(answered(&Answer::Outside), Ok(Place::default()));
        assert!(!Place::default().inside && !Place::default().entrypoint);
    }

    #[test]
    fn a_refusal_of_the_launcher_is_for_all_tasks() {
        let refusal = Refusal::new(Kind::Policy, "/a.sif", "no").hint("ask");
        assert_eq!(answered(&Answer::Refused(refusal.clone())), Err((refusal, Reach::Step)));
    }

    #[test]
    fn silence_of_the_launcher_is_for_one_task() {
        let line = |received| {
            let (refusal, reach) = read_answer(received).unwrap_err();
            assert_eq!(reach, Reach::Task, "{refusal}");
            refusal.line()
        };
        assert_eq!(line(Ok(Received::Closed)), "coracle: the launcher: ended without an answer [internal]");
        let late = Error::new("recvmsg()", Errno::ETIMEDOUT);
        assert_eq!(line(Err(late)), "coracle: the launcher: did not answer in time [timeout]");
        let garbled = Packet { data: b"x=1\0".into(), fds: Vec::new(), sender: None };
        let said = line(Ok(Received::Packet(garbled)));
        assert!(said.ends_with("a message without a proper kind [internal]"), "{said}");
    }

    #[test]
    fn changes_of_the_environment_are_made_in_their_order() {
        let job = FakeJob::new().with("GONE", "1").with("LIST", "a,b").with("CUDA_VISIBLE_DEVICES", "5");
        let changes = vec![
            Change::Set("A".into(), "1".into()),
            Change::Set("A".into(), "2".into()),
            Change::Unset("GONE".into()),
            Change::Set("LIST".into(), "x,y,z".into()),
            Change::Without("LIST".into(), "y".into()),
            Change::Without("UNSET".into(), "y".into()),
            Change::Numbered("CUDA_VISIBLE_DEVICES".into(), "4,5".into()),
        ];
        Place { changes, ..Place::default() }.apply(&job);
        assert_eq!(job.variables(), [("A", "2"), ("CUDA_VISIBLE_DEVICES", "1"), ("LIST", "x,z")]);
    }

    #[test]
    fn a_list_whose_last_word_would_go_stays() {
        let job = FakeJob::new().with("LIST", "a");
        Place { changes: vec![Change::Without("LIST".into(), "a".into())], ..Place::default() }.apply(&job);
        assert_eq!(job.variables(), [("LIST", "a")]);
    }

    #[test]
    fn steps_inherit_the_sites_default_inside_of_the_container_only() {
        for (inside, wanted) in [(true, &[("SLURM_CORACLE_STEPS", "1:x")][..]), (false, &[])] {
            let job = FakeJob::new();
            Place { inside, steps: Some("1:x".into()), ..Place::default() }.apply(&job);
            assert_eq!(job.variables(), wanted);
        }
    }

    fn directory(step: &str, now: Option<&str>) -> Option<PathBuf> {
        let place = Place::default();
        place.directory(Some(Path::new(step)), now.map(Path::new)).unwrap().map(Path::to_owned)
    }

    #[test]
    fn a_task_enters_the_directory_of_its_step_unless_it_is_there() {
        assert_eq!(directory("/home/alice", Some("/")), Some("/home/alice".into()));
        assert_eq!(directory("/home/alice", None), Some("/home/alice".into()));
        assert_eq!(directory("/home/alice", Some("/home/alice")), None);
        assert_eq!(directory("/", Some("/")), None);
    }

    #[test]
    fn a_private_directory_that_the_task_has_found_is_kept() {
        assert_eq!(directory("/tmp", Some("/tmp/private")), None);
        assert_eq!(directory("/tmp", Some("/")), Some("/tmp".into()));
        assert_eq!(directory("/tmp", None), Some("/tmp".into()));
    }

    #[test]
    fn the_images_directory_wins_over_that_of_the_step() {
        let place = Place { workdir: Some("/work".into()), ..Place::default() };
        for now in [None, Some(Path::new("/work"))] {
            assert_eq!(place.directory(Some(Path::new("/home")), now), Ok(Some(Path::new("/work"))));
        }
        assert_eq!(place.directory(None, None), Ok(Some(Path::new("/work"))));
    }

    #[test]
    fn a_step_without_a_directory_is_refused() {
        let refusal = Place::default().directory(None, Some(Path::new("/"))).unwrap_err();
        assert_eq!(refusal.line(), "coracle: slurmstepd: did not say the working directory [internal]");
    }
}
