//! Types of the values in coracle.yaml, each with its limits.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use coracle::report::Refusal;
use coracle::request::{self, Size};

/// Absolute path on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct Absolute(pub PathBuf);

impl fmt::Display for Absolute {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(out)
    }
}

impl TryFrom<PathBuf> for Absolute {
    type Error = String;
    fn try_from(path: PathBuf) -> Result<Self, String> {
        if path.is_absolute() { Ok(Self(path)) } else { Err(format!("{path:?} is not an absolute path")) }
    }
}

/// Path of squashfuse_ll on this node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PathBuf")]
pub struct Squashfuse(pub PathBuf);

impl TryFrom<PathBuf> for Squashfuse {
    type Error = String;
    fn try_from(path: PathBuf) -> Result<Self, String> {
        if path.is_absolute() { Ok(Self(path)) } else { Err(format!("`squashfuse` is an absolute path, not {path:?}")) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PathBuf")]
pub(super) struct Target(pub(super) PathBuf);

impl TryFrom<PathBuf> for Target {
    type Error = String;
    fn try_from(path: PathBuf) -> Result<Self, String> {
        request::inside(&path).map(Self).map_err(|error| {
            let refusal = Refusal::from(error);
            format!("{:?}: {}", refusal.object, refusal.cause)
        })
    }
}

/// Time limit from 1 to 45 seconds.
///
/// A step that does not end within UnkillableStepTimeout (slurm.conf(5), 60 s) drains the node, and a task may wait in
/// a file system that no signal interrupts. Therefore the limit stays well below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct StartTimeout(pub Duration);

impl Default for StartTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(20))
    }
}

impl TryFrom<u64> for StartTimeout {
    type Error = String;
    fn try_from(seconds: u64) -> Result<Self, String> {
        match seconds {
            1..=45 => Ok(Self(Duration::from_secs(seconds))),
            _ => Err(format!("`start_timeout` is 1 to 45 seconds, not {seconds}")),
        }
    }
}

/// Target of the line about each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// The journal where there is one, else syslog.
    #[default]
    Auto,
    /// The journal (systemd-journald.service(8)).
    Journal,
    /// /dev/log (syslog(3)).
    Syslog,
    /// No target.
    None,
}

/// `yes` or `no`: true if the plan of each step is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(try_from = "SiteValue")]
pub struct LogPlan(pub bool);

impl TryFrom<SiteValue> for LogPlan {
    type Error = String;
    fn try_from(value: SiteValue) -> Result<Self, String> {
        value.answer().map(Self).ok_or_else(|| "`log_plan` is yes or no".into())
    }
}

/// `yes` or `no`, in each form that YAML allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(try_from = "SiteValue")]
pub(super) struct YesOrNo(pub(super) bool);

impl TryFrom<SiteValue> for YesOrNo {
    type Error = String;
    fn try_from(value: SiteValue) -> Result<Self, String> {
        value.answer().map(Self).ok_or_else(|| "yes or no is wanted".into())
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "yes, no, a number, a word or a list of words is wanted")]
pub(super) enum SiteValue {
    Flag(bool),
    Number(u64),
    Text(String),
    List(Vec<String>),
}

impl SiteValue {
    /// The value as a bool: in YAML 1.2, yes and no are words, and true and false are booleans.
    pub(super) fn answer(&self) -> Option<bool> {
        match self {
            Self::Flag(answer) => Some(*answer),
            Self::Text(word) if word == "yes" => Some(true),
            Self::Text(word) if word == "no" => Some(false),
            _ => None,
        }
    }
}

/// Number of bytes; 1 GiB if unset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Limit(pub Size);

impl Default for Limit {
    fn default() -> Self {
        Self(Size(1 << 30))
    }
}

impl TryFrom<String> for Limit {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Size::parse(text.as_ref()).map(Self).map_err(|error| format!("{text:?}: {}", Refusal::from(error).cause))
    }
}
