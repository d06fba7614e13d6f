//! Arguments of `coracle config check`, `doctor`, `verify` and `log`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::SystemTime;

use coracle::request::{step_id, step_name};

/// Arguments of `coracle config check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The file
    #[arg(default_value = coracle_launcher::config::PATH)]
    pub file: PathBuf,
    /// Show the rules that hold for this user (others than you: root only)
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Partition of the job
    #[arg(long, value_name = "NAME")]
    pub partition: Option<String>,
    /// Account of the job
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// Quality of service of the job
    #[arg(long, value_name = "NAME")]
    pub qos: Option<String>,
    /// Image to judge by these rules
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<OsString>,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl Check {
    /// True if more is requested than a check of the file.
    pub fn asks(&self) -> bool {
        [&self.user, &self.partition, &self.account, &self.qos].iter().any(|said| said.is_some())
            || self.image.is_some()
    }
}

/// Arguments of `coracle doctor`.
///
/// Exit status: 0 containers start here, 1 something keeps them from it.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Parts that this host plays, instead of those that are found out; may be repeated
    #[arg(long, value_name = "ROLE", value_enum)]
    pub role: Vec<Role>,
    /// This host is a compute node, whether slurmd runs yet or not: for HealthCheckProgram and ExecStartPre=
    #[arg(long, conflicts_with = "role")]
    pub node: bool,
    /// Print warnings and errors only
    #[arg(long)]
    pub faults: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = coracle_launcher::config::PATH)]
    pub config: PathBuf,
}

/// The part that a host plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Users build and try images on it
    Login,
    /// Jobs are submitted from it
    Submit,
    /// slurmd starts steps on it
    Compute,
    /// slurmctld runs on it
    Controller,
}

/// Arguments of `coracle verify`.
///
/// Exit status: 0 the image is good, 1 it is not, 2 the command line or a file that it names makes no sense.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// A public key that is accepted: OpenPGP, armoured or binary, or PEM (default: the site's, /etc/coracle/keys)
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// Compare the file's SHA-256 with this list, as sha256sum writes it; signatures are then only looked at with --key
    #[arg(long, value_name = "FILE")]
    pub sums: Option<PathBuf>,
    /// Print one line of JSON: image, digest, verdict, signers and error
    #[arg(long)]
    pub json: bool,
    /// The image: a SIF, or with --sums any file
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
}

/// Arguments of `coracle log`.
#[derive(Debug, clap::Args)]
pub struct Log {
    /// Only records of this job, or of one step of it: a number, batch or interactive
    #[arg(long, value_name = "JOB[.STEP]")]
    pub job: Option<Asked>,
    /// Only records of this user
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Only records since this time: 2026-11-22, 2026-11-22T10:00:00 (both UTC), or 2h, 3days for so long ago
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<SystemTime>,
    /// Print each record as it is: JSON, a line each
    #[arg(long)]
    pub json: bool,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = coracle_launcher::config::PATH)]
    pub config: PathBuf,
}

/// A job, or a step of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Number of the job.
    pub job: u32,
    /// Name of the step.
    pub step: Option<String>,
}

impl FromStr for Asked {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (job, step) = text.split_once('.').map_or((text, None), |(job, step)| (job, Some(step)));
        let digits = !job.is_empty() && job.bytes().all(|byte| byte.is_ascii_digit());
        let job = job.parse().ok().filter(|_| digits);
        let step = step.map(|step| step_id(step).map(step_name).filter(|_| !step.starts_with('+')));
        match (job, step) {
            (Some(job), None) => Ok(Self { job, step: None }),
            (Some(job), Some(Some(step))) => Ok(Self { job, step: Some(step) }),
            _ => Err("not a job: JOB or JOB.STEP is wanted".into()),
        }
    }
}

/// Parses a time: a date, a date and a time, both in UTC, or a duration before now.
pub fn since(text: &str) -> Result<SystemTime, String> {
    let wrong = || "not a time: 2026-11-22, 2026-11-22T10:00:00 or 2h is wanted".to_owned();
    if let Ok(ago) = humantime::parse_duration(text) {
        return SystemTime::now().checked_sub(ago).ok_or_else(wrong);
    }
    let midnight = format!("{text}T00:00:00");
    let time = humantime::parse_rfc3339_weak(text).or_else(|_| humantime::parse_rfc3339_weak(&midnight));
    time.map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_job_and_a_time_are_read_or_refused() {
        let asked = |text: &str| text.parse::<Asked>().map(|asked| (asked.job, asked.step));
        assert_eq!(asked("7"), Ok((7, None)));
        assert_eq!(asked("7.0"), Ok((7, Some("0".into()))));
        assert_eq!(asked("7.batch"), Ok((7, Some("batch".into()))));
        for wrong in ["", "x", "7.", "7.x", "+7", "7.+1", "7_1", "-7", "4294967296"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
        let seconds = |text: &str| since(text).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert_eq!(seconds("2026-11-22"), 1_795_305_600);
        for text in ["2026-11-22T10:00:00", "2026-11-22 10:00:00", "2026-11-22T10:00:00Z"] {
            assert_eq!(seconds(text), 1_795_305_600 + 36_000, "{text}");
        }
        let then = since("2h").unwrap();
        let ago = SystemTime::now().duration_since(then).unwrap();
        assert!(ago >= Duration::from_secs(7200) && ago < Duration::from_secs(7300));
        for wrong in ["", "yesterday", "2026-13-01", "9999999999999999y"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
