//! Holds a user's checked request: the image, or the step to join, and all settings beside it.
//!
//! The submit host makes a request, and `SLURM_CORACLE_REQUEST` carries it to the nodes in the job's environment. The
//! user can set that variable to any value. So the node checks everything again, and no [`Request`] exists that has
//! skipped a check.
#![forbid(unsafe_code)]

mod error;
pub mod escape;

pub use crate::options::{
    Access, Bind, BindSource, Binds, Digest, Mpi, PRIVATE, Scope, Settings, Size, StoredName, Variable, Writable,
    inside,
};
pub use error::Error;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::options::{self, RawOptions, STORE_PREFIX, Spec, split_digest};
use escape::{escape_value, unescape_value};

/// Maximum length of a request in the environment, in bytes. Slurm limits the environment as a whole; this leaves
/// space.
pub const MAX_LEN: usize = 32 * 1024;
/// Word for the node itself in place of an image.
pub const NODE: &str = "none";
/// Number of the form that requests have in the environment, in front of a colon. It grows when an older node would
/// misread a request. An older node refuses an unknown field in any case.
const FORM: &str = if cfg!(feature = "variant") { "99" } else { "2" };

/// Request for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Container that tasks enter.
    pub what: What,
    /// True if Slurm's own commands must work inside, as in an interactive shell. They always work in a job script.
    pub commands: bool,
    /// True if the step inherits the request from its job.
    pub inherited: bool,
    /// Settings beside the image.
    pub settings: Settings,
}

/// Container that tasks enter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A new container of this image.
    Image(ImageRef),
    /// The container of a step of the same job that runs on the node.
    Step(StepRef),
}

/// Place of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    /// Absolute path; the node checks that it names an image. A bare word gives the file of that name in the working
    /// directory, though it may mean an image in the site's store.
    pub path: PathBuf,
    /// Text as the user typed it, for messages.
    pub typed: OsString,
}

/// A running step of the same job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRef {
    /// Its id as in slurm.h; without one, the job script or else the lowest step that has a container.
    pub id: Option<u32>,
}

/// Meaning of an image option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Run in this container.
    Container(Box<Request>),
    /// `--container=none`: run on the node itself, whatever the job's request is.
    Host,
}

impl Choice {
    /// Returns the form in the environment: that of [`Request::to_env`], or `none`.
    pub fn to_env(&self) -> String {
        match self {
            Self::Container(request) => request.to_env(),
            Self::Host => NODE.to_owned(),
        }
    }

    /// Reads the form in the environment.
    pub fn from_env(text: &OsStr) -> Result<Self, Error> {
        if text == NODE {
            return Ok(Self::Host);
        }
        Request::from_env(text).map(Box::new).map(Self::Container)
    }
}

impl Request {
    /// Checks typed options. Relative paths are taken from `directory`, an absolute path.
    pub fn parse(raw: &RawOptions, image: &OsStr, directory: &Path) -> Result<Choice, Error> {
        if image == NODE {
            return Ok(Choice::Host);
        }
        let mut settings = Settings::parse(raw, directory)?;
        if let Some(step) = StepRef::parse(image)? {
            return Self::fresh(What::Step(step), settings).checked().map(Box::new).map(Choice::Container);
        }
        let (name, pinned) = split_digest(image)?;
        match (pinned, settings.digest) {
            (Some(pinned), Some(asked)) if pinned != asked => return Err(Error::TwoDigests(image.to_owned())),
            (pinned, asked) => settings.digest = pinned.or(asked),
        }
        let what = What::Image(ImageRef::parse(name, directory)?);
        Self::fresh(what, settings).checked().map(Box::new).map(Choice::Container)
    }

    fn fresh(what: What, settings: Settings) -> Self {
        Self { what, commands: false, inherited: false, settings }
    }

    /// Adds options that were typed beside an inherited image.
    pub fn amend(self, raw: &RawOptions, directory: &Path) -> Result<Self, Error> {
        Self { settings: Settings::parse(raw, directory)?.or(&self.settings).checked()?, ..self }.checked()
    }

    /// Returns the image, unless a step is to be joined.
    pub fn image(&self) -> Option<&ImageRef> {
        match &self.what {
            What::Image(image) => Some(image),
            What::Step(_) => None,
        }
    }

