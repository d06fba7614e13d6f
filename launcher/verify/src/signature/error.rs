//! Reasons why an image is not sufficiently signed.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use super::{MAX_SIGNATURE, MAX_SIGNATURES};
use coracle::report::{Kind, Refusal};
use coracle_launcher::image;

/// Reason why no accepted key signs all of an image. Numbers are ids of objects and groups in the SIF.
#[derive(Debug)]
pub enum Error {
    /// Not a SIF: other images cannot be signed.
    NotSif,
    /// The SIF is damaged.
    Image(image::Error),
    /// The file cannot be read.
    Read(io::Error),
    /// The node's clock is before 1970 or after 2106.
    Clock,
    /// It has no object that could be signed.
    Empty,
    /// Two objects have this id.
    SameId(u32),
    /// It has more signatures than the limit.
    TooManySignatures,
    /// A group of objects has no signature.
    Unsigned(u32),
    /// A group has only signatures of the old format.
    Legacy(u32),
    /// An object is in no group, so no signature covers it.
    Ungrouped(u32),
    /// A signature is not valid.
    Signature(u32, SignatureFault),
    /// The header differs from the signed one.
    Header,
    /// An object of a signed group is not in the signed document.
    Added(u32),
    /// The signed document names an object that does not exist.
    Removed,
    /// The descriptor of an object differs from the signed one.
    Descriptor(u32),
    /// An object differs from the signed one.
    Object(u32),
}

/// Fault of one signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureFault {
    /// It is longer than the limit; its length in bytes.
    Long(u64),
    /// It has not the format of Apptainer's signatures.
    Format(String),
    /// It has the old format, which covers the data alone.
    Legacy,
    /// It uses a broken hash algorithm.
    WeakHash(String),
    /// No accepted key has made it; id or fingerprint of the key, if the signature names it.
    UnknownKey(String),
    /// It does not match the key and the text.
    Wrong,
    /// Its time is in the future, or it has expired.
    Time,
    /// The fingerprint in the signature's descriptor is that of another key.
    OtherKey,
    /// The key is not accepted.
    Key(String, KeyFault),
}

/// Reason why a key of the keyring is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    /// It has expired, or its time is in the future.
    Expired,
    /// Its owner has revoked it.
    Revoked,
    /// It is not for signing.
    Usage,
    /// None of its self-signatures uses an accepted hash algorithm.
    Unbound,
}

impl From<image::Error> for Error {
    fn from(cause: image::Error) -> Self {
        Self::Image(cause)
    }
}

impl Error {
    /// True if nothing contradicts the image, but no accepted key signs it in an accepted format.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NotSif
                | Self::Empty
                | Self::Unsigned(_)
                | Self::Legacy(_)
                | Self::Signature(_, SignatureFault::UnknownKey(_) | SignatureFault::Legacy)
        )
    }

    /// Refusal of the image that the user calls `image`.
    pub fn refuse(&self, image: &str) -> Refusal {
        let kind = match self {
            Self::Image(cause) => return cause.refuse(image),
            Self::Read(cause) => Kind::of_reading(cause),
            Self::Clock => Kind::System,
            _ => Kind::Signature,
        };
        let refusal = Refusal::new(kind, image, self.to_string());
        match self {
            Self::Unsigned(_) => refusal.hint("coracle sign signs an image"),
            Self::Legacy(_) => refusal.hint("sign it again with Apptainer, or Singularity 3.6 or later"),
            Self::Signature(_, SignatureFault::UnknownKey(_)) => refusal
                .hint("name the signer's public key with --key, or have it put into the site's directory of keys"),
            _ => refusal,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSif => out.write_str("not a SIF, so it has no signatures"),
            Self::Image(cause) => cause.fmt(out),
            Self::Read(cause) => write!(out, "cannot be read: {cause}"),
            Self::Clock => out.write_str("this node's clock is before 1970 or after 2106"),
            Self::Empty => out.write_str("not signed: none of its objects is in a group"),
            Self::SameId(id) => write!(out, "damaged SIF: two objects have number {id}"),
            Self::TooManySignatures => write!(out, "it has more than {MAX_SIGNATURES} signatures"),
            Self::Unsigned(group) => write!(out, "not signed: no signature of object group {group}"),
            Self::Legacy(group) => {
                write!(out, "object group {group} has only an old signature (SIFHASH), which does not cover the header")
            }
            Self::Ungrouped(id) => write!(out, "object {id} is in no group, so no signature covers it"),
            Self::Signature(id, fault) => write!(out, "signature {id}: {fault}"),
            Self::Header => out.write_str("the header is not the one that was signed"),
            Self::Added(id) => write!(out, "object {id} was added after signing"),
            Self::Removed => out.write_str("an object that was signed is missing"),
            Self::Descriptor(id) => write!(out, "the descriptor of object {id} is not the one that was signed"),
            Self::Object(id) => write!(out, "object {id} is not the one that was signed"),
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for SignatureFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Long(size) => write!(out, "{size} bytes, {MAX_SIGNATURE} are possible"),
            Self::Format(why) => write!(out, "not a signature: {why}"),
            Self::Legacy => out.write_str("of the old kind (SIFHASH)"),
            Self::WeakHash(name) => write!(out, "made with {name}, which no longer protects"),
            Self::UnknownKey(key) if key.is_empty() => out.write_str("made by none of the accepted keys"),
            Self::UnknownKey(key) => write!(out, "made by {key}, which is none of the accepted keys"),
            Self::Wrong => out.write_str("wrong: it was altered, or what it signs was"),
            Self::Time => out.write_str("has expired, or is dated in the future"),
            Self::OtherKey => out.write_str("its descriptor names another key than the one that made it"),
            Self::Key(key, fault) => write!(out, "made by {key}, and that key {fault}"),
        }
    }
}

impl fmt::Display for KeyFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Expired => "has expired",
            Self::Revoked => "was revoked",
            Self::Usage => "is not for signing",
            Self::Unbound => "is not signed by itself with SHA-2",
        })
    }
}
