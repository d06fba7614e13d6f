//! Sets the job's comment, which names its image for the user and for accounting.
//!
//! No process waits for it, and nothing depends on it. It is set as the user, with Slurm's own command, when all tasks
//! have their answers and the launcher holds nothing of the container. That command runs in the node's mount namespace
//! beside the tasks, so they must not escape through it: it is in the control groups of the job, and they cannot trace
//! it.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::config::Config;
use coracle::report::clean;
use coracle::request::{Digest, is_script};
use coracle::sys::{self, Channel, Forked, Identity, Ids, Preamble};
use coracle::wire::Start;
use nix::errno::Errno;
use nix::sys::stat::Mode;

use crate::children::ask;
use crate::slurm::StepSlurm;

/// Prefix of Coracle's comments.
const MARK: &str = "coracle:";
/// Time limit for Slurm's answer. The processes that ask for it are killed at this limit, in any state.
const LIMIT: Duration = Duration::from_secs(10);
/// Time limit for the end of these processes.
const PARTING: Duration = Duration::from_millis(100);
/// Interval of checks of the step meanwhile: it ends with its last task, and its control groups must be empty then.
const PAUSE: Duration = Duration::from_millis(20);
/// Group ids that belong to no group on any system: "nobody" on current and on older systems.
const NOBODYS: [u32; 3] = [65534, 65533, 4_294_967_294];
/// First bytes of a program (elf(5)).
const ELF: &[u8] = b"\x7fELF";
/// Limit on the length of a program that is copied, in bytes.
const MAX_PROGRAM: u64 = 64 << 20;
/// Limit on an answer, in bytes: it may contain the tasks of a whole array.
const MAX_ANSWER: u64 = 16 << 20;

/// A comment to be set.
pub struct Comment {
    job: u32,
    /// True if it may replace another one of Coracle: a job that was requeued may have another image.
    replaces: bool,
    text: String,
    identity: Identity,
    /// slurmstepd of the step.
    daemon: u32,
    scontrol: PathBuf,
    slurm_conf: Option<PathBuf>,
}

impl Comment {
    /// Comment for the first node of a step in its own container, if the site enables comments and the node has
    /// scontrol.
    pub fn of(start: &Start, path: &Path, digest: Option<Digest>, config: &Config) -> Option<Self> {
        if !config.audit.comment || start.node != 0 {
            return None;
        }
        Some(Self {
            job: start.job,
            replaces: is_script(start.step),
            text: text(path, digest),
            identity: start.identity.clone(),
            daemon: start.daemon,
            scontrol: StepSlurm::of(start.daemon, &config.slurm_client, None).scontrol()?,
            slurm_conf: start.slurm_conf.clone(),
        })
    }

    /// Sets it, unless the job has a comment of its user.
    pub fn set(&self) {
        let _ = self.try_set();
    }

