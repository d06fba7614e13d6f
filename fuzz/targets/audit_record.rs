//! Records of steps, as `coracle log` reads them.
#![no_main]

use coracle::report::is_hidden;
use coracle_launcher::records::Record;

libfuzzer_sys::fuzz_target!(|line: &str| {
    let Some(record) = Record::from_line(line) else { return };
    let written = record.to_line();
    assert!(!written.chars().any(is_hidden), "{written:?}");
    let again = Record::from_line(&written).expect("a record that was written");
    assert_eq!(again.to_line(), written);
});
