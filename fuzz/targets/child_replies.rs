//! Answers of child processes, which an image or a user may have taken over.
#![no_main]

use coracle::report::{Refusal, is_hidden};
use coracle_launcher::children::ask::{self, Failure};
use coracle_launcher::children::verify::Reply;
use coracle_launcher::image::Image;

/// Length that the opener states of a file.
const LENGTH: u64 = 1 << 40;
/// Limit on a text for a terminal, in bytes, with a mark where its middle was.
const LINE: usize = 1000 + '…'.len_utf8();

fn check(refusal: &Refusal) {
    let hint = refusal.hint.as_deref().unwrap_or_default();
    for text in [refusal.object.as_str(), refusal.cause.as_str(), hint] {
        assert!(!text.chars().any(is_hidden), "{text:?}");
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match ask::from_bytes::<Reply>(bytes).map(Reply::checked) {
        Err(Failure::Refused(refusal)) => check(&refusal),
        Err(_) => {}
        Ok(None) => {}
        Ok(Some(reply)) => {
            for signer in &reply.signers {
                assert!(!signer.key.is_empty() && signer.key.bytes().all(|byte| byte.is_ascii_graphic()));
                assert!(!signer.name.as_deref().unwrap_or_default().chars().any(is_hidden));
            }
            let structure = reply.structure.as_deref().unwrap_or_default();
            assert!(!structure.chars().any(is_hidden) && structure.len() <= LINE);
            // A good answer stays the same on its way.
            let again = ask::from_bytes::<Reply>(&ask::to_bytes(Ok(&reply))).ok();
            assert_eq!(again.and_then(Reply::checked).as_ref(), Some(&reply));
        }
    }
    if let Some(image) = std::str::from_utf8(bytes).ok().and_then(|words| Image::from_words(words, LENGTH)) {
        assert!(image.layers.iter().all(|layer| layer.offset.checked_add(layer.size).is_some_and(|end| end <= LENGTH)));
        assert_eq!(Image::from_words(&image.to_words(), LENGTH), Some(image));
    }
});
