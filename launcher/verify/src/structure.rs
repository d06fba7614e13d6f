//! Checks the structure of an image for the site's store.
#![forbid(unsafe_code)]

use std::fs::File;

use coracle::report::{Kind, Refusal};
use coracle_launcher::image::{self, Filesystem, Image, sif};

use crate::squashfs;

/// File systems of an image, as text. All metadata of a squashfs is checked: the kernels of the nodes trust it.
///
/// An image for another processor is accepted: the nodes may differ from this host.
pub fn inspect(name: &str, file: &File) -> Result<String, Refusal> {
    let refuse = |error: image::Error| error.refuse(name);
    let image = image::identify(file, std::env::consts::ARCH).or_else(|error| match error {
        image::Error::Sif(sif::Fault::Architecture { image: other, .. }) => image::identify(file, &other),
        error => Err(error),
    });
    let image = image.map_err(refuse)?;
    if image.has_ext3() {
        return Err(Refusal::new(
            Kind::Policy,
            name,
            "its overlay partition is an ext3, which is not run from the store",
        )
        .hint("make the overlay partition a squashfs"));
    }
    // Its inodes are not checked, and the kernels of the nodes would have to trust them.
    if image.layers.iter().any(|layer| layer.filesystem == Filesystem::Erofs) {
        return Err(Refusal::new(Kind::Policy, name, "an erofs, which is not kept in the store")
            .hint("make a squashfs of it, or a SIF"));
    }
    deep(file, &image).map_err(refuse)?;
    Ok(image.to_string())
}

fn deep(file: &File, image: &Image) -> Result<(), image::Error> {
    for layer in &image.layers {
        if let Filesystem::Squashfs(_) = layer.filesystem {
            squashfs::inspect_deep(file, layer.offset, layer.size, &squashfs::Budget::default())?;
        }
    }
    Ok(())
}