    /// Checks each request at its end, however it was made.
    fn checked(mut self) -> Result<Self, Error> {
        // There is nothing that comes before a request.
        self.settings.binds.afresh = false;
        if let What::Step(_) = self.what {
            let given = self.settings.given();
            if Spec::of_fields().any(|spec| spec.fixed && given.contains(&spec.id)) {
                return Err(Error::MadeAlready);
            }
        }
        let length = self.to_env().len();
        if length > MAX_LEN {
            return Err(Error::TooLong(length));
        }
        Ok(self)
    }

    /// Returns the form in `SLURM_CORACLE_REQUEST`: `2:image=…;as=…;bind=SRC:DST:rw;digest=…`, printable ASCII. Behind
    /// the image are the options, by key, with their values as typed and escaped.
    pub fn to_env(&self) -> String {
        let mut fields = match &self.what {
            What::Image(image) => vec![("image", image.path.clone().into()), ("as", image.typed.clone())],
            What::Step(step) => vec![("step", step.word().into())],
        };
        let marks = [("commands", self.commands), ("inherited", self.inherited)];
        fields.extend(marks.into_iter().filter(|(_, marked)| *marked).map(|(key, _)| (key, "yes".into())));
        fields.extend(self.settings.words());
        let fields: Vec<String> =
            fields.iter().map(|(key, value)| [key, "=", escape_value(value).as_str()].concat()).collect();
        [FORM, ":", &fields.join(";")].concat()
    }

    /// Reads the form of [`Request::to_env`] with all the checks of [`Request::parse`].
    pub fn from_env(text: &OsStr) -> Result<Self, Error> {
        if text.len() > MAX_LEN {
            return Err(Error::Garbled("longer than 32768 bytes"));
        }
        let text = text.to_str().ok_or(Error::Garbled("not ASCII"))?;
        let (form, fields) = text.split_once(':').ok_or(Error::Garbled("no form"))?;
        if form != FORM {
            let is_number = (1..=4).contains(&form.len()) && form.bytes().all(|byte| byte.is_ascii_digit());
            return Err(if is_number { Error::OtherForm(form.to_owned()) } else { Error::Garbled("no form") });
        }
        let (mut image, mut typed, mut step, mut commands, mut inherited) = (None, None, None, false, false);
        let mut raw = RawOptions::default();
        for field in fields.split(';') {
            let (key, value) = field.split_once('=').ok_or(Error::Garbled("a field without a value"))?;
            let value = unescape_value(value)?;
            match (key, Spec::of_key(key)) {
                ("image", _) if image.is_none() => image = Some(value),
                ("as", _) if typed.is_none() => typed = Some(value),
                ("step", _) if step.is_none() => {
                    step = Some(value.to_str().and_then(StepRef::from_word).ok_or(Error::Garbled("a step"))?);
                }
                ("commands", _) if value == "yes" => commands = true,
                ("inherited", _) if value == "yes" => inherited = true,
                (_, Some(spec)) if spec.repeats || raw.value(spec.id).is_none() => raw.take(spec, value),
                _ => return Err(Error::Garbled("an unknown or repeated field")),
            }
        }
        // An empty directory leaves a relative path relative, and so refused.
        let settings = Settings::parse(&raw, Path::new(""))?;
        let what = match (image.map(PathBuf::from), step) {
            (Some(_), Some(_)) => return Err(Error::Garbled("an image and a step")),
            (None, Some(step)) => What::Step(step),
            (None, None) => return Err(Error::Garbled("no image")),
            (Some(path), None) if !path.is_absolute() => {
                return Err(Error::Garbled("an image path that is not absolute"));
            }
            (Some(path), None) => {
                let typed = typed.unwrap_or_else(|| path.clone().into_os_string());
                What::Image(ImageRef { path, typed })
            }
        };
        Self { what, commands, inherited, settings }.checked()
    }
}

impl fmt::Display for What {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(image) => image.fmt(out),
            Self::Step(step) => step.fmt(out),
        }
    }
}

