//! Encodes bytes with percent signs (RFC 3986, 2.1), so that any bytes travel in the environment.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::Error;
use crate::options::hex_byte;

/// Separators that a value of a field may have: only `;` ends it.
const IN_VALUE: &[u8] = b":=";

/// Encodes all but letters, digits and `/._@+~-`, so that `:;=` can separate.
pub fn escape(text: &OsStr) -> String {
    escape_except(text, &[])
}

/// Encodes all but letters, digits and `/._@+~-:=`, so that `;` can separate.
pub fn escape_value(text: &OsStr) -> String {
    escape_except(text, IN_VALUE)
}

fn escape_except(text: &OsStr, also: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.as_bytes() {
        match byte {
            byte if plain(*byte) || also.contains(byte) => out.push(char::from(*byte)),
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
    unescape_except(text, &[])
}

/// Reads the output of [`escape_value`] as [`unescape`] does.
pub fn unescape_value(text: &str) -> Result<OsString, Error> {
    unescape_except(text, IN_VALUE)
}

fn unescape_except(text: &str, also: &[u8]) -> Result<OsString, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match *first {
            b'%' => {}
            byte if plain(byte) || also.contains(&byte) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_back_and_separators_are_free() {
        let all = OsString::from_vec((1..=255).collect());
        for (escaped, separators) in [(escape(&all), ":;="), (escape_value(&all), ";")] {
            assert!(escaped.bytes().all(|byte| byte.is_ascii_graphic()), "{escaped}");
            assert!(!escaped.contains(|letter| separators.contains(letter)), "{escaped}");
            assert_eq!(unescape_value(&escaped), Ok(all.clone()));
        }
        assert_eq!(unescape(&escape(&all)), Ok(all));
        assert_eq!(
            (escape(OsStr::new("a=b c")), escape_value(OsStr::new("a=b c"))),
            ("a%3db%20c".into(), "a=b%20c".into())
        );
        assert!(unescape("a=b").is_err());
    }
}
