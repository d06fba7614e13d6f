//! Records of the store, and the messages of its service.
#![no_main]

use coracle_launcher::store::{Question, Record, Reply};

#[path = "../memory.rs"]
mod memory;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = serde_json::from_slice::<Record>(bytes) {
        let text = record.to_json().expect("a record can be written");
        assert_eq!(serde_json::from_slice::<Record>(&text).ok(), Some(record));
    }
    memory::with_file(bytes, |file| {
        let found = file.metadata().expect("the file is there");
        if let Ok(record) = Record::read(file, &found, memory::uid()) {
            assert_eq!(record.version, 1);
        }
        assert!(Record::read(file, &found, memory::uid() + 1).is_err(), "the record of another user");
    });
    let _ = serde_json::from_slice::<Question>(bytes);
    if let Ok(reply) = serde_json::from_slice::<Reply>(bytes) {
        let text = serde_json::to_vec(&reply).expect("a message can be written");
        assert_eq!(serde_json::from_slice::<Reply>(&text).ok().as_ref(), Some(&reply));
        let _ = reply.refusal();
    }
});
