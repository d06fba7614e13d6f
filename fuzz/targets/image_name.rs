//! Names of images in registries, which definition files have, too.
#![no_main]

use coracle_images::readers::Name;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(name) = Name::of(text) else { return };
    // Host, repository and tag become parts of a URL.
    let words = [name.host(), &name.repository, &name.wanted()].map(str::to_owned);
    for word in &words {
        assert!(!word.is_empty() && word.len() <= 512, "{word}");
        assert!(word.split('/').all(|part| !matches!(part, "" | "." | "..")), "{word}");
        assert!(word.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@%\\\"<>".contains(&byte)), "{word}");
    }
    assert!(!name.host().contains('/') && !name.wanted().contains('/'));
    let again = Name::of(&name.to_string()).expect("a name that was written");
    assert_eq!(again.to_string(), name.to_string());
});
