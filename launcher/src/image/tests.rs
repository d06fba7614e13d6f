#![forbid(unsafe_code)]

use super::*;
use proptest::prelude::*;
use std::io::Write;

#[path = "../../../tests/images/sif_writer.rs"]
#[allow(dead_code)]
mod sif_writer;
use sif_writer::{DATA, DESCRIPTOR, Part, TABLE, put, sif};

/// Minimal superblock and tables that are valid, padded to 4 KiB as mksquashfs does.
fn squashfs() -> Vec<u8> {
    let mut out = vec![0u8; 4096];
    out[..4].copy_from_slice(b"hsqs");
    out[4] = 1;
    out[12..16].copy_from_slice(&131_072u32.to_le_bytes());
    out[20] = 6;
    out[22] = 17;
    out[26] = 1;
    out[28] = 4;
    put(&mut out, 40, 4000);
    for (at, start) in [(48, 3992), (56, u64::MAX), (64, 96), (72, 200), (80, u64::MAX), (88, u64::MAX)] {
        put(&mut out, at, start);
    }
    // One uncompressed block in each table, and the index of the ids.
    for (at, size) in [(96, 102u16), (200, 3784), (3986, 4)] {
        out[at..at + 2].copy_from_slice(&(size | 1 << 15).to_le_bytes());
    }
    put(&mut out, 3992, 3986);
    out
}

/// Minimal valid erofs with two blocks of 4 KiB.
fn erofs() -> Vec<u8> {
    let mut out = vec![0u8; 8192];
    out[1024..1028].copy_from_slice(&[0xe2, 0xe1, 0xf5, 0xe0]);
    out[1024 + 12] = 12;
    out[1024 + 14] = 36;
    put(&mut out, 1024 + 16, 3);
    out[1024 + 36] = 2;
    // Inode of the root, with its mode.
    out[36 * 32 + 4..][..2].copy_from_slice(&0o040_755_u16.to_le_bytes());
    out
}

fn ext3() -> Vec<u8> {
    let mut out = vec![0u8; 4096];
    out[1080..1082].copy_from_slice(&[0x53, 0xef]);
    out
}

fn overlay(filesystem: i32, data: &[u8]) -> Part<'_> {
    Part { filesystem, kind: 4, ..part(data) }
}

fn part(data: &[u8]) -> Part<'_> {
    Part { filesystem: 1, kind: 2, architecture: *b"02\0", data }
}

fn look(bytes: &[u8]) -> Result<Image, Error> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    identify(&file, "x86_64")
}

fn refusal(bytes: &[u8]) -> String {
    look(bytes).unwrap_err().refuse("img.sif").line()
}

/// Refusal of a valid SIF after `change`.
fn changed(change: impl Fn(&mut Vec<u8>)) -> String {
    let filesystem = squashfs();
    let mut bytes = sif(&[part(&filesystem)]);
    change(&mut bytes);
    refusal(&bytes)
}

#[test]
fn a_sif_and_a_plain_squashfs_are_found() {
    let filesystem = squashfs();
    let found = look(&sif(&[part(&filesystem)])).unwrap();
    assert_eq!(found.to_string(), format!("sif:squashfs+zstd offset={DATA} size=4096"));
    assert_eq!(look(&filesystem).unwrap().to_string(), "file:squashfs+zstd offset=0 size=4096");
}

