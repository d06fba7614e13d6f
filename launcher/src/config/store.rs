//! `store:` of coracle.yaml: store of users' images.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::Owner;
use super::values::{Absolute, Limit};
use coracle::request::Size;

/// Store of the site.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Directory of the store, which all nodes see; it has a subdirectory for each user.
    path: Absolute,
    /// Account that owns its files and runs its service.
    pub owner: Owner,
    /// Maximum number of images of one user.
    max_images: MaxImages,
    max_bytes: Limit,
    /// Program with arguments that must accept an image before the store keeps it.
    pub scanner: Option<Scanner>,
    scanner_timeout: ScannerTimeout,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: Absolute(PathBuf::from("/var/lib/coracle/store")),
            owner: Owner::Name("coracle".into()),
            max_images: MaxImages(20),
            max_bytes: Limit(Size(200 << 30)),
            scanner: None,
            scanner_timeout: ScannerTimeout(Duration::from_secs(600)),
        }
    }
}

impl Store {
    /// Directory of the store.
    pub fn path(&self) -> &Path {
        &self.path.0
    }

    /// Maximum number of images of one user.
    pub fn max_images(&self) -> u32 {
        self.max_images.0
    }

    /// Maximum number of bytes of one user's images together.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes.0.0
    }

    /// Time limit for the scanner.
    pub fn scanner_timeout(&self) -> Duration {
        self.scanner_timeout.0
    }
}

/// Number of images, up to 100,000: with each new image, all images of its user are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
struct MaxImages(u32);

impl TryFrom<i64> for MaxImages {
    type Error = String;
    fn try_from(number: i64) -> Result<Self, String> {
        let known = u32::try_from(number).ok().filter(|number| (1..=100_000).contains(number));
        known.map(Self).ok_or_else(|| format!("`max_images` is 1 to 100000, not {number}"))
    }
}

/// Program by its absolute path, with arguments.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Scanner {
    /// The program.
    pub program: PathBuf,
    /// Arguments before the path of the image.
    pub arguments: Vec<String>,
}

impl TryFrom<Vec<String>> for Scanner {
    type Error = String;
    fn try_from(words: Vec<String>) -> Result<Self, String> {
        let mut words = words.into_iter();
        match words.next().map(PathBuf::from) {
            Some(program) if program.is_absolute() => Ok(Self { program, arguments: words.collect() }),
            _ => Err("`scanner` is a list: a program's absolute path, and its arguments".into()),
        }
    }
}

/// Seconds from 1 to 86,400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
struct ScannerTimeout(Duration);

impl TryFrom<u64> for ScannerTimeout {
    type Error = String;
    fn try_from(seconds: u64) -> Result<Self, String> {
        match seconds {
            1..=86_400 => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(format!("`scanner_timeout` is 1 to 86400 seconds, not {seconds}")),
        }
    }
}
