//! Device rules of a step's tasks: Slurm's, or Coracle's own if Slurm has none.
//!
//! The content of /dev is no restriction: a user can bring a device node along, or find one in a directory of the node.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::devices::Node;
use coracle::sys::{self, CgroupVersion, Channel, Child, DeviceGroups, DeviceRule};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::children::ask::{self, Failure};

/// Time limit for the check of the device rules. It asks no driver.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time limit for the end of a child process that has answered, and for its group to be empty.
const PARTING: Duration = Duration::from_secs(1);
/// Limit on the groups of one job that is requeued, well above any real number.
const MAX_RUNS: u32 = 64;
/// Number of tries for a group that another start has removed.
const TRIES: u32 = 16;
/// Delay before the next try for a task that could not be moved.
const AGAIN: Duration = Duration::from_millis(5);
/// Group that exists for one question, below the group in which Slurm keeps a step's tasks.
const PROBE: &str = "coracle_probe";

/// Device rules of a step.
#[derive(Debug)]
pub struct Confinement {
    /// Groups of the step; nothing if the node has no control groups.
    groups: Option<DeviceGroups>,
    /// True if Slurm has device rules.
    slurms: bool,
    /// Name of Coracle's own group.
    name: String,
    /// Rules that Coracle has made.
    made: Option<Vec<DeviceRule>>,
}

impl Confinement {
    /// Finds the rules of the step whose slurmstepd is `daemon`, once that is in Slurm's groups.
    pub fn of(daemon: u32, job: u32, step: u32) -> sys::Result<Self> {
        Self::by(DeviceGroups::of(daemon)?, sys::own_group(job, step))
    }

    /// Finds the rules in these groups; `name` is the name of Coracle's own group.
    pub fn by(groups: Option<DeviceGroups>, name: String) -> sys::Result<Self> {
        let slurms = match &groups {
            // In version 1, Slurm makes a group only for its rules.
            Some(DeviceGroups { version: CgroupVersion::One, step, .. }) => !step.is_empty(),
            // In version 2, every step has groups. Those of a batch script have no rules besides the job's.
            Some(DeviceGroups { version: CgroupVersion::Two, step, .. }) => {
                let mut found = false;
                for group in step {
                    found = found || sys::has_device_rules(open(group)?)?;
                }
                found
            }
            None => false,
        };
        Ok(Self { groups, slurms, name, made: None })
    }

    /// True if Slurm has device rules (ConstrainDevices, cgroup.conf(5)).
    pub fn is_slurms(&self) -> bool {
        self.slurms
    }

    /// True if the node has control groups for device rules.
    pub fn has_groups(&self) -> bool {
        self.groups.is_some()
    }

    /// For each of these device nodes, true if the step's tasks may open it for reading and writing, by the rules of
    /// all of them. No device is opened. A node that was replaced counts as denied.
    pub fn accessible(&self, nodes: &[Node]) -> sys::Result<Vec<bool>> {
        let (ours, theirs) = Channel::pair()?;
        let deadline = Instant::now() + PATIENCE;
        // The child process stays root without a preamble: it asks for the device rules alone, not for the modes of the
        // nodes, and reads nothing that a user wrote.
        let work = |entered: sys::Result<()>| {
            let tell = |entered: sys::Result<()>| {
                entered?;
                let answers: Vec<bool> = nodes.iter().map(opens).collect();
                ask::answer(&theirs, Ok(&answers), &[], deadline)
            };
            u8::from(tell(entered).is_err())
        };
        // The group is removed when the child process has ended.
        let (child, _leaf) = self.inside(&work)?;
        drop(theirs);
        let received = ours.receive(deadline);
        match &received {
            // The child process has no more work.
            Ok(_) => _ = child.wait()?,
            Err(_) => child.end(PARTING),
        }
        match ask::decode::<Vec<bool>>(received) {
            Ok(reply) if reply.found.len() == nodes.len() => Ok(reply.found),
            Err(Failure::Late) => Err(sys::Error::new("device rules: the child that asks", Errno::ETIMEDOUT)),
            Err(Failure::System(error)) => Err(error),
            _ => Err(sys::Error::new("device rules: the child that asks has died", Errno::EIO)),
        }
    }

