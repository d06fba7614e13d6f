//! Checks contents and signers of a copy before it is kept. The user chose its bytes, so `coracle-verify` parses them.
#![forbid(unsafe_code)]

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use coracle::report::Refusal;
use coracle_launcher::children::verify::{self, Need};

/// Time limit for the tables of an image: gigabytes of metadata are refused for their size.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time limit for the first bytes of a file.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// Refuses a file that does not start like an image.
pub fn first_look(name: &str, image: &File) -> Result<(), Refusal> {
    verify::look_at_format(name, image, FIRST_LOOK)
}

/// Description of an image's contents.
pub fn structure(name: &str, image: &File) -> Result<String, Refusal> {
    verify::look_at_structure(name, image, PATIENCE)
}

/// Keys of the site with which all of the image is signed. An image that was changed after it was signed is refused.
pub fn signers(name: &str, image: &File, length: u64, need: Need) -> Result<Vec<String>, Refusal> {
    let keys = verify::site_keys(Path::new(verify::KEYS))?;
    if keys.is_empty() && need == Need::WhoeverSigned {
        return Ok(Vec::new());
    }
    let found = verify::look(None, None, name, (image, length), Some((&keys, need)), false, verify::patience(length))?;
    Ok(found.signers.into_iter().map(|signer| signer.key).collect())
}
