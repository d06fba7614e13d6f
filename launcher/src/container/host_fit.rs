//! State of the pipeline after the mount: the image's libraries are compared with the node's.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::path::Path;

use crate::devices::too_old;
use crate::view::Surroundings;
use coracle::report::Refusal;
use coracle::request::Mpi;
use coracle::wire::Here;

use crate::container::attach::MountedImage;
use crate::container::context::Authority;
use crate::container::grants::Provision;
use crate::container::host_mpi::{self, Replacement};
use crate::container::resolve::Resolved;

/// Results of the comparison of one image with one namespace of the node. Each is determined for the first container
/// that needs it, and holds for further ones.
#[derive(Debug, Default)]
pub struct HostFit {
    mpi: OnceCell<Replacement>,
    /// Version of the image's glibc; an image without one has no programs for the driver.
    glibc: OnceCell<Option<String>>,
}

/// Mounted image whose libraries are compared with the node's.
pub struct ComparedImage<'a> {
    mounted: MountedImage<'a>,
}

/// Location of a container, and the devices in it.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Working directory and PMIx server of the step.
    pub here: &'a Here,
    /// Directory of a batch script.
    pub script_folder: Option<&'a Path>,
    /// Devices of the container.
    pub provision: &'a Provision,
}

impl<'a> MountedImage<'a> {
    /// Chooses the MPI of the host that replaces the image's, and reads the image's glibc version if the driver of
    /// `provision` needs it. `fit` has the results of earlier containers.
    pub fn compare(
        self,
        resolved: &Resolved<'_>,
        provision: &Provision,
        fit: &'a HostFit,
    ) -> Result<ComparedImage<'a>, Refusal> {
        let Resolved { context, opener, clock, .. } = resolved;
        let wanted = context.settings.mpi.as_ref().filter(|wanted| wanted.word() != Mpi::NONE);
        if let (Some(wanted), None) = (wanted, fit.mpi.get()) {
            let chosen = host_mpi::choose(opener, self.tree(), wanted, &context.config.mpi, self.name())?;
            fit.mpi.get_or_init(|| chosen);
            clock.lap("mpi");
        }
        if provision.glibc().is_some() && fit.glibc.get().is_none() {
            let own = opener.glibc(self.tree(), self.name())?;
            fit.glibc.get_or_init(|| own);
            clock.lap("driver");
        }
        Ok(ComparedImage { mounted: self })
    }
}

impl HostFit {
    /// MPI of the host that replaces the image's; nothing if none was requested.
    pub fn mpi(&self) -> Option<&Replacement> {
        self.mpi.get()
    }

    /// Note for the user about an image whose C library is too old for the driver of its GPUs.
    pub fn driver_note(&self, provision: &Provision, name: &str) -> Option<String> {
        let (wanted, own) = (provision.glibc()?, self.glibc.get()?.as_deref()?);
        too_old(wanted, own).then(|| {
            format!("the driver of this node's GPUs needs {wanted}, {name} has {own}: its libraries cannot be loaded")
        })
    }

    /// Properties of the step that determine the content of its container.
    pub fn surroundings<'a>(&'a self, resolved: &Resolved<'a>, place: Place<'a>) -> Surroundings<'a> {
        let context = resolved.context;
        let chosen = self.mpi().and_then(|mpi| mpi.chosen.as_ref());
        Surroundings {
            root: context.authority == Authority::Root && context.identity.uid == 0,
            directory: &place.here.directory,
            home: resolved.account().home.as_deref(),
            script_folder: place.script_folder,
            pmix: place.here.pmix.as_deref(),
            files: &context.files,
            named: &context.named,
            client: context.client.as_ref(),
            helper: &context.helper,
            mpi: chosen.map(|chosen| (&chosen.profile, &chosen.fit)),
            devices: (context.authority == Authority::Root).then_some(&place.provision.devices),
            driver: place.provision.driver.as_ref(),
        }
    }
}

impl<'a> ComparedImage<'a> {
    /// The mount.
    pub fn mounted(&self) -> &MountedImage<'a> {
        &self.mounted
    }

    pub(super) fn into_mounted(self) -> MountedImage<'a> {
        self.mounted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Driver;

    fn provision(glibc: Option<&str>) -> Provision {
        let mut provision = Provision::default();
        provision.driver = Some(Driver { glibc: glibc.map(str::to_owned), ..Driver::default() });
        provision
    }

    #[test]
    fn the_note_names_both_versions_of_an_image_that_is_too_old() {
        let fit = HostFit::default();
        let needs = provision(Some("GLIBC_2.27"));
        assert_eq!(fit.driver_note(&needs, "a.sif"), None, "the image has not been read");
        fit.glibc.set(Some("GLIBC_2.17".into())).unwrap();
        let note = fit.driver_note(&needs, "a.sif").unwrap();
        assert!(note.contains("needs GLIBC_2.27, a.sif has GLIBC_2.17"), "{note}");
        assert_eq!(fit.driver_note(&provision(Some("GLIBC_2.17")), "a.sif"), None);
        assert_eq!(fit.driver_note(&provision(None), "a.sif"), None);
        assert_eq!(fit.driver_note(&Provision::default(), "a.sif"), None);
    }

    #[test]
    fn an_image_without_a_glibc_gets_no_note() {
        let fit = HostFit::default();
        fit.glibc.set(None).unwrap();
        assert_eq!(fit.driver_note(&provision(Some("GLIBC_2.27")), "a.sif"), None);
    }
}