    fn try_set(&self) -> sys::Result<()> {
        let deadline = Instant::now() + LIMIT;
        let (ours, theirs) = Channel::pair()?;
        let groups = sys::Cgroups::of(self.daemon)?;
        // This process may have started in one of the groups, and Slurm cannot remove a group with a process. Its child
        // process enters it again.
        sys::Cgroups::of(std::process::id())?.leave_job()?;
        let jobs = groups.clone();
        // A PID namespace: the processes that scontrol starts must not outlive the limit.
        let child = sys::fork_in_pid_namespace(move |forked| {
            let program = self.program();
            let kept: Vec<BorrowedFd<'_>> = program.copy.iter().map(AsFd::as_fd).chain([theirs.as_fd()]).collect();
            if self.enter_job(forked, &kept, &jobs).is_ok() {
                self.work(&program);
            }
            // The end of the work; nothing depends on its result.
            let _ = ask::answer(&theirs, Ok(&()), &[], deadline);
            0
        })?;
        let mut pause = Instant::now();
        while pause < deadline && has_tasks(self.daemon) {
            pause = deadline.min(Instant::now() + PAUSE);
            match ours.receive(pause) {
                Err(error) if error.errno() == Errno::ETIMEDOUT => {}
                _ => break,
            }
        }
        child.end(PARTING);
        // Slurm may have found this process in the groups of an ending step, and left the groups. They are empty when
        // the PID namespace has ended, for which Slurm does not wait.
        while Instant::now() < deadline && !has_tasks(self.daemon) {
            let ended = !Path::new("/proc").join(self.daemon.to_string()).exists();
            if ended && groups.remove_left() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Command to execute. A program is copied into memory, to a file of root that the user may execute but not read.
    /// Then the kernel makes its process undumpable (execve(2), fs/exec.c `would_dump`), and its files in /proc/PID
    /// belong to root. A script cannot be executed this way, nor any copy where memory files are not executable
    /// (vm.memfd_noexec).
    fn program(&self) -> Program {
        let named = Program { path: self.scontrol.clone(), copy: None };
        let copy = || {
            let mut bytes = Vec::new();
            let file = File::open(&self.scontrol).ok()?;
            file.take(MAX_PROGRAM + 1).read_to_end(&mut bytes).ok()?;
            let fits = bytes.starts_with(ELF) && bytes.len() as u64 <= MAX_PROGRAM;
            let copy = fits.then(|| sys::memory_file(&bytes).ok()).flatten()?;
            nix::sys::stat::fchmod(&copy, Mode::from_bits_truncate(0o711)).ok()?;
            Some(Program { path: format!("/proc/self/fd/{}", copy.as_raw_fd()).into(), copy: Some(copy) })
        };
        copy().unwrap_or(named)
    }

    /// Becomes the user, in the control groups of the job, without access for the tasks.
    ///
    /// ptrace(2) and calls with the same check (/proc/PID/root, process_vm_readv(2), pidfd_getfd(2)) require that the
    /// caller's ids equal all of the target's, groups included. No process of the user has the group of this process.
    /// Its child processes have it, too, while undumpable (PR_SET_DUMPABLE(2const)) would last for one execve(2) only.
    /// The user's own groups stay supplementary groups.
    fn enter_job(&self, forked: &Forked, kept: &[BorrowedFd<'_>], groups: &sys::Cgroups) -> sys::Result<()> {
        groups.enter_job()?;
        let identity = out_of_reach(&self.identity)?;
        // scontrol loads plugins of Slurm and of the site: it has no limits and no filter.
        let preamble = Preamble { kept: Some(kept), executes: true, ids: Ids::Of(&identity), ..Preamble::default() };
        preamble.enter(forked)
    }

    fn work(&self, program: &Program) -> Option<()> {
        let found = find(&self.scontrol(program, &["show".into(), "job".into(), self.job.to_string()])?, self.job)?;
        let free = match found.comment.as_deref() {
            None | Some("") | Some("(null)") => true,
            Some(comment) => self.replaces && comment.starts_with(MARK) && comment != self.text,
        };
        if free {
            let (job, comment) = (format!("JobId={}", found.name), format!("Comment={}", self.text));
            self.scontrol(program, &["update".into(), job, comment])?;
        }
        Some(())
    }

    fn scontrol(&self, program: &Program, words: &[String]) -> Option<String> {
        let command = |path: &Path| self.command(path, words).spawn();
        let mut child = command(&program.path).or_else(|_| command(&self.scontrol)).ok()?;
        let mut text = Vec::new();
        child.stdout.take()?.take(MAX_ANSWER).read_to_end(&mut text).ok()?;
        child.wait().ok()?.success().then(|| String::from_utf8_lossy(&text).into_owned())
    }

    fn command(&self, path: &Path, words: &[String]) -> Command {
        let mut command = Command::new(path);
        command.arg0("scontrol").args(words).env_clear().envs(self.slurm_conf.iter().map(|path| ("SLURM_CONF", path)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }
}

/// Identity of the user with a primary group that no process of theirs has.
fn out_of_reach(identity: &Identity) -> sys::Result<Identity> {
    let theirs = |gid: &u32| *gid == identity.gid || identity.groups.contains(gid);
    let gid = NOBODYS.into_iter().find(|gid| !theirs(gid));
    let gid = gid.ok_or_else(|| sys::Error::new("setresgid()".to_owned(), Errno::EPERM))?;
    let mut groups = identity.groups.clone();
    if !groups.contains(&identity.gid) {
        groups.push(identity.gid);
    }
    Ok(Identity { uid: identity.uid, gid, groups })
}

/// False if slurmstepd has no child process, in which case it removes the control groups of its step. True if the
/// kernel does not list child processes (proc_pid_children(5)).
fn has_tasks(daemon: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{daemon}/task")) else { return false };
    let children = |thread: std::fs::DirEntry| std::fs::read(thread.path().join("children"));
    threads.flatten().map(children).any(|children| children.map_or(true, |children| !children.is_empty()))
}

fn text(path: &Path, digest: Option<Digest>) -> String {
    let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
    format!("{MARK}{}{digest}", clean(&path.to_string_lossy()))
}

/// A command, and the descriptor of its file.
struct Program {
    path: PathBuf,
    copy: Option<OwnedFd>,
}

/// A job as shown by scontrol.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// Id of this job alone: the id of an array or of a heterogeneous job stands for all of its parts.
    name: String,
    comment: Option<String>,
}

/// Finds `job` in the output of `scontrol show job`, which may also list other parts of an array or of a heterogeneous
/// job.
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
    fn its_process_has_a_group_that_no_task_has() {
        let of = |gid, groups: &[u32]| out_of_reach(&Identity { uid: 7, gid, groups: groups.into() });
        assert_eq!(of(7, &[8]).unwrap(), Identity { uid: 7, gid: 65534, groups: vec![8, 7] });
        assert_eq!(of(65534, &[]).unwrap(), Identity { uid: 7, gid: 65533, groups: vec![65534] });
        assert_eq!(of(7, &[7, 65534, 65533]).unwrap().gid, 4_294_967_294);
        assert!(of(65534, &[65533, 4_294_967_294]).is_err());
    }

    #[test]
    fn a_comment_is_one_line() {
        let digest = Digest::parse(format!("sha256:{}", "0".repeat(64)).as_ref()).unwrap();
        assert_eq!(text(Path::new("/a b\n.sif"), None), "coracle:/a b\\n.sif");
        assert!(text(Path::new("/i"), Some(digest)).starts_with("coracle:/i@sha256:00"));
    }
}
