//! Computes the SHA-256 (FIPS 180-4) of a whole image file, as `sha256sum` prints it.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ring::digest::{Context, SHA256};

use coracle::request::Digest;

/// Large enough that the cost of reading is negligible beside hashing, small enough for the processor's cache.
const BUFFER: usize = 256 * 1024;

/// Digest of consecutive bytes.
pub struct Hasher(Context);

impl Default for Hasher {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Hasher {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Digest of all bytes.
    pub fn finish(self) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(self.0.finish().as_ref());
        Digest(digest)
    }
}

/// Reads and hashes all of `file` from its start, regardless of its position.
pub fn compute(file: &File) -> io::Result<Digest> {
    let mut hash = Hasher::default();
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => return Ok(hash.finish()),
            Ok(count) => {
                hash.update(&buffer[..count]);
                at += count as u64;
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}
