//! Manifests and indexes, and their check for registries.
#![no_main]

use coracle_images::readers::{Choice, LONGEST_CONFIG, Manifest, Part, Processor, registry_parts};

/// The digits become a name in the cache and a part of a URL.
fn check(part: &Part) {
    let digits = part.digest.digits();
    assert!(matches!((part.digest.algorithm(), digits.len()), ("sha256", 64) | ("sha512", 128)));
    assert!(digits.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match Manifest::parse("image", bytes) {
        Ok(Manifest::Image { config, layers }) => {
            if let Ok((config, layers)) = registry_parts(&config, &layers) {
                assert!(config.size <= LONGEST_CONFIG);
                layers.iter().fold(config.size, |sum, layer| sum.checked_add(layer.size).expect("a length"));
                layers.iter().chain([&config]).for_each(check);
            }
        }
        Ok(Manifest::Index(index)) => {
            for processor in ["amd64", "arm64/v8", "arm", "riscv64"] {
                let wanted = Processor::of(Some(processor)).expect("a processor");
                if let Choice::Silent(images) = index.choose(&wanted) {
                    assert!(images.len() <= index.manifests.len());
                }
            }
        }
        Err(_) => {}
    }
});
