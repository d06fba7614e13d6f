//! Writes the log line of each step and node to the journal or syslog. If the site enables it, the plan that was
//! applied follows, line by line.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use crate::config::Log;
use crate::plan::Plan;
use coracle::report::{Refusal, clean};

use crate::records::Record;

/// Socket of the journal (systemd-journald.service(8), "Native Journal Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Socket of syslog (syslog(3)).
const SYSLOG: &str = "/dev/log";
/// Time limit for a logger to receive one line.
const PATIENCE: Duration = Duration::from_millis(200);
/// Facility daemon, severity informational (RFC 5424, 6.2.1).
const PRIORITY: &str = "30";
/// Limit on a line, in bytes: rsyslog accepts this by default.
const MAX_LINE: usize = 8000;
/// Identifier of Coracle's entries.
pub const IDENTIFIER: &str = "coracle";

/// Field of the journal with the whole record.
pub const RECORD: &str = "CORACLE_RECORD";

/// A word of a line, and its format.
struct Word {
    key: Cow<'static, str>,
    value: String,
    quoted: bool,
}

/// Writes a record to the site's log, with the error that kept it out of the site's file. A missing log does not stop a
/// job.
pub fn write(log: Log, record: &Record, fault: Option<&Refusal>, plan: Option<&Plan>) {
    let journal = match log {
        Log::None => return,
        Log::Journal => true,
        Log::Syslog => false,
        Log::Auto => Path::new(JOURNAL).exists(),
    };
    let text = plan.map(ToString::to_string).unwrap_or_default();
    let plan = text.lines().map(|line| place(record).into_iter().chain([quoted("plan", line)]).collect());
    for (index, words) in std::iter::once(words(record, fault)).chain(plan).enumerate() {
        let sent = match journal {
            true => to_journal(&words, (index == 0).then_some(record)),
            false => to_syslog(&words),
        };
        if sent.is_err() {
            return;
        }
    }
}

fn plain(key: &'static str, value: impl ToString) -> Word {
    Word { key: key.into(), value: value.to_string(), quoted: false }
}

fn quoted(key: &'static str, value: impl AsRef<str>) -> Word {
    Word { key: key.into(), value: clean(value.as_ref()), quoted: true }
}

/// Words that identify this step on this node.
fn place(record: &Record) -> Vec<Word> {
    vec![plain("job", record.job), plain("step", &record.step), plain("node", clean(&record.node))]
}

/// The record as words, the most important ones first: a line that is too long lacks the last ones.
fn words(record: &Record, fault: Option<&Refusal>) -> Vec<Word> {
    let or_dash = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), clean);
    let mut words = place(record);
    words.push(plain("uid", record.uid));
    // The path that was opened takes precedence over the requested name.
    let image = record.path.as_deref().or(record.image.as_deref()).unwrap_or("-");
    words.push(quoted("image", image));
    words.push(plain("digest", or_dash(&record.digest)));
    words.push(plain("rule", or_dash(&record.rule)));
    words.push(plain("verdict", record.verdict.word()));
    if let (Some(kind), Some(cause)) = (&record.kind, &record.cause) {
        words.push(quoted("cause", format!("coracle: {cause} [{kind}]")));
    }
    words.extend(fault.map(|fault| quoted("audit", fault.line())));
    words.extend(record.microseconds.iter().map(|(phase, took)| Word {
        key: phase.clone().into(),
        value: format!("{}.{:03}ms", took / 1000, took % 1000),
        quoted: false,
    }));
    words.extend(record.builds.map(|builds| plain("builds", builds)));
    words.push(plain("tasks", record.tasks));
    words.extend(record.entered.map(|entered| plain("entered", entered)));
    words.push(quoted("user", record.user.as_deref().unwrap_or("-")));
    words.extend(record.signers.as_ref().map(|signers| quoted("signers", signers.join(","))));
    words.extend(record.joins.as_ref().map(|step| plain("joins", step)));
    words.extend(record.image.as_deref().filter(|asked| *asked != image).map(|asked| quoted("asked", asked)));
    let options: Vec<String> = record.options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    words.push(quoted("options", options.join(" ")));
    let binds = record.binds.iter().map(|bind| format!("{}:{}:{}", bind.source, bind.target, bind.access));
    words.push(quoted("binds", binds.collect::<Vec<_>>().join(" ")));
    words
}

fn line(words: &[Word]) -> String {
    let word = |word: &Word| match word.quoted {
        true => format!("{}={:?}", word.key, word.value),
        false => format!("{}={}", word.key, word.value),
    };
    let mut line = words.iter().map(word).collect::<Vec<_>>().join(" ");
    if line.len() > MAX_LINE {
        line.truncate(line.floor_char_boundary(MAX_LINE));
        line.push('…');
    }
    line
}

/// Writes the words as fields, and the whole record as one more field.
fn to_journal(words: &[Word], record: Option<&Record>) -> std::io::Result<()> {
    let mut message = format!("PRIORITY=6\nSYSLOG_IDENTIFIER={IDENTIFIER}\nMESSAGE={}\n", line(words));
    for Word { key, value, .. } in words {
        message.push_str(&format!("CORACLE_{}={value}\n", key.to_uppercase()));
    }
    if let Some(record) = record {
        message.push_str(&format!("{RECORD}={}\n", record.to_line()));
    }
    send(JOURNAL, message.as_bytes())
}

fn to_syslog(words: &[Word]) -> std::io::Result<()> {
    send(SYSLOG, format!("<{PRIORITY}>{IDENTIFIER}[{}]: {}", std::process::id(), line(words)).as_bytes())
}

fn send(socket: &str, message: &[u8]) -> std::io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    // A socket usually holds ten datagrams (net.unix.max_dgram_qlen), and a plan has more lines. But a logger that does
    // not read must not block the launcher.
    datagram.set_write_timeout(Some(PATIENCE))?;
    datagram.send_to(message, socket).map(drop)
}
