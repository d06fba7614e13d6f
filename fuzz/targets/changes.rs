//! Changes of an environment, and the record of a container's variables.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use coracle::env::{Change, Record, names};
use coracle_launcher::container::environment::parse_pairs;

/// True if setenv(3) accepts the name.
fn is_name(name: &OsStr) -> bool {
    !name.is_empty() && !name.as_bytes().iter().any(|byte| matches!(byte, b'=' | 0))
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(changes) = Change::from_bytes(bytes) {
        assert_eq!(Change::to_bytes(&changes), bytes);
        for change in &changes {
            assert!(is_name(change.name()));
            if let Some(list) = change.of_list(OsStr::new("0,1,GPU-a,")) {
                assert!(!list.as_bytes().contains(&0));
            }
        }
    }
    if let Some(record) = Record::from_env(OsStr::from_bytes(bytes)) {
        let text = record.to_env();
        assert_eq!(Record::from_env(OsStr::new(&text)).map(|again| again.to_env()), Some(text));
        // A user wrote the record, perhaps: it must not set what Slurm says.
        for change in record.undo(|_| None) {
            assert!(is_name(change.name()) && !names::is_slurms(change.name().as_bytes()));
        }
    }
    for (name, value) in parse_pairs(bytes) {
        assert!(is_name(&name) && !value.as_bytes().contains(&0));
    }
});
