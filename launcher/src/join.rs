//! The container of a step that runs: where its tasks are, a new one may go.
//!
//! Nothing is kept for this. slurmstepd of the step is found among the node's processes: it is root's, runs the same
//! program as the slurmstepd that we serve, and calls itself `slurmstepd: [JOB.STEP]`, which no user's process can do.
//! Its children are the tasks.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal};
use coracle::request::{ImageRef, StepRef, is_script, step_id, step_name};
use coracle::sys::{self, MountNamespace};
use coracle::wire::Start;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::variables;

/// A step's container.
pub struct Found {
    /// Where its tasks are.
    pub namespace: MountNamespace,
    /// Its image, as the tasks have it in their environment: the user's word.
    pub image: ImageRef,
    /// Which step it is.
    pub step: u32,
}

/// The image while it is not known which one it is.
pub fn stands_for(step: StepRef) -> ImageRef {
    let typed = OsString::from(step.to_string());
    ImageRef { path: PathBuf::from(&typed), typed }
}

/// A task's process, held open: its number may be somebody else's in the next moment.
struct Process {
    folder: OwnedFd,
}

impl Process {
    fn open(pid: i32) -> Option<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let path = format!("/proc/{pid}");
        nix::fcntl::open(path.as_str(), flags, Mode::empty()).ok().map(|folder| Self { folder })
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let fd = sys::open_beneath(&self.folder, Path::new(name), OFlag::O_RDONLY).ok()?;
        let mut bytes = Vec::new();
        File::from(fd).take(1 << 20).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// A number of `status` (proc_pid_status(5)): the first behind `key:`.
    fn number(&self, key: &str) -> Option<u32> {
        let text = String::from_utf8(self.read("status")?).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }

    /// What stands for the node that it belongs to: where several nodes are one machine (slurmd -N), each may have a
    /// host name of its own (uts_namespaces(7)), and a step has a slurmstepd on each.
    fn node(&self) -> Option<OsString> {
        nix::fcntl::readlinkat(&self.folder, "ns/uts").ok()
    }

    /// What its root is: a device and a folder of it (proc_pid_mountinfo(5)). Nobody has to be asked for that who reads
    /// an image as a user.
    fn root(&self) -> Option<String> {
        root_of(&String::from_utf8_lossy(&self.read("mountinfo")?))
    }

    /// The program that it runs.
    fn program(&self) -> Option<(u64, u64)> {
        let fd = nix::fcntl::openat(&self.folder, "exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        File::from(fd).metadata().ok().map(|found| (found.dev(), found.ino()))
    }
}

/// The mount at "/", the topmost if there are several, in a mountinfo.
fn root_of(mounts: &str) -> Option<String> {
    let mut roots = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let (device, folder, place) = (fields.next()?, fields.next()?, fields.next()?);
        (place == "/").then(|| format!("{device} {folder}"))
    });
    roots.next_back()
}

/// All processes of the node.
fn processes() -> Vec<(i32, Process)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, Process::open(pid)?))).collect()
}

/// The container of a step of the same job; without a number, the job script's, or else that of the lowest step.
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
    // The job script comes first.
    daemons.sort_by_key(|(step, _)| (!is_script(*step), *step));
    let own = std::fs::read_to_string("/proc/self/mountinfo").ok().and_then(|mounts| root_of(&mounts));
    for (step, daemon) in &daemons {
        for (_, task) in all.iter().filter(|(_, task)| i32::try_from(task.number("PPid").unwrap_or(0)) == Ok(*daemon)) {
            if task.number("Uid") != Some(start.identity.uid) {
                continue;
            }
            let Ok(Some(namespace)) = MountNamespace::of_process(&task.folder) else { continue };
            let variables = variables::pairs(&task.read("environ").unwrap_or_default());
            let image = variables.iter().find(|(name, _)| name == "CORACLE_IMAGE").map(|(_, value)| value.clone());
            // With the node's root there is no container, whatever a task says: only the node, or the job's own /tmp.
            let root = task.root();
            if let (Some(image), true) = (image, root.is_some() && own.is_some() && root != own) {
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

/// The step of `job` whose slurmstepd this process is.
fn step_of(process: &Process, job: u32, program: (u64, u64)) -> Option<u32> {
    let command = process.read("cmdline")?;
    let title = command.split(|byte| *byte == 0).next()?;
    let title = OsStr::from_bytes(title).to_str()?;
    let inside = title.strip_prefix("slurmstepd: [")?.split(']').next()?;
    let (of_job, step) = inside.split_once('.')?;
    let daemon = process.number("Uid") == Some(0) && process.program() == Some(program);
    if !daemon || of_job.parse() != Ok(job) {
        return None;
    }
    step_id(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_root_counts() {
        let node = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n23 22 0:5 / /proc rw - proc proc rw\n";
        assert_eq!(root_of(node).as_deref(), Some("254:0 /"));
        let stacked =
            format!("{node}40 22 7:1 / / ro,nosuid - squashfs /dev/loop1 ro\n41 40 0:5 / /proc rw - proc proc rw\n");
        assert_eq!(root_of(&stacked).as_deref(), Some("7:1 /"));
        assert_eq!(root_of("short\n23 22 0:5 / /proc rw\n"), None);
    }
}
