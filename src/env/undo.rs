//! Records the changes of a container to the environment, so that a step started inside of it gets the host's again.
//!
//! A step that asks for another image, or for `none`, is started by a task in the first image's environment, and srun
//! sends that environment along. [`OUTER`] records what to take back. The user can set it like any other variable, so
//! reading it is strict. A variable that has changed since the container was made stays.
//!
//! A container within a container is made from the environment that [`Record::undo`] restores, and so is its record.
//! Only the [`Change`]s for the task have to be made from the task's own environment.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::change::is_name;
use super::{Change, names};
use crate::request::escape::{escape, unescape};

/// Variable that keeps the record.
pub const OUTER: &str = "SLURM_CORACLE_OUTER";
/// Variables that describe a container to its tasks, and are wrong outside of it.
pub const INSIDE: [&str; 3] = ["CORACLE_IMAGE", "CORACLE_NAME", "CORACLE_DIGEST"];

/// Maximum length of the record in bytes.
const MAX_LEN: usize = 16 * 1024;
/// Prefix that gives the version of the form.
const FORM: &str = "1:";

/// Changes of variables by a container's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    id: OsString,
    /// Entries by name, in the order in which they are written.
    entries: Vec<(OsString, Entry)>,
}

/// Values of a variable inside and before; `None` where it was unset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Value in the container.
    pub inside: Option<OsString>,
    /// Value on the host.
    pub before: Option<OsString>,
}

impl Record {
    /// Makes a record of the image `id` and the variables that it changed, the most important first.
    pub fn new(id: OsString, entries: Vec<(OsString, Entry)>) -> Self {
        Self { id, entries }
    }

    /// Returns the image as the caller of [`Record::new`] named it.
    pub fn id(&self) -> &OsStr {
        &self.id
    }

    /// Writes `1:ID;NAME=INSIDE,BEFORE;…` in printable ASCII, each value as `+VALUE` or as `-` for none. At most 16
    /// KiB: later entries that do not fit are left out, so the most important ones stand in front.
    pub fn to_env(&self) -> String {
        let mut text = format!("{FORM}{}", escape(&self.id));
        let side =
            |value: &Option<OsString>| value.as_ref().map_or("-".to_owned(), |value| format!("+{}", escape(value)));
        for (name, entry) in &self.entries {
            // An escaped value is at least as long, so a value that cannot fit is not escaped at all.
            let length = |value: &Option<OsString>| value.as_ref().map_or(0, |value| value.len());
            if length(&entry.inside).saturating_add(length(&entry.before)) > MAX_LEN {
                continue;
            }
            let field = format!(";{}={},{}", escape(name), side(&entry.inside), side(&entry.before));
            if text.len().saturating_add(field.len()) <= MAX_LEN {
                text.push_str(&field);
            }
        }
        text
    }

    /// Reads [`Record::to_env`]; `None` if the text has another form.
    pub fn from_env(text: &OsStr) -> Option<Self> {
        if text.len() > MAX_LEN {
            return None;
        }
        let mut fields = text.to_str()?.strip_prefix(FORM)?.split(';');
        let id = unescape(fields.next()?).ok()?;
        let mut entries: Vec<(OsString, Entry)> = Vec::new();
        for field in fields {
            let (name, values) = field.split_once('=')?;
            let (inside, before) = values.split_once(',')?;
            let name = unescape(name).ok()?;
            let entry = Entry { inside: read_side(inside)?, before: read_side(before)? };
            // At most 16 KiB: a map would be faster for hostile records only, and is 5 KB of the plugin.
            let taken = entries.iter().any(|(known, _)| *known == name);
            if taken || !is_name(name.as_bytes()) || names::is_slurms(name.as_bytes()) {
                return None;
            }
            entries.push((name, entry));
        }
        Some(Self { id, entries })
    }

    /// Returns changes that restore the host's values in an environment in which `get` looks variables up. A variable
    /// that has been changed since stays.
    pub fn undo(&self, get: impl Fn(&OsStr) -> Option<OsString>) -> Vec<Change> {
        let unchanged = self.entries.iter().filter(|(name, entry)| get(name) == entry.inside);
        unchanged
            .map(|(name, entry)| match &entry.before {
                Some(value) => Change::Set(name.clone(), value.clone()),
                None => Change::Unset(name.clone()),
            })
            .collect()
    }
}

fn read_side(text: &str) -> Option<Option<OsString>> {
    match text.strip_prefix('+') {
        Some(value) => unescape(value).ok().map(Some),
        None => (text == "-").then_some(None),
    }
}
