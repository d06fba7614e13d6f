//! Changes of a task's environment, and the way back to the environment of the host.
//!
//! The launcher makes the environment of a container (its own module `env`). The plugin gets [`Change`]s, and takes an
//! outer container's back with a [`Record`].
#![forbid(unsafe_code)]

mod change;
pub mod names;
mod undo;

pub use crate::request::Variable as Item;
pub use change::{Change, is_name};
pub use undo::{Entry, INSIDE, OUTER, Record};

/// Search path of programs in an image that does not say (the default of Apptainer and Docker).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A variable of an environment: its name and its value.
pub type Pair = (std::ffi::OsString, std::ffi::OsString);
