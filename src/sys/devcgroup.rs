//! Finds the control groups that decide about the devices of a Slurm step.
//!
//! If the `devices` hierarchy of version 1 is there, its rules count; else a program of a group of version 2 decides
//! (see [`super::allow_devices`]). Slurm's own groups are, by the sources of its cgroup plugins: in version 1
//! `slurm[_NODE]/uid_U/job_J/step_S/task_N`, with slurmstepd in the step's; in version 2 `job_J/step_S/user/task_N`,
//! with slurmstepd in `job_J/step_S/slurm`, and rules at the job, at `user` and at the tasks. Since 26.05 the job's
//! group in version 2 has the job's SLUID as its name.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::cgroup::{directory, job_group, read_text};
use super::{Error, Result};

/// The versions of control groups (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// Rules are lines of files.
    One,
    /// Rules are a program.
    Two,
}

/// The groups that decide about the devices of a slurmstepd and its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceGroups {
    /// Version of the hierarchy.
    pub version: CgroupVersion,
    /// Directory of the group that slurmstepd is in.
    pub own: PathBuf,
    /// Groups that Slurm has made for the step in this hierarchy, from the common group of all its tasks up to the
    /// job's. Empty where Slurm makes none.
    pub step: Vec<PathBuf>,
}

impl DeviceGroups {
    /// Finds the groups of a slurmstepd. `None` where no hierarchy could decide.
    pub fn of(daemon: u32) -> Result<Option<Self>> {
        let (groups, mounts) = read(daemon)?;
        Self::parse(&groups, &mounts)
    }

    /// Like [`Self::of`] in the hierarchy of version 2, also where that of version 1 decides.
    pub fn of_version_two(daemon: u32) -> Result<Option<Self>> {
        let (groups, mounts) = read(daemon)?;
        Ok(find(&groups, &mounts, CgroupVersion::Two).and_then(|found| found))
    }

    fn parse(groups: &str, mounts: &str) -> Result<Option<Self>> {
        match find(groups, mounts, CgroupVersion::One) {
            Some(Some(found)) => Ok(Some(found)),
            // The hierarchy decides, but it is not mounted. At its top there is nothing to decide (devices.rst).
            Some(None) if !at_the_top(groups) => {
                Err(Error::new("the cgroup hierarchy \"devices\", which is not mounted here", Errno::ENOENT))
            }
            Some(None) | None => Ok(find(groups, mounts, CgroupVersion::Two).and_then(|found| found)),
        }
    }

    fn new(version: CgroupVersion, mounted: &Path, below: &Path) -> Self {
        let names: Vec<_> = below.iter().collect();
        let starts = |index: usize, with: &str| {
            names.get(index).is_some_and(|name: &&std::ffi::OsStr| name.to_string_lossy().starts_with(with))
        };
        let path = |length: usize| names[..length].iter().fold(mounted.to_owned(), |path, name| path.join(name));
        let own = path(names.len());
        let Some(job) = job_group(below) else {
            return Self { version, own, step: Vec::new() };
        };
        let mut step: Vec<PathBuf> = (job + 1..=names.len()).rev().map(path).collect();
        // slurmstepd stands beside its tasks.
        if version == CgroupVersion::Two && names.len() == job + 3 && starts(job + 1, "step_") && own.ends_with("slurm")
        {
            step[0].set_file_name("user");
        }
        Self { version, own, step }
    }
}

fn read(pid: u32) -> Result<(String, String)> {
    Ok((read_text(&format!("/proc/{pid}/cgroup"))?, read_text("/proc/self/mountinfo")?))
}

/// True if the process is in the topmost group of the `devices` hierarchy.
fn at_the_top(groups: &str) -> bool {
    groups.lines().any(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let devices = fields.next().is_some_and(|controllers| controllers.split(',').any(|one| one == "devices"));
        devices && fields.next() == Some("/")
    })
}

