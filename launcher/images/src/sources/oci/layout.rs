//! Reads OCI image layouts (image-spec, image-layout.md): a directory, or a tar file of one.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;

use coracle::report::{Kind, Refusal};
use serde::Deserialize;

use super::place::Place;
use super::{Image, MAX_JSON, check_bytes, check_digest, json};
use crate::sources::archive::Layer;
use crate::sources::json::{null_is_default, without_nulls};
use crate::sources::platform::Processor;

/// Key of an image's name.
const NAME: &str = "org.opencontainers.image.ref.name";
/// Limit of nested indices.
const DEPTH: u32 = 4;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default, deserialize_with = "null_is_default")]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default, deserialize_with = "null_is_default")]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default, deserialize_with = "null_is_default")]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default, deserialize_with = "without_nulls")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize, Clone)]
struct Platform {
    #[serde(default, deserialize_with = "null_is_default")]
    architecture: String,
    #[serde(default, deserialize_with = "null_is_default")]
    os: String,
}

impl Descriptor {
    fn name(&self) -> Option<&str> {
        self.annotations.as_ref().and_then(|all| all.get(NAME)).map(String::as_str)
    }

    fn is_index(&self) -> bool {
        self.media_type.contains("image.index") || self.media_type.contains("manifest.list")
    }

    fn is_for(&self, processor: &str) -> bool {
        let fits = |platform: &Platform| {
            matches!(&*platform.architecture, arch if arch == processor || arch.is_empty())
                && matches!(&*platform.os, "linux" | "")
        };
        self.platform.as_ref().is_none_or(fits)
    }
}

/// Image `tag` of the layout in the directory `path`, for the processor `wanted`.
pub fn from_layout(path: &Path, tag: Option<&str>, wanted: &Processor) -> Result<Image, Refusal> {
    if path.is_file() {
        let cause = "is a file, and oci: takes a directory";
        let refusal = Refusal::new(Kind::ImageType, path.display().to_string(), cause);
        let prefix = super::of_archive(path).unwrap_or(super::Form::Layout).archive_prefix();
        return Err(refusal.hint(format!("{prefix}{} takes the file", path.display())));
    }
    read(&Place::Directory(path.to_owned()), &path.display().to_string(), tag, wanted)
}

/// Image `tag` of the layout in the tar file `path`, likewise.
pub fn from_layout_archive(
    path: &Path,
    tag: Option<&str>,
    wanted: &Processor,
    scratch: &Path,
) -> Result<Image, Refusal> {
    read(&Place::archive(path, scratch)?, &path.display().to_string(), tag, wanted)
}

fn read(place: &Place, what: &str, tag: Option<&str>, wanted: &Processor) -> Result<Image, Refusal> {
    let bytes = place.read(what, Path::new("oci-layout"), MAX_JSON).map_err(|refusal| {
        let has = |name: &str| place.find(what, Path::new(name)).is_ok();
        match place {
            _ if has("oci-layout") => refusal,
            Place::Archive(_) if has("manifest.json") => {
                refusal.hint(format!("it is an archive of docker save: docker-archive:{what}"))
            }
            Place::Archive(_) => refusal.hint("a tar file of a root file system is named without oci-archive:"),
            Place::Directory(_) => refusal.hint("a directory with a root file system is named without oci:"),
        }
    })?;
    let head: Head = json(what, "oci-layout", &bytes)?;
    if !head.image_layout_version.starts_with("1.") {
        let cause = format!("a layout of the version {:?}, and 1.0.0 is known", head.image_layout_version);
        return Err(Refusal::new(Kind::ImageFormat, what, cause));
    }
    let index: Index = json(what, "index.json", &place.read(what, Path::new("index.json"), MAX_JSON)?)?;
    let mut named = index.manifests;
    if let Some(tag) = tag {
        let known: Vec<String> = named.iter().filter_map(Descriptor::name).take(20).map(str::to_owned).collect();
        named.retain(|manifest| manifest.name() == Some(tag) || manifest.digest == tag);
        if named.is_empty() {
            let hint = format!("it has {}", if known.is_empty() { "no names".into() } else { known.join(", ") });
            return Err(Refusal::new(Kind::ImageMissing, what, format!("no image {tag:?} is in it")).hint(hint));
        }
    }
    let manifest = choose(place, what, &named, wanted.architecture(), DEPTH)?;
    let bytes = blob(place, what, &manifest)?;
    let digest = Some(manifest.digest);
    let manifest: Manifest = json(what, "the manifest", &bytes)?;
    let config = blob(place, what, &manifest.config)?;
    let layers = manifest.layers.iter().map(|layer| find(place, what, layer)).collect::<Result<_, _>>()?;
    Image::of(what, config, digest, layers)
}

