//! Finds the Slurm of a step, which is that of its slurmstepd.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use crate::config::SlurmClient;
use crate::view::Client;

use super::beside::beside_program;
use super::node::Node;
use super::remembered::Memory;
use super::slurmd::{self, Slurmd};
use super::{Error, find_commands, find_on};

/// Slurm of a step. What is found out about it is kept for the next steps of the node.
pub struct StepSlurm<'a> {
    settings: &'a SlurmClient,
    /// slurmd's value of `SLURM_CONF`, if it is set.
    told: Option<&'a Path>,
    /// Program of slurmstepd, if it is known.
    program: Option<PathBuf>,
}

impl<'a> StepSlurm<'a> {
    /// Slurm of the slurmstepd with the process id `daemon`.
    pub fn of(daemon: u32, settings: &'a SlurmClient, told: Option<&'a Path>) -> Self {
        Self { settings, told, program: std::fs::read_link(format!("/proc/{daemon}/exe")).ok() }
    }

    /// Files that its commands need in a container, which has `coracle-inside` at `helper`; nothing if the site hides
    /// them or the node has none.
    pub fn client(&self, helper: &Path) -> Result<Option<Client>, Error> {
        let key = ("client", self.settings, &self.program, self.told, helper);
        Memory::node().recall(&key, |node| find_on(node, &self.beside(node), self.told, helper))
    }

    /// Configuration of its slurmd, if there is one.
    pub fn slurmd(&self) -> Option<Slurmd> {
        let key = ("slurmd", self.settings, &self.program, self.told);
        let look = |node: &Node<'_>| Ok::<_, Infallible>(slurmd::read(node, &self.beside(node), self.told));
        Memory::node().recall(&key, look).unwrap_or_default()
    }

    /// Path of its scontrol, for Coracle's own use, even if the site hides the commands from containers.
    pub fn scontrol(&self) -> Option<PathBuf> {
        let node = Node::new(Path::new("/"));
        let (_, bin, _) = find_commands(&node, &self.beside(&node).paths()).ok().flatten()?;
        Some(bin.join("scontrol")).filter(|program| node.exists(program))
    }

    fn beside(&self, node: &Node<'_>) -> SlurmClient {
        match &self.program {
            Some(program) => beside_program(node, self.settings, program),
            None => self.settings.clone(),
        }
    }
}
