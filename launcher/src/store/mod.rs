//! The site's store: images that users have put in, that its service has looked at, and that nobody changes any more.
//!
//! ```text
//! PATH/USER/            the service account's; the user may enter and list it
//! PATH/USER/NAME        an image: mode 0440, the user may read it
//! PATH/USER/.records/NAME    what is known of it: a [`Record`], as JSON
//! PATH/USER/.lock       held by whoever changes anything here (flock(2))
//! ```
//!
//! Everything else whose name begins with a dot is a copy that was not finished.
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

/// Fault that keeps an image from being found, put into the store, or taken out of it.
#[derive(Debug)]
pub enum Error {
    /// The store cannot be read or written.
    Storage(String),
    /// There is no such image.
    Missing,
    /// There is one already.
    Taken,
    /// As many images as the site lets a user have.
    TooMany(u32),
    /// More bytes than the site lets a user have.
    TooLarge {
        /// Size of the image.
        size: u64,
        /// Size of the user's other images.
        used: u64,
        /// Limit.
        limit: u64,
    },
    /// The record of an image is not there, or is of another one.
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
    /// The refusal of the image that the user calls `image`.
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
