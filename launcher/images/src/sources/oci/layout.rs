//! Reads OCI image layouts (image-spec, image-layout.md): a directory, or a tar file of one.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal};
use serde::Deserialize;

use super::manifest::{Choice, Descriptor, Index, Manifest};
use super::place::Place;
use super::{Image, MAX_JSON, check_bytes, json, parse_digest};
use crate::sources::archive::Layer;
use crate::sources::digest::Digest;
use crate::sources::platform::Processor;

/// Limit of nested indices.
const DEPTH: u32 = 4;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    image_layout_version: String,
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
    let bytes = place.read(what, Path::new("index.json"), MAX_JSON)?;
    let Manifest::Index(mut index) = Manifest::parse(what, &bytes)? else {
        return Err(Refusal::new(Kind::ImageFormat, what, "its index.json is no index"));
    };
    if let Some(tag) = tag {
        let known = names(&index);
        index.manifests.retain(|manifest| manifest.name() == Some(tag) || manifest.digest == tag);
        if index.manifests.is_empty() {
            let hint = format!("it has {}", if known.is_empty() { "no names" } else { &known });
            return Err(Refusal::new(Kind::ImageMissing, what, format!("no image {tag:?} is in it")).hint(hint));
        }
    }
    for _ in 0..=DEPTH {
        let chosen = choose(what, &index, wanted)?;
        match Manifest::parse(what, &blob(place, what, chosen)?)? {
            Manifest::Index(nested) => index = nested,
            Manifest::Image { config, layers } => {
                let config = blob(place, what, &config)?;
                let layers = layers.iter().map(|layer| find(place, what, layer)).collect::<Result<_, _>>()?;
                return Image::of(what, config, Some(chosen.digest.clone()), layers);
            }
        }
    }
    Err(Refusal::new(Kind::ImageFormat, what, "too many indices in each other"))
}

/// Image of an index for a processor, or the only one without a platform.
fn choose<'a>(what: &str, index: &'a Index, wanted: &Processor) -> Result<&'a Descriptor, Refusal> {
    let silent = match index.choose(wanted) {
        Choice::Fitting(found) => return Ok(found),
        Choice::Silent(found) => found,
    };
    let refuse = |kind, cause: String| Refusal::new(kind, what, cause);
    match silent.split_first() {
        Some((first, others)) if others.iter().all(|other| other.digest == first.digest) => Ok(first),
        Some(_) => Err(refuse(Kind::ImageMissing, "several images are in it: say which, behind a colon".into())
            .hint(format!("it has {}", names(index)))),
        None if index.manifests.is_empty() => Err(refuse(Kind::ImageFormat, "no image is in it".into())),
        None => {
            let known: Vec<&str> = index.platforms().map(|platform| platform.architecture.as_str()).take(20).collect();
            Err(refuse(Kind::ImageArch, format!("no image for {wanted} is in it"))
                .hint(format!("it has those for {}; --arch says which", known.join(", "))))
        }
    }
}

/// Names of the first images.
fn names(index: &Index) -> String {
    index.manifests.iter().filter_map(Descriptor::name).take(20).collect::<Vec<_>>().join(", ")
}

fn find(place: &Place, what: &str, wanted: &Descriptor) -> Result<Layer, Refusal> {
    let found = place.find(what, &path(&parse_digest(what, &wanted.digest)?))?;
    if found.size == wanted.size {
        return Ok(found);
    }
    let cause = format!("{} has {} bytes, and {} were expected", wanted.digest, found.size, wanted.size);
    Err(Refusal::new(Kind::ImageFormat, what, cause))
}

/// Bytes of a blob, checked by its digest. Layers are checked by the digest in the configuration.
fn blob(place: &Place, what: &str, wanted: &Descriptor) -> Result<Vec<u8>, Refusal> {
    find(place, what, wanted)?;
    let digest = parse_digest(what, &wanted.digest)?;
    let bytes = place.read(what, &path(&digest), MAX_JSON)?;
    check_bytes(what, &digest, &bytes)?;
    Ok(bytes)
}

