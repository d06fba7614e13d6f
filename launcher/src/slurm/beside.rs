//! Finds the commands of the Slurm that serves a step. A node may have more than one Slurm, and this one may be in a
//! directory that is not in the usual list.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::config::{Absolute, ClientPaths, SlurmClient};

use super::node::Node;
use super::{BINS, command_at};

/// Returns `settings` with the commands that were installed with the slurmstepd `program`, unless the site names a
/// directory.
pub(super) fn beside_program(node: &Node<'_>, settings: &SlurmClient, program: &Path) -> SlurmClient {
    let SlurmClient::Shown(paths) = settings else { return settings.clone() };
    // PREFIX/sbin/slurmstepd and PREFIX/bin/srun; with another layout, the usual directories are searched.
    let bin = program.parent().and_then(Path::parent).and_then(|prefix| node.real_directory(&prefix.join("bin")));
    let Some(bin) = bin.filter(|_| paths.bin.is_none()) else { return settings.clone() };
    let is_there =
        |directory: &Path| command_at(node, directory).is_some_and(|(real, program)| real == bin && program.is_ok());
    // The usual name of the directory, such as /opt/slurm/current, if it has one.
    let named = BINS.iter().map(PathBuf::from).chain([bin.clone()]).find(|directory| is_there(directory));
    match named {
        Some(named) => SlurmClient::Shown(ClientPaths { bin: Some(Absolute(named)), ..paths.clone() }),
        None => settings.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Tree;
    use super::*;

    #[test]
    fn the_commands_are_those_of_the_steps_own_slurm() {
        let tree = Tree::merged();
        let node = Node::new(tree.root());
        let bin = |program: &str, settings: &SlurmClient| {
            beside_program(&node, settings, Path::new(program)).paths().bin.map(|Absolute(bin)| bin)
        };
        let none = SlurmClient::default();
        tree.srun("/usr/bin");
        tree.srun("/apps/slurm/23.11/bin");
        tree.srun("/opt/slurm/24.11/bin");
        tree.link("/opt/slurm/current", "24.11");
        tree.file("/opt/script/bin/srun", "#!/bin/sh\n");
        assert_eq!(bin("/usr/sbin/slurmstepd", &none), Some("/usr/bin".into()));
        assert_eq!(bin("/apps/slurm/23.11/sbin/slurmstepd", &none), Some("/apps/slurm/23.11/bin".into()));
        assert_eq!(bin("/opt/slurm/24.11/sbin/slurmstepd", &none), Some("/opt/slurm/current/bin".into()));
        // srun is a script or missing: the usual directories are searched.
        assert_eq!(bin("/opt/script/sbin/slurmstepd", &none), None);
        assert_eq!(bin("/sbin/x/slurmstepd (deleted)", &none), None);
        // The site's setting takes precedence.
        let named = SlurmClient::Shown(ClientPaths { bin: Some(Absolute("/x".into())), ..ClientPaths::default() });
        assert_eq!(bin("/usr/sbin/slurmstepd", &named), Some("/x".into()));
        assert_eq!(beside_program(&node, &SlurmClient::None, Path::new("/usr/sbin/slurmstepd")), SlurmClient::None);
    }
}
