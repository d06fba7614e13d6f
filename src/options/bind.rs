//! Reads and checks binds: the parts of the node that are visible inside.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::settings::MAX_BINDS;
use super::{Error, Size, list};

/// One directory or file that is to be visible inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Origin of the bind.
    pub source: BindSource,
    /// The absolute path inside, without `.` and `..`.
    pub target: PathBuf,
    /// Access that the mount gives.
    pub access: Access,
}

/// Origin of a bind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindSource {
    /// An absolute path of the node.
    Node(PathBuf),
    /// An empty directory in memory, with its limit.
    Memory(Option<Size>),
}

/// Access that a mount gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    ReadOnly,
    /// Read and written, as far as the user may.
    ReadWrite,
}

impl Access {
    /// `ro` or `rw`.
    pub fn word(self) -> &'static str {
        match self {
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
        }
    }

    fn from_word(word: &OsStr) -> Option<Self> {
        [Self::ReadOnly, Self::ReadWrite].into_iter().find(|access| word == access.word())
    }
}

/// The source that stands for an empty directory in memory. A directory of that name is `./tmpfs`.
const TMPFS: &str = "tmpfs";

/// Item of a list that stands for no binds: it drops those in front of it and those of the job. A file of that name is
/// `./none`.
const NONE: &str = "none";

/// Bytes of a name that have a backslash in front.
const SPECIAL: &[u8] = b":,";

/// The binds of one command, or of a job and a step of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binds {
    /// True if the binds of the job do not count.
    pub afresh: bool,
    /// Binds in the order given; no two have the same target.
    pub list: Vec<Bind>,
}

impl Binds {
    /// Reads lists such as `/a:/b:ro,none,tmpfs:/c`. Skips empty items.
    pub fn parse<'a>(lists: impl IntoIterator<Item = &'a OsStr>, directory: &Path) -> Result<Self, Error> {
        let mut binds = Self::default();
        lists.into_iter().try_for_each(|list| binds.read(list, directory))?;
        Ok(binds)
    }

    /// Reads one more list.
    pub(super) fn read(&mut self, list: &OsStr, directory: &Path) -> Result<(), Error> {
        for item in Self::items(list) {
            if item == NONE {
                *self = Self { afresh: true, list: Vec::new() };
            } else {
                self.add(Bind::parse(&item, directory)?)?;
            }
        }
        Ok(())
    }

    /// Returns lists with one item each, as [`Binds::parse`] reads them.
    pub(super) fn words(&self) -> Vec<OsString> {
        let none = self.afresh.then(|| NONE.into());
        none.into_iter().chain(self.list.iter().map(Bind::word)).collect()
    }

    /// Returns the items of a list, as [`Bind::parse`] reads them.
    pub fn items(text: &OsStr) -> impl Iterator<Item = OsString> + use<> {
        list::split(text, b',').into_iter().filter(|item| !item.is_empty())
    }

    /// Adds a bind. A repeated bind counts once; another bind with the same target is an error.
    fn add(&mut self, bind: Bind) -> Result<(), Error> {
        match self.list.iter().find(|known| known.target == bind.target) {
            Some(known) if *known == bind => {}
            Some(_) => return Err(Error::SameTarget(bind.target)),
            // Each bind is compared with all before it: a list of thousands would keep slurmstepd busy.
            None if self.list.len() >= MAX_BINDS => return Err(Error::TooManyBinds(self.list.len() + 1)),
            None => self.list.push(bind),
        }
        Ok(())
    }

    /// Merges these with the `earlier` ones. Where both have the same target, these count.
    pub(super) fn after(self, earlier: Self) -> Self {
        if self.afresh {
            return self;
        }
        let kept = earlier.list.into_iter().filter(|bind| self.list.iter().all(|later| later.target != bind.target));
        Self { afresh: earlier.afresh, list: kept.chain(self.list.iter().cloned()).collect() }
    }
}

impl Bind {
    /// Reads `SRC[:DST[:ro|rw]]` or `tmpfs:DST[:SIZE]`; a relative source is taken from `directory`. A backslash makes a
    /// colon or a comma part of a name.
    pub fn parse(text: &OsStr, directory: &Path) -> Result<Self, Error> {
        let wrong = || Error::BindSyntax(text.to_owned());
        let parts: Vec<OsString> = list::split(text, b':').iter().map(|part| list::unescaped(part, SPECIAL)).collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            return Err(wrong());
        }
        if parts[0] == TMPFS {
            let target = parts.get(1).ok_or_else(wrong)?;
            let size = parts.get(2).map(|size| Size::parse(size)).transpose()?;
            return Self::checked(BindSource::Memory(size), target.into(), Access::ReadWrite);
        }
        let source = directory.join(&parts[0]);
        let access = parts.get(2).map_or(Some(Access::ReadWrite), |word| Access::from_word(word)).ok_or_else(wrong)?;
        let target = match parts.get(1) {
            Some(target) => PathBuf::from(target),
            // A path relative to the working directory has the same path inside as on the node.
            None => plain(&source).ok_or_else(|| Error::BindTarget(source.clone()))?,
        };
        Self::checked(BindSource::Node(source), target, access)
    }

    /// Makes a bind; no other function does. A source of the node is absolute, `target` is plain and not the system's.
    pub fn checked(source: BindSource, target: PathBuf, access: Access) -> Result<Self, Error> {
        match source {
            BindSource::Node(path) if !path.is_absolute() => Err(Error::BindSyntax(path.into_os_string())),
            source => Ok(Self { source, target: inside(&target)?, access }),
        }
    }

    /// Returns `SRC:DST:ro`, `SRC:DST:rw`, `tmpfs:DST` or `tmpfs:DST:SIZE`, as [`Bind::parse`] reads it.
    fn word(&self) -> OsString {
        let (source, last) = match &self.source {
            BindSource::Node(source) => (source.as_os_str(), Some(self.access.word().to_owned())),
            BindSource::Memory(size) => (OsStr::new(TMPFS), size.map(|size| size.0.to_string())),
        };
        let mut word = list::escaped(source, SPECIAL);
        word.push(":");
        word.push(list::escaped(self.target.as_os_str(), SPECIAL));
        last.iter().for_each(|last| word.push([":", last].concat()));
        word
    }
}

/// Directory of Coracle's own files inside: the Slurm commands, and the files of the node that they need.
pub const PRIVATE: &str = "/run/coracle";

/// Checks a path inside the container: absolute, no `.` or `..`, one slash between names, not below the system's own.
pub fn inside(path: &Path) -> Result<PathBuf, Error> {
    let path = plain_absolute(path)?;
    let reserved = ["/proc", "/sys", "/dev", PRIVATE].iter().any(|top| path.starts_with(top));
    if reserved || path == Path::new("/") {
        return Err(Error::ReservedTarget(path));
    }
    Ok(path)
}

/// Returns an absolute path without `.` and `..`, one slash between names.
pub(super) fn plain_absolute(path: &Path) -> Result<PathBuf, Error> {
    let dotted = path.as_os_str().as_bytes().split(|byte| *byte == b'/').any(|name| name == b"." || name == b"..");
    if !path.is_absolute() || dotted {
        return Err(Error::BindTarget(path.to_owned()));
    }
    Ok(path.components().collect())
}

/// Returns `path` without `.`; `None` if it has a `..`, whose meaning depends on links.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => return None,
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    Some(out)
}
