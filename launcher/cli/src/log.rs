//! Runs `coracle log`: prints the containers that ran, from the records of this node.
//!
//! The records are read with the caller's privileges: the mode of the file, or the journal, decides who sees all of
//! them. Other users see the records of their own steps.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::SystemTime;

use coracle::report::{Kind, Refusal, clean};
use coracle_launcher::config::{self, Audit, Config};

use crate::arguments::Log;
use coracle_launcher::records::journal::{IDENTIFIER, RECORD};
use coracle_launcher::records::own;
use coracle_launcher::records::record::{MAX_LEN, Record};

/// Exit status if no record was found, or the search failed.
const NOTHING: u8 = 1;
/// Limit of an entry of the journal. It has the record three times: whole, in fields and as a line.
const MAX_ENTRY: usize = 8 * MAX_LEN;
/// Directories of journalctl if it is not in PATH.
const PLACES: [&str; 2] = ["/usr/bin", "/bin"];

/// Directories of the journal: persistent, and until the next boot (systemd-journald.service(8)).
const JOURNALS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];

const READERS: &str = "each node has its own records; its journal is for root and the groups systemd-journal and adm";

/// Prints the requested records.
pub fn main(given: &Log) -> Result<ExitCode, Refusal> {
    let shown = show(given, &mut io::stdout().lock());
    Ok(shown.unwrap_or_else(|refusal| {
        eprintln!("{refusal}");
        ExitCode::from(NOTHING)
    }))
}

/// Lines that may be records, and their source.
struct Lines {
    from: String,
    reader: Box<dyn BufRead>,
    /// journalctl, if the lines come from it.
    journal: Option<Child>,
}

/// Numbers of records read and printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    shown: usize,
    broken: usize,
}

fn show(given: &Log, out: &mut dyn Write) -> Result<ExitCode, Refusal> {
    let audit = site(&given.config)?.audit;
    let everybodys = match &audit.file {
        Some(file) => of_file(&file.0),
        None => of_journal(given),
    };
    let refusal = match everybodys.and_then(|lines| print(lines, given, out)) {
        Ok(shown) => return Ok(shown),
        Err(refusal) => refusal,
    };
    match of_own(&audit)? {
        Some(lines) => print(lines, given, out),
        None => Err(refusal),
    }
}

fn print(mut lines: Lines, given: &Log, out: &mut dyn Write) -> Result<ExitCode, Refusal> {
    let count = copy(&mut lines, given, out);
    let from_journal = lines.journal.is_some();
    let gone = count.as_ref().is_err_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe);
    if let Some(mut journal) = lines.journal {
        // The reader of our output has closed the pipe.
        if gone {
            let _ = journal.kill();
        }
        let ended = journal.wait().map_err(|cause| failed(&lines.from, cause))?;
        if !ended.success() && !gone {
            return Err(failed(&lines.from, "cannot be read").hint(READERS));
        }
    }
    if gone {
        return Ok(ExitCode::SUCCESS);
    }
    let count = count.map_err(|cause| failed(&lines.from, format!("cannot be read: {cause}")))?;
    if count.broken > 0 {
        eprintln!("coracle: note: {}: {} lines that are no records", clean(&lines.from), count.broken);
    }
    if count.shown > 0 {
        return Ok(ExitCode::SUCCESS);
    }
    if from_journal && JOURNALS.iter().all(|directory| !Path::new(directory).is_dir()) {
        return Err(failed(&lines.from, "there is none on this node")
            .hint("audit: {file: PATH} in coracle.yaml keeps records in a file"));
    }
    Err(failed(&lines.from, "no such record").hint(match from_journal {
        true => READERS,
        false => "each node has its own records; you see those that you may read",
    }))
}

fn failed(object: &str, cause: impl ToString) -> Refusal {
    Refusal::new(Kind::System, object, cause.to_string())
}

/// Site's settings; the defaults if users cannot read the file. A file of records that it names is then unreadable,
/// too, and the journal shows users their own records.
fn site(path: &Path) -> Result<Config, Refusal> {
    match Config::load(path) {
        Err(config::Error::Read(_, cause)) if cause.kind() == io::ErrorKind::PermissionDenied => Ok(Config::default()),
        loaded => Ok(loaded?),
    }
}

fn of_file(path: &Path) -> Result<Lines, Refusal> {
    let shown = path.display().to_string();
    let file = config::open_trusted(path).map_err(|error| match error {
        config::Error::Read(_, cause) if cause.kind() == io::ErrorKind::NotFound => failed(&shown, "no record yet"),
        config::Error::Read(_, cause) => failed(&shown, format!("cannot be read: {cause}"))
            .hint("its owner and group may read it: ask the site's admin"),
        other => other.into(),
    })?;
    Ok(Lines { from: shown, reader: Box::new(BufReader::new(file)), journal: None })
}

