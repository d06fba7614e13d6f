//! Holds all settings that a user can ask for beside an image. An open setting has the site's value, or the default.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use super::bind::plain_absolute;
use super::escape::{escape, unescape};
use super::{Bind, BindSource, Binds, Digest, Error, MAX_BINDS, Mpi, Variable};
use crate::options::{Id, OPTIONS, RawOptions};

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
    /// Returns `no`, `yes` or a number of bytes.
    fn word(self) -> String {
        match self {
            Self::Off => "no".to_owned(),
            Self::Memory(None) => "yes".to_owned(),
            Self::Memory(Some(size)) => size.0.to_string(),
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

    fn parse(text: &OsStr) -> Result<Self, Error> {
        let found = Self::ALL.iter().find(|(_, word)| text == *word);
        found.map(|(scope, _)| *scope).ok_or_else(|| Error::Scope(text.to_owned()))
    }
}

const YES: &[&str] = &["yes", "true", "on", "1"];
const NO: &[&str] = &["no", "false", "off", "0"];

fn yes_or_no(flag: impl FnOnce() -> String, text: &OsStr) -> Result<bool, Error> {
    match text {
        text if YES.iter().any(|word| text == *word) => Ok(true),
        text if NO.iter().any(|word| text == *word) => Ok(false),
        other => Err(Error::YesOrNo(flag(), other.to_owned())),
    }
}

impl Settings {
    /// Checks typed options. Relative paths are taken from `directory`, an absolute path.
    pub fn parse(raw: &RawOptions, directory: &Path) -> Result<Self, Error> {
        if let Some(spec) = OPTIONS.iter().find(|spec| raw.values(spec.id).any(OsStr::is_empty)) {
            return Err(Error::Empty(raw.flag(spec.id)));
        }
        let flag = |id| raw.value(id).map(|text| yes_or_no(|| raw.flag(id), text)).transpose();
        let env: Vec<_> = raw.values(Id::Env).map(Variable::parse_list).collect::<Result<_, _>>()?;
        Self {
            binds: Binds::parse(raw.values(Id::Bind), directory)?,
            digest: raw.value(Id::Digest).map(Digest::parse).transpose()?,
            workdir: raw.value(Id::Workdir).map(|text| plain_absolute(Path::new(text))).transpose()?,
            home: flag(Id::Home)?,
            env: env.into_iter().flatten().collect(),
            clean_env: flag(Id::CleanEnv)?,
            writable: raw.value(Id::Writable).map(writable).transpose()?,
            overlay: raw.value(Id::Overlay).map(|text| overlay(text, directory)).transpose()?,
            entrypoint: flag(Id::Entrypoint)?,
            scope: raw.value(Id::Scope).map(Scope::parse).transpose()?,
            mpi: raw.value(Id::Mpi).map(Mpi::parse).transpose()?,
            gpu: raw.value(Id::Gpu).map(gpu).transpose()?,
        }
        .checked()
    }

    /// Returns the options that have a value.
    pub fn given(&self) -> Vec<Id> {
        let answered = [
            (Id::Bind, !self.binds.list.is_empty()),
            (Id::Digest, self.digest.is_some()),
            (Id::Workdir, self.workdir.is_some()),
            (Id::Home, self.home.is_some()),
            (Id::Env, !self.env.is_empty()),
            (Id::CleanEnv, self.clean_env.is_some()),
            (Id::Writable, self.writable.is_some()),
            (Id::Overlay, self.overlay.is_some()),
            (Id::Entrypoint, self.entrypoint.is_some()),
            (Id::Scope, self.scope.is_some()),
            (Id::Mpi, self.mpi.is_some()),
            (Id::Gpu, self.gpu.is_some()),
        ];
        answered.into_iter().filter(|(_, answered)| *answered).map(|(id, _)| id).collect()
    }

    /// Completes these settings with the others, those of the job. Binds and variables of both count, with these last.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        // Writing into memory and writing into a directory exclude each other.
        let answered = self.writable.is_some() || self.overlay.is_some();
        Self {
            binds: self.binds.after(other.binds),
            digest: self.digest.or(other.digest),
            workdir: self.workdir.or(other.workdir),
            home: self.home.or(other.home),
            env: other.env.into_iter().chain(self.env).collect(),
            clean_env: self.clean_env.or(other.clean_env),
            writable: if answered { self.writable } else { other.writable },
            overlay: if answered { self.overlay } else { other.overlay },
            entrypoint: self.entrypoint.or(other.entrypoint),
            scope: self.scope.or(other.scope),
            mpi: self.mpi.or(other.mpi),
            gpu: self.gpu.or(other.gpu),
        }
    }

    /// Completes these settings with the site's. The site's variables are not among them: they are no option of the
    /// user, and have a place of their own ([`crate::env`], row 6).
    #[must_use]
    pub fn or_site(self, site: &Self) -> Self {
        let site = Self { env: Vec::new(), ..site.clone() };
        self.or(site)
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

    pub(super) fn checked(self) -> Result<Self, Error> {
        if self.binds.list.len() > MAX_BINDS {
            return Err(Error::TooManyBinds(self.binds.list.len()));
        }
        if matches!(self.writable, Some(Writable::Memory(_))) && self.overlay.is_some() {
            return Err(Error::WritableTwice);
        }
        Ok(self)
    }

    /// Returns the fields of the request's form, each with a `;` in front.
    pub(super) fn fields(&self) -> String {
        let yes = |answer: bool| if answer { "yes" } else { "no" }.to_owned();
        let mut fields: Vec<String> = self.binds.list.iter().map(Bind::field).collect();
        let mut add = |key: &str, value: Option<String>| fields.extend(value.map(|value| format!("{key}={value}")));
        add("digest", self.digest.map(|digest| escape(OsStr::new(&digest.to_string()))));
        add("workdir", self.workdir.as_ref().map(|path| escape(path.as_os_str())));
        add("home", self.home.map(yes));
        self.env.iter().for_each(|variable| add("env", Some(escape(&variable.to_text()))));
        add("clean", self.clean_env.map(yes));
        add("writable", self.writable.map(Writable::word));
        add("overlay", self.overlay.as_ref().map(|path| escape(path.as_os_str())));
        add("entrypoint", self.entrypoint.map(yes));
        add("scope", self.scope.map(|scope| scope.word().to_owned()));
        add("mpi", self.mpi.as_ref().map(|mpi| mpi.word().to_owned()));
        add("gpu", self.gpu.map(gpu_word));
        fields.iter().fold(String::new(), |text, field| text + ";" + field)
    }

    /// Returns the values that are set, except binds, under the keys of [`OPTIONS`], for records. Of the user's and the
    /// site's variables only the names appear, with a `=` where they are set: a value may be a secret.
    pub fn summary(&self, sites: &[Variable]) -> Vec<(&'static str, String)> {
        let yes = |answer: bool| if answer { "yes" } else { "no" }.to_owned();
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let variables: Vec<String> = sites.iter().chain(&self.env).map(Variable::name_only).collect();
        let values = [
            (Id::Digest, self.digest.map(|digest| digest.to_string())),
            (Id::Workdir, self.workdir.as_ref().map(path)),
            (Id::Home, self.home.map(yes)),
            (Id::Env, Some(variables.join(",")).filter(|names| !names.is_empty())),
            (Id::CleanEnv, self.clean_env.map(yes)),
            (Id::Writable, self.writable.map(Writable::word)),
            (Id::Overlay, self.overlay.as_ref().map(path)),
            (Id::Entrypoint, self.entrypoint.map(yes)),
            (Id::Scope, self.scope.map(|scope| scope.word().to_owned())),
            (Id::Mpi, self.mpi.as_ref().map(|mpi| mpi.word().to_owned())),
            (Id::Gpu, self.gpu.map(gpu_word)),
        ];
        let key = |id| OPTIONS.iter().find(|spec| spec.id == id).map(|spec| spec.key);
        values.into_iter().filter_map(|(id, value)| Some((key(id)?, value?))).collect()
    }

    /// Takes one field of the request's form; false if it has another key, or is a repeated field.
    pub(super) fn take(&mut self, key: &str, value: &str) -> Result<bool, Error> {
        let flag = || match value {
            "yes" => Ok(Some(true)),
            "no" => Ok(Some(false)),
            _ => Err(Error::Garbled("neither yes nor no")),
        };
        match key {
            "bind" => self.binds.add(Bind::from_field(value)?)?,
            "tmpfs" => self.binds.add(Bind::from_tmpfs_field(value)?)?,
            "digest" if self.digest.is_none() => self.digest = Some(Digest::parse(&unescape(value)?)?),
            "workdir" if self.workdir.is_none() => {
                self.workdir = Some(plain_absolute(Path::new(&unescape(value)?))?);
            }
            "home" if self.home.is_none() => self.home = flag()?,
            "env" => self.env.push(Variable::parse(&unescape(value)?)?),
            "clean" if self.clean_env.is_none() => self.clean_env = flag()?,
            "writable" if self.writable.is_none() => self.writable = Some(writable(OsStr::new(value))?),
            "overlay" if self.overlay.is_none() => self.overlay = Some(overlay(&unescape(value)?, Path::new(""))?),
            "entrypoint" if self.entrypoint.is_none() => self.entrypoint = flag()?,
            "scope" if self.scope.is_none() => self.scope = Some(Scope::parse(OsStr::new(value))?),
            "mpi" if self.mpi.is_none() => self.mpi = Some(Mpi::parse(OsStr::new(value))?),
            "gpu" if self.gpu.is_none() => self.gpu = Some(gpu(OsStr::new(value))?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn writable(text: &OsStr) -> Result<Writable, Error> {
    match yes_or_no(String::new, text) {
        Ok(true) => Ok(Writable::Memory(None)),
        Ok(false) => Ok(Writable::Off),
        Err(_) => Size::parse(text).map(Some).map(Writable::Memory),
    }
}

fn gpu(text: &OsStr) -> Result<bool, Error> {
    match text {
        text if text == "auto" => Ok(true),
        text if text == "none" => Ok(false),
        other => Err(Error::Gpu(other.to_owned())),
    }
}

fn gpu_word(shown: bool) -> String {
    if shown { "auto" } else { "none" }.to_owned()
}

fn overlay(text: &OsStr, directory: &Path) -> Result<PathBuf, Error> {
    let path = directory.join(text);
    if text.is_empty() || !path.is_absolute() { Err(Error::Overlay(text.to_owned())) } else { Ok(path) }
}
