//! One file in memory for all inputs of a target.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

thread_local! {
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

/// Calls `look` with a file of exactly these bytes.
pub fn with_file(bytes: &[u8], look: impl FnOnce(&File)) {
    FILE.with_borrow_mut(|file| {
        // A memfd is what /dev/shm gives us here without unsafe code: a file that is gone when we are.
        let file = file.get_or_insert_with(|| {
            let name = format!("/dev/shm/coracle-fuzz.{}", std::process::id());
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&name);
            let file = file.expect("/dev/shm can be written");
            std::fs::remove_file(&name).expect("what was just made can be removed");
            file
        });
        file.set_len(bytes.len() as u64).expect("the file can have that length");
        file.write_all_at(bytes, 0).expect("the file can be written");
        look(file);
    });
}
