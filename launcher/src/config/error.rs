//! Errors of configuration files, and the parser's messages without names of our types.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::path::PathBuf;

use coracle::report::{Kind, Refusal};

/// Error in a configuration file; no container starts until an administrator corrects it.
#[derive(Debug)]
pub enum Error {
    /// Users other than root can write the file, or a directory above it.
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// Reason why it is not trusted.
        why: String,
    },
    /// The file cannot be read.
    Read(PathBuf, io::Error),
    /// The file cannot be written.
    Write(PathBuf, io::Error),
    /// The content is invalid.
    Content {
        /// The file.
        path: PathBuf,
        /// Line and column, from 1, if the parser reports them.
        place: Option<(usize, usize)>,
        /// The key and what is wrong with it.
        cause: String,
    },
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let hint = "no container starts on this node before the site's admin has mended it";
        match error {
            Error::Untrusted { path, why } => Self::new(Kind::Config, path.display().to_string(), why).hint(hint),
            Error::Read(path, cause) => {
                Self::new(Kind::Config, path.display().to_string(), format!("cannot be read: {cause}")).hint(hint)
            }
            Error::Write(path, cause) => {
                Self::new(Kind::System, path.display().to_string(), format!("cannot be written to: {cause}"))
            }
            Error::Content { path, place, cause } => {
                let object = match place {
                    Some((line, column)) => format!("{}:{line}:{column}", path.display()),
                    None => path.display().to_string(),
                };
                Self::new(Kind::Config, object, cause).hint(hint)
            }
        }
    }
}

/// Message of a parser without the place at its end: our messages put it in front, as compilers do.
pub fn cause_of(error: &impl fmt::Display) -> String {
    let message = error.to_string();
    simplify_error(message.split(" at line ").next().unwrap_or(&message))
}

/// Message of serde without the names of our types.
fn simplify_error(cause: &str) -> String {
    let mut text = cause.to_owned();
    for (words, plain) in
        [("expected struct ", "expected keys with values"), ("untagged enum ", "what is possible here")]
    {
        if let Some((front, rest)) = text.split_once(words) {
            let rest = rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric());
            text = format!("{front}{plain}{rest}");
        }
    }
    [
        (
            "data did not match any variant of what is possible here",
            "neither of the kinds of value that are possible here",
        ),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected keys with values"),
        ("invalid type: map,", "invalid type: keys with values,"),
        ("invalid type: sequence, expected keys", "invalid type: list, expected keys"),
        ("invalid type: unit value", "no value is given"),
        ("expected u64", "expected a number"),
        ("expected u32", "expected a number"),
    ]
    .iter()
    .fold(text, |text, (words, plain)| text.replace(words, plain))
}
