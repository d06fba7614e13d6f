//! What Slurm's configuration says of generic resources.
#![forbid(unsafe_code)]

use std::path::Path;

use coracle::config::SlurmClient;

use super::conf::{Conf, after_word};
use super::find_conf;
use super::node::Node;

/// Files may include each other; nobody nests them deeper.
const MAX_DEPTH: usize = 4;

/// Generic resources, as slurmd knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// GresTypes: for these, and for no others, slurmstepd sets variables or takes them away.
    pub types: Vec<String>,
    /// The lines of gres.conf, with those of the files that it includes.
    pub lines: Vec<String>,
}

/// Reads it on the node below `root` ("/", but in tests); nothing, if there is no configuration of Slurm's. `told` is
/// the value of `SLURM_CONF` that slurmd has.
pub fn resources(root: &Path, settings: &SlurmClient, told: Option<&Path>) -> Option<Resources> {
    let node = Node::new(root);
    let folder = find_conf(&node, &settings.paths(), told, Path::new("/usr")).ok().flatten()?;
    let mut lines = Vec::new();
    add(&node, &folder, &folder.join("gres.conf"), 0, &mut lines);
    Some(Resources { types: Conf::read(&node, &folder).gres_types, lines })
}

/// Whether cgroup.conf(5) lets steps open only the devices that they were given.
pub fn constrains_devices(root: &Path, settings: &SlurmClient, told: Option<&Path>) -> bool {
    let node = Node::new(root);
    let folder = find_conf(&node, &settings.paths(), told, Path::new("/usr")).ok().flatten();
    let text = folder.and_then(|folder| node.text(&folder.join("cgroup.conf"))).unwrap_or_default();
    let values = text.lines().filter_map(|line| line.split('#').next()?.split_once('='));
    let mut about = values.filter(|(key, _)| key.trim().eq_ignore_ascii_case("ConstrainDevices"));
    about.next_back().is_some_and(|(_, value)| value.trim().eq_ignore_ascii_case("yes"))
}

fn add(node: &Node, folder: &Path, file: &Path, depth: usize, lines: &mut Vec<String>) {
    let Some(text) = node.text(file).filter(|_| depth < MAX_DEPTH) else { return };
    for line in text.lines() {
        match after_word(line.trim(), "include") {
            Some(included) => add(node, folder, &folder.join(included), depth.saturating_add(1), lines),
            None => lines.push(line.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn includes_are_read_where_they_stand() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let folder = root.join("etc/slurm");
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(resources(&root, &SlurmClient::default(), None), None);
        std::fs::write(folder.join("slurm.conf"), "ClusterName=x\ngrestypes=gpu,fpga # both\n").unwrap();
        std::fs::write(folder.join("gres.conf"), "Name=a\nInclude more.conf\nName=c\n").unwrap();
        std::fs::write(folder.join("more.conf"), "Name=b\ninclude gres.conf\n").unwrap();
        let found = resources(&root, &SlurmClient::default(), None).unwrap();
        assert_eq!(found.types, ["gpu", "fpga"]);
        assert_eq!(found.lines[..3], ["Name=a", "Name=b", "Name=a"]);
        assert!(!constrains_devices(&root, &SlurmClient::default(), None));
        std::fs::write(folder.join("cgroup.conf"), "# ConstrainDevices=no\nconstraindevices = Yes\n").unwrap();
        assert!(constrains_devices(&root, &SlurmClient::default(), None));
    }
}
