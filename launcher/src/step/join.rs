//! Finds the container of a running step, which a new task can enter.
//!
//! No state is kept for this. The slurmstepd of the step is found among the node's processes. It belongs to root, runs
//! the same program as the slurmstepd that this launcher serves, and has the name `slurmstepd: [JOB.STEP]`; no user's
//! process can have all three. Its child processes are the tasks. The kernel, not the task, shows which of them is in a
//! container.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::policy;
use coracle::report::{Kind, Refusal};
use coracle::request::{ImageRef, is_script, step_id, step_name};
use coracle::sys::{self, MountNamespace};
use coracle::wire::Start;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::session::{Built, Origin, Outcome, Session};
use crate::apply;
use crate::container::environment;
use crate::container::image_mpi;
use crate::container::tasks::Tasks;

/// A step's container.
pub struct Found {
    /// Namespace of the step's tasks.
    pub namespace: MountNamespace,
    /// Image in the environment of the tasks, which the user can change.
    pub image: ImageRef,
    /// Id of the step.
    pub step: u32,
}

impl Session<'_> {
    /// Joins the container of a running step.
    pub(super) fn join(&self, step: Option<u32>) -> Result<Outcome, Refusal> {
        let base = MountNamespace::current().map_err(|error| Refusal::system("the step's namespace", &error))?;
        let built = find(&self.server.start, step).and_then(|found| self.enter(found));
        Ok(Outcome { built, base, here: None, kept: false })
    }

    fn enter(&self, found: Found) -> Result<Built, Refusal> {
        let Self { server, context, clock, .. } = self;
        clock.lap("find");
        if context.config.any_rule(|rule| rule.user_options.is_some()) {
            policy::options(&server.resolve_policy(&context.config)?.rules, &context.used)?;
        }
        server.receive_location(Instant::now() + context.config.start_timeout.0)?;
        self.confine()?;
        let account = self.policy.get().map(|policy| &policy.account);
        let tasks = Tasks::joining(context, clock, &found.image, account);
        let variables = tasks.evaluate(&found.namespace, Some(server.started()))?;
        let changes = variables.followed_by(&context.joined_changes(self.provision()))?;
        let (mpi, origin) = (image_mpi::Answers::default(), Origin::Step(found.step));
        Ok(Built { namespace: found.namespace, variables, mpi, changes, origin })
    }
}

/// Process of a task, held open because another process may get its id.
struct Process {
    directory: OwnedFd,
}

impl Process {
    fn open(pid: i32) -> Option<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let path = format!("/proc/{pid}");
        nix::fcntl::open(path.as_str(), flags, Mode::empty()).ok().map(|directory| Self { directory })
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let fd = sys::open_beneath(&self.directory, Path::new(name), OFlag::O_RDONLY).ok()?;
        let mut bytes = Vec::new();
        File::from(fd).take(1 << 20).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Value in `status` (proc_pid_status(5)): the first number after `key:`.
    fn number(&self, key: &str) -> Option<u32> {
        // The process name may be invalid UTF-8.
        let bytes = self.read("status")?;
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }

    /// UTS namespace, which identifies the node of the step record. Where several nodes are one host (slurmd -N), each
    /// may have its own host name (uts_namespaces(7)), and a step has a slurmstepd on each.
    fn node(&self) -> Option<OsString> {
        nix::fcntl::readlinkat(&self.directory, "ns/uts").ok()
    }

    /// Device and inode of the running program.
    fn program(&self) -> Option<(u64, u64)> {
        let fd = nix::fcntl::openat(&self.directory, "exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        File::from(fd).metadata().ok().map(|found| (found.dev(), found.ino()))
    }
}

/// True if this launcher built `namespace`.
///
/// The process in the namespace proves nothing. Its user can give it any root (chroot(2) in their own user namespace)
/// and any environment, both in the node's namespace and in one of another program for the job (job_container/tmpfs,
/// pam_namespace). So the check reads the namespace itself, from its own root, which setns(2) enters. The mark is the
/// `/dev` that every container of a step has.
/// Only a process with CAP_SYS_ADMIN in the first user namespace can mount there, and a user's FUSE mount has another
/// type.
fn is_ours(namespace: &MountNamespace) -> sys::Result<bool> {
    let home = MountNamespace::current()?;
    // This /proc shows the caller in any namespace; the other namespace may have another /proc, or none.
    let proc = sys::open_untrusted(Path::new("/proc"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    sys::enter_mount_namespace(namespace)?;
    let path = "thread-self/mountinfo";
    let mounts = nix::fcntl::openat(&proc, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| sys::Error::new(format!("openat(/proc, {path:?})"), errno));
    // Opened there, the file shows that namespace wherever it is read.
    sys::enter_mount_namespace(&home)?;
    let mut bytes = Vec::new();
    let read = File::from(mounts?).read_to_end(&mut bytes);
    read.map_err(|cause| sys::Error::from_io(format!("read({path:?})"), &cause))?;
    Ok(has_mark(&String::from_utf8_lossy(&bytes)))
}

/// True if a mountinfo (proc_pid_mountinfo(5)) shows a `/dev` as [`crate::apply`] makes it. A mount that covers another
/// one at the same mount point is listed after it.
fn has_mark(mounts: &str) -> bool {
    let top = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/dev"));
    let described = top.and_then(|line| line.split_once(" - "));
    described.is_some_and(|(_, what)| what.split(' ').take(2).eq(["tmpfs", apply::SOURCE]))
}

/// All processes of the node.
fn processes() -> Vec<(i32, Process)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, Process::open(pid)?))).collect()
}

