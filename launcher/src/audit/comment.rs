//! The job's comment: which image it runs, for its user and for accounting.
//!
//! Nobody waits for it, and nothing depends on it. It is set as the user, with Slurm's own command, when all tasks have
//! their answers and nothing of the container is held any more.
#![forbid(unsafe_code)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use coracle::config::Config;
use coracle::report::clean;
use coracle::request::{Digest, is_script};
use coracle::sys::{self, Channel, Identity};
use coracle::wire::Start;

use crate::slurm_client;

/// What our comments begin with.
const MARK: &str = "coracle:";
/// How long Slurm may take to answer. The processes that ask it are gone by then, whatever they wait for.
const LIMIT: Duration = Duration::from_secs(10);
/// How long they may take to be gone.
const PARTING: Duration = Duration::from_millis(100);
/// The longest answer, in bytes: the tasks of a whole array may be in it.
const MAX_ANSWER: u64 = 16 << 20;

/// A comment that is to be set.
pub struct Comment {
    job: u32,
    /// Takes the place of another one of ours: a job that was queued again may have a changed image.
    replaces: bool,
    text: String,
    identity: Identity,
    scontrol: PathBuf,
    slurm_conf: Option<PathBuf>,
}

impl Comment {
    /// For the first node of a step in a container of its own, if the site wants that, and the node has scontrol.
    pub fn of(start: &Start, path: &Path, digest: Option<Digest>, config: &Config) -> Option<Self> {
        if !config.audit.comment || start.node != 0 {
            return None;
        }
        Some(Self {
            job: start.job,
            replaces: is_script(start.step),
            text: text(path, digest),
            identity: start.identity.clone(),
            scontrol: slurm_client::scontrol(Path::new("/"), &config.slurm_client)?,
            slurm_conf: start.slurm_conf.clone(),
        })
    }

    /// Sets it, unless the job has one of its user's.
    pub fn set(&self) {
        let _ = self.try_set();
    }

    fn try_set(&self) -> sys::Result<()> {
        let deadline = Instant::now() + LIMIT;
        let (ours, theirs) = Channel::pair()?;
        // A process namespace: what scontrol waits for must not outlive the limit.
        let child = sys::fork_contained(move || {
            let done = become_the_user(&self.identity).is_ok() && self.work().is_some();
            let _ = theirs.send(&[u8::from(done)], &[], deadline);
            0
        })?;
        let _ = ours.receive(deadline);
        child.end(PARTING);
        Ok(())
    }

    fn work(&self) -> Option<()> {
        let found = find(&self.scontrol(&["show".into(), "job".into(), self.job.to_string()])?, self.job)?;
        let free = match found.comment.as_deref() {
            None | Some("") | Some("(null)") => true,
            Some(comment) => self.replaces && comment.starts_with(MARK) && comment != self.text,
        };
        if free {
            let (job, comment) = (format!("JobId={}", found.name), format!("Comment={}", self.text));
            self.scontrol(&["update".into(), job, comment])?;
        }
        Some(())
    }

    fn scontrol(&self, words: &[String]) -> Option<String> {
        let mut command = Command::new(&self.scontrol);
        command.args(words).env_clear().envs(self.slurm_conf.iter().map(|path| ("SLURM_CONF", path)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().ok()?;
        let mut text = Vec::new();
        child.stdout.take()?.take(MAX_ANSWER).read_to_end(&mut text).ok()?;
        child.wait().ok()?.success().then(|| String::from_utf8_lossy(&text).into_owned())
    }
}

fn become_the_user(identity: &Identity) -> sys::Result<()> {
    sys::set_no_new_privileges()?;
    sys::become_user(identity)?;
    // Behind the change of ids, which takes it back.
    sys::die_with_parent()
}

fn text(path: &Path, digest: Option<Digest>) -> String {
    let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
    format!("{MARK}{}{digest}", clean(&path.to_string_lossy()))
}

/// A job as scontrol shows it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// What means this job and no other: the number of an array or of a heterogeneous job stands for all of its parts.
    name: String,
    comment: Option<String>,
}

/// Looks for `job` in what `scontrol show job` says: the parts of an array, or of a heterogeneous job, are there, too.
fn find(text: &str, job: u32) -> Option<Found> {
    let wanted = format!("JobId={job}");
    text.split("\n\n").find_map(|part| {
        let first = part.lines().find(|line| !line.trim().is_empty())?;
        let value = |key: &str| {
            let mut words = first.split_whitespace().take_while(|word| !word.starts_with("JobName="));
            words.find_map(|word| word.strip_prefix(key)).map(str::to_owned)
        };
        if first.split_whitespace().next() != Some(&wanted) {
            return None;
        }
        let name = match (value("ArrayJobId="), value("ArrayTaskId="), value("HetJobId="), value("HetJobOffset=")) {
            (Some(array), Some(task), ..) => format!("{array}_{task}"),
            (.., Some(all), Some(offset)) => format!("{all}+{offset}"),
            _ => job.to_string(),
        };
        let comment = part.lines().find_map(|line| line.trim_start().strip_prefix("Comment="));
        Some(Found { name, comment: comment.map(str::to_owned) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_found_with_its_own_name_and_comment() {
        let text = "JobId=8 ArrayJobId=7 ArrayTaskId=2 JobName=a JobId=7\n   UserId=alice(2001)\n   Comment=mine too \n\n\
                    JobId=7 ArrayJobId=7 ArrayTaskId=1 JobName=Comment=x\n   AdminComment=no\n   StdErr=/x\n\n";
        let found =
            |name: &str, comment: Option<&str>| Some(Found { name: name.into(), comment: comment.map(Into::into) });
        assert_eq!(find(text, 8), found("7_2", Some("mine too ")));
        assert_eq!(find(text, 7), found("7_1", None));
        assert_eq!(find(text, 9), None);
        let text = "JobId=10 HetJobId=10 HetJobOffset=0 JobName=x\n   HetJobIdSet=10-11\n\nJobId=11 HetJobId=10 HetJobOffset=1 \
                    JobName=x\n   Comment=coracle:/a\n";
        assert_eq!(find(text, 11), found("10+1", Some("coracle:/a")));
        assert_eq!(find("\nJobId=12 JobName=ArrayJobId=1 ArrayTaskId=2\n", 12), found("12", None));
    }

    #[test]
    fn a_comment_is_one_line() {
        let digest = Digest::parse(format!("sha256:{}", "0".repeat(64)).as_ref()).unwrap();
        assert_eq!(text(Path::new("/a b\n.sif"), None), "coracle:/a b\\n.sif");
        assert!(text(Path::new("/i"), Some(digest)).starts_with("coracle:/i@sha256:00"));
    }
}