    /// Restricts the step's tasks to these devices from now on; only if Slurm has no device rules.
    ///
    /// To be called once. The rules end with the step's group, if Slurm has made one; for Coracle's own group, see
    /// [`Self::adopt`]. After an error no task may start.
    pub fn restrict(&mut self, allowed: &[DeviceRule]) -> sys::Result<()> {
        if self.slurms {
            return Err(sys::Error::new("device rules: they are Slurm's", Errno::EPERM));
        }
        self.made = Some(allowed.to_vec());
        match &self.groups {
            None => Err(sys::Error::new("device rules: no control groups are mounted", Errno::ENODEV)),
            Some(groups) => match groups.step.first() {
                Some(step) => sys::allow_devices(open(step)?, allowed),
                None => {
                    sweep(&groups.own);
                    self.name = self.make_first(&groups.own)?;
                    Ok(())
                }
            },
        }
    }

    /// Puts a task into Coracle's own group, if the rules are not in a group of Slurm.
    pub fn adopt(&self, task: u32) -> sys::Result<()> {
        let Some(own) = self.own() else { return Ok(()) };
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match self.with_own(own, |group| write(&group.join("cgroup.procs"), &task.to_string())) {
                // The kernel rarely returns this for a task that is alive (job_container/tmpfs).
                Err(error) if tries > 0 && error.errno() == Errno::ESRCH => std::thread::sleep(AGAIN),
                adopted => return adopted,
            }
        }
    }

    /// Parent of Coracle's own group.
    fn own(&self) -> Option<&Path> {
        let groups = self.groups.as_ref().filter(|groups| groups.step.is_empty() && self.made.is_some());
        groups.map(|groups| groups.own.as_path())
    }

    /// Runs `work` with Coracle's own group. Another start may remove the group until it contains a process.
    fn with_own<T>(&self, parent: &Path, work: impl Fn(&Path) -> sys::Result<T>) -> sys::Result<T> {
        let group = parent.join(&self.name);
        let mut tries = TRIES;
        loop {
            tries -= 1;
            // An existing group is complete.
            match self.make(&group).and_then(|_| work(&group)) {
                Err(error) if tries > 0 && is_gone(&error) => {}
                result => return result,
            }
        }
    }

    /// Makes Coracle's own group and returns its name. A job that is requeued keeps its id, and a process of its first
    /// run may still exist.
    fn make_first(&self, parent: &Path) -> sys::Result<String> {
        let names = (1..=MAX_RUNS).map(|run| format!("{}_{run}", self.name));
        for name in std::iter::once(self.name.clone()).chain(names) {
            if self.make(&parent.join(&name))? {
                return Ok(name);
            }
        }
        Err(sys::Error::new(format!("mkdir({:?})", parent.join(&self.name)), Errno::EEXIST))
    }

    /// Makes a group with the rules; false if it exists already. No group exists without the rules. Another start may
    /// remove it while they are written.
    fn make(&self, group: &Path) -> sys::Result<bool> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match self.make_once(group) {
                Err(error) if tries > 0 && is_gone(&error) => {}
                made => return made,
            }
        }
    }

    fn make_once(&self, group: &Path) -> sys::Result<bool> {
        let (Some(rules), Some(groups)) = (&self.made, &self.groups) else { return Ok(false) };
        match std::fs::DirBuilder::new().mode(0o755).create(group) {
            Ok(()) => {}
            Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
            Err(cause) => return Err(sys::Error::from_io(format!("mkdir({group:?})"), &cause)),
        }
        let ruled = match groups.version {
            CgroupVersion::One => write_rules(group, rules),
            CgroupVersion::Two => open(group).and_then(|directory| sys::allow_devices(directory, rules)),
        };
        // Another start may have made a group that is gone again by now.
        if ruled.as_ref().is_err_and(|error| !is_gone(error)) {
            let _ = std::fs::remove_dir(group);
        }
        ruled.map(|()| true)
    }

    /// Starts a child process in the group with the rules of the step's tasks; `work` receives the result of entering
    /// it.
    fn inside(&self, work: &dyn Fn(sys::Result<()>) -> u8) -> sys::Result<(Child, Option<Leaf>)> {
        let Some(groups) = &self.groups else { return Ok((sys::fork(|| work(Ok(())))?, None)) };
        let (parent, step) = match (groups.step.first(), self.own()) {
            (Some(step), _) => (step.as_path(), true),
            (None, Some(own)) => (own, false),
            (None, None) => (groups.own.as_path(), true),
        };
        let enter = |group: &Path| match groups.version {
            CgroupVersion::One => sys::fork(|| work(sys::enter_with_one_thread(group))),
            CgroupVersion::Two => sys::fork_into(open(group)?, || work(Ok(()))),
        };
        if !step {
            return Ok((self.with_own(parent, enter)?, None));
        }
        match enter(parent) {
            // Slurm enables controllers for the groups of the tasks, so no process may be beside them (cgroups(7), "no
            // internal processes"). A task's group is no place for one either: Slurm would fail to remove it.
            Err(error) if error.errno() == Errno::EBUSY => {
                let leaf = Leaf::make(parent.join(PROBE))?;
                Ok((enter(&leaf.0)?, Some(leaf)))
            }
            child => Ok((child?, None)),
        }
    }
}

