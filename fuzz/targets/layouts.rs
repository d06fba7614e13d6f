//! Image layouts of OCI and archives of `docker save`: their indexes, manifests and configurations.
//!
//! An input has the texts of these files. In them `@0` to `@4` stand for the digest of one of the texts, and `#0` to
//! `#4` for its length: no input could state a digest itself.
#![no_main]

use coracle_images::readers::{Image, Processor, from_docker_archive, from_layout_archive};

#[path = "../archive.rs"]
mod archive;
#[path = "../memory.rs"]
mod memory;

/// Limit on the layers of an image.
const MAX_LAYERS: usize = 1024;

fn check(image: &Image, length: u64) {
    assert!(image.layers.len() <= MAX_LAYERS);
    for layer in &image.layers {
        assert!(layer.offset.checked_add(layer.size).is_some_and(|end| end <= length));
        let digits = layer.diff_id.as_deref().and_then(|id| id.strip_prefix("sha256:")).expect("a digest");
        assert!(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    assert_eq!(image.config().expect("it was read before").rootfs.diff_ids.len(), image.layers.len());
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bytes = archive::layout(bytes);
    let wanted = Processor::of(Some("amd64")).expect("a processor");
    memory::with_path(&bytes, |path, scratch| {
        for tag in [None, Some("latest")] {
            if let Ok(image) = from_layout_archive(path, tag, &wanted, scratch) {
                check(&image, bytes.len() as u64);
            }
        }
        if let Ok(image) = from_docker_archive(path, scratch) {
            check(&image, bytes.len() as u64);
        }
    });
});
