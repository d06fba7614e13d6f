//! Device nodes that the tasks of a step may open.
#![forbid(unsafe_code)]

use std::path::Path;

use coracle::report::{Kind, Refusal};
use coracle::sys;

use super::session::Session;
use crate::container::device_rules::Confinement;
use crate::container::grants::{DeviceAccess, Provision};

/// Devices of a step, once slurmstepd is in its control groups.
pub(super) struct StepDevices {
    /// Devices of the container, if the rules of the control groups decide about them.
    provision: Option<Provision>,
    /// Device rules of the tasks.
    confinement: Confinement,
}

impl Session<'_> {
    /// Determines which of the devices that Slurm manages the step may open. If Slurm does not confine the step's tasks
    /// to them, restricts the tasks. slurmstepd is in the control groups of its step by now.
    pub(super) fn confine(&self) -> Result<(), Refusal> {
        let grants = &self.context.grants;
        // A node without managed devices needs no restriction.
        if grants.units.is_empty() || self.devices.get().is_some() {
            return Ok(());
        }
        let system = |error: sys::Error| Refusal::system("the step's devices", &error);
        let start = &self.server.start;
        let mut confinement = Confinement::of(start.daemon, start.job, start.step).map_err(system)?;
        let slurms = confinement.is_slurms();
        let mut provision = None;
        if grants.asks_rules() {
            let given = grants.given();
            let answers = confinement.accessible(&given).map_err(system)?;
            let open = |path: &Path| given.iter().zip(&answers).any(|(node, open)| *open && node.path == path);
            let rules = DeviceAccess { open: &open, slurms };
            provision = Some(self.context.provide_devices(Some(&rules), &self.guess)?);
        }
        // On a node without control groups, only the content of /dev restricts devices.
        if !slurms && confinement.has_groups() {
            let devices = &provision.as_ref().unwrap_or(&self.guess).devices;
            confinement.restrict(&devices.rules()).map_err(system)?;
        }
        self.devices.get_or_init(|| StepDevices { provision, confinement });
        self.clock.lap("devices");
        Ok(())
    }

    /// Devices of the container, as far as they are known.
    pub(super) fn provision(&self) -> &Provision {
        self.devices.get().and_then(|devices| devices.provision.as_ref()).unwrap_or(&self.guess)
    }

    /// Puts a task under the device rules of the step, if it has any. The kernel reports its process id (unix(7),
    /// SCM_CREDENTIALS).
    pub(super) fn adopt(&self, task: Option<u32>) -> Result<(), Refusal> {
        let Some(devices) = self.devices.get() else { return Ok(()) };
        let system = |error: sys::Error| Refusal::system("the step's devices", &error);
        let unknown = || Refusal::new(Kind::Internal, "the step's devices", "it is not known which process a task is");
        devices.confinement.adopt(task.ok_or_else(unknown)?).map_err(system)
    }
}
