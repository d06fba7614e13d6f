//! Makes the statement about an image that is signed: the reverse of [`covered`](super::covered).
#![forbid(unsafe_code)]

use std::fs::File;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::hash::Hashes;
use super::{Error, Keyring, SignatureFault, Signer, groups, openpgp};
use coracle_launcher::image::sif::objects;

/// Statement that a signature of a group of objects signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Id of the group.
    pub group: u32,
    /// One line of JSON.
    pub text: String,
}

#[derive(Serialize)]
struct Document {
    version: u64,
    header: WrittenHeader,
    objects: Vec<WrittenObject>,
}

#[derive(Serialize)]
struct WrittenHeader {
    digest: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenObject {
    relative_id: u32,
    descriptor_digest: String,
    object_digest: String,
}

/// Statements for each group of the SIF in `file`, which has `length` bytes. An image that could not be verified with
/// such signatures is refused.
pub fn statements(file: &File, length: u64) -> Result<Vec<Statement>, Error> {
    let (header, descriptors) = objects(file, length)?;
    let mut hashes = Hashes::new(file, length, &header);
    let mut statements = Vec::new();
    for (group, mut members) in groups(&descriptors)? {
        members.sort_by_key(|object| object.id());
        let first = members.first().map_or(0, |object| object.id());
        let mut document = Document {
            version: 1,
            header: WrittenHeader { digest: super::hash::sha256(&header.signed_fields()) },
            objects: Vec::new(),
        };
        for object in members {
            let relative_id = object.id() - first;
            document.objects.push(WrittenObject {
                relative_id,
                descriptor_digest: super::hash::sha256(&object.signed_fields(relative_id)),
                object_digest: hashes.sha256_of(object)?,
            });
        }
        let text = serde_json::to_string(&document).map_err(|error| Error::Read(error.into()))?;
        statements.push(Statement { group, text });
    }
    Ok(statements)
}

impl Statement {
    /// Verifies that `message` is this statement, clear-signed by the key of `fingerprint`. The key must be one of
    /// `keys` and good at `now`, so that each owner of that key accepts the signature.
    pub fn is_signed_by(
        &self,
        message: &[u8],
        fingerprint: &[u8; 20],
        keys: &Keyring,
        now: SystemTime,
    ) -> Result<Signer, SignatureFault> {
        let now = now.duration_since(UNIX_EPOCH).ok().and_then(|time| u32::try_from(time.as_secs()).ok());
        let now = now.ok_or(SignatureFault::Time)?;
        if !openpgp::is_clear_signed(message) {
            return Err(SignatureFault::Format("no OpenPGP clear-signed message".into()));
        }
        let signed = openpgp::Signed::parse(message)?;
        if signed.text().trim_ascii_end() != self.text.as_bytes() {
            return Err(SignatureFault::Format("another text than the one that was to be signed".into()));
        }
        signed.verify(keys, fingerprint, now)
    }
}
