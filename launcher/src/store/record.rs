//! Record of a stored image, written when the image enters the store.
#![forbid(unsafe_code)]

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::Error;
use coracle::request::Digest;

/// Maximum length of a record, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// Record of a stored image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the record's format; only 1 exists.
    pub version: u32,
    /// SHA-256 of the whole file.
    #[serde(with = "as_text")]
    pub digest: Digest,
    /// Time at which the image entered the store, in seconds since 1970.
    pub stored: i64,
    /// Owner of the image.
    pub uid: u32,
    /// Description of the contents.
    pub holds: String,
    /// Fingerprints of signers whose valid signatures cover all objects.
    pub signers: Vec<String>,
    /// Result of the site's scanner, if there was one.
    pub scanned: Option<Scanned>,
    /// fs-verity root digest, if the file system supports it.
    pub verity: Option<String>,
    /// File that this record describes.
    pub file: Seen,
}

/// Result of a scanner that accepted the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// Path of the scanner.
    pub by: String,
    /// Beginning of its output.
    pub output: String,
}

/// Identity of a file and of one state of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Inode number. The device number is not used: it differs from node to node.
    pub inode: u64,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last modification: seconds since 1970 and nanoseconds.
    pub modified: (i64, i64),
}

impl From<&Metadata> for Seen {
    fn from(file: &Metadata) -> Self {
        Self { inode: file.ino(), size: file.len(), modified: (file.mtime(), file.mtime_nsec()) }
    }
}

impl Record {
    /// Reads the record of the file that `image` describes. The record must belong to `owner`, as the image does, and
    /// only `owner` may be able to write it.
    pub fn read(file: &File, image: &Metadata, owner: u32) -> Result<Self, Error> {
        let wrong = |cause: &str| Error::Record(cause.to_owned());
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != owner || found.mode() & 0o022 != 0 {
            return Err(wrong("others could have written it"));
        }
        let mut text = Vec::new();
        file.take(MAX_LEN + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_LEN {
            return Err(wrong("it is too long"));
        }
        let record: Self = serde_json::from_slice(&text).map_err(|cause| wrong(&cause.to_string()))?;
        if record.version != 1 {
            return Err(wrong("it is of another version"));
        }
        if record.file != Seen::from(image) {
            return Err(wrong("it is of another file"));
        }
        Ok(record)
    }

    /// The record as JSON, as it is stored.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec_pretty(self).map_err(|cause| Error::Record(cause.to_string()))
    }
}

/// Digest as `sha256:HEX`.
mod as_text {
    use super::Digest;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(text.as_ref()).map_err(|_| de::Error::custom("not a digest"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    fn record(image: &File) -> Record {
        Record {
            version: 1,
            digest: Digest([7; 32]),
            stored: 1_790_000_000,
            uid: 2001,
            holds: "SIF with squashfs (zstd)".into(),
            signers: vec!["AB".into()],
            scanned: Some(Scanned { by: "/bin/scan".into(), output: "\u{1b}[2J ok\n".into() }),
            verity: None,
            file: Seen::from(&image.metadata().unwrap()),
        }
    }

    #[test]
    fn a_record_is_of_one_file_as_it_was() {
        let mut image = tempfile::tempfile().unwrap();
        image.write_all(b"image").unwrap();
        let mut kept = tempfile::tempfile().unwrap();
        let said = record(&image);
        kept.write_all(&said.to_json().unwrap()).unwrap();
        let us = kept.metadata().unwrap().uid();
        let read = |image: &File, owner| {
            (&kept).rewind().unwrap();
            Record::read(&kept, &image.metadata().unwrap(), owner)
        };
        assert_eq!(read(&image, us).unwrap(), said);
        let line = |result: Result<Record, Error>| result.unwrap_err().refuse("a").line();
        assert!(line(read(&image, us + 1)).contains("others could have written it"));
        assert!(line(read(&tempfile::tempfile().unwrap(), us)).contains("it is of another file"));
        image.write_all(b"!").unwrap();
        assert!(line(read(&image, us)).contains("it is of another file"));
        for (text, cause) in [(&b"{}"[..], "missing field"), (b"", "EOF"), (&[b' '; 70_000], "too long")] {
            let mut kept = tempfile::tempfile().unwrap();
            kept.write_all(text).unwrap();
            kept.rewind().unwrap();
            assert!(line(Record::read(&kept, &image.metadata().unwrap(), us)).contains(cause), "{cause}");
        }
    }
}