/// Manifest for `processor`.
fn choose(
    place: &Place,
    what: &str,
    manifests: &[Descriptor],
    processor: &str,
    depth: u32,
) -> Result<Descriptor, Refusal> {
    let refuse = |kind, cause: String| Refusal::new(kind, what, cause);
    if manifests.is_empty() {
        return Err(refuse(Kind::ImageFormat, "no image is in it".into()));
    }
    // A manifest with a platform precedes one without.
    let says = |manifest: &&Descriptor| manifest.platform.as_ref().is_some_and(|said| !said.architecture.is_empty());
    let (saying, silent): (Vec<_>, Vec<_>) =
        manifests.iter().filter(|manifest| manifest.is_for(processor)).partition(|manifest| says(manifest));
    let mut fitting = if saying.is_empty() { silent } else { saying }.into_iter();
    let Some(found) = fitting.next() else {
        let known = manifests.iter().filter_map(|manifest| manifest.platform.as_ref());
        let known: Vec<&str> = known.map(|platform| platform.architecture.as_str()).take(20).collect();
        let refusal = refuse(Kind::ImageArch, format!("no image for {processor} is in it"));
        return Err(refusal.hint(format!("it has those for {}; --arch says which", known.join(", "))));
    };
    // Of manifests with a platform, further ones are variants of the processor, and the first is meant.
    let others: Vec<&Descriptor> = fitting.filter(|other| other.digest != found.digest).collect();
    if !others.is_empty() && (found.platform.is_none() || others.iter().any(|other| other.platform.is_none())) {
        let known: Vec<&str> = manifests.iter().filter_map(Descriptor::name).take(20).collect();
        let refusal = refuse(Kind::ImageMissing, "several images are in it: say which, behind a colon".into());
        return Err(refusal.hint(format!("it has {}", known.join(", "))));
    }
    if !found.is_index() {
        return Ok(found.clone());
    }
    let depth =
        depth.checked_sub(1).ok_or_else(|| refuse(Kind::ImageFormat, "too many indices in each other".into()))?;
    let index: Index = json(what, "an index", &blob(place, what, found)?)?;
    choose(place, what, &index.manifests, processor, depth)
}

fn find(place: &Place, what: &str, wanted: &Descriptor) -> Result<Layer, Refusal> {
    let hex = check_digest(what, &wanted.digest)?;
    if wanted.media_type.ends_with("+encrypted") {
        return Err(Refusal::new(Kind::ImageEncrypted, what, "its layers are encrypted"));
    }
    let found = place.find(what, &Path::new("blobs/sha256").join(hex))?;
    if found.size == wanted.size {
        return Ok(found);
    }
    let cause = format!("{} has {} bytes, and {} were expected", wanted.digest, found.size, wanted.size);
    Err(Refusal::new(Kind::ImageFormat, what, cause))
}

/// Bytes of a blob, checked by its digest. Layers are checked by the digest in the configuration.
fn blob(place: &Place, what: &str, wanted: &Descriptor) -> Result<Vec<u8>, Refusal> {
    find(place, what, wanted)?;
    let hex = check_digest(what, &wanted.digest)?;
    let bytes = place.read(what, &Path::new("blobs/sha256").join(hex), MAX_JSON)?;
    check_bytes(what, &wanted.digest, &bytes)?;
    Ok(bytes)
}
