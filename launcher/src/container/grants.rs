//! Devices that Slurm grants a step on this node, and the device nodes of its container for them.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::devices::{self, Choice, Devices, Driver, GPU, Grant, JOB_GPUS, Node, STEP_GPUS, Unit, Vendor};
use crate::env::{Change, Pair, names};
use coracle::report::Refusal;

use crate::container::environment::value;
use crate::slurm::Slurmd;

/// Source of the list of granted devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantSource {
    /// slurmstepd, which has just set the step's environment. A job script has the job's GPUs.
    Slurmstepd {
        /// True for a job script or the interactive step.
        script: bool,
        /// Slurm's name of this node.
        node: Option<OsString>,
    },
    /// The environment of a user outside of a step. The grant adds no device that they cannot open anyway.
    Unprivileged,
}

/// Device nodes and resources of the node, and those that the step has been granted.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    nodes: Vec<Node>,
    /// All units of the node's resources.
    pub units: Vec<Unit>,
    grant: Grant,
}

/// Devices of the node in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provision {
    /// Contents of /dev.
    pub devices: Devices,
    /// Device nodes of its GPUs, for which the driver was searched.
    of_gpus: Vec<PathBuf>,
    /// Files of the GPU driver that programs need.
    pub driver: Option<Driver>,
}

impl Provision {
    /// Version of glibc that the driver's files need.
    pub fn glibc(&self) -> Option<&str> {
        self.driver.as_ref()?.glibc.as_deref()
    }
}

/// Access by the device rules of the step's control group.
pub struct DeviceAccess<'a> {
    /// True if the device node at this path may be opened.
    pub open: &'a dyn Fn(&Path) -> bool,
    /// True if the rules are Slurm's (ConstrainDevices, cgroup.conf(5)).
    pub slurms: bool,
}

impl Grants {
    /// Reads the resources of this node, whose slurmd has the configuration `slurmd`, and the grant of `source`.
    pub fn find(slurmd: Option<&Slurmd>, environment: &[Pair], source: &GrantSource) -> Self {
        let root = Path::new("/");
        let nodes = devices::all(Path::new("/dev"));
        let types = |name: &str| {
            slurmd.iter().flat_map(|slurmd| &slurmd.gres_types).any(|known| known.eq_ignore_ascii_case(name))
        };
        let lines = || slurmd.iter().flat_map(|slurmd| slurmd.gres.iter().map(String::as_str));
        let node = match source {
            GrantSource::Slurmstepd { node: Some(node), .. } => node.to_string_lossy().into_owned(),
            GrantSource::Slurmstepd { node: None, .. } => host_name(),
            GrantSource::Unprivileged => std::env::var("SLURMD_NODENAME").unwrap_or_else(|_| host_name()),
        };
        let mut units = devices::units(lines(), &node);
        for file in units.iter_mut().flat_map(|unit| &mut unit.files) {
            // A link of udev, such as those in by-path.
            if let Some(real) = file.canonicalize().ok().filter(|real| real.starts_with("/dev")) {
                *file = real;
            }
        }
        let has_gpus = types(GPU);
        // Slurm cannot assign resources of types that it does not manage.
        units.retain(|unit| types(&unit.name));
        let detects =
            has_gpus && devices::detects(lines(), &node) || *source == GrantSource::Unprivileged && slurmd.is_none();
        if detects && !units.iter().any(Unit::is_gpu) {
            units.extend(devices::detected(root, nodes.iter().map(|node| node.path.as_path())));
        }
        let value = |name| value(environment, name).map(|value| value.to_string_lossy().into_owned());
        let numbers = match source {
            // If Slurm manages no GPUs, users may set these variables.
            GrantSource::Slurmstepd { .. } if !has_gpus => None,
            GrantSource::Slurmstepd { script: true, .. } => value(JOB_GPUS),
            GrantSource::Slurmstepd { script: false, .. } => value(STEP_GPUS),
            GrantSource::Unprivileged => value(STEP_GPUS).or_else(|| value(JOB_GPUS)),
        };
        let outside = *source == GrantSource::Unprivileged && value("SLURM_JOB_ID").is_none();
        let grant = match numbers {
            None if outside => Grant { numbers: (0..units.len()).collect() },
            numbers => Grant::from_numbers(&numbers.unwrap_or_default()),
        };
        Self { nodes, units, grant }
    }

