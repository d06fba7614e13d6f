//! Computes hashes of the SHA-2 family (FIPS 180-4) of parts of the image.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::digest::DynDigest;

use super::{Error, SignatureFault};
use coracle_launcher::image::sif::{Descriptor, Header};

/// Large enough that reading costs little compared to hashing, small enough for the cache of the processor.
const BUFFER: usize = 256 * 1024;

/// Algorithm of the family, with its name in signed documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Algorithm {
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha512Of224,
    Sha512Of256,
}

impl Algorithm {
    fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "sha224" => Self::Sha224,
            "sha256" => Self::Sha256,
            "sha384" => Self::Sha384,
            "sha512" => Self::Sha512,
            "sha512_224" => Self::Sha512Of224,
            "sha512_256" => Self::Sha512Of256,
            _ => return None,
        })
    }

    fn start(self) -> Running {
        match self {
            // Apptainer signs with this one, and it reads all of an image.
            Self::Sha256 => Running::Fast(Box::new(ring::digest::Context::new(&ring::digest::SHA256))),
            Self::Sha224 => Running::Rare(Box::new(sha2::Sha224::default())),
            Self::Sha384 => Running::Rare(Box::new(sha2::Sha384::default())),
            Self::Sha512 => Running::Rare(Box::new(sha2::Sha512::default())),
            Self::Sha512Of224 => Running::Rare(Box::new(sha2::Sha512_224::default())),
            Self::Sha512Of256 => Running::Rare(Box::new(sha2::Sha512_256::default())),
        }
    }

    fn length(self) -> usize {
        match self {
            Self::Sha224 | Self::Sha512Of224 => 28,
            Self::Sha256 | Self::Sha512Of256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

enum Running {
    Fast(Box<ring::digest::Context>),
    Rare(Box<dyn DynDigest>),
}

impl Running {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Fast(context) => context.update(bytes),
            Self::Rare(digest) => digest.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Fast(context) => context.finish().as_ref().to_vec(),
            Self::Rare(digest) => digest.finalize().into_vec(),
        }
    }
}

/// Digest in a signed document: the algorithm, a colon and hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digest {
    algorithm: Algorithm,
    value: Vec<u8>,
}

impl Digest {
    pub(super) fn parse(text: &str) -> Result<Self, SignatureFault> {
        let wrong = || SignatureFault::Format("a digest is not an algorithm and hexadecimal digits".into());
        let (word, digits) = text.split_once(':').ok_or_else(wrong)?;
        // The name of another algorithm: MD5 and SHA-1 are refused here.
        let named = || SignatureFault::WeakHash(word.chars().filter(char::is_ascii_alphanumeric).take(16).collect());
        let algorithm = Algorithm::from_word(word).ok_or_else(named)?;
        let digits = digits.as_bytes();
        if digits.len() != algorithm.length() * 2 {
            return Err(wrong());
        }
        let number = |digit: u8| char::from(digit).to_digit(16).and_then(|number| u8::try_from(number).ok());
        let byte = |pair: &[u8]| Some(number(pair[0])? << 4 | number(pair[1])?);
        let value = digits.chunks_exact(2).map(byte).collect::<Option<Vec<u8>>>().ok_or_else(wrong)?;
        Ok(Self { algorithm, value })
    }

    pub(super) fn is_of(&self, bytes: &[u8]) -> bool {
        let mut running = self.algorithm.start();
        running.update(bytes);
        running.finish() == self.value
    }
}

/// Hashes of an image that were computed so far: two signatures of one group cover the same objects.
pub(super) struct Hashes<'a> {
    file: &'a File,
    length: u64,
    header: &'a Header,
    done: BTreeMap<(u32, Algorithm), Vec<u8>>,
    buffer: Vec<u8>,
}

impl<'a> Hashes<'a> {
    pub(super) fn new(file: &'a File, length: u64, header: &'a Header) -> Self {
        Self { file, length, header, done: BTreeMap::new(), buffer: vec![0; BUFFER] }
    }

    /// True if `digest` is that of the header.
    pub(super) fn is_header(&self, digest: &Digest) -> bool {
        digest.is_of(&self.header.signed_fields())
    }

    /// True if `digest` is that of an object, which is read for that.
    pub(super) fn is_object(&mut self, digest: &Digest, object: &Descriptor) -> Result<bool, Error> {
        Ok(self.value(digest.algorithm, object)? == digest.value)
    }

    /// SHA-256 of an object, in the format of signed documents.
    pub(super) fn sha256_of(&mut self, object: &Descriptor) -> Result<String, Error> {
        Ok(written(self.value(Algorithm::Sha256, object)?))
    }

    fn value(&mut self, algorithm: Algorithm, object: &Descriptor) -> Result<&[u8], Error> {
        let key = (object.id(), algorithm);
        if !self.done.contains_key(&key) {
            let value = self.read(algorithm, object)?;
            self.done.insert(key, value);
        }
        Ok(self.done.get(&key).map_or(&[][..], Vec::as_slice))
    }

    fn read(&mut self, algorithm: Algorithm, object: &Descriptor) -> Result<Vec<u8>, Error> {
        let (mut offset, mut left) = object.place("a data object", self.length)?;
        let mut running = algorithm.start();
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
            let count = match self.file.read_at(&mut self.buffer[..want], offset) {
                Ok(0) => return Err(Error::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(Error::Read(cause)),
            };
            running.update(&self.buffer[..count]);
            offset += count as u64;
            left -= count as u64;
        }
        Ok(running.finish())
    }
}

/// SHA-256 of some bytes, in the format of signed documents.
pub(super) fn sha256(bytes: &[u8]) -> String {
    let mut running = Algorithm::Sha256.start();
    running.update(bytes);
    written(&running.finish())
}

fn written(value: &[u8]) -> String {
    value.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