/// Returns `None` if the process has no group in such a hierarchy, and `Some(None)` if the hierarchy is not mounted.
fn find(groups: &str, mounts: &str, version: CgroupVersion) -> Option<Option<DeviceGroups>> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let this = match version {
            CgroupVersion::One => controllers.split(',').any(|one| one == "devices"),
            CgroupVersion::Two => number == "0" && controllers.is_empty(),
        };
        let place = || mounts.lines().find_map(|mount| directory(controllers, Path::new(path), mount));
        this.then(|| place().map(|directory| DeviceGroups::new(version, &directory.mounted, &directory.below)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "31 30 0:28 / /sys/fs/cgroup/devices rw shared:9 - cgroup cgroup rw,devices\n\
        33 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const TWO: &str = "33 30 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

    fn parse(groups: &str, mounts: &str) -> (CgroupVersion, String, Vec<String>) {
        let found = DeviceGroups::parse(groups, mounts).unwrap().unwrap();
        let text = |path: &PathBuf| path.strip_prefix("/sys/fs/cgroup").unwrap().display().to_string();
        (found.version, text(&found.own), found.step.iter().map(text).collect())
    }

    #[test]
    fn version_one_decides_where_it_is() {
        let groups = "5:freezer:/\n4:devices:/slurm_n1/uid_1/job_2/step_0\n0::/system.slice/slurmd.service\n";
        let (version, own, step) = parse(groups, BOTH);
        assert_eq!((version, own.as_str()), (CgroupVersion::One, "devices/slurm_n1/uid_1/job_2/step_0"));
        assert_eq!(step, ["devices/slurm_n1/uid_1/job_2/step_0", "devices/slurm_n1/uid_1/job_2"]);
        let (_, own, step) = parse("4:devices:/system.slice/slurmd.service\n0::/\n", BOTH);
        assert_eq!((own.as_str(), step.len()), ("devices/system.slice/slurmd.service", 0));
        let (version, ..) = parse("4:devices:/\n0::/\n", TWO);
        assert_eq!(version, CgroupVersion::Two);
        let hidden = DeviceGroups::parse("4:devices:/docker/x\n0::/\n", TWO).unwrap_err();
        assert_eq!(hidden.errno(), Errno::ENOENT);
    }

    #[test]
    fn version_two_has_the_tasks_beside_slurmstepd() {
        let scope = "system.slice/slurmstepd.scope";
        let (version, own, step) = parse(&format!("0::/{scope}/job_2/step_batch/slurm\n"), TWO);
        assert_eq!((version, own), (CgroupVersion::Two, format!("{scope}/job_2/step_batch/slurm")));
        let wanted = ["/job_2/step_batch/user", "/job_2/step_batch", "/job_2"].map(|path| format!("{scope}{path}"));
        assert_eq!(step, wanted);
        // The SLUID in place of the job's number.
        let (_, _, step) = parse(&format!("0::/{scope}/sCTNM8J4SS8B00/step_0/slurm\n"), TWO);
        let wanted = ["/sCTNM8J4SS8B00/step_0/user", "/sCTNM8J4SS8B00/step_0", "/sCTNM8J4SS8B00"];
        assert_eq!(step, wanted.map(|path| format!("{scope}{path}")));
        let (_, own, step) = parse("0::/slurm/job_2/other\n", TWO);
        assert_eq!((own.as_str(), step.as_slice()), ("slurm/job_2/other", &[own.clone(), "slurm/job_2".into()][..]));
        let (_, own, step) = parse("0::/system.slice/slurmd.service\n", TWO);
        assert_eq!((own.as_str(), step.len()), ("system.slice/slurmd.service", 0));
        let (_, own, _) = parse("0::/\n", TWO);
        assert_eq!(own, "");
    }

    #[test]
    fn without_a_hierarchy_nobody_decides() {
        assert_eq!(DeviceGroups::parse("5:freezer:/\n", BOTH).unwrap(), None);
        assert_eq!(DeviceGroups::parse("garbage\n0::\n", "short\n").unwrap(), None);
    }
}
