//! Lists the interfaces that Slurm offers to MPI on this node.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::config::{ClientPaths, SlurmClient};

use super::conf::Conf;
use super::node::Node;
use super::{PMIX_PLUGIN, find_commands, find_conf, find_plugins, pmix_libraries, run_path};

/// Slurm's plugins for MPI.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Types of `--mpi` on this node, sorted by name.
    pub types: Vec<String>,
    /// MpiDefault.
    pub default: Option<String>,
    /// PMIx library of Slurm's PMIx servers.
    pub libpmix: Option<PathBuf>,
}

/// Lists them for the node below `root` ("/" except in tests). `told` is slurmd's value of `SLURM_CONF`.
pub fn offer(root: &Path, settings: &SlurmClient, told: Option<&Path>) -> Offer {
    look(&Node::new(root), &settings.paths(), told).unwrap_or_default()
}

fn look(node: &Node, paths: &ClientPaths, told: Option<&Path>) -> Option<Offer> {
    let (_, bin, program) = find_commands(node, paths).ok()??;
    let loader = node.real(Path::new(program.loader.as_deref()?))?;
    let prefix = bin.parent().unwrap_or(&bin).to_owned();
    let directory = find_conf(node, paths, told, || prefix.clone()).ok()?;
    let conf = directory.map(|directory| Conf::read(node, &directory)).unwrap_or_default();
    let plugins = find_plugins(node, paths, &conf, &run_path(&program, &bin), &prefix, &loader).ok()?;
    let mut offer = Offer { default: conf.mpi_default, ..Offer::default() };
    for directory in &plugins {
        for file in node.names(directory) {
            let Some(word) = file.strip_prefix("mpi_").and_then(|rest| rest.strip_suffix(".so")) else { continue };
            offer.types.push(word.to_owned());
        }
        if offer.libpmix.is_none() {
            offer.libpmix = libpmix(node, &directory.join(PMIX_PLUGIN));
        }
    }
    // Built in since 23.11 (src/interfaces/mpi.c), a plugin before.
    offer.types.push("none".to_owned());
    offer.types.sort();
    offer.types.dedup();
    Some(offer)
}

/// Library that the plugin loads: the build of the plugin sets its directory (mpi/pmix, pmixp_common.h).
fn libpmix(node: &Node, plugin: &Path) -> Option<PathBuf> {
    let bytes = node.bytes(plugin)?;
    pmix_libraries(&bytes).find_map(|library| node.real(&library))
}
