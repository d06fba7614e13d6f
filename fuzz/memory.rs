//! Files for the inputs of a target.
#![allow(dead_code)]

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

thread_local! {
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

/// Calls `look` with a file of exactly these bytes, always the same one.
pub fn with_file(bytes: &[u8], look: impl FnOnce(&File)) {
    FILE.with_borrow_mut(|file| {
        // A memfd is what /dev/shm gives us here without unsafe code: a file that is gone when we are.
        let file = file.get_or_insert_with(|| {
            let name = format!("/dev/shm/coracle-fuzz.{}", std::process::id());
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&name);
            let file = file.expect("/dev/shm can be written");
            fs::remove_file(&name).expect("what was just made can be removed");
            file
        });
        file.set_len(bytes.len() as u64).expect("the file can have that length");
        file.write_all_at(bytes, 0).expect("the file can be written");
        // Readers start where the last one has stopped.
        std::io::Seek::rewind(&mut &*file).expect("a file has a start");
        look(file);
    });
}

/// Owner of these files.
pub fn uid() -> u32 {
    fs::metadata("/proc/self").expect("/proc is mounted").uid()
}

/// Calls `work` with a directory, always the same one.
pub fn with_directory(work: impl FnOnce(&Path)) {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/scratch")).join(env!("CARGO_BIN_NAME"));
    fs::create_dir_all(&directory).expect("a directory can be made");
    work(&directory);
}

/// Calls `look` with the path of a file of exactly these bytes, and with an empty directory.
pub fn with_path(bytes: &[u8], look: impl FnOnce(&Path, &Path)) {
    with_directory(|directory| {
        let (path, scratch) = (directory.join("file"), directory.join("empty"));
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&scratch).expect("a directory can be made");
        fs::write(&path, bytes).expect("a file can be written");
        look(&path, &scratch);
    });
}
