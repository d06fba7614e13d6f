//! Parses the signed document, which describes a group of objects at the time of signing, and compares it with the
//! image.
#![forbid(unsafe_code)]

use serde::Deserialize;

use super::hash::{Digest, Hashes};
use super::{Error, SignatureFault};
use coracle_launcher::image::sif::Descriptor;

/// Signed document, as encoded.
#[derive(Deserialize)]
struct Document {
    version: u64,
    header: WrittenHeader,
    objects: Vec<WrittenObject>,
}

#[derive(Deserialize)]
struct WrittenHeader {
    digest: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenObject {
    relative_id: u32,
    descriptor_digest: String,
    object_digest: String,
}

/// Parts of an image that a signature covers.
pub(super) struct Covered {
    header: Digest,
    objects: Vec<Object>,
}

struct Object {
    /// Id of the object relative to the first one of the group.
    relative: u32,
    descriptor: Digest,
    contents: Digest,
}

impl Covered {
    pub(super) fn parse(text: &[u8]) -> Result<Self, SignatureFault> {
        let document: Document = serde_json::from_slice(text)
            .map_err(|error| SignatureFault::Format(format!("what it signs is no description of an image: {error}")))?;
        if document.version != 1 {
            let version = document.version;
            return Err(SignatureFault::Format(format!("what it signs has version {version}, only 1 is known")));
        }
        let object = |written: &WrittenObject| {
            Ok(Object {
                relative: written.relative_id,
                descriptor: Digest::parse(&written.descriptor_digest)?,
                contents: Digest::parse(&written.object_digest)?,
            })
        };
        let mut objects: Vec<Object> = document.objects.iter().map(object).collect::<Result<_, _>>()?;
        objects.sort_by_key(|object| object.relative);
        if objects.windows(2).any(|pair| pair[0].relative == pair[1].relative) {
            return Err(SignatureFault::Format("what it signs names an object twice".into()));
        }
        Ok(Self { header: Digest::parse(&document.header.digest)?, objects })
    }

    /// Checks that the image matches the signed document: the header, and exactly the objects of `group`.
    pub(super) fn compare(&self, hashes: &mut Hashes<'_>, group: &[&Descriptor]) -> Result<(), Error> {
        if !hashes.is_header(&self.header) {
            return Err(Error::Header);
        }
        let first = group.iter().map(|object| object.id()).min().unwrap_or(0);
        let relative = |object: &Descriptor| object.id() - first;
        let find = |object: &Descriptor| {
            let at = self.objects.binary_search_by_key(&relative(object), |signed| signed.relative);
            at.ok().and_then(|at| self.objects.get(at)).ok_or(Error::Added(object.id()))
        };
        let pairs: Vec<(&Descriptor, &Object)> =
            group.iter().map(|object| Ok((*object, find(object)?))).collect::<Result<_, Error>>()?;
        // No object occurs twice on either side, so equal numbers mean equal sets.
        if pairs.len() != self.objects.len() {
            return Err(Error::Removed);
        }
        for (object, signed) in &pairs {
            if !signed.descriptor.is_of(&object.signed_fields(relative(object))) {
                return Err(Error::Descriptor(object.id()));
            }
        }
        for (object, signed) in pairs {
            if !hashes.is_object(&signed.contents, object)? {
                return Err(Error::Object(object.id()));
            }
        }
        Ok(())
    }
}
