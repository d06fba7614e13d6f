//! Reads the control groups of a process, and moves processes into other groups (cgroups(7)).

use std::path::{Path, PathBuf};

use super::{Error, Result};

/// Prefix of the names of groups that Coracle makes.
pub const OWN_GROUPS: &str = "coracle_";

/// Name of a step's own group, where Slurm makes none.
pub fn own_group(job: u32, step: u32) -> String {
    format!("{OWN_GROUPS}{job}_{step}")
}

/// Directories of a process' control groups: one for each hierarchy of version 1, and that of version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    directories: Vec<Directory>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) mounted: PathBuf,
    pub(super) below: PathBuf,
}

impl Cgroups {
    /// Reads the groups of a process.
    pub fn of(pid: u32) -> Result<Self> {
        Ok(Self::parse(&read_text(&format!("/proc/{pid}/cgroup"))?, &read_text("/proc/self/mountinfo")?))
    }

    /// `groups` is /proc/PID/cgroup, `mounts` a mountinfo.
    fn parse(groups: &str, mounts: &str) -> Self {
        let directories = groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            mounts.lines().find_map(|mount| directory(controllers, Path::new(path), mount))
        });
        Self { directories: directories.collect() }
    }

    /// Moves the caller into those of these groups that are a job's. Returns the error of the first group that refuses;
    /// the caller is then in the others.
    pub fn enter_job(&self) -> Result<()> {
        // 0 is the writing process, also from a PID namespace (cgroups(7)).
        self.put_into_job(0)
    }

    /// Moves another process, with all its threads, into those of these groups that are a job's.
    pub fn put_into_job(&self, pid: u32) -> Result<()> {
        let jobs = self.directories.iter().filter(|directory| directory.of_a_job());
        jobs.map(|directory| put(pid, &directory.mounted.join(&directory.below))).fold(Ok(()), Result::and)
    }

    /// Like [`Self::enter_job`], for a process that has to end when its step does. Where slurmstepd itself is in the
    /// job's group, the caller enters the group of the step's tasks: proctrack/cgroup of version 1 kills that group.
    /// Version 2 kills slurmstepd's own group as well (cgroup_p_step_get_pids).
    pub fn enter_step(&self, step: &str) -> Result<()> {
        let jobs = self.directories.iter().filter(|directory| directory.of_a_job());
        let group = |directory: &Directory| {
            let own = directory.mounted.join(&directory.below);
            let tasks = own.join(format!("step_{step}"));
            let of_job = job_group(&directory.below).is_some_and(|job| job + 1 == directory.below.iter().count());
            if of_job && tasks.is_dir() { tasks } else { own }
        };
        jobs.map(|directory| put(0, &group(directory))).fold(Ok(()), Result::and)
    }

    /// Moves the caller out of a step, in both versions. Slurm kills every process of the step's groups, and a process
    /// in them keeps them from being removed.
    ///
    /// In version 2 only the topmost group holds processes beside groups (cgroups(7), "no internal processes"). Slurm
    /// puts its own daemon there as well. In a cgroup namespace the topmost group is a different one; Slurm has a group
    /// for waiting daemons there.
    pub fn leave_step(&self) -> Result<()> {
        let leave = |directory: &Directory| {
            let above = directory.below.iter().take(job_group(&directory.below).unwrap_or(0));
            let waiting = above.fold(directory.mounted.clone(), |path, name| path.join(name)).join("system");
            put(0, &directory.mounted).or_else(|error| put(0, &waiting).map_err(|_| error))
        };
        self.directories.iter().filter(|directory| directory.of_a_job()).map(leave).fold(Ok(()), Result::and)
    }

    /// Returns the names of the job's groups, one for each hierarchy in which it has one.
    pub fn jobs(&self) -> impl Iterator<Item = &std::ffi::OsStr> {
        self.directories.iter().filter_map(|directory| directory.below.iter().nth(job_group(&directory.below)?))
    }

    /// Removes the group `name` that was made below these groups. A group with a process in it stays.
    pub fn remove_child(&self, name: &str) {
        for directory in &self.directories {
            let _ = nix::unistd::unlinkat(
                nix::fcntl::AT_FDCWD,
                &directory.mounted.join(&directory.below).join(name),
                nix::unistd::UnlinkatFlags::RemoveDir,
            );
        }
    }

    /// Removes the remaining groups of version 1, if they are a job's. A process of Coracle may have been in one of
    /// them while Slurm, which tries once, removed its own. A group in use stays (rmdir(2), EBUSY). True if none of the
    /// innermost groups remains.
    ///
    /// Slurm makes and removes its groups under a lock of the top of the hierarchy (cgroup_common.c,
    /// `common_cgroup_lock`). This function takes the same lock. Otherwise a step of the same job could lose the group
    /// that it has just made.
    pub fn remove_left(&self) -> bool {
        let mut gone = true;
        let first =
            |directory: &&Directory| directory.of_a_job() && !directory.mounted.join("cgroup.controllers").exists();
        for directory in self.directories.iter().filter(first) {
            let Ok(top) = std::fs::File::open(&directory.mounted) else { continue };
            let Ok(_lock) = nix::fcntl::Flock::lock(top, nix::fcntl::FlockArg::LockExclusive) else { continue };
            let slurms = |below: &&Path| {
                let name = below.file_name().map(std::ffi::OsStr::to_string_lossy).unwrap_or_default();
                ["task_", "step_", "job_", "uid_"].iter().any(|level| name.starts_with(level))
            };
            let groups = directory.below.ancestors().take_while(slurms);
            // If a group is gone already, the groups above it are still removed.
            for group in groups {
                match std::fs::remove_dir(directory.mounted.join(group)) {
                    Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => break,
                    _ => {}
                }
            }
            gone &= !directory.mounted.join(&directory.below).exists();
        }
        gone
    }

    /// Moves the caller to the top of those hierarchies of version 1 in which these groups are a job's. Slurm removes
    /// the groups of a job when the job ends, and a group with a process in it cannot be removed.
    pub fn leave_job(&self) -> Result<()> {
        let first =
            |directory: &&Directory| directory.of_a_job() && !directory.mounted.join("cgroup.controllers").exists();
        self.directories.iter().filter(first).map(|directory| put(0, &directory.mounted)).fold(Ok(()), Result::and)
    }
}