impl ImageRef {
    fn parse(name: &OsStr, directory: &Path) -> Result<Self, Error> {
        let bytes = name.as_bytes();
        if bytes.is_empty() {
            return Err(Error::NoImage);
        }
        let scheme = bytes.windows(3).position(|window| window == b"://");
        if scheme.is_some_and(|at| !bytes[..at].contains(&b'/')) {
            return Err(Error::Scheme(name.to_owned()));
        }
        if let Some(stored) = bytes.strip_prefix(STORE_PREFIX.as_bytes()) {
            StoredName::parse(OsStr::from_bytes(stored)).map_err(|_| options::Error::StoredName(name.to_owned()))?;
        }
        // Removes `.`; `..` stays, since its meaning depends on links.
        Ok(Self { path: directory.join(name).components().collect(), typed: name.to_owned() })
    }

    /// Returns the path, unless only the store is meant (`store:NAME`).
    pub fn file(&self) -> Option<&Path> {
        (!self.typed.as_bytes().starts_with(STORE_PREFIX.as_bytes())).then_some(&self.path)
    }

    /// Returns the image of a registry that a name such as `ubuntu:22.04` may stand for in other programs.
    pub fn of_registry(&self) -> Option<String> {
        let name = self.typed.to_str().filter(|name| !name.starts_with(['/', '.']))?;
        let (repository, tag) = name.rsplit_once(':')?;
        let plain = |text: &str, also: &str| {
            !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || also.contains(letter))
        };
        (plain(repository, "._-/:") && plain(tag, "._-")).then(|| format!("docker://{name}"))
    }

    /// Returns the image in the site's store that is meant if there is no such [file](Self::file).
    pub fn stored(&self) -> Option<StoredName> {
        let bytes = self.typed.as_bytes();
        let name = bytes.strip_prefix(STORE_PREFIX.as_bytes()).unwrap_or(bytes);
        StoredName::parse(OsStr::from_bytes(name)).ok()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.typed.to_string_lossy())
    }
}

/// The step that is a job script (slurm.h, SLURM_BATCH_SCRIPT).
pub const BATCH_STEP: u32 = 0xffff_fffb;
/// The step that is the shell of salloc (slurm.h, SLURM_INTERACTIVE_STEP).
const INTERACTIVE_STEP: u32 = 0xffff_fffa;
/// Steps that run a script: they have names in place of numbers.
const SCRIPTS: [(&str, u32); 2] = [("batch", BATCH_STEP), ("interactive", INTERACTIVE_STEP)];
/// The largest id of an ordinary step (slurm.h, SLURM_MAX_NORMAL_STEP_ID).
const MAX_STEP: u32 = 0xffff_fff0;

/// Returns a step id as Slurm shows it: a number, `batch`, `interactive`.
pub fn step_name(id: u32) -> String {
    SCRIPTS.iter().find(|(_, known)| *known == id).map_or_else(|| id.to_string(), |(name, _)| (*name).to_owned())
}

/// Returns the id of the step with this [`step_name`].
pub fn step_id(name: &str) -> Option<u32> {
    let script = SCRIPTS.iter().find(|(known, _)| *known == name).map(|(_, id)| *id);
    script.or_else(|| name.parse().ok().filter(|id| *id <= MAX_STEP))
}

/// True if a step is a job script or the shell of salloc.
pub fn is_script(step: u32) -> bool {
    SCRIPTS.iter().any(|(_, id)| *id == step)
}

impl StepRef {
    /// Reads `step` or `step:ID`; `None` if it is the name of an image.
    fn parse(text: &OsStr) -> Result<Option<Self>, Error> {
        match text.to_str().and_then(|text| text.strip_prefix("step")) {
            Some("") => Ok(Some(Self { id: None })),
            Some(rest) if rest.starts_with(':') => match Self::from_word(&rest[1..]) {
                Some(Self { id: Some(id) }) => Ok(Some(Self { id: Some(id) })),
                _ => Err(Error::Step(text.to_owned())),
            },
            _ => Ok(None),
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        match word {
            "any" => Some(Self { id: None }),
            _ => step_id(word).map(|id| Self { id: Some(id) }),
        }
    }

    /// Returns a number, `batch`, `interactive` or `any`.
    fn word(self) -> String {
        self.id.map_or_else(|| "any".to_owned(), step_name)
    }
}

impl fmt::Display for StepRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            None => out.write_str("step"),
            Some(id) => write!(out, "step:{}", step_name(id)),
        }
    }
}

#[cfg(test)]
mod tests;
