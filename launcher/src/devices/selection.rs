//! Selects the content of a container's /dev.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::Node;
use super::gpu::{self, Vendor};
use super::grant::Granted;
use super::gres::Unit;
use crate::config::DeviceRules;
use coracle::sys::DeviceRule;

/// Device nodes that every Unix program may expect (devices.txt of the kernel, "compulsory").
const BASIC: &[&str] = &["/dev/full", "/dev/null", "/dev/ptmx", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];
/// Interconnects, and drivers for MPI's single copy between processes: their drivers are designed for all users.
const FABRIC: &[&str] = &["cxi", "hfi1", "ipath", "kgni", "knem", "opa", "xpmem"];
/// InfiniBand, RoCE and iWARP.
const INFINIBAND: &str = "/dev/infiniband";
/// Access of interconnects to GPU memory (GDRCopy).
const GDR: &str = "/dev/gdrdrv";
/// Links in every /dev (the static ones of udev).
const LINKS: &[(&str, &str)] = &[
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];
const PTMX: &str = "/dev/ptmx";
/// First and last major number of devpts's terminals (devices.txt, "Unix98 PTY slaves").
const TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

/// Mount point of devpts.
pub const PTS: &str = "/dev/pts";
/// Other file systems in /dev, without device nodes: shared memory, message queues and huge pages.
pub const STORES: &[&str] = &["/dev/shm", "/dev/mqueue", "/dev/hugepages"];

/// Content of a container's /dev.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// Device nodes, sorted by path.
    pub nodes: Vec<Node>,
    /// Directories of device nodes that are shown as they are, with the major number of their driver, if known.
    pub directories: Vec<(PathBuf, Option<u32>)>,
    /// Symbolic links with their targets.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Slurm's grants, one entry for each unit: its device nodes, and its vendor if it is a GPU.
    pub granted: Vec<(Vec<PathBuf>, Option<Vendor>)>,
    /// [`Granted::numbers`]
    pub numbers: Vec<usize>,
}

/// Input of the selection.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Root of the node's file system: "/", except in tests.
    pub root: &'a Path,
    /// All device nodes of the node.
    pub nodes: &'a [Node],
    /// All units of the node's generic resources.
    pub units: &'a [Unit],
    /// `devices` of coracle.yaml.
    pub rules: &'a DeviceRules,
    /// True if Slurm lets a step open only the devices that it granted.
    pub constrained: bool,
}

impl Devices {
    /// Selects the devices of a container whose step was granted `granted`.
    pub fn select(choice: &Choice<'_>, granted: Granted<'_>) -> Self {
        let root = choice.root;
        let Granted { units: granted, numbers } = granted;
        let mut own: BTreeSet<PathBuf> = granted.iter().flat_map(|unit| unit.files.iter().cloned()).collect();
        own.extend(granted.iter().flat_map(|unit| &unit.files).flat_map(|file| gpu::siblings(root, file)));
        // If Slurm does not constrain a resource other than GPUs, its owner is not known: it is treated like any other
        // device.
        let slurms = |unit: &&Unit| unit.is_gpu() || choice.constrained;
        let resources: BTreeSet<&Path> =
            choice.units.iter().filter(slurms).flat_map(|unit| &unit.files).map(PathBuf::as_path).collect();
        let free = |path: &Path| !resources.contains(path) && choice.rules.allow(path) == Some(true);
        // GPUs that Slurm does not manage and that the site shows to all users.
        let open = choice.nodes.iter().map(|node| node.path.as_path()).filter(|path| free(path));
        let open: Vec<(PathBuf, Vendor)> =
            open.filter_map(|path| Some((path.to_owned(), Vendor::of(root, path)?))).collect();
        own.extend(open.iter().map(|(path, _)| path.clone()));
        let vendors: BTreeSet<Vendor> = own.iter().filter_map(|file| Vendor::of(root, file)).collect();
        let shown = |path: &Path| {
            if own.contains(path) || BASIC.iter().any(|basic| path == Path::new(basic)) {
                return true;
            }
            // Only a grant gives access to a resource that Slurm manages.
            !(resources.contains(path) || path.parent() == Some(Path::new(gpu::NVIDIA_CHANNELS)))
                && match choice.rules.allow(path) {
                    Some(allowed) => allowed,
                    None if vendors.iter().any(|vendor| vendor.shares(path)) => true,
                    None => !gpu::is_gpus(path) && is_fabric(path) || path == Path::new(GDR) && !vendors.is_empty(),
                }
        };
        let nodes: Vec<Node> = choice.nodes.iter().filter(|node| shown(&node.path)).cloned().collect();
        let mut links: Vec<(PathBuf, PathBuf)> = LINKS.iter().map(|(link, to)| (link.into(), to.into())).collect();
        let has = |path: &Path| nodes.iter().any(|node| node.path == path);
        if !has(Path::new(PTMX)) {
            links.push((PTMX.into(), "pts/ptmx".into()));
        }
        links.extend(gpu::links(root, &has));
        let vendor = |unit: &Unit| unit.files.iter().find_map(|file| Vendor::of(root, file)).filter(|_| unit.is_gpu());
        let granted = granted.iter().map(|unit| (unit.files.clone(), vendor(unit)));
        let granted = granted.chain(open.into_iter().map(|(path, vendor)| (vec![path], Some(vendor)))).collect();
        let directories = gpu::channels(root).filter(|_| vendors.contains(&Vendor::Nvidia)).into_iter().collect();
        Self { nodes, directories, links, granted, numbers }
    }

