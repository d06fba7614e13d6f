//! Builds the environment of a task.
//!
//! It is built once for each step and node, from the job's environment on the node and from the image. Later rows win:
//!
//! | | what | where |
//! |---|---|---|
//! | 1 | the host's variables pass; with `clean` only what [`names::passes_clean`] lists | [`Environment::start`] |
//! | 2 | `TMPDIR` and `XDG_RUNTIME_DIR` are unset where they are of no use ([`Rules::useless`]); `PATH` is [`DEFAULT_PATH`]; `LD_LIBRARY_PATH`, `LD_PRELOAD` and `LD_AUDIT` are unset | [`Environment::start`] |
//! | 3 | the image's own: `/.singularity.d/env/*.sh` in byte order, or `/etc/environment`, or an OCI config's `Env` | [`script`], [`Environment::environment_file`], [`Environment::oci_env`] |
//! | 3 | directories of [`DEFAULT_PATH`] that the image's `PATH` lacks follow its own | [`Environment::finish`] |
//! | 4 | locale, user and Slurm's facts ([`names::is_protected`]) are the host's again; what a GPU's driver asks for | [`Environment::finish`], [`Environment::put`] |
//! | 5 | `APPTAINERENV_NAME`, or else `SINGULARITYENV_NAME`, sets `NAME`, literally | [`Environment::finish`] |
//! | 6 | the site's [`Item`]s, then the user's (`--container-env`) | [`Environment::finish`] |
//! | 7 | `CORACLE_IMAGE`, `CORACLE_NAME`, `CORACLE_DIGEST`, `CORACLE_ALLOWED_DIR`: set, never read | [`Environment::finish`] |
//! | 8 | Coracle's own directories in front of lists | [`Environment::prepend`] |
//!
//! For a step in the same image ([`Rules::already_inside`]), rows 2 and 3 and `clean` have been applied already.
#![forbid(unsafe_code)]

mod environment;
mod record;
pub mod script;

#[cfg(test)]
mod tests;

pub use coracle::env::{Change, DEFAULT_PATH, INSIDE, Item, OUTER, Pair, Record, names};
pub use environment::{Environment, Origin, Rules, Variable};
pub use record::record;
