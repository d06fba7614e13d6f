//! Holds all settings that a user can ask for beside an image. An open setting has the site's value, or the default.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use super::spec::Typed;
use super::{BindSource, Binds, Digest, Error, Id, Mpi, OPTIONS, RawOptions, Spec, Variable};

/// Maximum number of binds of one request.
pub const MAX_BINDS: usize = 128;
/// Options that set the permission of tasks to write into the image. They exclude each other.
pub(super) const WRITES: [Id; 2] = [Id::Writable, Id::Overlay];

/// Settings of a request; each may be left open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The user's own binds.
    pub binds: Binds,
    /// The digest that the image file must have.
    pub digest: Option<Digest>,
    /// Directory in which tasks start: an absolute path inside.
    pub workdir: Option<PathBuf>,
    /// True if the home directory is visible.
    pub home: Option<bool>,
    /// Variables that pass or are set, in the order given: the last one counts.
    pub env: Vec<Variable>,
    /// True if the host's variables stay outside.
    pub clean_env: Option<bool>,
    /// Permission of tasks to write into the image, in memory.
    pub writable: Option<Writable>,
    /// Directory in which changes to the image are kept: an absolute path of the node.
    pub overlay: Option<PathBuf>,
    /// True if the image's entry point runs the command.
    pub entrypoint: Option<bool>,
    /// Parts of a job that run inside.
    pub scope: Option<Scope>,
    /// MPI library that programs get.
    pub mpi: Option<Mpi>,
    /// True if the GPUs that Slurm gave are visible.
    pub gpu: Option<bool>,
}

/// Permission of tasks to write into the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writable {
    /// No.
    Off,
    /// Yes, up to a limit on each node; without one, up to the site's limit.
    Memory(Option<Size>),
}

impl Writable {
    pub(super) fn parse(typed: &Typed<'_>) -> Result<Self, Error> {
        match yes_or_no(typed) {
            Ok(true) => Ok(Self::Memory(None)),
            Ok(false) => Ok(Self::Off),
            Err(_) => Size::parse(typed.text).map(Some).map(Self::Memory),
        }
    }

    /// Returns `no`, `yes` or a number of bytes.
    pub(super) fn word(&self) -> OsString {
        match self {
            Self::Off => "no".into(),
            Self::Memory(None) => "yes".into(),
            Self::Memory(Some(size)) => size.0.to_string().into(),
        }
    }
}

/// A number of bytes, at least one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// Reads a number with `k`, `m`, `g` or `t` behind it, or none of them.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let wrong = || Error::Size(text.to_owned());
        let text = text.to_str().ok_or_else(wrong)?;
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(1 << shift).filter(|bytes| (4096..1 << 50).contains(bytes)).ok_or_else(wrong)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Size {
    /// Writes the shortest form that [`Size::parse`] reads.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = [(40, "t"), (30, "g"), (20, "m"), (10, "k")]
            .into_iter()
            .find(|(shift, _)| self.0.is_multiple_of(1 << shift));
        let (shift, letter) = unit.unwrap_or((0, ""));
        write!(out, "{}{letter}", self.0 >> shift)
    }
}

/// Parts of a job that run inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The job script, or salloc's shell.
    Script,
    /// The steps.
    Steps,
    /// Both.
    All,
}

