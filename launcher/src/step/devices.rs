//! Device nodes that the tasks of a step may open.
#![forbid(unsafe_code)]

use std::path::Path;

use coracle::report::{Kind, Refusal};
use coracle::sys;

use super::Server;
use crate::container::device_rules::Confinement;
use crate::container::grants::DeviceAccess;
use crate::container::pipeline::Run;

impl Server {
    /// Determines which of the devices that Slurm manages the step may open. If Slurm does not confine the step's tasks
    /// to them, restricts the tasks. slurmstepd is in the control groups of its step by now.
    pub(super) fn confine(&self, run: &mut Run) -> Result<(), Refusal> {
        // A node without managed devices needs no restriction.
        if run.grants.units.is_empty() {
            return Ok(());
        }
        let system = |error: sys::Error| Refusal::system("the step's devices", &error);
        let mut confinement = Confinement::of(self.start.daemon, self.start.job, self.start.step).map_err(system)?;
        let slurms = confinement.is_slurms();
        if run.grants.asks_rules() {
            let given = run.grants.given();
            let answers = confinement.accessible(&given).map_err(system)?;
            let open = |path: &Path| given.iter().zip(&answers).any(|(node, open)| *open && node.path == path);
            run.provide_devices(Some(&DeviceAccess { open: &open, slurms }))?;
        }
        // On a node without control groups, only the content of /dev restricts devices.
        if !slurms && confinement.has_groups() {
            confinement.restrict(&run.provision.devices.rules()).map_err(system)?;
        }
        run.confinement = Some(confinement);
        run.clock.lap("devices");
        Ok(())
    }
}

/// Puts a task under the device rule of the step. The kernel reports its process id (unix(7), SCM_CREDENTIALS).
pub(super) fn adopt(confinement: &Confinement, task: Option<u32>) -> Result<(), Refusal> {
    let system = |error: sys::Error| Refusal::system("the step's devices", &error);
    let unknown = || Refusal::new(Kind::Internal, "the step's devices", "it is not known which process a task is");
    confinement.adopt(task.ok_or_else(unknown)?).map_err(system)
}