/// Records of the caller's own steps. `None` if there are none, and for root, who reads all records or none.
fn of_own(audit: &Audit) -> Result<Option<Lines>, Refusal> {
    let uid = nix::unistd::getuid();
    let Some(files) = own::of(&audit.users, uid.as_raw()).filter(|_| !uid.is_root()) else { return Ok(None) };
    let (mut from, mut reader) = (String::new(), Box::new(io::empty()) as Box<dyn BufRead>);
    for file in files {
        match of_file(&file) {
            Ok(lines) => (from, reader) = (lines.from, Box::new(reader.chain(lines.reader))),
            // The older file exists only after the newer one became too large.
            Err(_) if !file.exists() => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok((!from.is_empty()).then_some(Lines { from, reader, journal: None }))
}

/// Root's entries of the journal only: any user can write there under our identifier.
fn of_journal(given: &Log) -> Result<Lines, Refusal> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path)
        .chain(PLACES.map(PathBuf::from))
        .map(|directory| directory.join("journalctl"))
        .find(|file| file.is_absolute() && file.is_file())
        .ok_or_else(|| {
            failed("coracle.yaml", "names no file of records (audit.file), and there is no journalctl on this machine")
                .hint("where syslog keeps its lines, grep for 'coracle\\['")
        })?;
    let mut command = Command::new(&program);
    // Without --all, fields of more than 4096 bytes are left out (journalctl(1)).
    command.args(["--output=json", "--all", "--no-pager", "--quiet", "_UID=0"]);
    command.arg(format!("SYSLOG_IDENTIFIER={IDENTIFIER}"));
    command.args(given.job.iter().map(|asked| format!("CORACLE_JOB={}", asked.job)));
    let seconds = given.since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok());
    command.args(seconds.iter().map(|since| format!("--since=@{}", since.as_secs())));
    let from = "the journal".to_owned();
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut journal = started.map_err(|cause| failed(&program.display().to_string(), cause))?;
    let reader: Box<dyn BufRead> = match journal.stdout.take() {
        Some(said) => Box::new(BufReader::new(said)),
        None => Box::new(io::empty()),
    };
    Ok(Lines { from, reader, journal: Some(journal) })
}

/// Copies the requested records to `out`. Returns errors of reading and of `out`.
fn copy(lines: &mut Lines, given: &Log, out: &mut dyn Write) -> io::Result<Count> {
    let mut count = Count::default();
    let limit = if lines.journal.is_some() { MAX_ENTRY } else { MAX_LEN + 1 };
    while let Some(line) = next_line(&mut lines.reader, limit)? {
        let text = line.as_deref().and_then(|line| str::from_utf8(line).ok());
        let text = match lines.journal {
            // The lines of a plan, and those of older releases, have no record.
            Some(_) => match text.map(record_of) {
                Some(Some(text)) => Some(text),
                Some(None) => continue,
                None => None,
            },
            None if text == Some("") => continue,
            None => text.map(str::to_owned),
        };
        match text.and_then(|text| Some((Record::from_line(&text)?, text))) {
            Some((record, text)) if is_asked_for(&record, given) => {
                count.shown += 1;
                if given.json { writeln!(out, "{text}") } else { out.write_all(human(&record).as_bytes()) }?;
            }
            Some(_) => {}
            None => count.broken += 1,
        }
    }
    out.flush()?;
    Ok(count)
}

/// Next line without its end. The inner value is `None` if the line has more than `limit` bytes.
fn next_line(reader: &mut dyn BufRead, limit: usize) -> io::Result<Option<Option<Vec<u8>>>> {
    let (mut line, mut long) = (Vec::new(), false);
    loop {
        let room = limit.saturating_add(1).saturating_sub(line.len());
        let length = (&mut *reader).take(room as u64).read_until(b'\n', &mut line)?;
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if length > 0 {
            // Of a line that is too long, only the end matters.
            long |= line.len() > limit;
            if long {
                line.clear();
            }
            continue;
        } else if line.is_empty() && !long {
            return Ok(None);
        }
        return Ok(Some((!long).then_some(line)));
    }
}

/// Record in an entry of the journal, as journalctl prints it.
fn record_of(entry: &str) -> Option<String> {
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(entry).ok()?;
    match fields.remove(RECORD)? {
        serde_json::Value::String(text) => Some(text),
        // journalctl prints text that is not UTF-8 as a list of numbers; that is no record of ours.
        _ => Some(String::new()),
    }
}

fn is_asked_for(record: &Record, given: &Log) -> bool {
    let job = given
        .job
        .as_ref()
        .is_none_or(|asked| asked.job == record.job && asked.step.as_ref().is_none_or(|step| *step == record.step));
    let user =
        given.user.as_ref().is_none_or(|name| record.user.as_ref() == Some(name) || name.parse() == Ok(record.uid));
    let time = given.since.is_none_or(|since| humantime::parse_rfc3339(&record.time).is_ok_and(|time| time >= since));
    job && user && time
}