#[test]
fn an_erofs_is_found_and_hostile_ones_are_named() {
    assert_eq!(look(&erofs()).unwrap().to_string(), "file:erofs offset=0 size=8192");
    let with = |changes: &[(usize, u8)]| {
        let mut bytes = erofs();
        for (at, value) in changes {
            bytes[1024 + at] = *value;
        }
        refusal(&bytes)
    };
    assert!(with(&[(12, 8)]).contains("damaged erofs: a block size of 2^8 bytes"));
    assert!(with(&[(12, 17)]).contains("damaged erofs: a block size of 2^17 bytes"));
    assert!(with(&[(12, 255)]).contains("damaged erofs: a block size of 2^255 bytes"));
    assert!(with(&[(36, 0)]).contains("damaged erofs: it has no inodes"));
    assert!(with(&[(16, 0)]).contains("damaged erofs: it has no inodes"));
    assert!(with(&[(36, 3)]).contains("truncated: the erofs ends at byte 12288, the file at byte 8192"));
    assert!(with(&[(39, 255)]).contains("truncated: the erofs ends at byte"));
    let largest = [(12, 16), (36, 255), (37, 255), (38, 255), (39, 255)];
    assert!(with(&largest).contains("truncated: the erofs ends at byte 281474976645120"));
    assert!(with(&[(83, 1)]).contains("img.sif: an erofs with features that are not known (0x1000000)"));
    assert!(with(&[(13, 185)]).contains("damaged erofs: the number of its superblock's extensions is 185"));
    assert!(with(&[(90, 1)]).contains("damaged erofs: its directories' block size is 1"));
    assert!(with(&[(91, 1), (94, 1)]).contains("damaged erofs: the place of its attribute prefixes is 262144"));
    assert!(with(&[(15, 1)]).contains("damaged erofs: the number of its root inode is 292"));
    assert!(with(&[(43, 255)]).contains("damaged erofs: the number of its root inode is 36"));
    assert!(with(&[(14, 0)]).contains("damaged erofs: the number of its root inode is 0"));
    assert!(with(&[(80, 32), (100, 1)]).contains("damaged erofs: the number of its packed inode is 4294967296"));
    assert!(with(&[(128, 10)]).contains("damaged erofs: the format of its root inode is 10"));
    assert!(with(&[(133, 0x81)]).contains("damaged erofs: its root is no directory (mode 0o100755)"));
    let devices = with(&[(80, 8), (86, 1)]);
    assert!(devices.contains("img.sif: an erofs with parts in other files, which is not run"), "{devices}");
    assert!(refusal(&erofs()[..1028]).contains("truncated: the erofs superblock ends at byte 1152"));
    assert!(refusal(&erofs()[..4096]).contains("truncated: the erofs ends at byte 8192, the file at byte 4096"));
    assert!(refusal(&erofs()[..1027]).contains("not an image"));
}

#[test]
fn the_first_look_needs_no_more_than_it_says() {
    for (bytes, container) in
        [(erofs(), Container::File), (squashfs(), Container::File), (sif(&[part(&squashfs())]), Container::Sif)]
    {
        assert_eq!(Container::of(&bytes[..START]), Some(container));
        assert_eq!(Container::of(&bytes[..20]), (&bytes[..4] == b"hsqs").then_some(container));
    }
    assert_eq!(Container::of(&[]), None);
}

#[test]
fn overlay_partitions_lie_above_the_root_in_their_order() {
    let (root, ext3) = (squashfs(), ext3());
    let mut bytes = sif(&[overlay(2, &ext3), part(&root), overlay(1, &root)]);
    let image = look(&bytes).unwrap();
    let at = |index: usize| DATA + 4096 * index;
    let wanted = format!(
        "sif:squashfs+zstd offset={} size=4096 + ext3 offset={} size=4096 + squashfs+zstd offset={} size=4096",
        at(1),
        at(0),
        at(2)
    );
    assert_eq!(image.to_string(), wanted);
    assert!(image.has_ext3() && !look(&sif(&[part(&root), overlay(1, &root)])).unwrap().has_ext3());
    // An overlay of another group does not belong to the root; a root without a group takes every overlay.
    put(&mut bytes, TABLE + 9, 0xf000_0002);
    assert_eq!(look(&bytes).unwrap().layers.len(), 2);
    put(&mut bytes, TABLE + DESCRIPTOR + 9, 0xf000_0000);
    assert_eq!(look(&bytes).unwrap().layers.len(), 3);
}

#[test]
fn an_overlay_partition_that_cannot_be_read_is_never_left_out() {
    let (root, ext3) = (squashfs(), ext3());
    let with = |overlay: Part<'_>, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = sif(&[part(&root), overlay]);
        change(&mut bytes);
        refusal(&bytes)
    };
    let no = |_: &mut Vec<u8>| {};
    assert!(with(overlay(2, &root), &no).contains("overlay partition 1: damaged SIF: it does not start like an ext3"));
    assert!(with(overlay(2, &ext3[..1024]), &no).contains("it does not start like an ext3"));
    assert!(with(overlay(1, &ext3), &no).contains("overlay partition 1: damaged squashfs: it does not start like one"));
    assert!(with(overlay(5, &root), &no).contains("overlay partition 1: encrypted squashfs, only squashfs and ext3"));
    assert!(with(overlay(77, &root), &no).contains("overlay partition 1: of unknown type 77"));
    let second = TABLE + DESCRIPTOR;
    assert!(with(overlay(1, &root), &|bytes| put(bytes, second + 25, 1 << 40)).contains("truncated: the partition"));
    assert!(with(overlay(1, &root), &|bytes| put(bytes, second + 17, u64::MAX)).contains("the partition is -1"));
    assert!(
        with(overlay(2, &ext3), &|bytes| put(bytes, second + 25, i64::MAX as u64))
            .contains("past the largest possible")
    );
}

