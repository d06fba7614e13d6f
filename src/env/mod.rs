//! Changes a task's environment, and restores the environment of the host.
//!
//! The launcher makes the environment of a container (its own module `env`). The plugin applies its [`Change`]s, and
//! takes back those of an outer container with a [`Record`].
#![forbid(unsafe_code)]

mod change;
pub mod names;
mod undo;

pub use crate::request::Variable as Item;
pub use change::{Change, is_name};
pub use undo::{Entry, INSIDE, OUTER, Record};

/// Search path of programs in an image that sets none (the default of Apptainer and Docker).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Name and value of a variable.
pub type Pair = (std::ffi::OsString, std::ffi::OsString);
