//! Runs the pipeline of a container. Each state is a type that only the phase before it creates:
//!
//! | state | known by then |
//! |---|---|
//! | [`Resolved`] | the effective policy, and that it allows the options |
//! | [`OpenImage`] | the image's file, its content and its requested digest |
//! | [`JudgedImage`](super::judge::JudgedImage) | the rule that allows the image |
//! | [`AttachedImage`] | the image as a source of mounts; kept for all containers that are built from it |
//! | [`MountedImage`](super::attach::MountedImage) | a mount of the image, for one container |
//! | [`ComparedImage`](super::host_fit::ComparedImage) | the node's MPI and driver that fit the image's libraries |
//! | [`PlannedContainer`](super::planned::PlannedContainer) | all mounts, with their open sources |
//! | [`Container`] | the mount namespace |
//!
//! All phases share a [`Context`](super::context::Context), which none of them changes. A container is built again from
//! the [`AttachedImage`], or from [`Resolved`].
#![forbid(unsafe_code)]

use coracle::report::Refusal;
use coracle::request::ImageRef;

use crate::container::attach::AttachedImage;
use crate::container::build::Container;
use crate::container::host_fit::{HostFit, Place};
use crate::container::open::OpenImage;
use crate::container::resolve::{Admission, Resolved};

/// Opens, verifies and judges the image, in that order, and attaches it. `admit` is called before work that grows with
/// the size of the image.
pub fn load(resolved: &Resolved<'_>, image: &ImageRef, admit: Admission<'_>) -> Result<AttachedImage, Refusal> {
    OpenImage::open(resolved, image, admit)?.judge(resolved, admit)?.attach(resolved)
}

/// Builds a container in the caller's mount namespace. `fit` has the results for earlier containers of this image in
/// the same namespace.
pub fn build(
    resolved: &Resolved<'_>,
    image: &AttachedImage,
    place: Place<'_>,
    fit: &HostFit,
) -> Result<Container, Refusal> {
    image.mount(resolved, |mounted| {
        let compared = mounted.compare(resolved, place.provision, fit)?;
        let around = fit.surroundings(resolved, place);
        compared.plan(resolved, &around)?.build(resolved)
    })
}