    /// Devices of a container, with GPUs if `gpus`. Without `rules`, they are those that it probably has. The driver is
    /// that of `before`, if that is for the same GPUs, because finding it reads dozens of files.
    pub fn provide(
        &self,
        config: &Config,
        gpus: bool,
        rules: Option<&DeviceAccess<'_>>,
        before: &Provision,
    ) -> Result<Provision, Refusal> {
        let constrained = rules.is_some_and(|rules| rules.slurms);
        let (nodes, units) = (self.nodes.as_slice(), self.units.as_slice());
        let choice = Choice { root: Path::new("/"), nodes, units, rules: &config.devices, constrained };
        let mut granted = self.grant.of(&self.units, rules.map(|rules| rules.open), constrained);
        granted.units.retain(|unit| gpus || !unit.is_gpu());
        let mut devices = Devices::select(&choice, granted);
        let of_gpus = devices.of_gpus();
        let driver = match before.of_gpus == of_gpus {
            true => before.driver.clone(),
            false => driver(config, &devices, &of_gpus)?,
        };
        devices.add(&choice, driver.as_ref().map(|driver| driver.nodes.as_slice()).unwrap_or_default());
        Ok(Provision { devices, of_gpus, driver })
    }

    /// Changes to the variables with which Slurm names a task's GPUs, in a container with `devices`.
    pub fn changes(&self, devices: &Devices, gpus: bool) -> Vec<Change> {
        let all = |change: &dyn Fn(&str) -> Change| names::GPUS.iter().map(|name| change(name)).collect();
        if !gpus && !self.grant.numbers.is_empty() {
            return all(&|name| Change::Unset(name.into()));
        }
        let numbers: Vec<String> = devices.numbers.iter().map(usize::to_string).collect();
        match numbers.is_empty() {
            true => Vec::new(),
            false => all(&|name| Change::Numbered(name.into(), numbers.join(",").into())),
        }
    }

    /// True if the rules of the step's control group have an effect.
    pub fn asks_rules(&self) -> bool {
        !self.grant.numbers.is_empty() || self.units.iter().any(|unit| !unit.is_gpu())
    }

    /// All device nodes of this node.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Device nodes that Slurm can assign.
    pub fn given(&self) -> Vec<Node> {
        let given = |node: &&Node| self.units.iter().any(|unit| unit.has(&node.path));
        self.nodes.iter().filter(given).cloned().collect()
    }
}

/// Driver files that programs need for these GPUs, whose device nodes are `files`; nothing if there are no GPUs.
fn driver(config: &Config, devices: &Devices, files: &[PathBuf]) -> Result<Option<Driver>, Refusal> {
    let vendors: BTreeSet<Vendor> = devices.gpus().map(|(_, vendor)| vendor).collect();
    if vendors.is_empty() {
        return Ok(None);
    }
    let vendors: Vec<Vendor> = vendors.into_iter().collect();
    let mut driver = devices::find(&config.gpu, &vendors, files)?.unwrap_or_default();
    let nvidia = devices.gpus().filter(|(_, vendor)| *vendor == Vendor::Nvidia).count();
    if nvidia > 0 {
        // Numbers in this container, not Slurm's.
        let numbers: Vec<String> = (0..nvidia).map(|number| number.to_string()).collect();
        driver.env.push(("NVIDIA_VISIBLE_DEVICES".into(), numbers.join(",")));
    }
    Ok(Some(driver))
}

/// Name of this node in gres.conf: a NodeName is usually the short name of the host (slurm.conf(5)).
fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}
