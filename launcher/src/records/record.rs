//! A record: facts about a step on a node, or the reason why it did not run. It is one line of JSON in every file and
//! log.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io;

use coracle::report::is_hidden;
use serde::{Deserialize, Serialize};

/// Version of the format, in the first key of a record.
const VERSION: u32 = 1;
/// Limit on a text in a record, in bytes as encoded.
pub const MAX_FIELD: usize = 4096;
/// Limit on a record, in bytes: one write(2) accepts it, and one datagram of a journal.
pub const MAX_LEN: usize = 64 * 1024;
/// Limits on the number of signers, and on the length of a signer, in bytes: a fingerprint has 64.
const MAX_SIGNERS: usize = 32;
const MAX_SIGNER: usize = 256;

/// Outcome of a step on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The tasks enter the container: written before the first of them gets its answer.
    Started,
    /// Only some of the tasks have entered. Follows a record of the start.
    Partial,
    /// The step was refused.
    Refused,
    /// The step ended before its first task arrived.
    #[default]
    Abandoned,
    /// The scope left the step on the node.
    Outside,
}

impl Verdict {
    /// Outcome of a step with `tasks` tasks, of which `entered` entered the container.
    pub fn of(refused: bool, entered: u32, tasks: u32) -> Self {
        match (refused, entered) {
            (true, 0) => Self::Refused,
            (false, 0) => Self::Abandoned,
            (false, entered) if entered >= tasks => Self::Started,
            _ => Self::Partial,
        }
    }

    /// Word for the outcome in records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Abandoned => "abandoned",
            Self::Outside => "outside",
        }
    }
}

/// Record of one step on one node. Texts are unchanged, except that U+FFFD replaces invalid UTF-8 and `…` the middle of
/// texts that are too long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the format: 1.
    pub version: u32,
    /// Time, as RFC 3339 in UTC with microseconds.
    pub time: String,
    /// Job id.
    pub job: u32,
    /// Step: a number, `batch` or `interactive`.
    pub step: String,
    /// Host name of the node.
    pub node: String,
    /// User id of the job.
    pub uid: u32,
    /// Name of this user on the node.
    #[serde(default)]
    pub user: Option<String>,
    /// Image as requested, which is the user's statement.
    #[serde(default)]
    pub image: Option<String>,
    /// Path of the file that was opened; for a refused step, the requested path.
    #[serde(default)]
    pub path: Option<String>,
    /// SHA-256 of the file, if it is known.
    #[serde(default)]
    pub digest: Option<String>,
    /// Signers of the image, if they were checked.
    #[serde(default)]
    pub signers: Option<Vec<String>>,
    /// Step that was joined, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joins: Option<String>,
    /// Image rule that allowed it.
    #[serde(default)]
    pub rule: Option<String>,
    /// Outcome of the step.
    pub verdict: Verdict,
    /// Kind of the refusal (docs/messages.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Refusal without the words that all refusals have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Number of nodes of the step.
    #[serde(default)]
    pub nodes: u32,
    /// Number of its tasks on this node.
    #[serde(default)]
    pub tasks: u32,
    /// Number of these tasks that entered the container; nothing if the record was written before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entered: Option<u32>,
    /// Options in effect; for variables, only their names.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Parts of the node, and memory, that the container shows.
    #[serde(default)]
    pub binds: Vec<Bind>,
    /// Devices of the node in the container.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Number of binds that were omitted because the record would be too long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: usize,
    /// Number of containers that were built, if not one: the location of the step was known too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builds: Option<u32>,
    /// Duration of each phase.
    #[serde(default)]
    pub microseconds: BTreeMap<String, u64>,
}

/// A mount in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Path on the node, or `tmpfs`.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// `ro` or `rw`.
    pub access: String,
    /// Origin: `system`, `home`, `workdir`, `slurm`, `coracle`, `site` or `user`.
    pub origin: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Record {
    /// The record as one line without a newline: at most [`MAX_LEN`] bytes, without terminal control characters.
    pub fn to_line(&self) -> String {
        let mut record = Self { version: VERSION, ..self.clone() };
        record.signers.iter_mut().for_each(|signers| signers.truncate(MAX_SIGNERS));
        record.signers.iter_mut().flatten().for_each(|signer| bound(signer, MAX_SIGNER));
        let texts = [&mut record.user, &mut record.image, &mut record.path, &mut record.rule, &mut record.cause];
        texts.into_iter().flatten().for_each(|text| bound(text, MAX_FIELD));
        bound(&mut record.node, MAX_FIELD);
        record.options.values_mut().for_each(|value| bound(value, MAX_FIELD));
        record.binds.iter_mut().for_each(|bind| {
            bound(&mut bind.source, MAX_FIELD);
            bound(&mut bind.target, MAX_FIELD);
        });
        loop {
            let line = written(&record);
            if line.len() <= MAX_LEN || record.binds.is_empty() {
                return line;
            }
            // At least one bind is removed, so that the loop ends.
            let kept = record.binds.len() / 2;
            record.left_out += record.binds.len() - kept;
            record.binds.truncate(kept);
        }
    }

    /// Parses a line; nothing if it is not a record.
    pub fn from_line(line: &str) -> Option<Self> {
        let record: Self = serde_json::from_str(line).ok()?;
        (record.version == VERSION && !line.chars().any(is_hidden)).then_some(record)
    }
}

fn written(record: &Record) -> String {
    let mut line = Vec::with_capacity(2048);
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, Plain);
    // Into memory, and all keys are names: this cannot fail.
    let _ = record.serialize(&mut serializer);
    String::from_utf8(line).unwrap_or_default()
}

