//! The SHA-256 (FIPS 180-4) of a whole image file: what `sha256sum` prints.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ring::digest::{Context, SHA256};

use crate::request::Digest;

/// Large enough that reading costs nothing beside hashing, small enough for the cache of the processor.
const BUFFER: usize = 256 * 1024;

/// Reads all of `file` and hashes it, from its start, whatever its position.
pub fn compute(file: &File) -> io::Result<Digest> {
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    loop {
        match file.read_at(&mut buffer, at) {
            Ok(0) => {
                let mut digest = [0; 32];
                digest.copy_from_slice(hash.finish().as_ref());
                return Ok(Digest(digest));
            }
            Ok(count) => {
                hash.update(&buffer[..count]);
                at += count as u64;
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}