/// True if another start has removed the group. The files of a removed group return ENODEV.
fn is_gone(error: &sys::Error) -> bool {
    matches!(error.errno(), Errno::ENOENT | Errno::ENODEV)
}

/// A group that is removed when it is dropped: otherwise Slurm could not remove its parent group.
struct Leaf(PathBuf);

impl Leaf {
    fn make(directory: PathBuf) -> sys::Result<Self> {
        match std::fs::DirBuilder::new().mode(0o755).create(&directory) {
            Err(cause) if cause.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(sys::Error::from_io(format!("mkdir({directory:?})"), &cause))
            }
            _ => Ok(Self(directory)),
        }
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        let end = Instant::now() + PARTING;
        // The last process in it may still be ending.
        while std::fs::remove_dir(&self.0).is_err_and(|cause| cause.kind() == std::io::ErrorKind::ResourceBusy)
            && Instant::now() < end
        {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

/// True if the caller may open a device node for reading and writing.
fn opens(node: &Node) -> bool {
    let flags = (OFlag::O_PATH | OFlag::O_NOFOLLOW).bits();
    let Ok(file) = File::options().read(true).custom_flags(flags).open(&node.path) else { return false };
    let Ok(found) = file.metadata() else { return false };
    let same = Node::of(&node.path, &found).as_ref() == Some(node);
    same && sys::may_open(&file).unwrap_or(false)
}

/// Removes the groups of steps that have ended; a group with a process in it stays.
fn sweep(parent: &Path) {
    let Ok(entries) = parent.read_dir() else { return };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name().as_bytes().starts_with(sys::OWN_GROUPS.as_bytes()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Writes the rules in the format of version 1 (Documentation/admin-guide/cgroup-v1/devices.rst).
fn write_rules(group: &Path, rules: &[DeviceRule]) -> sys::Result<()> {
    write(&group.join("devices.deny"), "a")?;
    let allow = group.join("devices.allow");
    rules.iter().try_for_each(|rule| match write(&allow, &line(rule)) {
        // A parent group denies the device, and its rules take precedence.
        Err(error) if error.errno() == Errno::EPERM => Ok(()),
        written => written,
    })
}

fn line(rule: &DeviceRule) -> String {
    let minor = rule.minor.map_or_else(|| "*".to_owned(), |minor| minor.to_string());
    format!("{} {}:{minor} rwm", if rule.block { 'b' } else { 'c' }, rule.major)
}

fn open(group: &Path) -> sys::Result<File> {
    let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
    let file = File::options().read(true).custom_flags(flags).open(group);
    file.map_err(|cause| sys::Error::from_io(format!("open({group:?})"), &cause))
}

fn write(file: &Path, text: &str) -> sys::Result<()> {
    std::fs::write(file, text).map_err(|cause| sys::Error::from_io(format!("write({file:?}, {text:?})"), &cause))
}