/// Path of a blob in a layout (image-spec, image-layout.md).
fn path(digest: &Digest) -> PathBuf {
    Path::new("blobs").join(digest.algorithm()).join(digest.digits())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a blob and returns its descriptor, with further fields.
    fn put(directory: &Path, text: &str, fields: &str) -> String {
        let digest = Digest::sha256(text.as_bytes());
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(digest.digits()), text).unwrap();
        format!(r#"{{"digest":"{digest}","size":{}{fields}}}"#, text.len())
    }

    /// Writes an image without layers for a processor.
    fn image(directory: &Path, architecture: &str, fields: &str) -> String {
        let config = put(directory, &format!(r#"{{"architecture":"{architecture}"}}"#), "");
        put(directory, &format!(r#"{{"schemaVersion":2,"config":{config},"layers":null}}"#), fields)
    }

    fn index(manifests: &[String]) -> String {
        format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(","))
    }

    /// Processor of the image `tag` of a layout, or the cause of the refusal.
    fn taken(directory: &Path, top: &str, tag: Option<&str>) -> Result<String, String> {
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        std::fs::write(directory.join("index.json"), top).unwrap();
        let image = from_layout(directory, tag, &Processor::of(Some("arm64")).unwrap());
        image.map(|image| image.config().unwrap().architecture).map_err(|refusal| refusal.cause)
    }

    #[test]
    fn the_image_for_the_processor_is_taken_from_nested_indexes() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let (silent, other) = (image(at, "amd64", ""), image(at, "s390x", ""));
        let fitting = image(at, "arm64", r#","platform":{"os":"linux","architecture":"arm64","variant":"v8"}"#);
        let wrong = image(at, "ppc64le", r#","platform":{"os":"linux","architecture":"ppc64le"}"#);
        let take =
            |manifests: &[&String]| taken(at, &index(&manifests.iter().copied().cloned().collect::<Vec<_>>()), None);
        assert_eq!(take(&[&silent, &other, &wrong, &fitting]), Ok("arm64".into()));
        assert_eq!(take(&[&wrong, &silent, &silent]), Ok("amd64".into()));
        let several = "several images are in it: say which, behind a colon";
        assert_eq!(take(&[&silent, &other]), Err(several.into()));
        assert_eq!(take(&[&wrong]), Err("no image for arm64 is in it".into()));
        assert_eq!(take(&[]), Err("no image is in it".into()));
        let mut nested = fitting;
        for _ in 0..DEPTH {
            nested = put(at, &index(&[nested]), "");
        }
        assert_eq!(take(&[&nested]), Ok("arm64".into()));
        let deeper = put(at, &index(&[nested]), "");
        assert_eq!(take(&[&deeper]), Err("too many indices in each other".into()));
    }

    #[test]
    fn a_name_or_a_digest_selects_an_image() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let name = |name: &str| format!(r#","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}"#);
        let top = index(&[image(at, "amd64", &name("one")), image(at, "s390x", &name("two"))]);
        assert_eq!(taken(at, &top, Some("two")), Ok("s390x".into()));
        let digest = &top[top.find("sha256:").unwrap()..][..71];
        assert_eq!(taken(at, &top, Some(digest)), Ok("amd64".into()));
        assert_eq!(taken(at, &top, Some("three")), Err("no image \"three\" is in it".into()));
    }

    #[test]
    fn a_blob_that_is_not_what_its_descriptor_says_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let good = image(at, "arm64", "");
        for (top, cause) in [
            (good.replace("\"size\":", "\"size\":1"), " bytes, and "),
            (good.replace("sha256:", "sha256:../"), "is no digest of SHA-256"),
            (put(at, "{}", ""), "neither that of an image nor an index"),
        ] {
            let said = taken(at, &index(&[top]), None).unwrap_err();
            assert!(said.contains(cause), "{said}");
        }
    }
}
