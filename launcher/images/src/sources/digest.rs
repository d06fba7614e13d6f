//! Parses and computes digests in OCI's form (image-spec, descriptor.md): an algorithm, a colon and hexadecimal digits.
#![forbid(unsafe_code)]

use std::fmt;

use ring::digest::{Context, SHA256, SHA512};

/// Digest of some bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    digits: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    fn word(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn context(self) -> Context {
        Context::new(match self {
            Self::Sha256 => &SHA256,
            Self::Sha512 => &SHA512,
        })
    }
}

impl Digest {
    /// Parses a digest; the error describes the fault.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (algorithm, digits) = text.split_once(':').ok_or_else(|| format!("{text:?} is no digest"))?;
        let (algorithm, length) = match algorithm {
            "sha256" => (Algorithm::Sha256, 64),
            "sha512" => (Algorithm::Sha512, 128),
            other => return Err(format!("digests by {other:?} are not known, only by sha256 and sha512")),
        };
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != length || !digits.bytes().all(is_digit) {
            return Err(format!("a digest by {} has {length} digits of 0 to 9 and a to f", algorithm.word()));
        }
        Ok(Self { algorithm, digits: digits.into() })
    }

    /// Name of the algorithm, which is also that of a directory.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.word()
    }

    /// Hexadecimal digits.
    pub fn digits(&self) -> &str {
        &self.digits
    }

    /// Digest of these bytes by the same algorithm.
    pub fn of_same_kind(&self, bytes: &[u8]) -> Self {
        let mut sum = self.sum();
        sum.update(bytes);
        sum.finish()
    }

    /// SHA-256 of bytes.
    pub fn sha256(bytes: &[u8]) -> Self {
        let mut sum = Sum::sha256();
        sum.update(bytes);
        sum.finish()
    }

    /// Starts a sum by the same algorithm.
    pub fn sum(&self) -> Sum {
        Sum { algorithm: self.algorithm, context: self.algorithm.context() }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.algorithm.word(), self.digits)
    }
}

/// Digest during its computation.
#[derive(Clone)]
pub struct Sum {
    algorithm: Algorithm,
    context: Context,
}

impl Sum {
    /// Starts a sum by sha256.
    pub fn sha256() -> Self {
        Self { algorithm: Algorithm::Sha256, context: Algorithm::Sha256.context() }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// Digest of all bytes.
    pub fn finish(self) -> Digest {
        use std::fmt::Write;
        let mut digits = String::new();
        for byte in self.context.finish().as_ref() {
            let _ = write!(digits, "{byte:02x}");
        }
        Digest { algorithm: self.algorithm, digits }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_their_algorithm() {
        // FIPS 180-2, B.1 and C.1.
        let short = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::sha256(b"abc").to_string(), short);
        let long = Digest::parse(&format!("sha512:{}", "0".repeat(128))).unwrap();
        assert!(long.of_same_kind(b"abc").digits().starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(Digest::parse(short).unwrap(), Digest::sha256(b"abc"));
    }

    #[test]
    fn what_is_no_digest_is_refused_by_name() {
        for (text, cause) in [
            ("abc", "is no digest"),
            ("md5:00", "\"md5\" are not known"),
            ("sha256:00", "has 64 digits"),
            (&format!("sha256:{}", "A".repeat(64)), "has 64 digits"),
            (&format!("sha256:{}", "../".repeat(21) + "x"), "has 64 digits"),
            (&format!("sha512:{}", "a".repeat(64)), "has 128 digits"),
        ] {
            assert!(Digest::parse(text).unwrap_err().contains(cause), "{text}");
        }
    }
}
