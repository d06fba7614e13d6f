//! `verity enable|measure|compute FILE`: the library's fs-verity calls, and the same digest from the file's bytes.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs::File;

use coracle::sys::verity;
use sha2::{Digest, Sha256};

const BLOCK: usize = 4096;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (verb, name) = (arguments.next().expect("a verb"), arguments.next().expect("a file"));
    let open = || File::open(&name).expect("the file can be opened");
    let digest = match verb.as_str() {
        "enable" => verity::enable(open()),
        "measure" => verity::measure(open()),
        "compute" => return println!("sha256:{}", compute(&std::fs::read(&name).expect("the file can be read"))),
        _ => panic!("usage: verity enable|measure|compute FILE"),
    };
    match digest {
        Ok(Some(digest)) => println!("{digest}"),
        Ok(None) => println!("none"),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

/// Documentation/filesystems/fsverity.rst, "Merkle tree" and "fs-verity descriptor", without salt.
fn compute(bytes: &[u8]) -> String {
    let hash_block = |block: &[u8]| {
        let mut whole = [0; BLOCK];
        whole[..block.len()].copy_from_slice(block);
        Sha256::digest(whole).to_vec()
    };
    let mut level: Vec<u8> = bytes.chunks(BLOCK).flat_map(hash_block).collect();
    while level.len() > 32 {
        level = level.chunks(BLOCK).flat_map(hash_block).collect();
    }
    let mut descriptor = [0; 256];
    // Version 1, SHA-256, blocks of 2^12 bytes.
    descriptor[..3].copy_from_slice(&[1, 1, 12]);
    descriptor[8..16].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    descriptor[16..16 + level.len()].copy_from_slice(&level);
    Sha256::digest(descriptor).iter().map(|byte| format!("{byte:02x}")).collect()
}
