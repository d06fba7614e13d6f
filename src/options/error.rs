//! Lists the errors in the values of options.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{MAX_BINDS, PRIVATE};
use crate::report::{Kind, Refusal};

/// Error in the value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// An option with `=` and no value.
    Empty(String),
    /// A name that no image in a store can have.
    StoredName(OsString),
    /// Not `sha256:` and 64 hexadecimal digits.
    Digest(OsString),
    /// Not `SRC[:DST[:ro|rw]]`.
    BindSyntax(OsString),
    /// A path inside the container that is not absolute, or has `.` or `..` in it.
    BindTarget(PathBuf),
    /// A path inside the container that belongs to the system.
    ReservedTarget(PathBuf),
    /// Two different binds of one command for the same path inside.
    SameTarget(PathBuf),
    /// More than [`MAX_BINDS`].
    TooManyBinds(usize),
    /// Not a number of bytes.
    Size(OsString),
    /// An option that takes yes or no, with another value.
    YesOrNo(String, OsString),
    /// Not script, steps or all.
    Scope(OsString),
    /// Not a variable of the environment.
    Variable(OsString),
    /// A name that no profile of MPI can have.
    Mpi(OsString),
    /// Neither auto nor none.
    Gpu(OsString),
    /// A variable that only Slurm or Coracle sets.
    OurVariable(OsString),
    /// Not a directory for an overlay.
    Overlay(OsString),
    /// A writable container in memory and in a directory.
    WritableTwice,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let lossy = |text: &OsStr| text.to_string_lossy().into_owned();
        let usage = |object: String, cause: &str| Self::new(Kind::Usage, object, cause);
        match error {
            Error::Empty(flag) => usage(flag, "its value is missing"),
            Error::StoredName(text) => usage(
                lossy(&text),
                "not a name of a stored image: letters, digits and . _ - are wanted, beginning with a letter or digit, \
                 at most 128",
            ),
            Error::Digest(text) => usage(lossy(&text), "not a digest: sha256: and 64 hexadecimal digits are wanted"),
            Error::BindSyntax(text) => {
                let colons = text.as_bytes().iter().filter(|byte| **byte == b':').count();
                let refusal = usage(
                    lossy(&text),
                    "not a bind: SRC[:DST[:ro|rw]] is wanted, or tmpfs:DST[:SIZE], several with commas between",
                );
                if colons < 3 { refusal } else { refusal.hint("a colon or a comma in a name has a backslash in front") }
            }
            Error::BindTarget(path) => usage(
                path.display().to_string(),
                "a path inside the container must be absolute and have no . or .. in it",
            ),
            Error::ReservedTarget(path) => Self::new(
                Kind::Bind,
                path.display().to_string(),
                format!("nothing may be bound over /, /proc, /sys, /dev and {PRIVATE}"),
            ),
            Error::SameTarget(path) => {
                Self::new(Kind::Bind, path.display().to_string(), "two binds for the same place in the container")
            }
            Error::TooManyBinds(count) => {
                usage("--container-bind".into(), &format!("{count} binds, at most {MAX_BINDS} are possible"))
            }
            Error::Size(text) => {
                usage(lossy(&text), "not a size: a number with k, m, g or t behind it, from 4k to 1023t")
            }
            Error::YesOrNo(flag, text) => usage(flag, &format!("yes or no is wanted, not {:?}", lossy(&text))),
            Error::Scope(text) => usage(lossy(&text), "not a scope: script, steps or all is wanted"),
            Error::Variable(text) => {
                usage(lossy(&text), "not a variable: NAME, NAME* or NAME=VALUE is wanted, several with commas between")
            }
            Error::Mpi(text) => usage(lossy(&text), "not a profile of MPI: its name, auto or none is wanted"),
            Error::Gpu(text) => usage(lossy(&text), "auto or none is wanted for --container-gpu"),
            Error::OurVariable(name) => usage(lossy(&name), "Slurm and Coracle set this variable, and nobody else"),
            Error::Overlay(text) => usage(lossy(&text), "not a directory for --container-overlay"),
            Error::WritableTwice => usage(
                "--container-overlay".into(),
                "cannot be used together with --container-writable, which keeps nothing",
            ),
        }
    }
}
