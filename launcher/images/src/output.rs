//! Prints the output of commands: exit status, standard output, and errors of files that are written.
//!
//! No control character of an image reaches a terminal.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use coracle::report::{Kind, Refusal, is_hidden};
use nix::errno::Errno;
use serde::Serialize;

/// Last second of the year 9999: later dates are not written.
const LAST: u64 = 253_402_300_799;

/// Exit status of a command that failed.
pub const FAILURE: u8 = 1;
/// Exit status of a wrong command line.
pub const USAGE: u8 = 2;

/// Exit status of a command that ends with `refusal`.
pub fn exit_status(refusal: &Refusal) -> u8 {
    if refusal.kind == Kind::Usage { USAGE } else { FAILURE }
}

/// Writes to standard output. It is no error if the reader closes the pipe early.
pub fn print(bytes: &[u8]) -> Result<(), Refusal> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Refusal::new(Kind::System, "standard output", error.to_string()))
        }
        _ => Ok(()),
    }
}

/// JSON document with a line break at its end.
pub fn json(value: &impl Serialize) -> Result<String, Refusal> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Refusal::new(Kind::Internal, "standard output", error.to_string()))?;
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        // Outside of strings, line breaks are the only control characters; inside, those below a space are escaped.
        if is_hidden(character) && character != '\n' {
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    safe.push('\n');
    Ok(safe)
}

/// Version of the documents without one of their own, in their key `version`.
pub const VERSION: u32 = 1;

/// Prints the path of a file that was made, or its `--json` document.
pub fn made(path: &Path, digest: &str, size: u64) -> Result<(), Refusal> {
    let image = path.to_string_lossy();
    print(json(&serde_json::json!({ "version": VERSION, "image": image, "digest": digest, "size": size }))?.as_bytes())
}

/// Formats a time in seconds since 1970 as RFC 3339.
pub fn time(seconds: i64) -> Option<String> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= LAST)?;
    Some(humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string())
}

/// Refusal of a file that cannot be written, with the reason.
pub fn unwritable(typed: &str, error: &io::Error) -> Refusal {
    let refuse = |cause: String| Refusal::new(Kind::System, typed, cause);
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC) => refuse("no space is left there".into()),
        Some(Errno::EDQUOT) => refuse("your quota there is used up".into()),
        Some(Errno::EFBIG) => refuse("the largest size that files may have here is reached".into()),
        Some(Errno::ENOENT | Errno::ENOTDIR) => refuse("there is no such directory".into()),
        Some(Errno::EACCES | Errno::EPERM) => refuse("you may not write there".into()),
        Some(Errno::EROFS) => refuse("nobody can write there: the file system is read-only".into()),
        _ => refuse(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_control_characters_and_says_the_same() {
        let said = "a\u{1b}[2J\u{7f}\u{9b}x\n\u{202e}\"é\\";
        let text = json(&[said]).unwrap();
        assert!(!text.chars().any(|character| is_hidden(character) && character != '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [said]);
    }

    #[test]
    fn times_that_nobody_can_mean_have_no_date() {
        assert_eq!(time(1_700_000_000).unwrap(), "2023-11-14T22:13:20Z");
        assert_eq!((time(-1), time(i64::MAX)), (None, None));
        assert!(time(253_402_300_799).is_some());
    }
}
