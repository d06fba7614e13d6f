//! `coracle-inside` runs inside of an image as the user, and uses no file of the image itself.
//!
//! It is linked statically, because the image may have another C library than the node, or none. Its name selects:
//!
//! - a command of Slurm: starts the node's own client with the node's own loader ([`client`]);
//! - `entrypoint`: starts the image's entry point, with the task's command behind it ([`entrypoint`]);
//! - `coracle-inside environment`: writes its environment, for a caller that has sourced an image's scripts;
//! - `coracle-inside entrypoint …`: the same as under that name.
//!
//! Its caller could call any other program as well: it is unprivileged, and its checks are not for security.
#![forbid(unsafe_code)]

mod client;
mod entrypoint;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

/// Exit status of every refusal of Coracle.
const REFUSED: u8 = 125;
/// Exit status of shells (POSIX, Shell Command Language, 2.8.2): found, but it cannot be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Exit status of shells: not found.
const NOT_FOUND: u8 = 127;

/// Reason why a program was not started.
#[derive(Debug, PartialEq, Eq)]
struct Failure {
    object: String,
    cause: String,
    kind: &'static str,
    status: u8,
    hint: Option<&'static str>,
}

impl Failure {
    fn system(object: impl Into<String>, cause: impl Into<String>) -> Self {
        Self { object: object.into(), cause: cause.into(), kind: "system", status: REFUSED, hint: None }
    }

    /// Describes a failure of execve(2), or of the search along PATH, for `name`.
    fn exec(name: &OsStr, error: &io::Error) -> Self {
        let status = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
        let name_bytes = name.as_bytes();
        let relative = !name_bytes.starts_with(b"/") && name_bytes.contains(&b'/');
        // WORKDIR of an image is not followed, as in Apptainer.
        let hint = (status == NOT_FOUND && relative).then_some(
            "it is relative to the working directory: --container-workdir=DIRECTORY names that of the image",
        );
        Self { status, hint, ..Self::system(name.to_string_lossy(), describe(error)) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = format!("coracle: {}: {} [{}]", self.object, self.cause, self.kind);
        // Names may come from an image: none of their control characters reaches a terminal.
        line.chars().try_for_each(|character| {
            if character.is_control() {
                write!(out, "{}", character.escape_default())
            } else {
                write!(out, "{character}")
            }
        })
    }
}

/// Returns the kernel's text, in lower case and without the number that the standard library adds.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let called = arguments.next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default().to_owned();
    let arguments: Vec<OsString> = arguments.collect();
    match run(&name, &arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is closed, the message has no reader.
            let _ = writeln!(io::stderr(), "{failure}");
            if let Some(hint) = failure.hint {
                let _ = writeln!(io::stderr(), "coracle: hint: {hint}");
            }
            ExitCode::from(failure.status)
        }
    }
}

/// Runs the command that `name` stands for. Returns only from `environment` or with an error.
fn run(name: &OsStr, arguments: &[OsString]) -> Result<(), Failure> {
    if client::COMMANDS.iter().any(|command| name == *command) {
        return Err(client::start(name, arguments));
    }
    let (task, rest) = match arguments.split_first() {
        _ if name == "entrypoint" => (name, arguments),
        Some((task, rest)) => (task.as_os_str(), rest),
        None => (OsStr::new(""), arguments),
    };
    if task == "entrypoint" {
        return Err(entrypoint::start(rest));
    }
    if task == "environment" && rest.is_empty() {
        return environment(&mut io::stdout().lock(), env::vars_os())
            .map_err(|error| Failure::system("standard output", describe(&error)));
    }
    Err(Failure {
        kind: "usage",
        ..Failure::system(
            name.to_string_lossy(),
            "is to be called by the name of a command of Slurm, or with `environment` or `entrypoint`",
        )
    })
}

/// Writes `NAME=VALUE` and a NUL for each variable, as in /proc/PID/environ (proc(5)).
fn environment(out: &mut impl Write, variables: impl Iterator<Item = (OsString, OsString)>) -> io::Result<()> {
    let mut all = Vec::new();
    for (name, value) in variables {
        all.extend_from_slice(name.as_bytes());
        all.push(b'=');
        all.extend_from_slice(value.as_bytes());
        all.push(0);
    }
    out.write_all(&all)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_separated_by_nul_whatever_is_in_them() {
        let mut out = Vec::new();
        let variables = [("A", "x\ny"), ("E", ""), ("U", "a=b")].map(|(name, value)| (name.into(), value.into()));
        environment(&mut out, variables.into_iter()).unwrap();
        assert_eq!(out, b"A=x\ny\0E=\0U=a=b\0");
    }

    #[test]
    fn an_unknown_name_or_word_is_refused_with_what_there_is() {
        for arguments in [&[][..], &["x".into()], &["environment".into(), "x".into()]] {
            let failure = run(OsStr::new("coracle-inside"), arguments).unwrap_err();
            assert_eq!(failure.status, REFUSED);
            let line = failure.to_string();
            assert!(
                line.starts_with("coracle: coracle-inside: is to be called by") && line.ends_with("[usage]"),
                "{line}"
            );
        }
    }

    #[test]
    fn names_from_an_image_cannot_write_to_a_terminal() {
        let error = io::Error::from_raw_os_error(2);
        let failure = Failure::exec(OsStr::new("a\x1b[2J\nb"), &error);
        assert_eq!(failure.to_string(), "coracle: a\\u{1b}[2J\\nb: no such file or directory [system]");
        assert_eq!(failure.status, NOT_FOUND);
        assert_eq!(Failure::exec(OsStr::new("a"), &io::Error::from_raw_os_error(13)).status, NOT_EXECUTABLE);
    }
}
