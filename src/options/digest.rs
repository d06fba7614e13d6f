//! Reads the digest of an image file.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use super::Error;

/// A SHA-256 (FIPS 180-4) of an image file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let wrong = || Error::Digest(text.to_owned());
        let hex = text.as_bytes().strip_prefix(b"sha256:").ok_or_else(wrong)?;
        if hex.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks(2)) {
            *byte = hex_byte(pair).ok_or_else(wrong)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Splits `IMAGE@sha256:HEX` into its two parts.
pub(crate) fn split(image: &OsStr) -> Result<(&OsStr, Option<Digest>), Error> {
    let bytes = image.as_bytes();
    match bytes.windows(8).rposition(|window| window == b"@sha256:") {
        Some(at) => Ok((OsStr::from_bytes(&bytes[..at]), Some(Digest::parse(OsStr::from_bytes(&bytes[at + 1..]))?))),
        None => Ok((image, None)),
    }
}

/// Returns the byte that two hexadecimal digits stand for.
pub(crate) fn hex_byte(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match pair {
        [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
        _ => None,
    }
}
