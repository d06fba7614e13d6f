//! Definition files.
#![no_main]

use coracle_images::readers::{Definition, parse};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = Definition::parse("x.def", text, &[]);
    let _ = Definition::parse("x.def", text, &["A=1".to_owned(), "B={{ A }}".to_owned()]);
    let stages = parse::stages(text);
    let whole: String = stages.iter().map(|(_, text)| *text).collect();
    assert_eq!(whole, text, "a part of the file belongs to no stage");
    for (first, text) in stages {
        let Ok(stage) = parse::stage("x.def", first, text) else { continue };
        let lines = first..=first + text.lines().count();
        let sections = stage.sections.values().chain(stage.apps.iter().flat_map(|app| app.sections.values()));
        let places = sections.map(|section| section.line).chain(stage.header.values().map(|(line, _)| *line));
        let places = places.chain(stage.files.iter().map(|files| files.line));
        let transfers = stage.files.iter().flat_map(|files| &files.list);
        assert!(places.chain(transfers.map(|transfer| transfer.line)).all(|line| lines.contains(&line)));
        // The name becomes a directory, and part of shell scripts.
        for app in &stage.apps {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.+".contains(&byte);
            assert!(!app.name.is_empty() && !app.name.starts_with('.') && app.name.bytes().all(plain));
        }
        for section in stage.sections.values() {
            assert!(section.script().starts_with("#!"));
        }
    }
});
