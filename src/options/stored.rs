//! Checks the name of an image in the site's store.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;

use super::Error;

/// Prefix of a name that is looked up in the store only.
pub(crate) const PREFIX: &str = "store:";
/// Maximum length of a name, in bytes.
const MAX_LEN: usize = 128;

/// Name of an image in the store: ASCII letters, digits, `.`, `_` and `-`, beginning with a letter or digit. No path,
/// shell or command line reads it as anything else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredName(String);

impl StoredName {
    /// Checks a name.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let proper = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match text.to_str() {
            Some(name)
                if name.len() <= MAX_LEN
                    && name.bytes().all(proper)
                    && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) =>
            {
                Ok(Self(name.to_owned()))
            }
            _ => Err(Error::StoredName(text.to_owned())),
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StoredName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_name_and_nothing_else() {
        let long = "x".repeat(MAX_LEN);
        for good in ["a", "img.sif", "9-a_b.c", long.as_str()] {
            assert_eq!(StoredName::parse(good.as_ref()).unwrap().as_str(), good);
        }
        let longer = "x".repeat(MAX_LEN + 1);
        for bad in ["", ".", "..", ".hidden", "-rf", "a/b", "../a", "a b", "a\nb", "a\0", "ä", "a:b", longer.as_str()]
        {
            assert!(StoredName::parse(bad.as_ref()).is_err(), "{bad:?}");
        }
    }
}