/// Block of text about one record.
fn human(record: &Record) -> String {
    let user = record.user.as_ref().map_or("-".to_owned(), |user| clean(user));
    let mut text = format!(
        "{}  {}.{}  {}  {user} ({})  {}\n",
        clean(&record.time),
        record.job,
        clean(&record.step),
        clean(&record.node),
        record.uid,
        record.verdict.word(),
    );
    let mut row = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    {name:<9}{}", clean(value));
    };
    let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    row("image", &or_dash(&record.image));
    if let Some(path) = record.path.as_ref().filter(|path| record.image.as_ref() != Some(path)) {
        row("path", path);
    }
    record.joins.iter().for_each(|step| row("joins", step));
    row("digest", &or_dash(&record.digest));
    record.signers.iter().for_each(|signers| row("signers", &signers.join(" ")));
    row("policy", &or_dash(&record.rule));
    if let (Some(kind), Some(cause)) = (&record.kind, &record.cause) {
        row("cause", &format!("{cause} [{kind}]"));
    }
    let entered = record.entered.map(|entered| format!(", {entered} entered")).unwrap_or_default();
    row("tasks", &format!("{} on this node{entered}", record.tasks));
    row("nodes", &record.nodes.to_string());
    record.options.iter().for_each(|(key, value)| row("option", &format!("{key}={value}")));
    for bind in &record.binds {
        let place = if bind.source == bind.target { String::new() } else { format!(" -> {}", bind.target) };
        row("bind", &format!("{}{place} {} ({})", bind.source, bind.access, bind.origin));
    }
    if record.left_out > 0 {
        row("bind", &format!("and {} more", record.left_out));
    }
    record.devices.iter().for_each(|device| row("device", device));
    let phases: Vec<String> = record.microseconds.iter().map(|(phase, took)| format!("{phase} {took}")).collect();
    if !phases.is_empty() {
        row("µs", &phases.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_launcher::records::Verdict;

    fn record(job: u32, user: &str, time: &str) -> Record {
        Record {
            version: 1,
            time: time.into(),
            job,
            step: "0".into(),
            node: "n1".into(),
            uid: 2001,
            user: Some(user.into()),
            image: Some("a\u{1b}.sif".into()),
            verdict: Verdict::Started,
            ..Record::default()
        }
    }

    fn given() -> Log {
        Log { job: None, user: None, since: None, json: true, config: PathBuf::new() }
    }

    fn copied(text: &[u8], given: &Log) -> (Count, String) {
        let reader: Box<dyn BufRead> = Box::new(BufReader::with_capacity(7, io::Cursor::new(text.to_vec())));
        let mut out = Vec::new();
        let mut lines = Lines { from: String::new(), reader, journal: None };
        let count = copy(&mut lines, given, &mut out).unwrap();
        (count, String::from_utf8(out).unwrap())
    }

    #[test]
    fn other_lines_are_left_out_and_counted() {
        let good = record(7, "alice", "2026-11-22T10:00:00.000001Z").to_line();
        let mut text = Vec::new();
        let long = "x".repeat(3 * MAX_LEN);
        for line in ["", &good, "garbage", &good[..40], &long, "", &good, "\u{9b}"] {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        text.extend_from_slice(b"\xff\n");
        text.extend_from_slice(&good.as_bytes()[..good.len() - 1]);
        let (count, out) = copied(&text, &given());
        assert_eq!(count, Count { shown: 2, broken: 6 });
        assert_eq!(out, format!("{good}\n{good}\n"));
    }

    #[test]
    fn only_what_was_asked_for_is_shown() {
        let lines = [record(7, "alice", "2026-11-22T10:00:00Z"), record(8, "bob", "2026-11-22T11:00:00Z")];
        let text: String = lines.iter().map(|record| record.to_line() + "\n").collect();
        let shown = |given: &Log| copied(text.as_bytes(), given).0.shown;
        assert_eq!(shown(&given()), 2);
        assert_eq!(shown(&Log { job: "7".parse().ok(), ..given() }), 1);
        assert_eq!(shown(&Log { job: "7.1".parse().ok(), ..given() }), 0);
        assert_eq!(shown(&Log { user: Some("bob".into()), ..given() }), 1);
        assert_eq!(shown(&Log { user: Some("2001".into()), ..given() }), 2);
        assert_eq!(shown(&Log { since: humantime::parse_rfc3339_weak("2026-11-22T10:30:00").ok(), ..given() }), 1);
    }

    #[test]
    fn nothing_hostile_reaches_a_terminal() {
        let line = record(7, "alice", "2026-11-22T10:00:00Z").to_line();
        let (_, text) = copied(format!("{line}\n").as_bytes(), &Log { json: false, ..given() });
        let first = "2026-11-22T10:00:00Z  7.0  n1  alice (2001)  started\n    image    a\\u{1b}.sif\n";
        assert!(text.starts_with(first), "{text}");
        assert!(!line.contains('\u{1b}'));
    }

    #[test]
    fn an_entry_of_the_journal_has_the_record_in_a_field() {
        let line = record(7, "alice", "2026-11-22T10:00:00Z").to_line();
        let entry = serde_json::json!({ "_UID": "0", "MESSAGE": "x", RECORD: line.as_str() }).to_string();
        assert_eq!(record_of(&entry), Some(line));
        assert_eq!(record_of("{\"MESSAGE\":\"plan\"}"), None);
        assert_eq!(record_of("{\"CORACLE_RECORD\":[1,2]}"), Some(String::new()));
    }
}
