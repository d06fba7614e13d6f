//! Writes tar files, and image layouts in them.
#![allow(dead_code)]

use std::fmt::Write;

use sha2::{Digest, Sha256};

const BLOCK: usize = 512;
/// Fields of a header: the checksum, and the magic.
const SUM: std::ops::Range<usize> = 148..156;
const MAGIC: std::ops::Range<usize> = 257..262;

/// The archive with the checksum of each header as it should be: no input would find it.
pub fn with_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK).filter(|block| block[MAGIC] == *b"ustar") {
        block[SUM].fill(b' ');
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[SUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// Adds an entry.
pub fn add(archive: &mut Vec<u8>, flag: u8, name: &str, contents: &[u8]) {
    let mut header = [0; BLOCK];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0001750\0");
    header[116..124].copy_from_slice(b"0001750\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", contents.len()).as_bytes());
    header[136..148].copy_from_slice(b"14524757200\0");
    header[156] = flag;
    header[257..265].copy_from_slice(b"ustar\x0000");
    archive.extend_from_slice(&header);
    archive.extend_from_slice(contents);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

/// Digest as hexadecimal digits.
fn digits(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Number of the texts in an input.
const TEXTS: usize = 5;

/// Archive that is an image layout and one of `docker save`, too. A byte 0xff separates the texts of `input`: layer,
/// configuration, manifest, index.json and manifest.json. Each may name those before it.
pub fn layout(input: &[u8]) -> Vec<u8> {
    let mut texts: Vec<Vec<u8>> = Vec::new();
    for text in input.splitn(TEXTS, |byte| *byte == 0xff) {
        let mut filled = Vec::new();
        let mut rest = text.iter().peekable();
        while let Some(byte) = rest.next() {
            let number = rest.peek().map_or(TEXTS, |next| usize::from(next.wrapping_sub(b'0')));
            match (byte, texts.get(number)) {
                (b'@', Some(known)) => filled.extend_from_slice(digits(known).as_bytes()),
                (b'#', Some(known)) => filled.extend_from_slice(known.len().to_string().as_bytes()),
                _ => {
                    filled.push(*byte);
                    continue;
                }
            }
            rest.next();
        }
        texts.push(filled);
    }
    let mut archive = Vec::new();
    add(&mut archive, b'0', "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    for (number, text) in texts.iter().enumerate() {
        match number {
            3 => add(&mut archive, b'0', "index.json", text),
            4 => add(&mut archive, b'0', "manifest.json", text),
            _ => add(&mut archive, b'0', &format!("blobs/sha256/{}", digits(text)), text),
        }
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    with_sums(&archive)
}
