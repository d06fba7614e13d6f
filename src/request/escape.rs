//! Encodes bytes with percent signs (RFC 3986, 2.1), so that any bytes travel in the environment.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::Error;

/// Encodes all but letters, digits and `/._@+~-`, so that `:;=` can separate.
pub fn escape(text: &OsStr) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.as_bytes() {
        match byte {
            byte if plain(*byte) => out.push(char::from(*byte)),
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

fn plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._@+~-".contains(&byte)
}

/// Reads the output of [`escape`]. A NUL is refused: no encoded value can hold one.
pub fn unescape(text: &str) -> Result<OsString, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match *first {
            b'%' => {}
            byte if plain(byte) => {
                bytes.push(byte);
                continue;
            }
            _ => return Err(Error::Garbled("a character that is not escaped")),
        }
        let (pair, tail) = rest.split_at_checked(2).ok_or(Error::Garbled("a cut escape"))?;
        match hex_byte(pair).ok_or(Error::Garbled("a wrong escape"))? {
            0 => return Err(Error::Garbled("a NUL byte")),
            byte => bytes.push(byte),
        }
        rest = tail;
    }
    Ok(OsString::from_vec(bytes))
}

pub(super) fn hex_byte(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match pair {
        [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
        _ => None,
    }
}
