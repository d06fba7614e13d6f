//! `mksif OUT SQUASHFS [--arch 04] [--fs N] [--kind N] [--twice] [--empty] [--overlay FS:FILE]...`: a SIF around
//! a squashfs, for tests and the demo; most options make wrong ones. An overlay partition has the number of its
//! filesystem, 1 for squashfs or 2 for ext3.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[allow(dead_code)]
mod sif_writer;

use sif_writer::{Part, native, sif};

fn main() {
    let (mut files, mut overlays) = (Vec::new(), Vec::new());
    let (mut filesystem, mut kind, mut architecture, mut count) = (1, 2, native(), 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("the option wants a value");
        match argument.as_str() {
            "--arch" => architecture[..2].copy_from_slice(&value().as_bytes()[..2]),
            "--fs" => filesystem = value().parse().expect("a number"),
            "--kind" => kind = value().parse().expect("a number"),
            "--overlay" => {
                let value = value();
                let (filesystem, file) = value.split_once(':').expect("a number and a file");
                let data = std::fs::read(file).expect("the overlay can be read");
                overlays.push((filesystem.parse().expect("a number"), data));
            }
            "--twice" => count = 2,
            "--empty" => count = 0,
            _ => files.push(argument),
        }
    }
    let [out, squashfs] = files.as_slice() else { panic!("usage: mksif OUT SQUASHFS [options]") };
    let data = std::fs::read(squashfs).expect("the squashfs can be read");
    let mut parts: Vec<Part<'_>> = (0..count).map(|_| Part { filesystem, kind, architecture, data: &data }).collect();
    parts.extend(overlays.iter().map(|(filesystem, data)| Part {
        filesystem: *filesystem,
        kind: 4,
        architecture,
        data,
    }));
    std::fs::write(out, sif(&parts)).expect("the SIF can be written");
}
