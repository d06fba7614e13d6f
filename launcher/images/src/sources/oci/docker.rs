//! Reads archives of `docker save` and `podman save` (moby's image specification, "Combined Image JSON + Filesystem
//! Changeset Format").
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal};
use serde::Deserialize;

use super::place::Place;
use super::{Image, MAX_JSON, check_bytes, json};
use crate::sources::digest::Digest;
use crate::sources::json::null_is_default;

/// Image in manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Manifest {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(deserialize_with = "null_is_default")]
    layers: Vec<PathBuf>,
}

/// Image of an archive: `FILE`, or `FILE:REPOSITORY:TAG` for one of several.
pub fn from_docker_archive(typed: &Path, scratch: &Path) -> Result<Image, Refusal> {
    let what = typed.display().to_string();
    let (path, tag) = split(typed);
    let place = Place::archive(&path, scratch)?;
    let bytes = place.read(&what, Path::new("manifest.json"), MAX_JSON).map_err(|refusal| {
        if place.find(&what, Path::new("manifest.json")).is_ok() {
            refusal
        } else if place.find(&what, Path::new("oci-layout")).is_ok() {
            refusal.hint(format!("it is an OCI archive: oci-archive:{what}"))
        } else {
            refusal.hint("a tar file of a root file system is named without docker-archive:")
        }
    })?;
    let manifests: Vec<Manifest> = json(&what, "manifest.json", &bytes)?;
    let manifest = choose(&what, &manifests, tag.as_deref())?;
    let config = place.read(&what, &manifest.config, MAX_JSON)?;
    // Its name is its digest, in every version of the format.
    let stem = manifest.config.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if let Ok(digest) = Digest::parse(&format!("sha256:{}", stem.strip_suffix(".json").unwrap_or(&stem))) {
        check_bytes(&what, &digest, &config)?;
    }
    let layers = manifest.layers.iter().map(|name| place.find(&what, name)).collect::<Result<_, _>>()?;
    Image::of(&what, config, None, layers)
}

/// Splits a source into file and name; the file's name may have a colon, too.
fn split(typed: &Path) -> (PathBuf, Option<String>) {
    let bytes = typed.as_os_str().as_bytes();
    if typed.exists() {
        return (typed.to_owned(), None);
    }
    let colons = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    for at in colons {
        let (file, tag) = (Path::new(OsStr::from_bytes(&bytes[..at])), std::str::from_utf8(&bytes[at + 1..]));
        if let (true, Ok(tag)) = (file.exists(), tag) {
            return (file.to_owned(), Some(tag.to_owned()));
        }
    }
    (typed.to_owned(), None)
}

fn choose<'a>(what: &str, manifests: &'a [Manifest], tag: Option<&str>) -> Result<&'a Manifest, Refusal> {
    let tags = |manifest: &'a Manifest| manifest.repo_tags.iter().flatten();
    let missing = |cause: &str| {
        let known: Vec<&str> = manifests.iter().flat_map(tags).take(20).map(String::as_str).collect();
        let hint = format!("it has {}", if known.is_empty() { "no names".to_owned() } else { known.join(", ") });
        Refusal::new(Kind::ImageMissing, what, cause).hint(hint)
    };
    match (tag, manifests) {
        (_, []) => Err(Refusal::new(Kind::ImageFormat, what, "no image is in it")),
        (None, [only]) => Ok(only),
        (None, _) => Err(missing("several images are in it: say which, behind the file's name and a colon")),
        (Some(tag), _) => {
            let same = |known: &String| known == tag || short(known) == tag || known == &format!("{tag}:latest");
            let found = manifests.iter().find(|manifest| tags(manifest).any(same));
            found.ok_or_else(|| missing("no image of that name is in it"))
        }
    }
}

/// Name as Docker shows it.
fn short(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}
