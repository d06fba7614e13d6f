//! What Slurm gave a step on this node, and what of /dev its container has for it.
#![forbid(unsafe_code)]

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use coracle::config::Config;
use coracle::devices::{self, Choice, Devices, GPU, Grant, JOB_GPUS, Node, STEP_GPUS, Unit};
use coracle::env::Pair;

use crate::slurm_client;

/// Whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// slurmstepd, which has just made the step's environment. A job script has the job's GPUs.
    Step {
        /// It is a job script, or salloc's shell.
        script: bool,
    },
    /// A person, who gets what he can open anyway.
    Person,
}

/// The node's device nodes and resources, and what the step has of them.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    nodes: Vec<Node>,
    /// All units of the node's resources.
    pub units: Vec<Unit>,
    grant: Grant,
}

/// What of it may be opened, by the rules of the step's control group.
pub struct Rules<'a> {
    /// Whether a file may.
    pub open: &'a dyn Fn(&Path) -> bool,
    /// Slurm has made them.
    pub slurms: bool,
}

impl Grants {
    /// Finds out about this node. `told` is what Slurm was told of its own configuration (`SLURM_CONF`).
    pub fn find(config: &Config, environment: &[Pair], told: Option<&Path>, teller: Teller) -> Self {
        let root = Path::new("/");
        let nodes = devices::all(Path::new("/dev"));
        let slurm = slurm_client::resources(root, &config.slurm_client, told);
        let types =
            |name: &str| slurm.iter().flat_map(|slurm| &slurm.types).any(|known| known.eq_ignore_ascii_case(name));
        let lines = slurm.iter().flat_map(|slurm| slurm.lines.iter().map(String::as_str));
        let mut units = devices::units(lines, &host_name());
        let has_gpus = types(GPU);
        // What Slurm does not know of is nobody's to be given by Slurm.
        units.retain(|unit| types(&unit.name));
        let detects = has_gpus || teller == Teller::Person && slurm.is_none();
        if detects && !units.iter().any(Unit::is_gpu) {
            units.extend(devices::detected(nodes.iter().map(|node| node.path.as_path())));
        }
        let value = |name: &str| {
            let variable = environment.iter().find(|(known, _)| known == name);
            variable.map(|(_, value)| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let numbers = match teller {
            // Where Slurm knows of no GPUs it leaves these variables to users.
            Teller::Step { .. } if !has_gpus => None,
            Teller::Step { script: true } => value(JOB_GPUS),
            Teller::Step { script: false } => value(STEP_GPUS),
            Teller::Person => value(STEP_GPUS).or_else(|| value(JOB_GPUS)),
        };
        let outside = teller == Teller::Person && value("SLURM_JOB_ID").is_none();
        let grant = match numbers {
            None if outside => Grant { numbers: (0..units.len()).collect() },
            numbers => Grant::from_numbers(&numbers.unwrap_or_default()),
        };
        Self { nodes, units, grant }
    }

    /// What a container has of it that shows GPUs, or not. Without `rules` it is what it probably has.
    pub fn devices(&self, config: &Config, gpus: bool, rules: Option<&Rules<'_>>) -> Devices {
        let choice = self.choice(config);
        let open = rules.map(|rules| rules.open);
        let mut granted = self.grant.of(&self.units, open, rules.is_some_and(|rules| rules.slurms));
        granted.retain(|unit| gpus || !unit.is_gpu());
        Devices::select(&choice, &granted)
    }

    /// What the devices of a container are chosen from.
    pub fn choice<'a>(&'a self, config: &'a Config) -> Choice<'a> {
        Choice { root: Path::new("/"), nodes: &self.nodes, units: &self.units, rules: &config.devices }
    }

    /// The nodes that Slurm gives or not.
    pub fn given(&self) -> Vec<Node> {
        let files: Vec<&PathBuf> = self.units.iter().flat_map(|unit| &unit.files).collect();
        self.nodes.iter().filter(|node| files.contains(&&node.path)).cloned().collect()
    }

    /// Slurm's numbers of the step's GPUs, where they count those of the whole node.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        self.grant.numbers.iter().copied()
    }
}

/// What gres.conf calls this node: a NodeName is the short name of the host as a rule (slurm.conf(5)).
fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy();
    name.split('.').next().unwrap_or_default().to_owned()
}
