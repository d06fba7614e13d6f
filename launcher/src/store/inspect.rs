//! Contents and signers of a copy that is going to be kept. Its bytes are its user's: they are parsed in the
//! [`sandbox`].
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use coracle::image::{self, Filesystem, Image, sif, squashfs};
use coracle::report::{Kind, Refusal};

use crate::sandbox;
use crate::verdict;
use crate::verify::{self, Need};

/// Time limit for the tables of an image: gigabytes of metadata are refused for their size.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time limit for the first bytes of a file.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// Refuses what does not even say that it is an image.
pub fn first_look(name: &str, image: &File) -> Result<(), Refusal> {
    let start = sandbox::compute(None, None, &[image.as_fd()], FIRST_LOOK, |files| {
        let mut start = vec![0; image::START];
        let read = files.first().and_then(|file| file.read_at(&mut start, 0).ok());
        start.truncate(read.unwrap_or(0));
        start
    });
    let start = start.map_err(|refusal| Refusal { object: name.to_owned(), ..refusal })?;
    match image::Container::of(&start) {
        Some(_) => Ok(()),
        None => Err(image::Error::Unknown.refuse(name)),
    }
}

/// Contents of an image, in words. All metadata of a squashfs is looked at: the kernels of the nodes will trust it.
///
/// An image for other machines may be kept: the nodes need not be like this one.
pub fn structure(name: &str, image: &File) -> Result<String, Refusal> {
    let holds = verdict::of(None, None, name, &[image.as_fd()], PATIENCE, |files| {
        let file = files.first().ok_or_else(|| verdict::garbled(name))?;
        look(name, file).map(String::into_bytes)
    })?;
    Ok(String::from_utf8_lossy(&holds).into_owned())
}

fn look(name: &str, file: &File) -> Result<String, Refusal> {
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
    // Nobody has looked at its inodes, and the kernels of the nodes would have to trust them.
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

/// The keys with which all of an image is signed, as far as the site has them. An image that somebody has changed since it
/// was signed is refused.
pub fn signers(name: &str, image: &File, length: u64, need: Need) -> Result<Vec<String>, Refusal> {
    let keys = verify::site_keys(Path::new(verify::KEYS))?;
    if keys.is_empty() && need == Need::WhoeverSigned {
        return Ok(Vec::new());
    }
    let found = verify::look(None, None, name, (image, length), Some((&keys, need)), false, verify::patience(length))?;
    Ok(found.signers.into_iter().map(|signer| signer.key).collect())
}