impl Directory {
    /// True if the group is that of a job, or lies below one.
    fn of_a_job(&self) -> bool {
        job_group(&self.below).is_some()
    }
}

/// Reads a file of /proc as text, lossily.
///
/// A path in it may be any bytes: a user can mount a FUSE file system at a directory whose name is not UTF-8, and
/// every process of the node reads that name.
pub(super) fn read_text(path: &str) -> Result<String> {
    let read = std::fs::read(path).map_err(|cause| Error::from_io(format!("read({path:?})"), &cause));
    read.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the number of path components in front of a job's group. Slurm's cgroup plugins call the group `job_ID`.
/// cgroup/v2 since 26.05 uses the SLUID (`sCTNM8J4SS8B00`), which the `step_` below it identifies (cgroup_v2.c).
pub(super) fn job_group(path: &Path) -> Option<usize> {
    let names: Vec<_> = path.iter().map(|name| name.to_string_lossy()).collect();
    let step = |index: usize| names.get(index).is_some_and(|name| name.starts_with("step_"));
    (0..names.len()).find(|index| names[*index].starts_with("job_") || step(index + 1))
}

/// Moves the caller, which must have one thread, into a group of version 1.
///
/// A thread that moves itself waits for no other process, unlike a whole process (kernel/cgroup/cgroup.c,
/// cgroup_procs_write_start, since Linux 5.6).
pub fn enter_with_one_thread(directory: &Path) -> Result<()> {
    let file = directory.join("tasks");
    std::fs::write(&file, "0").map_err(|cause| Error::from_io(format!("write({file:?}, 0)"), &cause))
}

fn put(pid: u32, directory: &Path) -> Result<()> {
    let file = directory.join("cgroup.procs");
    std::fs::write(&file, pid.to_string()).map_err(|cause| Error::from_io(format!("write({file:?}, {pid})"), &cause))
}

/// Path of a group of the hierarchy `controllers` through one line of mountinfo (proc_pid_mountinfo(5)), if the mount
/// shows it.
pub(super) fn directory(controllers: &str, path: &Path, mount: &str) -> Option<Directory> {
    let (before, after) = mount.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, mounted) = (before.next()?, before.next()?);
    let mut after = after.split(' ');
    let (kind, options) = (after.next()?, after.nth(1)?);
    let same = match kind {
        "cgroup2" => controllers.is_empty(),
        "cgroup" => {
            !controllers.is_empty() && controllers.split(',').all(|one| options.split(',').any(|option| option == one))
        }
        _ => false,
    };
    // A mount of a container runtime: it shows only a part of the hierarchy.
    let below = path.strip_prefix(root).or_else(|_| path.strip_prefix("/")).ok()?;
    same.then(|| Directory { mounted: mounted.into(), below: below.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "30 24 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro\n\
        31 30 0:28 / /sys/fs/cgroup/freezer rw,nosuid shared:9 - cgroup cgroup rw,freezer\n\
        32 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
        33 30 0:30 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn each_hierarchy_is_found_where_it_is_mounted() {
        let groups = "5:freezer:/slurm_n1/uid_1/job_2/step_0\n4:cpu,cpuacct:/\n3:pids:/x\n0::/system.slice\n";
        let found: Vec<_> = Cgroups::parse(groups, MOUNTS)
            .directories
            .iter()
            .map(|directory| directory.mounted.join(&directory.below))
            .collect();
        let wanted = [
            "/sys/fs/cgroup/freezer/slurm_n1/uid_1/job_2/step_0",
            "/sys/fs/cgroup/cpu,cpuacct/",
            "/sys/fs/cgroup/unified/system.slice",
        ];
        assert_eq!(found, wanted.map(PathBuf::from));
    }

    #[test]
    fn what_is_no_cgroup_file_says_nothing() {
        assert!(Cgroups::parse("garbage\n:\n0:\n", MOUNTS).directories.is_empty());
        assert!(Cgroups::parse("0::/a\n", "short line\n- -\n").directories.is_empty());
    }
}