#[test]
fn nine_overlay_partitions_are_too_many() {
    let filesystem = squashfs();
    let mut bytes = sif(&[part(&filesystem)]);
    let count = 10;
    let (at, end) = (bytes.len(), bytes.len() + count * DESCRIPTOR);
    let root = bytes[TABLE..TABLE + DESCRIPTOR].to_vec();
    for index in 0..count {
        bytes.extend_from_slice(&root);
        bytes[at + index * DESCRIPTOR + 205] = if index == 0 { 2 } else { 4 };
    }
    assert_eq!(bytes.len(), end);
    for index in 1..count {
        let place = bytes.len().next_multiple_of(4096);
        bytes.resize(place, 0);
        bytes.extend_from_slice(&filesystem);
        put(&mut bytes, at + index * DESCRIPTOR + 17, place as u64);
    }
    for (field, value) in [(88, count), (96, at), (104, count * DESCRIPTOR)] {
        put(&mut bytes, field, value as u64);
    }
    assert!(refusal(&bytes).contains("it has more than 8 overlay partitions"));
    bytes[at + 4] = 1;
    bytes[at + DESCRIPTOR + 4] = 0;
    assert_eq!(look(&bytes).unwrap().layers.len(), 9);
}

#[test]
fn a_data_object_is_found_by_type_and_name() {
    let filesystem = squashfs();
    let mut bytes = sif(&[part(&filesystem), part(b"{}"), part(b"[1]")]);
    for index in [1, 2] {
        let at = TABLE + index * DESCRIPTOR;
        bytes[at..at + 4].copy_from_slice(&0x4006i32.to_le_bytes());
        bytes[at + 73..at + 89].copy_from_slice(if index == 1 {
            b"labels.json\0\0\0\0\0"
        } else {
            b"oci-config.json\0"
        });
    }
    let find = |bytes: &[u8], datatype, name: &str| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        sif::object(&file, bytes.len() as u64, datatype, name).map_err(|error| error.to_string())
    };
    assert_eq!(find(&bytes, 0x4006, "oci-config.json"), Ok(Some((DATA as u64 + 8192, 3))));
    assert_eq!(find(&bytes, 0x4006, "labels.json"), Ok(Some((DATA as u64 + 4096, 2))));
    assert_eq!(find(&bytes, 0x4007, "oci-config.json"), Ok(None));
    assert_eq!(find(&bytes, 0x4006, "oci"), Ok(None));
    let third = TABLE + 2 * DESCRIPTOR;
    put(&mut bytes, third + 25, 1 << 30);
    assert!(find(&bytes, 0x4006, "oci-config.json").unwrap_err().contains("truncated: a data object"));
    bytes.resize(DATA + (2 << 20), 0);
    put(&mut bytes, third + 25, (1 << 20) + 1);
    assert!(find(&bytes, 0x4006, "oci-config.json").unwrap_err().contains("a data object of 1048577 bytes"));
    assert!(find(&bytes[..100], 0x4006, "oci-config.json").unwrap_err().contains("truncated: the SIF header"));
}

