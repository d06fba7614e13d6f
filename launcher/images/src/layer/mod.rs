//! Layers: tar files that are applied onto each other (image-spec, layer.md).
#![forbid(unsafe_code)]

mod apply;
mod entry;
mod fields;
mod limits;
mod pax;
mod places;
mod sparse;
mod stream;
pub mod tar;

use std::io;
use std::path::{Path, PathBuf};

use coracle::report::{Kind as Fault, Refusal};

pub use apply::{Applier, Meaning};
pub use entry::{Device, Entry, Kind, Owner, Time, malformed};
pub use limits::{Budget, bomb, unpacked};
pub use stream::{is_compressed, reader};

/// A tar file, compressed or not: a file, or a part of one.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The file.
    pub file: PathBuf,
    /// Place at which it begins, in bytes.
    pub offset: u64,
    /// Length as it lies there, in bytes.
    pub size: u64,
    /// The digest of the tar file when it is not compressed, if the configuration says it: `sha256:` and hexadecimal
    /// digits. It is checked while the layer is applied.
    pub diff_id: Option<String>,
}

/// Applies one of them.
pub fn apply(layer: &Layer, what: &str, meaning: Meaning, applier: &mut Applier<'_>) -> Result<(), Refusal> {
    let named = Named::new(&layer.file, what);
    applier.begin(named.clone(), meaning);
    let ((), digest) = stream::with_tar(layer, &named, |stream| {
        let mut tar = tar::Reader::new(stream);
        loop {
            match tar.next_entry() {
                Ok(Some(entry)) => applier.entry(&entry, &mut tar)?,
                Ok(None) => break,
                // Some builders write nothing at all for a layer without changes.
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
            Err(named.refusal(Fault::Digest, &format!("holds {digest}, and {wanted} was expected")))
        }
        _ => Ok(()),
    }
}

/// Subject of a refusal.
#[derive(Debug, Clone, Default)]
pub struct Named {
    file: String,
    what: String,
}

impl Named {
    /// `what` of the file.
    pub fn new(file: &Path, what: &str) -> Self {
        Self { file: file.display().to_string(), what: what.to_owned() }
    }

    /// A refusal of it.
    pub fn refusal(&self, kind: Fault, cause: &str) -> Refusal {
        let what = if self.what.is_empty() { String::new() } else { format!("{}: ", self.what) };
        Refusal::new(kind, &self.file, format!("{what}{cause}"))
    }

    /// Why it cannot be read.
    pub fn refuse(&self, error: &io::Error) -> Refusal {
        if error.raw_os_error().is_some() {
            return self.refusal(Fault::of_reading(error), &error.to_string());
        }
        let bomb = limits::is_bomb(error);
        let cause = match error.kind() {
            io::ErrorKind::UnexpectedEof => "ends too early".to_owned(),
            io::ErrorKind::InvalidData if error.get_ref().is_some_and(|inner| inner.source().is_none()) => {
                error.to_string()
            }
            _ => format!("is damaged: {error}"),
        };
        let refusal = self.refusal(Fault::ImageFormat, &cause);
        if bomb { refusal.hint("one that is meant so can be unpacked to a plain tar file before") } else { refusal }
    }
}
