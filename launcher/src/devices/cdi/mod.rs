//! Applies the Container Device Interface: a vendor's description of its devices, as data. No program that it names is
//! run.
//!
//! The vendor's program lists device nodes, files and variables for each device and for all devices, and programs
//! (hooks) that change a container at its creation. A specification with a hook of unknown purpose is refused.
#![forbid(unsafe_code)]

mod hooks;
mod spec;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

pub use spec::{Spec, read};

use self::hooks::{Link, Meaning};
use self::spec::{Device, Edits};
use super::Error;
use super::driver::{Driver, Making, is_name};
use super::gpu::{DRI, PARTS, is_control, is_nvidia};
use super::source::{Sources, Unfit, What};
use coracle::request::Variable;

/// Name of the device that stands for all devices of a specification.
const ALL: &str = "all";
/// Variables that a driver has no reason to set: those of the user, of the loader, and of Slurm, some of which state
/// what a task was granted.
const NOT_ITS: [&str; 26] = [
    "BASH_ENV",
    "CUDA_VISIBLE_DEVICES",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "GPU_DEVICE_ORDINAL",
    "HIP_VISIBLE_DEVICES",
    "HOME",
    "HOSTNAME",
    "IFS",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "MALLOC_TRACE",
    "NLSPATH",
    "PATH",
    "PERL5LIB",
    "PWD",
    "PYTHONHOME",
    "PYTHONPATH",
    "ROCR_VISIBLE_DEVICES",
    "SHELL",
    "TERM",
    "TMPDIR",
    "USER",
    "ZE_AFFINITY_MASK",
];
const NOT_ITS_BEGINNINGS: [&str; 3] = ["LD_", "LC_", "BASH_"];
/// Prefixes of variables for vendors' programs that create containers.
const TOOLS: [&str; 2] = ["NVIDIA_CTK_", "AMD_CTK_"];

/// Devices selected for a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Names of the devices: `nvidia.com/gpu=0`.
    pub devices: Vec<String>,
    specs: Vec<PathBuf>,
    nodes: Vec<PathBuf>,
    /// Paths on the node, with their targets.
    mounts: Vec<(PathBuf, PathBuf)>,
    env: Vec<(String, String)>,
    links: BTreeSet<Link>,
    notes: Vec<String>,
}

/// Granted device.
struct Granted<'a> {
    spec: &'a Spec,
    device: &'a Device,
    /// Device nodes that identify it.
    nodes: BTreeSet<&'a Path>,
}

type Named<'a> = BTreeMap<(&'a str, &'a str), (&'a Spec, &'a Device)>;

/// Selects the edits for `granted`, the device nodes below /dev that a step has; `None` if no specification has a
/// device of these. A device is selected if all of its own device nodes are granted.
pub fn choose(specs: &[Spec], granted: &[PathBuf]) -> Result<Option<Chosen>, Error> {
    let granted: BTreeSet<&Path> = granted.iter().map(PathBuf::as_path).collect();
    let mut found: Vec<Granted<'_>> = Vec::new();
    for ((_, name), (spec, device)) in effective(specs, &granted)? {
        let nodes = telling(spec, device);
        if name == ALL || nodes.is_empty() || !nodes.is_subset(&granted) {
            continue;
        }
        // A device has an index and a UUID as names, and may be in the specifications of several programs.
        match found.iter_mut().find(|other| other.nodes == nodes) {
            Some(other) if other.spec.priority >= spec.priority => {}
            Some(other) => *other = Granted { spec, device, nodes },
            None => found.push(Granted { spec, device, nodes }),
        }
    }
    // A part of a GPU has all device nodes of the GPU, and more.
    let smaller =
        |one: &Granted<'_>| found.iter().any(|other| one.nodes != other.nodes && one.nodes.is_subset(&other.nodes));
    let mut smaller = found.iter().map(smaller).collect::<Vec<_>>().into_iter();
    found.retain(|_| !smaller.next().unwrap_or(false));
    if found.is_empty() {
        return Ok(None);
    }
    let others = others(specs, &found);
    let of_part = |node: &&&Path| node.starts_with(PARTS) && !found.iter().any(|one| one.nodes.contains(*node));
    // If a GPU was divided after the specification was written, only a part of it is granted.
    let divided = granted.iter().find(of_part).is_some();
    let free = |node: &Path| !others.contains(node) && !is_nvidia(node);
    let common = |node: &Path| granted.contains(node) || (free(node) && !node.starts_with(DRI));
    let mine = |node: &Path| granted.contains(node) || (free(node) && !divided);
    let mut chosen = Chosen::default();
    for one in &found {
        if !chosen.specs.contains(&one.spec.path) {
            chosen.specs.push(one.spec.path.clone());
            chosen.add(one.spec, &one.spec.edits, common)?;
        }
        chosen.devices.push(format!("{}={}", one.spec.kind, one.device.name));
        chosen.add(one.spec, &one.device.container_edits, mine)?;
    }
    let known = |node: &Path| found.iter().any(|one| own(one.device).any(|own| own == node));
    for node in granted.iter().filter(|node| is_nvidia(node) && !known(node)) {
        chosen.note(node, "no specification has it");
    }
    Ok(Some(chosen))
}

