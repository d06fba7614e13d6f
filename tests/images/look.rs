//! `look FILE...`: what both looks at an image say and cost, one line a file. For benchmarks and by hand.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs::File;
use std::time::Instant;

use coracle_launcher::image::{self, Filesystem};
use coracle_verify::squashfs;

/// Number of times that the quick look is repeated for its time.
const REPEATS: u32 = 1000;

fn main() {
    for name in std::env::args_os().skip(1) {
        let file = File::open(&name).expect("the image can be opened");
        let shown = name.display();
        let image = match image::identify(&file, std::env::consts::ARCH) {
            Ok(image) => image,
            Err(error) => {
                println!("{shown}: quick: {error}");
                continue;
            }
        };
        let start = Instant::now();
        for _ in 0..REPEATS {
            image::identify(&file, std::env::consts::ARCH).expect("it was sound just now");
        }
        let quick = start.elapsed() / REPEATS;
        print!("{shown}: {image}: quick {:.1} us", quick.as_secs_f64() * 1e6);
        for layer in image.layers.iter().filter(|layer| matches!(layer.filesystem, Filesystem::Squashfs(_))) {
            let start = Instant::now();
            let found = squashfs::inspect_deep(&file, layer.offset, layer.size, &squashfs::Budget::default());
            let took = start.elapsed().as_secs_f64() * 1e3;
            match found {
                Ok(contents) => print!("; deep {took:.1} ms, {contents:?}"),
                Err(error) => print!("; deep {took:.1} ms: {error}"),
            }
        }
        println!();
    }
}