#[test]
fn what_a_child_says_of_an_image_is_believed_only_inside_the_file() {
    let image = look(&squashfs()).unwrap();
    assert_eq!(image.to_words(), "file 0 4096 zstd");
    assert_eq!(Image::from_words(&image.to_words(), 4096), Some(image.clone()));
    for image in [
        look(&sif(&[part(&squashfs()), overlay(1, &squashfs()), overlay(2, &ext3())])).unwrap(),
        look(&erofs()).unwrap(),
    ] {
        assert_eq!(Image::from_words(&image.to_words(), 1 << 20), Some(image));
    }
    assert_eq!(Image::from_words("directory", 0), Some(Image::directory()));
    assert_eq!(Image::directory().to_words(), "directory");
    for (words, length) in [
        (image.to_words(), 4095),
        ("sif 18446744073709551615 1 zstd".into(), 4096),
        ("sif 0 1 zstd more".into(), 4096),
        ("sif 0 -1 zstd".into(), 4096),
        ("ext4 0 1 zstd".into(), 4096),
        ("sif 0 1 lzma".into(), 4096),
        ("sif 0 1 zstd 4096 1 zstd".into(), 4096),
        ("sif 0 1 zstd 0 1".into(), 4096),
        (format!("sif{}", " 0 1 zstd".repeat(10)), 4096),
        ("sif".into(), 4096),
        ("file 0 1 zstd 0 1 zstd".into(), 4096),
        ("directory 0 1 zstd".into(), 4096),
        (String::new(), 4096),
    ] {
        assert_eq!(Image::from_words(&words, length), None, "{words}");
    }
}

#[test]
fn unused_and_other_descriptors_do_not_count() {
    let filesystem = squashfs();
    let mut bytes = sif(&[part(&filesystem), part(&filesystem)]);
    bytes[TABLE + DESCRIPTOR + 4] = 0;
    assert!(look(&bytes).is_ok());
    bytes[TABLE + DESCRIPTOR + 4] = 1;
    bytes[TABLE + DESCRIPTOR] = 5;
    assert!(look(&bytes).is_ok());
}

#[test]
fn parts_that_share_bytes_or_lie_outside_are_named() {
    let filesystem = squashfs();
    let with = |field: usize, value: u64| {
        let mut bytes = sif(&[part(&filesystem), part(b"text")]);
        bytes[TABLE + DESCRIPTOR] = 6;
        assert!(look(&bytes).is_ok());
        put(&mut bytes, TABLE + DESCRIPTOR + field, value);
        refusal(&bytes)
    };
    let second = DATA as u64 + 4096;
    assert!(with(17, second - 1).contains(&format!("damaged SIF: two of its parts share byte {}", second - 1)));
    assert!(with(17, 0).contains("two of its parts share byte 0"));
    assert!(with(17, TABLE as u64 + 100).contains("two of its parts share byte"));
    assert!(with(17, u64::MAX).contains("a data object is -1"));
    assert!(with(25, i64::MAX as u64).contains("a data object ends past the largest possible file"));
    assert!(with(25, 1 << 40).contains("truncated: a data object ends at byte"));
    assert!(changed(|bytes| put(bytes, 96, 64)).contains("damaged SIF"));
}

#[test]
fn what_is_no_image_is_said_so() {
    for bytes in [&b""[..], b"#!/bin/sh\n", &[0; 64], &[0xff; 4096], &[b'x'; 63]] {
        let line =
            "coracle: img.sif: not an image: it starts neither like a SIF nor like a squashfs or erofs [image-format]";
        assert_eq!(refusal(bytes), line);
    }
}

#[test]
fn every_truncation_is_refused() {
    let filesystem = squashfs();
    let bytes = sif(&[part(&filesystem)]);
    for length in
        [64, 127, 128, TABLE - 1, TABLE, TABLE + DESCRIPTOR - 1, TABLE + 8 * DESCRIPTOR, DATA, bytes.len() - 1]
    {
        let line = refusal(&bytes[..length]);
        assert!(
            line.contains("truncated: ") && line.contains(&format!("the file at byte {length} ")),
            "{length}: {line}"
        );
    }
    assert!(refusal(&filesystem[..2000]).contains("truncated: the squashfs ends at byte 4000, the file at byte 2000"));
    assert!(refusal(&filesystem[..80]).contains("does not start like one"));
}

