//! Holds the site's store: images that users copied in, which its service has checked and which do not change.
//!
//! ```text
//! PATH/USER/            belongs to the service account; the user may enter and list it
//! PATH/USER/NAME        an image: mode 0440, the user may read it
//! PATH/USER/.records/NAME    a [`Record`] of the image, as JSON
//! PATH/USER/.lock       held by the process that changes anything here (flock(2))
//! ```
//!
//! Any other name that begins with a dot is an unfinished copy.
#![forbid(unsafe_code)]

mod message;
mod record;
mod shelf;

pub use message::{Question, Reply};
pub use record::{Record, Scanned, Seen};
pub use shelf::{Draft, Kept, Locked, Shelf, Tenant};

use std::fmt;
use std::io;

use coracle::report::{Kind, Refusal};
use coracle::sys;

/// Error in reading or changing the store.
#[derive(Debug)]
pub enum Error {
    /// The store cannot be read or written.
    Storage(String),
    /// There is no image of this name.
    Missing,
    /// An image of this name exists.
    Taken,
    /// The user has the maximum number of images.
    TooMany(u32),
    /// The user's images would exceed the maximum size.
    TooLarge {
        /// Size of the image.
        size: u64,
        /// Size of the user's other images.
        used: u64,
        /// Limit.
        limit: u64,
    },
    /// The record of an image is missing, or belongs to another image.
    Record(String),
}

impl From<sys::Error> for Error {
    fn from(error: sys::Error) -> Self {
        Self::Storage(error.to_string())
    }
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Self {
        Self::Storage(cause.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(cause) => write!(out, "the store cannot be used: {cause}"),
            Self::Missing => out.write_str("no image of yours in the store"),
            Self::Taken => out.write_str("you have an image of this name in the store"),
            Self::TooMany(limit) => write!(out, "you have {limit} images in the store, and no more are allowed"),
            Self::TooLarge { size, used, limit } => {
                write!(out, "its {size} bytes and the {used} of your other images are more than the {limit} allowed")
            }
            Self::Record(cause) => write!(out, "what the store knows of it cannot be used: {cause}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// Refusal of the image that the user calls `image`.
    pub fn refuse(&self, image: &str) -> Refusal {
        let kind = match self {
            Self::Missing => Kind::ImageMissing,
            Self::TooMany(_) | Self::TooLarge { .. } => Kind::Policy,
            _ => Kind::Store,
        };
        let refusal = Refusal::new(kind, image, self.to_string());
        match self {
            Self::Missing => refusal.hint("coracle ls lists those that you have"),
            Self::Taken => refusal.hint("coracle rm removes it; jobs that run with it go on"),
            Self::TooMany(_) | Self::TooLarge { .. } => {
                refusal.hint("coracle ls -l lists them, coracle rm removes one")
            }
            Self::Record(_) => refusal.hint("remove it, and put it into the store again"),
            Self::Storage(_) => refusal,
        }
    }
}
