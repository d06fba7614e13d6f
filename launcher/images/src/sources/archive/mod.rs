//! Reads archives: tar files, compressed or not.
#![forbid(unsafe_code)]

mod entry;
mod fields;
mod layer;
mod limits;
mod pax;
mod sparse;
mod stream;
mod tar;

pub use entry::{Device, Entry, Kind, Owner, Time, malformed};
pub use layer::{Layer, Named};
pub use limits::{Budget, bomb, unpacked};
pub use stream::{is_compressed, reader, with_tar};
pub use tar::{Reader, Skip};
