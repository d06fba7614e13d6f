//! Reads the part of Slurm's configuration that concerns the steps of this node.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::SlurmClient;

use super::conf::{self, Conf};
use super::node::Node;
use super::{find_commands, find_conf, prefix_of};

/// Settings of slurmd that concern containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slurmd {
    /// TaskProlog and TaskEpilog: a program that runs in the container must be visible there.
    pub task_scripts: Vec<PathBuf>,
    /// GresTypes: slurmstepd sets and unsets variables for these types only.
    pub gres_types: Vec<String>,
    /// Lines of gres.conf.
    pub gres: Vec<String>,
    /// SlurmdSpoolDir as configured, with `%h` and `%n`; nothing if it is not set.
    pub spool: Option<String>,
}

impl Slurmd {
    /// SlurmdSpoolDir on the node with the Slurm name `node` and the host name `host` (slurm.conf(5)).
    pub fn spool(&self, node: &str, host: &str) -> PathBuf {
        let host = host.split('.').next().unwrap_or_default();
        self.spool.as_deref().unwrap_or(SPOOL).replace("%h", host).replace("%n", node).into()
    }
}

/// Default of SlurmdSpoolDir.
const SPOOL: &str = "/var/spool/slurmd";

/// Reads the settings of the node below `root` ("/" except in tests); nothing if Slurm has no configuration there.
/// `told` is slurmd's value of `SLURM_CONF`.
pub fn slurmd(root: &Path, settings: &SlurmClient, told: Option<&Path>) -> Option<Slurmd> {
    read(&Node::new(root), settings, told)
}

/// Like [`slurmd`], of `node`.
pub(super) fn read(node: &Node<'_>, settings: &SlurmClient, told: Option<&Path>) -> Option<Slurmd> {
    let directory = directory(node, settings, told)?;
    let Conf { task_scripts, gres_types, spool, .. } = Conf::read(node, &directory);
    Some(Slurmd { task_scripts, gres_types, gres: conf::lines(node, &directory, "gres.conf"), spool })
}

/// True if cgroup.conf(5) lets steps open only the devices that they were given.
pub fn constrains_devices(root: &Path, settings: &SlurmClient, told: Option<&Path>) -> bool {
    let node = Node::new(root);
    let lines = directory(&node, settings, told).map(|directory| conf::lines(&node, &directory, "cgroup.conf"));
    let lines = lines.unwrap_or_default();
    let values = lines.iter().filter_map(|line| line.split_once('='));
    let mut about = values.filter(|(key, _)| key.trim().eq_ignore_ascii_case("ConstrainDevices"));
    about.next_back().is_some_and(|(_, value)| value.trim().eq_ignore_ascii_case("yes"))
}

fn directory(node: &Node, settings: &SlurmClient, told: Option<&Path>) -> Option<PathBuf> {
    let paths = settings.paths();
    let prefix = || prefix_of(find_commands(node, &paths).ok().flatten().as_ref()).to_owned();
    find_conf(node, &paths, told, prefix).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_read_where_they_stand() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let directory = root.join("etc/slurm");
        std::fs::create_dir_all(&directory).unwrap();
        assert_eq!(slurmd(&root, &SlurmClient::default(), None), None);
        std::fs::write(directory.join("slurm.conf"), "ClusterName=x\ngrestypes=gpu,fpga # both\n").unwrap();
        std::fs::write(directory.join("gres.conf"), "Name=a\nInclude more.conf\nName=c\n").unwrap();
        std::fs::write(directory.join("more.conf"), "Name=b\ninclude gres.conf\n").unwrap();
        let found = slurmd(&root, &SlurmClient::default(), None).unwrap();
        assert_eq!(found.gres_types, ["gpu", "fpga"]);
        assert_eq!(found.gres[..3], ["Name=a", "Name=b", "Name=a"]);
        assert_eq!(found.spool("a1", "a1-ib.example.org"), Path::new("/var/spool/slurmd"));
        std::fs::write(directory.join("slurm.conf"), "slurmdSpoolDir=/var/x/%h/%n\n").unwrap();
        let found = slurmd(&root, &SlurmClient::default(), None).unwrap();
        assert_eq!(found.spool("a1", "a1-ib.example.org"), Path::new("/var/x/a1-ib/a1"));
        assert!(!constrains_devices(&root, &SlurmClient::default(), None));
        std::fs::write(directory.join("cgroup.conf"), "# ConstrainDevices=no\nconstraindevices = Yes\n").unwrap();
        assert!(constrains_devices(&root, &SlurmClient::default(), None));
    }
}
