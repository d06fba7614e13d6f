//! Reads the keys whose signatures are accepted.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use pgp::composed::{Deserializable, SignedPublicKey};

use super::pem::PemKey;

/// Limit on the length of a key file, in bytes.
pub const MAX_KEY_FILE: u64 = 1 << 20;
/// Limit on the keys: each may be tried for each signature.
const MAX_KEYS: usize = 1000;
const DASHES: &str = "-----";

/// Keys that sign images: OpenPGP ones, and PEM ones for DSSE.
#[derive(Debug, Default)]
pub struct Keyring {
    openpgp: Vec<SignedPublicKey>,
    pem: Vec<PemKey>,
}

/// Reason why a file has no usable keys.
#[derive(Debug)]
pub enum KeyError {
    /// It cannot be read.
    Read(io::Error),
    /// It is longer than [`MAX_KEY_FILE`].
    Long,
    /// It contains a private key, which must not be distributed.
    Private,
    /// It contains no public key of a supported type.
    None,
    /// The keyring has more keys than the limit.
    TooMany,
}

impl fmt::Display for KeyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(cause) => write!(out, "cannot be read: {cause}"),
            Self::Long => write!(out, "longer than {MAX_KEY_FILE} bytes"),
            Self::Private => out.write_str("a private key, where the public one is wanted"),
            Self::None => out.write_str(
                "no OpenPGP public key, armoured or binary, and no PEM of an Ed25519, ECDSA (P-256, P-384, P-521) or \
                 RSA public key",
            ),
            Self::TooMany => write!(out, "more than {MAX_KEYS} keys"),
        }
    }
}

impl std::error::Error for KeyError {}

impl Keyring {
    /// Reads key files, from their start. An error has the index of the file.
    pub fn read(files: &[File]) -> Result<Self, (usize, KeyError)> {
        let mut keys = Self::default();
        for (index, file) in files.iter().enumerate() {
            let mut bytes = Vec::new();
            let read = file.take(MAX_KEY_FILE + 1).read_to_end(&mut bytes);
            read.map_err(KeyError::Read).and_then(|_| keys.add(&bytes)).map_err(|error| (index, error))?;
        }
        Ok(keys)
    }

    /// Adds the keys of one file; at least one. A key of an unknown type beside a good one is ignored.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), KeyError> {
        if bytes.len() as u64 > MAX_KEY_FILE {
            return Err(KeyError::Long);
        }
        let before = self.len();
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains("-----BEGIN ") => {
                if text.contains("PRIVATE KEY") {
                    return Err(KeyError::Private);
                }
                for block in blocks(text) {
                    if block.contains("BEGIN PGP PUBLIC KEY BLOCK") {
                        let keys = SignedPublicKey::from_armor_many(block.as_bytes());
                        self.openpgp.extend(keys.into_iter().flat_map(|(keys, _)| keys).flatten());
                    } else {
                        self.pem.extend(PemKey::parse(block));
                    }
                }
            }
            _ => {
                let keys = SignedPublicKey::from_bytes_many(bytes);
                self.openpgp.extend(keys.into_iter().flatten().flatten());
            }
        }
        match self.len() {
            after if after == before => Err(KeyError::None),
            after if after > MAX_KEYS => Err(KeyError::TooMany),
            _ => Ok(()),
        }
    }

    fn len(&self) -> usize {
        self.openpgp.len() + self.pem.len()
    }

    pub(super) fn openpgp(&self) -> &[SignedPublicKey] {
        &self.openpgp
    }

    pub(super) fn pem(&self) -> &[PemKey] {
        &self.pem
    }
}

/// Armored blocks of a text, each from its line `-----BEGIN …-----` to the end of the line `-----END …-----`.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.match_indices("-----BEGIN ").map(|(at, _)| at);
    starts.filter_map(move |start| {
        let rest = text.get(start..)?;
        let end = rest.find("-----END ")? + "-----END ".len();
        let end = end + rest.get(end..)?.find(DASHES)? + DASHES.len();
        rest.get(..end)
    })
}