/// JSON that is also safe for a reader without a parser: the characters of `is_hidden` are escaped, not only those that
/// JSON requires.
struct Plain;

impl serde_json::ser::Formatter for Plain {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_hidden) {
            let (before, behind) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            let mut letters = behind.chars();
            letters.next().map_or(Ok(()), |letter| write!(writer, "\\u{:04x}", u32::from(letter)))?;
            rest = letters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Removes the middle of a text whose encoded form is too long.
fn bound(text: &mut String, limit: usize) {
    let cost = |letter: char| match letter {
        // \u001b
        letter if is_hidden(letter) => 6,
        '"' | '\\' => 2,
        letter => letter.len_utf8(),
    };
    if text.len() <= limit / 6 || text.chars().map(cost).sum::<usize>() <= limit {
        return;
    }
    let room = (limit - '…'.len_utf8()) / 2;
    let fits = |letters: &mut dyn Iterator<Item = char>| -> usize {
        let mut left = room;
        let fitting = letters.take_while(|letter| {
            let fits = left.checked_sub(cost(*letter));
            left = fits.unwrap_or(0);
            fits.is_some()
        });
        fitting.map(char::len_utf8).sum()
    };
    let (head, tail) = (fits(&mut text.chars()), fits(&mut text.chars().rev()));
    *text = format!("{}…{}", &text[..head], &text[text.len() - tail..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile(length: usize) -> String {
        "\u{1b}]0;\n\"\\\u{7f}\u{9b}\u{2028}\u{202e}é".chars().cycle().take(length).collect()
    }

    fn full(texts: &str, binds: usize) -> Record {
        let text = || texts.to_owned();
        let bind = Bind { source: text(), target: text(), access: "rw".into(), origin: "user".into() };
        Record {
            version: VERSION,
            time: "2026-11-22T10:00:00.000001Z".into(),
            job: 7,
            step: "0".into(),
            node: text(),
            uid: 2001,
            user: Some(text()),
            image: Some(text()),
            path: Some(text()),
            digest: Some("sha256:00".into()),
            signers: Some(vec![text(); 100]),
            rule: Some(text()),
            verdict: Verdict::Refused,
            kind: Some("policy".into()),
            cause: Some(text()),
            entered: Some(0),
            options: [("workdir".to_owned(), text())].into(),
            binds: vec![bind; binds],
            devices: vec!["/dev".into()],
            microseconds: [("open".to_owned(), 17)].into(),
            ..Record::default()
        }
    }

    #[test]
    fn a_record_is_one_line_that_is_read_back_as_it_was() {
        let mut record = full(&hostile(100), 3);
        record.signers = None;
        let line = record.to_line();
        assert!(!line.contains('\n') && !line.chars().any(is_hidden), "{line:?}");
        assert!(line.starts_with("{\"version\":1,\"time\":\"2026-11-22T10:00:00.000001Z\",\"job\":7,"), "{line}");
        assert_eq!(Record::from_line(&line), Some(record));
        let sparse = Record { version: VERSION, step: "batch".into(), ..Record::default() };
        assert_eq!(Record::from_line(&sparse.to_line()), Some(sparse));
    }

    #[test]
    fn however_long_its_texts_are_a_record_is_bounded() {
        for texts in [hostile(40_000), "\u{1b}".repeat(5000), "é".repeat(5000), "\"".repeat(4095)] {
            let line = full(&texts, 200).to_line();
            assert!(line.len() <= MAX_LEN, "{}", line.len());
            let read = Record::from_line(&line).unwrap();
            let image = read.image.unwrap();
            assert!(image.contains('…') && serde_json::to_string(&image).unwrap().len() <= MAX_FIELD + 2);
            assert!(image.starts_with(&texts[..6]) || image.starts_with('é') || image.starts_with('"'));
            assert_eq!(read.binds.len() + read.left_out, 200);
            assert!(read.left_out > 0);
        }
    }

    #[test]
    fn what_fits_is_not_touched() {
        for text in ["a".repeat(MAX_FIELD), "\\".repeat(MAX_FIELD / 2), "\u{1b}".repeat(MAX_FIELD / 6)] {
            let mut bounded = text.clone();
            bound(&mut bounded, MAX_FIELD);
            assert_eq!(bounded, text);
        }
        let read = Record::from_line(&full("/a", 128).to_line()).unwrap();
        assert_eq!((read.binds.len(), read.left_out, read.signers.map(|signers| signers.len())), (128, 0, Some(32)));
    }

    #[test]
    fn a_verdict_says_how_many_got_in() {
        for (refused, entered, wanted) in [
            (false, 4, Verdict::Started),
            (false, 3, Verdict::Partial),
            (true, 3, Verdict::Partial),
            (true, 0, Verdict::Refused),
            (false, 0, Verdict::Abandoned),
        ] {
            assert_eq!(Verdict::of(refused, entered, 4), wanted, "{refused} {entered}");
        }
    }

    #[test]
    fn other_lines_are_none() {
        let line = full("/a", 1).to_line();
        assert!(Record::from_line(&line).is_some());
        for cut in [0, 1, line.len() / 2, line.len() - 1] {
            assert_eq!(Record::from_line(&line[..cut]), None, "{cut}");
        }
        for other in
            ["", "null", "{}", "[1]", "{\"version\":1}", "Nov 22 x", &line.replace("\"version\":1", "\"version\":2")]
        {
            assert_eq!(Record::from_line(other), None, "{other}");
        }
        assert_eq!(Record::from_line(&line.replace("/a", "/\u{9b}")), None);
    }
}