#[test]
fn impossible_headers_are_named() {
    let cases: &[(usize, u64, &str)] = &[
        (88, 0, "0 descriptors, 1 to 4096 are possible"),
        (88, 1 << 40, "1099511627776 descriptors"),
        (88, u64::MAX, "-1 descriptors"),
        (96, u64::MAX, "the descriptor table is -1"),
        (96, i64::MAX as u64, "the descriptor table ends past the largest possible file"),
        (104, 585, "a descriptor table of 585 bytes does not fit"),
        (TABLE + 17, u64::MAX, "the root partition is -1"),
        (TABLE + 25, 1 << 63, "the root partition is -9223372036854775808"),
        (TABLE + 25, i64::MAX as u64, "the root partition ends past the largest possible file"),
        (TABLE + 25, 10_000_000, "truncated: the root partition ends at byte 10032768"),
        (TABLE + 25, 95, "damaged squashfs: it does not start like one"),
        (TABLE + 17, 0, "damaged squashfs: it does not start like one"),
        (DATA + 40, 5000, "truncated: the squashfs ends at byte 37768"),
        (DATA + 40, 3, "it says it is 3 bytes long, its place has 4096"),
        (DATA + 40, u64::MAX, "it says it is 18446744073709551615 bytes long"),
        (DATA + 64, 4000, "its inode table starts at byte 4000, behind its end"),
        (DATA + 48, u64::MAX, "its id table starts at byte 18446744073709551615"),
    ];
    for (at, value, cause) in cases {
        let line = changed(|bytes| put(bytes, *at, *value));
        assert!(line.contains(cause) && line.ends_with("[image-format]"), "{at} {value}: {line}");
    }
}

#[test]
fn impossible_or_foreign_kinds_are_named() {
    let filesystem = squashfs();
    let with = |change: &dyn Fn(&mut Part<'_>)| {
        let mut one = part(&filesystem);
        change(&mut one);
        refusal(&sif(&[one]))
    };
    assert!(with(&|part| part.filesystem = 2).contains("the root filesystem is ext3, only squashfs is run"));
    assert!(with(&|part| part.filesystem = 77).contains("of unknown type 77"));
    assert!(with(&|part| part.filesystem = 5).ends_with("the root filesystem is encrypted [image-encrypted]"));
    assert!(with(&|part| part.filesystem = 6).ends_with("[image-encrypted]"));
    assert!(with(&|part| part.architecture = *b"04\0").ends_with("made for aarch64, this node is x86_64 [image-arch]"));
    assert!(with(&|part| part.kind = 3).contains("no primary system partition"));
    assert!(refusal(&sif(&[])).contains("no primary system partition"));
    assert!(refusal(&sif(&[part(&filesystem), part(&filesystem)])).contains("more than one primary system partition"));
    assert!(changed(|bytes| bytes[42] = b'9').contains(r#"version "91", only "01" is known"#));
    assert!(changed(|bytes| bytes[DATA + 28] = 3).contains("version 3.0, only 4.0 is known"));
    assert!(changed(|bytes| bytes[DATA + 20] = 2).contains("compressed with lzma"));
    assert!(changed(|bytes| bytes[DATA + 20] = 9).contains("unknown compressor 9"));
    assert!(changed(|bytes| bytes[DATA + 22] = 16).contains("a block size of 131072 bytes"));
    assert!(changed(|bytes| bytes[DATA + 22] = 60).contains("a block size"));
    assert!(changed(|bytes| bytes[DATA + 4] = 0).contains("it has no inodes"));
}

#[test]
fn a_tail_that_no_loop_device_has_is_named() {
    let mut filesystem = squashfs();
    filesystem.truncate(4000);
    assert!(refusal(&filesystem).contains("does not end at a 512-byte border"));
    assert_eq!((loop_size(0, 4000, 4000), loop_size(0, 4000, 8000), loop_size(1, 4096, 4097)), (3584, 4096, 4096));
}

#[test]
fn the_digest_is_what_sha256sum_prints() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"abc").unwrap();
    let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(digest::compute(&file).unwrap().to_string(), abc);
}

proptest! {
    #[test]
    fn no_header_makes_it_panic(changes in prop::collection::vec((0usize..DATA + 96, any::<u8>()), 1..40)) {
        let filesystem = squashfs();
        let mut bytes = sif(&[part(&filesystem), overlay(1, &filesystem)]);
        for (at, value) in changes {
            bytes[at] = value;
        }
        if let Ok(image) = look(&bytes) {
            prop_assert!(image.layers.iter().all(|layer| layer.offset + layer.size <= bytes.len() as u64));
        }
    }

    #[test]
    fn no_file_makes_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..5000), squash in any::<bool>()) {
        if squash && bytes.len() > 4 {
            bytes[..4].copy_from_slice(b"hsqs");
        } else if bytes.len() > 42 {
            bytes[32..42].copy_from_slice(b"SIF_MAGIC\0");
        }
        let _ = look(&bytes);
        if bytes.len() > 1028 {
            bytes[1024..1028].copy_from_slice(erofs::MAGIC);
            let _ = look(&bytes);
        }
    }
}