/// Each device by kind and name, from the specification with the highest precedence.
fn effective<'a>(specs: &'a [Spec], granted: &BTreeSet<&Path>) -> Result<Named<'a>, Error> {
    let mut named = Named::new();
    let mut twice = BTreeMap::new();
    for spec in specs {
        for device in &spec.devices {
            let key = (spec.kind.as_str(), device.name.as_str());
            match named.get(&key) {
                Some((other, _)) if other.priority > spec.priority => {}
                Some((other, _)) if other.priority == spec.priority => {
                    twice.insert(key, (&spec.path, &other.path));
                }
                _ => {
                    twice.remove(&key);
                    named.insert(key, (spec, device));
                }
            }
        }
    }
    for (key, (one, other)) in twice {
        let meant = named.get(&key).map(|(spec, device)| telling(spec, device));
        if key.1 != ALL && meant.is_some_and(|nodes| !nodes.is_empty() && nodes.is_subset(granted)) {
            let device = format!("{}={}", key.0, key.1);
            return Err(Error::Twice { device, one: one.clone(), other: other.clone() });
        }
    }
    Ok(named)
}

/// Device nodes of a device.
fn own(device: &Device) -> impl Iterator<Item = &Path> {
    device.container_edits.device_nodes.iter().map(|node| node.host())
}

/// Device nodes that identify a device: those of its driver, else those for rendering, else all. An NVIDIA GPU has one
/// for rendering, too, which Slurm does not name.
fn telling<'a>(spec: &Spec, device: &'a Device) -> BTreeSet<&'a Path> {
    let common = |node: &Path| spec.edits.device_nodes.iter().any(|other| other.host() == node);
    let nodes: BTreeSet<&Path> = own(device).filter(|node| !is_control(node) && !common(node)).collect();
    let of = |wanted: &dyn Fn(&Path) -> bool| -> BTreeSet<&'a Path> {
        nodes.iter().copied().filter(|node| wanted(node)).collect()
    };
    let drivers = of(&|node| !node.starts_with(DRI));
    let rendering = of(&|node| last(node).starts_with("renderD"));
    [drivers, rendering].into_iter().find(|some| !some.is_empty()).unwrap_or(nodes)
}