    /// True if a device node is created in each container instead of bound: the kernel searches for the terminals of a
    /// ptmx in its directory (path_pts(), fs/namei.c), and a bind of a single file has no such directory.
    pub fn is_made(node: &Node) -> bool {
        BASIC.iter().any(|basic| node.path == Path::new(basic))
    }

    /// Adds the device nodes that a driver's specification names, except those of units.
    pub fn add(&mut self, choice: &Choice<'_>, paths: &[PathBuf]) {
        let free = |path: &Path| !choice.units.iter().any(|unit| unit.has(path));
        let wanted = choice.nodes.iter().filter(|node| paths.contains(&node.path) && free(&node.path));
        let new: Vec<Node> = wanted.filter(|node| !self.nodes.contains(node)).cloned().collect();
        self.nodes.extend(new);
        self.nodes.sort();
    }

    /// Device rules that let tasks in the container open its device nodes, and no others.
    pub fn rules(&self) -> Vec<DeviceRule> {
        let rule = |major, minor| DeviceRule { block: false, major, minor };
        let nodes = self.nodes.iter().map(Node::rule);
        // The ptmx of devpts itself, regardless of the one in /dev.
        let terminals = TERMINALS.map(|major| rule(major, None)).chain([rule(5, Some(2))]);
        let directories = self.directories.iter().filter_map(|(_, major)| Some(rule((*major)?, None)));
        nodes.chain(terminals).chain(directories).collect()
    }

    /// Device nodes of the granted GPUs, and other ones of the same cards.
    pub fn of_gpus(&self) -> Vec<PathBuf> {
        let granted = self.gpus().flat_map(|(files, _)| files.iter().cloned());
        let cards = self.nodes.iter().map(|node| &node.path).filter(|path| path.starts_with(gpu::DRI)).cloned();
        granted.chain(cards).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Granted GPUs.
    pub fn gpus(&self) -> impl Iterator<Item = (&[PathBuf], Vendor)> {
        self.granted.iter().filter_map(|(files, vendor)| Some((files.as_slice(), (*vendor)?)))
    }
}

fn is_fabric(path: &Path) -> bool {
    let name = path.strip_prefix("/dev").ok().and_then(Path::to_str).unwrap_or_default();
    path.starts_with(INFINIBAND) || FABRIC.iter().any(|driver| is_numbered(name, driver))
}

/// True for `hfi1_0` of `hfi1` and `xpmem` of `xpmem`, but not for `knemesis` of `knem`.
fn is_numbered(name: &str, driver: &str) -> bool {
    name.strip_prefix(driver).is_some_and(|rest| rest.chars().all(|letter| letter.is_ascii_digit() || letter == '_'))
}

#[cfg(test)]
mod tests {
    use super::super::Type;
    use super::super::grant::Grant;
    use super::super::gres::units;
    use super::*;

    fn nodes(paths: &[&str]) -> Vec<Node> {
        let numbered = paths.iter().zip(0..);
        numbered.map(|(path, minor)| Node { path: path.into(), kind: Type::Character, major: 9, minor }).collect()
    }

