//! Finds the signers of all of a SIF (pkg/integrity of github.com/apptainer/sif).
//!
//! An image is good if every group of its objects has a signature, and if every signature of every group is made by an
//! accepted key and covers the header, all descriptors and all objects of the group. The signed data is a small JSON
//! document with their digests, in an OpenPGP clear-signed message or a DSSE envelope.
//!
//! All of this data is hostile, and the parsers are large: they must run in the launcher's `sandbox`.
#![forbid(unsafe_code)]

mod covered;
mod dsse;
mod error;
mod hash;
mod keyring;
mod openpgp;
mod pem;
mod statement;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use coracle_launcher::image::sif::{DATA_SIGNATURE, Descriptor, Header};
use coracle_launcher::image::{Container, START};

pub use coracle_launcher::children::verify::Signer;
pub use error::{Error, KeyFault, SignatureFault};
pub use keyring::{KeyError, Keyring, MAX_KEY_FILE};
pub use statement::{Statement, statements};

use covered::Covered;
use hash::Hashes;

/// Limit on the length of a signature, in bytes. Apptainer's have about 2 KiB.
pub const MAX_SIGNATURE: u64 = 1 << 20;
/// Limit on the number of signatures.
pub const MAX_SIGNATURES: usize = 64;
/// Start of an old signature, followed only by a digest of the data (Singularity before 3.6).
const LEGACY: &[u8] = b"SIFHASH:";

/// Signers of every group of objects of the SIF in `file`, which has `length` bytes. Each group is signed by an
/// accepted key; the result is empty if no single key signs every group.
///
/// A key must be good at `now`. After it has expired or was revoked, its earlier signatures are not accepted either,
/// since only its owner dates a signature.
pub fn verify(file: &File, length: u64, keys: &Keyring, now: SystemTime) -> Result<Vec<Signer>, Error> {
    // OpenPGP counts seconds in 32 bits, until 2106 (RFC 9580, 3.5).
    let now = now.duration_since(UNIX_EPOCH).ok().and_then(|time| u32::try_from(time.as_secs()).ok());
    let now = now.ok_or(Error::Clock)?;
    let mut start = [0; START];
    let have = usize::try_from(length.min(START as u64)).unwrap_or(START);
    file.read_exact_at(&mut start[..have], 0).map_err(Error::Read)?;
    if Container::of(&start[..have]) != Some(Container::Sif) {
        return Err(Error::NotSif);
    }
    let header = Header::read(file, length)?;
    let objects = header.descriptors(file, length)?;
    let groups = groups(&objects)?;

    let mut signed: Vec<(u32, Covered)> = Vec::new();
    let mut signers: Option<Vec<Signer>> = None;
    let mut read = 0;
    for group in groups.keys().copied() {
        let mut legacy = false;
        let mut found = false;
        let mut of_group: Vec<Signer> = Vec::new();
        for signature in signatures_of(&objects, group) {
            read += 1;
            if read > MAX_SIGNATURES {
                return Err(Error::TooManySignatures);
            }
            let bytes = contents(file, length, signature)?;
            let fault = |fault| Error::Signature(signature.id(), fault);
            let message = match Message::of(signature, &bytes, keys, now) {
                Err(SignatureFault::Legacy) => {
                    legacy = true;
                    continue;
                }
                message => message.map_err(fault)?,
            };
            found = true;
            signed.push((group, Covered::parse(&message.text).map_err(fault)?));
            of_group.extend(message.signers);
        }
        // The signers of another group do not vouch for this one.
        signers = Some(match signers {
            Some(before) => before.into_iter().filter(|signer| of_group.contains(signer)).collect(),
            None => of_group,
        });
        match (found, legacy) {
            (true, _) => {}
            (false, true) => return Err(Error::Legacy(group)),
            (false, false) => return Err(Error::Unsigned(group)),
        }
    }
    // The image is only read after all signatures are accepted.
    let mut hashes = Hashes::new(file, length, &header);
    for (group, covered) in &signed {
        covered.compare(&mut hashes, groups.get(group).map_or(&[][..], Vec::as_slice))?;
    }
    let mut signers = signers.unwrap_or_default();
    signers.sort();
    signers.dedup();
    Ok(signers)
}

/// Objects by group. Only a signature may be in no group.
fn groups(objects: &[Descriptor]) -> Result<BTreeMap<u32, Vec<&Descriptor>>, Error> {
    let mut ids: Vec<u32> = objects.iter().map(Descriptor::id).collect();
    ids.sort_unstable();
    if let Some(twice) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::SameId(twice[0]));
    }
    let mut groups: BTreeMap<u32, Vec<&Descriptor>> = BTreeMap::new();
    for object in objects {
        match object.group() {
            Some(group) => groups.entry(group).or_default().push(object),
            None if object.data_type() == DATA_SIGNATURE => {}
            None => return Err(Error::Ungrouped(object.id())),
        }
    }
    if groups.is_empty() { Err(Error::Empty) } else { Ok(groups) }
}

fn signatures_of(objects: &[Descriptor], group: u32) -> impl Iterator<Item = &Descriptor> {
    let is_signature = |object: &&Descriptor| object.data_type() == DATA_SIGNATURE;
    objects.iter().filter(is_signature).filter(move |object| object.linked_group() == Some(group))
}

fn contents(file: &File, length: u64, signature: &Descriptor) -> Result<Vec<u8>, Error> {
    let (offset, size) = signature.place("a signature", length)?;
    if size > MAX_SIGNATURE {
        return Err(Error::Signature(signature.id(), SignatureFault::Long(size)));
    }
    let size = usize::try_from(size).map_err(|_| Error::TooManySignatures)?;
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, offset).map_err(Error::Read)?;
    Ok(bytes)
}

/// Content of a good signature, and its signers.
struct Message {
    text: Vec<u8>,
    signers: Vec<Signer>,
}

impl Message {
    /// Checks one signature object, in either format, against `keys`.
    fn of(signature: &Descriptor, bytes: &[u8], keys: &Keyring, now: u32) -> Result<Self, SignatureFault> {
        let (hash, fingerprint) = signature.signer();
        // SHA-256, 384 and 512, BLAKE2s and b: used by old signatures; a new one names its algorithm itself.
        if !(1..=5).contains(&hash) {
            return Err(SignatureFault::Format(format!("its descriptor names hash algorithm {hash}")));
        }
        if openpgp::is_clear_signed(bytes) {
            let text = openpgp::Signed::parse(bytes)?;
            if text.text().starts_with(LEGACY) {
                return Err(SignatureFault::Legacy);
            }
            let signer = text.verify(keys, &fingerprint, now)?;
            return Ok(Self { text: text.text().to_vec(), signers: vec![signer] });
        }
        let (text, signers) = dsse::verify(bytes, keys)?;
        Ok(Self { text, signers })
    }
}

#[cfg(test)]
mod tests;