/// Device nodes and files of devices that were not selected.
fn others<'a>(specs: &'a [Spec], found: &[Granted<'_>]) -> BTreeSet<&'a Path> {
    let devices = specs.iter().flat_map(|spec| spec.devices.iter().map(move |device| (spec, device)));
    let chosen = |nodes: &BTreeSet<&Path>| found.iter().any(|one| one.nodes == *nodes);
    let rest = devices.filter(|(spec, device)| device.name != ALL && !chosen(&telling(spec, device)));
    rest.flat_map(|(_, device)| own(device)).filter(|node| !is_control(node)).collect()
}

fn last(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// True for a path below /dev.
fn is_node(path: &Path) -> bool {
    let mut components = path.components();
    let start = [components.next(), components.next()];
    let dev = start == [Some(Component::RootDir), Some(Component::Normal(OsStr::new("dev")))];
    let rest: Vec<Component<'_>> = components.collect();
    dev && !rest.is_empty() && rest.iter().all(|one| matches!(one, Component::Normal(_)))
}

impl Chosen {
    fn note(&mut self, path: &Path, why: impl std::fmt::Display) {
        let note = format!("{}: {why}", path.display());
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn add(&mut self, spec: &Spec, edits: &Edits, mine: impl Fn(&Path) -> bool) -> Result<(), Error> {
        for node in edits.device_nodes.iter().map(|node| node.host()) {
            if !is_node(node) {
                self.note(node, "no device node below /dev");
            } else if mine(node) && !self.nodes.iter().any(|other| other == node) {
                self.nodes.push(node.to_owned());
            }
        }
        for mount in &edits.mounts {
            let pair = (mount.host_path.clone(), mount.container_path.clone());
            match mount.kind.as_deref() {
                None | Some("" | "bind" | "none") if self.mounts.contains(&pair) => {}
                None | Some("" | "bind" | "none") => self.mounts.push(pair),
                Some(other) => self.note(&mount.container_path, format!("a mount of type {other:?} is not made")),
            }
        }
        for variable in &edits.env {
            self.variable(spec, variable);
        }
        for (there, what) in [
            (edits.additional_gids.is_some(), "additionalGids: the groups of a step are Slurm's to say"),
            (edits.intel_rdt.is_some(), "intelRdt: what a step has of the processor is Slurm's to say"),
            (edits.net_devices.is_some(), "netDevices: containers have the network of the node"),
        ] {
            if there {
                self.note(&spec.path, what);
            }
        }
        for hook in &edits.hooks {
            match Meaning::of(hook) {
                Some(Meaning::Links(links)) => self.links.extend(links),
                Some(Meaning::Needless) => {}
                Some(Meaning::Compatibility) => {
                    let program = last(&hook.path).to_owned();
                    let why = format!("{program} enable-cuda-compat is not run: programs use this node's libcuda");
                    self.note(&spec.path, why);
                }
                None => {
                    let (path, hook, args) = (spec.path.clone(), hook.path.clone(), hook.args.clone());
                    return Err(Error::Hook { path, hook, args });
                }
            }
        }
        Ok(())
    }

    fn variable(&mut self, spec: &Spec, variable: &str) {
        let Some((name, value)) = variable.split_once('=') else {
            return self.note(&spec.path, format!("{variable:?} is not NAME=VALUE"));
        };
        // These variables tell the vendor's own runtime to do nothing.
        if (name.ends_with("_VISIBLE_DEVICES") && value == "void") || TOOLS.iter().any(|tool| name.starts_with(tool)) {
            return;
        }
        let proper = matches!(Variable::parse(variable.as_ref()), Ok(Variable::Set(..))) && !value.contains('\0');
        if !proper || NOT_ITS.contains(&name) || NOT_ITS_BEGINNINGS.iter().any(|start| name.starts_with(start)) {
            return self.note(&spec.path, format!("{name:?} is no variable for a driver to set"));
        }
        match self.env.iter().find(|(known, _)| known == name) {
            None => self.env.push((name.to_owned(), value.to_owned())),
            Some((_, known)) if known == value => {}
            Some((_, known)) => {
                let why = format!("{name} is {value:?} here, and {known:?} before");
                self.note(&spec.path, why);
            }
        }
    }

    /// Checks the files below `sources`. If most libraries are missing, the specification is older than the driver,
    /// because their names contain the driver's release. The remaining files are then the error.
    pub(super) fn make(self, sources: &Sources) -> Result<Making<'_>, Box<Driver>> {
        let mut making = Making::new(sources);
        making.driver.nodes = self.nodes;
        making.driver.env = self.env;
        making.driver.notes = self.notes;
        making.driver.found_in = self.specs.iter().map(|path| path.display().to_string()).collect();
        let named: Vec<_> = self.mounts.iter().filter(|(_, target)| is_name(last(target))).collect();
        let missing = named.iter().filter(|(host, _)| matches!(sources.find(host), Err(Unfit::Missing))).count();
        let stale = missing * 2 > named.len();
        let mut directories = BTreeSet::new();
        for (host, target) in self.mounts {
            let Some(target) = making.proper(&host, &target) else { continue };
            let is_file = matches!(sources.find(&host), Ok((_, What::File)));
            let below = |directory: &str| target.iter().any(|name| name == directory);
            if is_file && is_name(last(&target)) && !below("xorg") {
                directories.insert(target.parent().unwrap_or(&target).to_owned());
                making.library(&host, Some(last(&target)));
            } else if is_file && target.parent().is_some_and(|directory| matches!(last(directory), "bin" | "sbin")) {
                making.program(&host);
            } else {
                making.file(&host, target);
            }
        }
        link(&mut making, &directories, self.links);
        if stale { Err(Box::new(making.done())) } else { Ok(making) }
    }

    /// Driver's files below `sources` that programs need.
    pub fn driver(self, sources: &Sources) -> Driver {
        self.make(sources).map_or_else(|stale| *stale, Making::done)
    }
}

/// Adds names for libraries from `links` in their `directories`. Links that lead elsewhere are left out.
fn link(making: &mut Making<'_>, directories: &BTreeSet<PathBuf>, mut links: BTreeSet<Link>) {
    loop {
        let before = links.len();
        // A link may lead to another link.
        links.retain(|link| {
            let beside = link.path.parent().is_some_and(|directory| directories.contains(directory));
            let place = making.called(last(&link.target)).filter(|_| beside && is_name(last(&link.path)));
            place.map(|place| making.link(place, last(&link.path))).is_none()
        });
        if links.len() == before {
            break;
        }
    }
    // Links below /dev only name the slot of a device.
    for link in links.iter().filter(|link| !link.path.starts_with("/dev")) {
        making.leave_out(&link.path, format!("no link to {} is made", link.target.display()));
    }
}

#[cfg(test)]
mod tests;
