//! Starts the entry point of the image, with the task's command as its arguments.
//!
//! Slurm executes one program with the task's arguments, and a plugin may change the program but not their number
//! (`spank_prepend_task_argv` is newer than the oldest supported release). So two variables hold the words.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::Failure;

/// The first word of the task's command.
const COMMAND: &str = "SLURM_CORACLE_COMMAND";
/// Words of the image in front of it, separated by blanks; see [`decode`].
const ENTRYPOINT: &str = "SLURM_CORACLE_ENTRYPOINT";

/// Returns the words of [`ENTRYPOINT`]. In each, `%` and two hexadecimal digits stand for a byte (RFC 3986, 2.1), so
/// that a word may have blanks, and `%` alone is an empty word.
fn decode(text: &[u8]) -> Result<Vec<OsString>, String> {
    let words = text.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    words.map(|word| if word == b"%" { Ok(OsString::new()) } else { decode_word(word) }).collect()
}

fn decode_word(word: &[u8]) -> Result<OsString, String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(*rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (digit(), digit()) {
            (Some(high), Some(low)) if (high, low) != (0, 0) => bytes.push(high << 4 | low),
            _ => return Err(format!("a % without two digits in {:?}", String::from_utf8_lossy(word))),
        }
    }
    Ok(OsString::from_vec(bytes))
}

/// Becomes the image's entry point; returns only with the reason of a failure.
///
/// Both variables are removed from the environment. If the image names this program as its entry point, it then has
/// nothing to start and ends.
pub fn start(arguments: &[OsString]) -> Failure {
    let missing = |name| Failure::system(name, "is not set, so there is nothing to start");
    let Some(command) = env::var_os(COMMAND) else { return missing(COMMAND) };
    let Some(entrypoint) = env::var_os(ENTRYPOINT) else { return missing(ENTRYPOINT) };
    let words = match decode(entrypoint.as_bytes()) {
        Ok(words) => words,
        Err(cause) => return Failure::system(ENTRYPOINT, cause),
    };
    let mut words = words.into_iter().chain([command]);
    let Some(program) = words.next() else { return missing(ENTRYPOINT) };
    let error = Command::new(&program).args(words).args(arguments).env_remove(COMMAND).env_remove(ENTRYPOINT).exec();
    Failure::exec(&program, &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn words_may_have_blanks_and_any_byte_but_nul() {
        assert_eq!(words("/.singularity.d/runscript"), ["/.singularity.d/runscript"]);
        assert_eq!(words("/bin/tini  -- sh%20-c%25 %"), ["/bin/tini", "--", "sh -c%", ""]);
        assert_eq!(words("%fF")[0].as_bytes(), [0xff]);
        assert!(words("").is_empty());
    }

    #[test]
    fn an_escape_that_is_none_is_refused() {
        for text in ["a%", "a%2", "%zz", "a%00b", "%%20"] {
            let cause = decode(text.as_bytes()).unwrap_err();
            assert_eq!(cause, format!("a % without two digits in {text:?}"));
        }
    }
}