    fn shown(all: &[&str], gres: &str, numbers: &str, rules: &str) -> Vec<String> {
        let (nodes, units) = (nodes(all), units(gres.lines(), "n"));
        let rules: DeviceRules = serde_yaml::from_str(rules).unwrap();
        let root = Path::new("/nowhere");
        let choice = Choice { root, nodes: &nodes, units: &units, rules: &rules, constrained: true };
        let devices = Devices::select(&choice, Grant::from_numbers(numbers).of(&units, None, false));
        devices.nodes.iter().map(|node| node.path.display().to_string()).collect()
    }

    const NODE: &[&str] = &[
        "/dev/fuse",
        "/dev/hfi1_0",
        "/dev/infiniband/uverbs0",
        "/dev/kvm",
        "/dev/null",
        "/dev/nvidia-caps/nvidia-cap1",
        "/dev/nvidia-uvm",
        "/dev/nvidia0",
        "/dev/nvidia1",
        "/dev/nvidiactl",
        "/dev/xpmemory",
    ];
    const GRES: &str = "Name=gpu File=/dev/nvidia[0-1]";

    #[test]
    fn a_step_without_gpus_sees_none_of_their_files() {
        assert_eq!(shown(NODE, GRES, "", "[]"), ["/dev/hfi1_0", "/dev/infiniband/uverbs0", "/dev/null"]);
        assert_eq!(shown(NODE, "", "", "[]"), ["/dev/hfi1_0", "/dev/infiniband/uverbs0", "/dev/null"]);
    }

    #[test]
    fn a_gpu_comes_with_its_drivers_nodes() {
        let gpu = ["/dev/hfi1_0", "/dev/infiniband/uverbs0", "/dev/null", "/dev/nvidia-uvm", "/dev/nvidia1"];
        assert_eq!(shown(NODE, GRES, "1", "[]"), [&gpu[..], &["/dev/nvidiactl"]].concat());
    }

    #[test]
    fn gpus_that_are_none_of_slurms_come_with_their_driver_where_the_site_shows_them() {
        let gpus = ["/dev/nvidia-uvm", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl"];
        let found = shown(NODE, "", "", "[{path: '/dev/nvidia[0-9]'}]");
        assert!(gpus.iter().all(|gpu| found.iter().any(|path| path == gpu)), "{found:?}");
    }

    #[test]
    fn a_resource_that_nobody_constrains_is_like_any_other_device() {
        let nodes = nodes(&["/dev/infiniband/uverbs0", "/dev/xdma0"]);
        let units = units("Name=nic File=/dev/infiniband/uverbs0\nName=fpga File=/dev/xdma0".lines(), "n");
        let rules: DeviceRules = serde_yaml::from_str("[{path: /dev/xdma0}]").unwrap();
        let shown = |constrained| {
            let root = Path::new("/nowhere");
            let choice = Choice { root, nodes: &nodes, units: &units, rules: &rules, constrained };
            Devices::select(&choice, Granted::default()).nodes.len()
        };
        assert_eq!((shown(false), shown(true)), (2, 0));
    }

    #[test]
    fn the_site_adds_and_takes_away_but_grants_nothing_of_slurms() {
        let rules = "[{path: /dev/fuse}, {path: /dev/k*, rule: allow}, {path: /dev/kvm, rule: deny}, \
            {path: '/dev/nvidia*'}, {path: '/dev/**/uverbs?', rule: deny}, {path: /dev/null, rule: deny}]";
        let wanted = ["/dev/fuse", "/dev/hfi1_0", "/dev/null", "/dev/nvidia-uvm", "/dev/nvidiactl"];
        assert_eq!(shown(NODE, GRES, "", rules), wanted);
    }

    #[test]
    fn patterns_are_of_dev_alone() {
        for path in ["/etc/x", "/dev", "/dev/", "/dev/../etc", "/dev//x", "dev/x", "/dev/[x"] {
            let error = serde_yaml::from_str::<DeviceRules>(&format!("[{{path: '{path}'}}]")).unwrap_err().to_string();
            assert!(error.contains(path), "{error}");
        }
    }

    #[test]
    fn the_rules_name_what_is_shown_and_terminals() {
        let devices = Devices { nodes: nodes(&["/dev/null"]), ..Devices::default() };
        let rules = devices.rules();
        let rule = |major, minor| DeviceRule { block: false, major, minor };
        assert!(rules.contains(&rule(9, Some(0))) && rules.contains(&rule(136, None)));
        assert_eq!(rules.len(), 2 + TERMINALS.count());
    }
}
