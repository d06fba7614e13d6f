//! Prints JSON on standard output: one object on one line (docs/json.md).
#![forbid(unsafe_code)]

use std::io::{self, Write};

use coracle::report::{Kind, Refusal, is_hidden};
use serde_json::{Map, Value};

/// Version of the documents, in their key `version`.
const VERSION: u32 = 1;

/// Prints an object with its version. It is no error if the reader closes the pipe early.
pub fn print(fields: Value) -> Result<(), Refusal> {
    let mut line = line(fields);
    line.push('\n');
    let mut out = io::stdout().lock();
    match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Refusal::new(Kind::System, "standard output", error.to_string()))
        }
        _ => Ok(()),
    }
}

/// Text of the line. Control characters of terminals are escaped.
fn line(fields: Value) -> String {
    let mut all = Map::from_iter([("version".to_owned(), VERSION.into())]);
    match fields {
        Value::Object(fields) => all.extend(fields),
        other => drop(all.insert("value".to_owned(), other)),
    }
    let mut line = String::new();
    for character in Value::Object(all).to_string().chars() {
        match is_hidden(character) {
            true => line.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_one_line_with_a_version_that_steers_no_terminal() {
        let text = line(serde_json::json!({ "image": "a\u{1b}[2J\n\u{9b}\u{202e}" }));
        assert!(!text.chars().any(is_hidden), "{text:?}");
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, serde_json::json!({ "version": 1, "image": "a\u{1b}[2J\n\u{9b}\u{202e}" }));
    }
}
