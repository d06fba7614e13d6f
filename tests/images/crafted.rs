//! `crafted DIR`: squashfs images with one wrong field each, as `quick-NAME.sqsh` where the look of each start must
//! refuse it, and as `deep-NAME.sqsh` where only the look of admission can; and `sound.sqsh`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod squashfs_writer;

use std::fs;
use std::path::PathBuf;

fn main() {
    let directory = PathBuf::from(std::env::args_os().nth(1).expect("usage: crafted DIR"));
    fs::create_dir_all(&directory).expect("the directory can be made");
    fs::write(directory.join("sound.sqsh"), squashfs_writer::squashfs().bytes).expect("an image can be written");
    for one in squashfs_writer::crafted() {
        let look = if one.quick { "quick" } else { "deep" };
        let name = format!("{look}-{}.sqsh", one.name);
        fs::write(directory.join(name), one.bytes).expect("an image can be written");
    }
}
