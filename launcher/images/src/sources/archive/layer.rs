//! Defines the layers of images: files, or parts of files, that hold an archive.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal};

use super::limits;

/// Tar file, compressed or not: a file, or a part of one.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Path of the file.
    pub file: PathBuf,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// Length in the file, compressed or not, in bytes.
    pub size: u64,
    /// Digest of the uncompressed tar file, if the configuration states it: `sha256:` and hexadecimal digits. It is
    /// checked while the layer is applied.
    pub diff_id: Option<String>,
}

/// Subject of a refusal.
#[derive(Debug, Clone, Default)]
pub struct Named {
    file: String,
    what: String,
}

impl Named {
    /// Names `what` of the file.
    pub fn new(file: &Path, what: &str) -> Self {
        Self { file: file.display().to_string(), what: what.to_owned() }
    }

    /// Refusal with this subject.
    pub fn refusal(&self, kind: Kind, cause: &str) -> Refusal {
        let what = if self.what.is_empty() { String::new() } else { format!("{}: ", self.what) };
        Refusal::new(kind, &self.file, format!("{what}{cause}"))
    }

    /// Refusal of a layer that cannot be read.
    pub fn refuse(&self, error: &io::Error) -> Refusal {
        if error.raw_os_error().is_some() {
            return self.refusal(Kind::of_reading(error), &error.to_string());
        }
        let bomb = limits::is_bomb(error);
        let cause = match error.kind() {
            io::ErrorKind::UnexpectedEof => "ends too early".to_owned(),
            io::ErrorKind::InvalidData if error.get_ref().is_some_and(|inner| inner.source().is_none()) => {
                error.to_string()
            }
            _ => format!("is damaged: {error}"),
        };
        let refusal = self.refusal(Kind::ImageFormat, &cause);
        if bomb { refusal.hint("one that is meant so can be unpacked to a plain tar file before") } else { refusal }
    }
}
