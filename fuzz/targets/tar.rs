//! Tar files: headers, pax records, sparse files, and the names of their entries.
#![no_main]

use std::io::Read;
use std::path::Component;

use coracle_images::readers::{Kind, Reader, parts};

#[path = "../archive.rs"]
mod archive;

/// PATH_MAX and NAME_MAX of Linux.
const MAX_PATH: usize = 4096;
const MAX_NAME: usize = 255;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bytes = archive::with_sums(bytes);
    let mut input = bytes.as_slice();
    let mut tar = Reader::new(&mut input);
    let mut count = 0;
    while let Ok(Some(entry)) = tar.next_entry() {
        count += 1;
        assert!(count * 512 <= bytes.len(), "more entries than headers");
        assert!(entry.path.len() < MAX_PATH && entry.mode <= 0o7777);
        assert!(entry.owner.uid != u32::MAX && entry.owner.gid != u32::MAX);
        match &entry.kind {
            Kind::Link(target) | Kind::Symlink(target) => assert!(target.len() < MAX_PATH),
            Kind::Device(device) => assert!(device.major < 1 << 12 && device.minor < 1 << 20),
            _ => {}
        }
        if let Some(pieces) = &entry.pieces {
            let ordered = pieces.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0);
            let end = pieces.last().map_or(0, |(offset, length)| offset + length);
            let sum: u64 = pieces.iter().map(|(_, length)| length).sum();
            assert!(ordered && end <= entry.size && sum == entry.stored, "{pieces:?}");
        }
        if let Ok(path) = parts(&entry.path) {
            let plain = |part: Component<'_>| matches!(part, Component::Normal(name) if name.len() <= MAX_NAME);
            assert!(path.components().all(plain), "{path:?}");
        }
        // Of every second entry the bytes are read, of the others they are skipped.
        let mut contents = Vec::new();
        if count % 2 == 0 && tar.read_to_end(&mut contents).is_ok() {
            let at = usize::try_from(entry.at).unwrap();
            assert_eq!(contents.len() as u64, entry.stored);
            assert!(bytes[at..].starts_with(&contents), "the contents are at another offset");
        }
    }
});
