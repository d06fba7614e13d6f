//! Applies layers: tar files on top of each other (image-spec, layer.md).
#![forbid(unsafe_code)]

mod applier;
mod places;

use std::io;

use coracle::report::{Kind, Refusal};

use crate::sources::archive::{Layer, Named, Reader, with_tar};

pub use applier::{Applier, Meaning};
pub use places::parts;

/// Applies one layer.
pub fn apply(layer: &Layer, what: &str, meaning: Meaning, applier: &mut Applier<'_>) -> Result<(), Refusal> {
    let named = Named::new(&layer.file, what);
    applier.begin(named.clone(), meaning);
    let ((), digest) = with_tar(layer, &named, |stream| {
        let mut tar = Reader::new(stream);
        loop {
            match tar.next_entry() {
                Ok(Some(entry)) => applier.entry(&entry, &mut tar)?,
                Ok(None) => break,
                // Some builders write an empty file for a layer without changes.
                Err(_) if tar.is_empty() && meaning == Meaning::Changes => return Ok(()),
                Err(error) => return Err(named.refuse(&error)),
            }
        }
        if !tar.is_closed() && layer.diff_id.is_none() {
            return Err(named.refuse(&io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    })?;
    match &layer.diff_id {
        Some(wanted) if *wanted != digest => {
            Err(named.refusal(Kind::Digest, &format!("holds {digest}, and {wanted} was expected")))
        }
        _ => Ok(()),
    }
}
