//! Manifests and indexes of a registry.
#![no_main]

use coracle_images::readers::{Index, Manifest, Part, Processor};

/// Limits on the length of a configuration, in bytes, and on the images without a platform that are looked at.
const LONGEST_CONFIG: u64 = 16 << 20;
const MOST_SILENT: usize = 16;

/// The digits become a name in the cache and a part of a URL.
fn check(part: &Part) {
    let digits = part.digest.digits();
    assert!(matches!((part.digest.algorithm(), digits.len()), ("sha256", 64) | ("sha512", 128)));
    assert!(digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Manifest::parse(bytes) {
        Ok(Manifest::Image { config, layers }) => {
            assert!(config.size <= LONGEST_CONFIG);
            layers.iter().fold(config.size, |sum, layer| sum.checked_add(layer.size).expect("a length"));
            layers.iter().chain([&config]).for_each(check);
        }
        Ok(Manifest::Index(index)) => {
            for processor in ["amd64", "arm64/v8", "arm", "riscv64"] {
                let wanted = Processor::of(Some(processor)).expect("a processor");
                if let Ok(parts) = Index::choose(&index, &wanted) {
                    assert!((1..=MOST_SILENT).contains(&parts.len()));
                    parts.iter().for_each(check);
                }
            }
        }
        Err(_) => {}
    }
});
