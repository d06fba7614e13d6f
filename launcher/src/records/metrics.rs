//! Counts the steps of this node, for the textfile collector of node_exporter (text format of Prometheus).
//!
//! The file is read, updated and replaced at the end of each step, when no task waits: a reader always sees a complete
//! file. It shows how often images are refused, and why, but nothing about jobs or users.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config;
use coracle::report::Refusal;

use crate::records::{Record, hold};

/// Limit on a file that is read, in bytes; with all kinds and phases it has about 12,000.
const MAX_LEN: u64 = 1 << 20;
/// Upper bounds of the histogram, in microseconds, and as text in seconds.
const BOUNDS: [(u64, &str); 9] = [
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (100_000, "0.1"),
    (1_000_000, "1"),
    (10_000_000, "10"),
];
/// Names of the metric families, their types and descriptions.
const FAMILIES: [(&str, &str, &str); 4] = [
    ("coracle_steps_total", "counter", "Steps on this node, by what became of them."),
    ("coracle_refusals_total", "counter", "Steps that were refused, by the kind of the refusal."),
    ("coracle_tasks_total", "counter", "Tasks that got into their container."),
    ("coracle_phase_seconds", "histogram", "Duration of each phase of a start."),
];

/// Samples: a name with its labels, and the count; sums of durations are in microseconds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Samples(BTreeMap<String, u64>);

impl Samples {
    /// Parses the samples of an existing file; unknown lines are dropped.
    fn read(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            FAMILIES.iter().find(|(family, ..)| name.starts_with(family))?;
            let value = match name.contains("_sum{") {
                true => microseconds(value)?,
                false => value.parse().ok()?,
            };
            Some((name.to_owned(), value))
        };
        Self(text.lines().filter_map(sample).collect())
    }

    fn add(&mut self, name: String, count: u64) {
        let sample = self.0.entry(name).or_default();
        *sample = sample.saturating_add(count);
    }

    fn count(&mut self, record: &Record) {
        self.add(format!("coracle_steps_total{{verdict=\"{}\"}}", record.verdict.word()), 1);
        if let Some(kind) = &record.kind {
            self.add(format!("coracle_refusals_total{{kind=\"{kind}\"}}"), 1);
        }
        self.add("coracle_tasks_total".into(), u64::from(record.entered.unwrap_or(0)));
        for (phase, duration) in &record.microseconds {
            for (bound, shown) in BOUNDS {
                let count = u64::from(*duration <= bound);
                self.add(format!("coracle_phase_seconds_bucket{{phase=\"{phase}\",le=\"{shown}\"}}"), count);
            }
            self.add(format!("coracle_phase_seconds_bucket{{phase=\"{phase}\",le=\"+Inf\"}}"), 1);
            self.add(format!("coracle_phase_seconds_count{{phase=\"{phase}\"}}"), 1);
            self.add(format!("coracle_phase_seconds_sum{{phase=\"{phase}\"}}"), *duration);
        }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (family, kind, help) in FAMILIES {
            let _ = writeln!(text, "# HELP {family} {help}\n# TYPE {family} {kind}");
            for (name, value) in self.0.iter().filter(|(name, _)| name.starts_with(family)) {
                let _ = match name.contains("_sum{") {
                    true => writeln!(text, "{name} {}.{:06}", value / 1_000_000, value % 1_000_000),
                    false => writeln!(text, "{name} {value}"),
                };
            }
        }
        text
    }
}

/// Parses seconds with six digits after the decimal point.
fn microseconds(text: &str) -> Option<u64> {
    let (seconds, rest) = text.split_once('.').filter(|(_, rest)| rest.len() == 6)?;
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(rest.parse().ok()?)
}

/// Counts a step. Nothing depends on it, so an error is only logged.
pub fn count(path: &Path, record: &Record) -> Result<(), Refusal> {
    let beside = |ending: &str| PathBuf::from(format!("{}.{ending}", path.display()));
    let (lock, new) = (beside("lock"), beside("new"));
    let failed = |cause: io::Error| config::Error::Write(path.to_owned(), cause);
    // Root alone can write the directory, or this call refuses it; so no other user can hold the lock.
    let lock = config::append_trusted(&lock)?;
    hold(&lock).map_err(failed)?;
    let mut samples = match config::read_trusted(path, MAX_LEN) {
        Ok(text) => Samples::read(&text),
        Err(config::Error::Read(_, cause)) if cause.kind() == io::ErrorKind::NotFound => Samples::default(),
        Err(error) => return Err(error.into()),
    };
    samples.count(record);
    replace(path, &new, &samples.to_text()).map_err(failed)?;
    Ok(())
}

fn replace(path: &Path, new: &Path, text: &str) -> io::Result<()> {
    // Left by a launcher that was killed.
    match fs::remove_file(new) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(new)?;
    file.write_all(text.as_bytes())?;
    // The collector does not run as root, and root's umask may be restrictive.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Verdict;

    fn refused() -> Record {
        Record {
            verdict: Verdict::Refused,
            kind: Some("policy".into()),
            microseconds: BTreeMap::from([("mount".to_owned(), 1_700)]),
            ..Record::default()
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_counted_up() {
        let mut samples = Samples::default();
        samples.count(&refused());
        let mut samples = Samples::read(&samples.to_text());
        samples.count(&Record { entered: Some(3), verdict: Verdict::Started, ..Record::default() });
        samples.count(&refused());
        let text = samples.to_text();
        for line in [
            "coracle_steps_total{verdict=\"refused\"} 2",
            "coracle_steps_total{verdict=\"started\"} 1",
            "coracle_refusals_total{kind=\"policy\"} 2",
            "coracle_tasks_total 3",
            "coracle_phase_seconds_bucket{phase=\"mount\",le=\"0.001\"} 0",
            "coracle_phase_seconds_bucket{phase=\"mount\",le=\"0.0025\"} 2",
            "coracle_phase_seconds_bucket{phase=\"mount\",le=\"+Inf\"} 2",
            "coracle_phase_seconds_sum{phase=\"mount\"} 0.003400",
            "coracle_phase_seconds_count{phase=\"mount\"} 2",
            "# TYPE coracle_phase_seconds histogram",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is not in {text}");
        }
        assert_eq!(Samples::read(&text), samples);
    }

    #[test]
    fn lines_of_others_are_dropped() {
        let text =
            "up 1\ncoracle_steps_total{verdict=\"started\"} many\ncoracle_phase_seconds_sum{phase=\"x\"} 1.5\n\u{1b}";
        assert_eq!(Samples::read(text), Samples::default());
    }
}