/// Finds the container of a step of the same job. Without a step id, that is the job script's, or else that of the
/// lowest step.
pub fn find(start: &Start, wanted: Option<u32>) -> Result<Found, Refusal> {
    let name = |step: u32| format!("{}.{}", start.job, step_name(step));
    let shown = wanted.map_or_else(|| format!("job {}", start.job), |step| format!("step {}", name(step)));
    let ours = i32::try_from(start.daemon).ok().and_then(Process::open);
    let ours = ours.and_then(|process| Some((process.program()?, process.node()?)));
    let (program, node) = ours.ok_or_else(|| Refusal::new(Kind::System, &shown, "slurmstepd has died"))?;
    let all = processes();
    let mut daemons: Vec<(u32, i32)> = all
        .iter()
        .filter_map(|(pid, process)| {
            let step = step_of(process, start.job, program)?;
            (process.node()? == node).then_some((step, *pid))
        })
        .filter(|(step, _)| *step != start.step && wanted.is_none_or(|wanted| wanted == *step))
        .collect();
    // The job script is first.
    daemons.sort_by_key(|(step, _)| (!is_script(*step), *step));
    let system = |error: sys::Error| Refusal::system(&shown, &error);
    for (step, daemon) in &daemons {
        for (_, task) in all.iter().filter(|(_, task)| i32::try_from(task.number("PPid").unwrap_or(0)) == Ok(*daemon)) {
            if task.number("Uid") != Some(start.identity.uid) {
                continue;
            }
            let Ok(Some(namespace)) = MountNamespace::of_process(&task.directory) else { continue };
            if !is_ours(&namespace).map_err(system)? {
                continue;
            }
            let variables = environment::parse_pairs(&task.read("environ").unwrap_or_default());
            let image = variables.into_iter().find(|(name, _)| name == "CORACLE_IMAGE").map(|(_, value)| value);
            if let Some(image) = image {
                let path = PathBuf::from(&image);
                return Ok(Found { namespace, image: ImageRef { path, typed: image }, step: *step });
            }
        }
    }
    let cause = match (daemons.is_empty(), wanted) {
        (true, Some(_)) => "does not run on this node",
        (true, None) => "has no other step on this node",
        (false, _) => "has no container on this node",
    };
    Err(Refusal::new(Kind::Usage, shown, cause).hint("squeue --steps --jobs=JOB shows the steps and their nodes"))
}

/// Step of `job` whose slurmstepd is this process.
fn step_of(process: &Process, job: u32, program: (u64, u64)) -> Option<u32> {
    // The program and arguments of a user's process are not read: both may lie on a file system that the user serves.
    if process.number("Uid") != Some(0) || process.program() != Some(program) {
        return None;
    }
    let command = process.read("cmdline")?;
    let title = command.split(|byte| *byte == 0).next()?;
    let title = OsStr::from_bytes(title).to_str()?;
    let inside = title.strip_prefix("slurmstepd: [")?.split(']').next()?;
    let (of_job, step) = inside.split_once('.')?;
    if of_job.parse() != Ok(job) {
        return None;
    }
    step_id(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_known_by_the_topmost_dev() {
        let node = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n24 22 0:6 / /dev rw - devtmpfs udev rw\n";
        let mark = "41 40 0:50 / /dev ro,nosuid,noexec - tmpfs coracle rw,size=1024k\n";
        let below = "42 41 0:24 / /dev/pts rw,nosuid - devpts devpts rw\n";
        assert!(!has_mark(node));
        assert!(has_mark(&format!("40 22 7:1 / / ro - squashfs /dev/loop1 ro\n{mark}{below}")));
        assert!(has_mark(&format!("{node}{mark}{below}")));
        for other in ["tmpfs udev rw", "fuse.x coracle rw", "tmpfs coracle2 rw", "ext4 coracle rw"] {
            assert!(!has_mark(&format!("{node}{mark}43 41 0:51 / /dev rw - {other}\n")), "{other}");
        }
        for elsewhere in ["/scratch/dev", "/dev/shm", "/dev\\040"] {
            assert!(!has_mark(&format!("{node}41 40 0:50 / {elsewhere} rw - tmpfs coracle rw\n")), "{elsewhere}");
        }
        assert!(!has_mark("short\n23 22 0:5 / /proc rw\n"));
    }
}