impl Scope {
    const ALL: [(Self, &'static str); 3] = [(Self::Script, "script"), (Self::Steps, "steps"), (Self::All, "all")];

    /// Returns `script`, `steps` or `all`.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(scope, _)| *scope == self).map_or("all", |(_, word)| word)
    }

    pub(super) fn parse(text: &OsStr) -> Result<Self, Error> {
        let found = Self::ALL.iter().find(|(_, word)| text == *word);
        found.map(|(scope, _)| *scope).ok_or_else(|| Error::Scope(text.to_owned()))
    }
}

const YES: &[&str] = &["yes", "true", "on", "1"];
const NO: &[&str] = &["no", "false", "off", "0"];

/// Reads the value of an option that takes yes or no.
pub(super) fn yes_or_no(typed: &Typed<'_>) -> Result<bool, Error> {
    match typed.text {
        text if YES.iter().any(|word| text == *word) => Ok(true),
        text if NO.iter().any(|word| text == *word) => Ok(false),
        other => Err(Error::YesOrNo(typed.flag.to_owned(), other.to_owned())),
    }
}

/// Returns `yes` or `no`.
pub(super) fn yes_word(yes: &bool) -> OsString {
    if *yes { "yes" } else { "no" }.into()
}

/// Reads the value of `--container-gpu`.
pub(super) fn gpu(typed: &Typed<'_>) -> Result<bool, Error> {
    match typed.text {
        text if text == "auto" => Ok(true),
        text if text == "none" => Ok(false),
        other => Err(Error::Gpu(other.to_owned())),
    }
}

/// Returns `auto` or `none`.
pub(super) fn gpu_word(visible: &bool) -> OsString {
    if *visible { "auto" } else { "none" }.into()
}

/// Reads the value of `--container-overlay`.
pub(super) fn overlay(typed: &Typed<'_>) -> Result<PathBuf, Error> {
    let path = typed.directory.join(typed.text);
    if path.is_absolute() { Ok(path) } else { Err(Error::Overlay(typed.text.to_owned())) }
}

impl Settings {
    /// Checks typed options. Relative paths are taken from `directory`, an absolute path.
    pub fn parse(raw: &RawOptions, directory: &Path) -> Result<Self, Error> {
        if let Some(spec) = OPTIONS.iter().find(|spec| raw.values(spec.id).any(OsStr::is_empty)) {
            return Err(Error::Empty(raw.flag(spec.id)));
        }
        let mut settings = Self::default();
        for spec in Spec::of_fields() {
            for text in raw.values(spec.id) {
                (spec.field.read)(&mut settings, &Typed { text, directory, flag: &raw.flag(spec.id) })?;
            }
        }
        settings.checked()
    }

    /// Returns the key and the value of each option from which [`Settings::parse`] makes these settings again, in any
    /// directory.
    pub fn words(&self) -> impl Iterator<Item = (&'static str, OsString)> {
        Spec::of_fields().flat_map(|spec| (spec.field.words)(self).into_iter().map(|word| (spec.key, word)))
    }

    /// Returns the options that have a value.
    pub fn given(&self) -> Vec<Id> {
        Spec::of_fields().filter(|spec| !(spec.field.words)(self).is_empty()).map(|spec| spec.id).collect()
    }

    /// Completes these settings with the others, those of the job. Binds and variables of both count, with these last.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        let writes = self.given().iter().any(|id| WRITES.contains(id));
        Spec::of_fields()
            .filter(|spec| !writes || !WRITES.contains(&spec.id))
            .for_each(|spec| (spec.field.complete)(&mut self, other));
        self
    }

    /// Completes these settings with the site's. The site's variables are not among them: they are no option of the
    /// user, and have a place of their own ([`crate::env`], row 6).
    #[must_use]
    pub fn or_site(self, site: &Self) -> Self {
        self.or(&Self { env: Vec::new(), ..site.clone() })
    }

    /// Lowers sizes to the site's maximum, and describes each size that was lowered.
    pub fn limit(&mut self, limit: Size) -> Vec<String> {
        let mut notes = Vec::new();
        let mut cut = |what: &str, size: &mut Size| {
            if *size > limit {
                notes.push(format!("{what}{size}: more than the site gives, so it is {limit} (writable_limit)"));
                *size = limit;
            }
        };
        if let Some(Writable::Memory(Some(size))) = &mut self.writable {
            cut("--container-writable=", size);
        }
        for bind in &mut self.binds.list {
            if let BindSource::Memory(Some(size)) = &mut bind.source {
                cut(&format!("tmpfs:{}:", bind.target.display()), size);
            }
        }
        notes
    }

    /// Checks what is known only of all options together.
    pub(crate) fn checked(self) -> Result<Self, Error> {
        if self.binds.list.len() > MAX_BINDS {
            return Err(Error::TooManyBinds(self.binds.list.len()));
        }
        if matches!(self.writable, Some(Writable::Memory(_))) && self.overlay.is_some() {
            return Err(Error::WritableTwice);
        }
        Ok(self)
    }

    /// Returns the values that are set, except binds, under the keys of [`OPTIONS`], for records. Of the user's and the
    /// site's variables only the names appear, with a `=` where they are set: a value may be a secret.
    pub fn summary(&self, sites: &[Variable]) -> Vec<(&'static str, String)> {
        let of = |spec: &Spec| match spec.id {
            Id::Bind => None,
            Id::Env => {
                let names: Vec<String> = sites.iter().chain(&self.env).map(Variable::name_only).collect();
                Some(names.join(",")).filter(|names| !names.is_empty())
            }
            _ => (spec.field.words)(self).first().map(|word| word.to_string_lossy().into_owned()),
        };
        Spec::of_fields().filter_map(|spec| Some((spec.key, of(spec)?))).collect()
    }
}
