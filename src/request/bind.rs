//! What of the node should be visible inside.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::escape::{escape, unescape};
use super::{Error, Size};

/// One folder or file that is to be visible inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Where it comes from.
    pub source: BindSource,
    /// The absolute path inside, without `.` and `..`.
    pub target: PathBuf,
    /// Whether it can be written to.
    pub access: Access,
}

/// Where a bind comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindSource {
    /// An absolute path of the node.
    Node(PathBuf),
    /// An empty folder in memory, with its limit.
    Memory(Option<Size>),
}

/// Whether a mount can be written to.
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

/// The source that stands for an empty folder in memory. A folder of that name is `./tmpfs`.
const TMPFS: &str = "tmpfs";

impl Bind {
    /// Reads `SRC[:DST[:ro|rw]]` or `tmpfs:DST[:SIZE]`; a relative source is taken from `directory`.
    pub fn parse(text: &OsStr, directory: &Path) -> Result<Self, Error> {
        let wrong = || Error::BindSyntax(text.to_owned());
        let parts: Vec<&OsStr> = text.as_bytes().split(|byte| *byte == b':').map(OsStr::from_bytes).collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            return Err(wrong());
        }
        if parts[0] == TMPFS {
            let target = parts.get(1).ok_or_else(wrong)?;
            let size = parts.get(2).map(|size| Size::parse(size)).transpose()?;
            return Self::checked(BindSource::Memory(size), target.into(), Access::ReadWrite);
        }
        let source = directory.join(parts[0]);
        let access = parts.get(2).map_or(Some(Access::ReadWrite), |word| Access::from_word(word)).ok_or_else(wrong)?;
        let target = match parts.get(1) {
            Some(target) => PathBuf::from(target),
            // What is named relative to the working directory appears where it is on the node.
            None => plain(&source).ok_or_else(|| Error::BindTarget(source.clone()))?,
        };
        Self::checked(BindSource::Node(source), target, access)
    }

    /// The only way to a bind: a source of the node absolute, `target` plain and not the system's.
    pub fn checked(source: BindSource, target: PathBuf, access: Access) -> Result<Self, Error> {
        match source {
            BindSource::Node(path) if !path.is_absolute() => Err(Error::BindSyntax(path.into_os_string())),
            source => Ok(Self { source, target: inside(&target)?, access }),
        }
    }

    /// `bind=SRC:DST:rw` or `tmpfs=DST:SIZE`, for the request's form.
    pub(super) fn field(&self) -> String {
        let target = escape(self.target.as_os_str());
        match &self.source {
            BindSource::Node(source) => format!("bind={}:{target}:{}", escape(source.as_os_str()), self.access.word()),
            BindSource::Memory(size) => {
                format!("tmpfs={target}:{}", size.map(|size| size.0.to_string()).unwrap_or_default())
            }
        }
    }

    /// Reads a `bind` field's value with all the checks of [`Bind::parse`].
    pub(super) fn from_field(value: &str) -> Result<Self, Error> {
        let mut parts = value.split(':');
        let (Some(source), Some(target), Some(access), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::Garbled("a bind without three parts"));
        };
        let access = Access::from_word(OsStr::new(access)).ok_or(Error::Garbled("a bind's access"))?;
        Self::checked(BindSource::Node(unescape(source)?.into()), unescape(target)?.into(), access)
    }

    /// Reads a `tmpfs` field's value.
    pub(super) fn from_tmpfs_field(value: &str) -> Result<Self, Error> {
        let (target, size) = value.split_once(':').ok_or(Error::Garbled("a tmpfs without two parts"))?;
        let size = Some(size).filter(|size| !size.is_empty()).map(|size| Size::parse(OsStr::new(size))).transpose()?;
        Self::checked(BindSource::Memory(size), unescape(target)?.into(), Access::ReadWrite)
    }
}

/// Where Coracle keeps what is its own inside: the Slurm commands, and what they need of the node.
pub const PRIVATE: &str = "/run/coracle";

/// A path inside the container: absolute, no `.` or `..`, one slash between names, not below the system's own.
pub fn inside(path: &Path) -> Result<PathBuf, Error> {
    let path = plain_absolute(path)?;
    let reserved = ["/proc", "/sys", "/dev", PRIVATE].iter().any(|top| path.starts_with(top));
    if reserved || path == Path::new("/") {
        return Err(Error::ReservedTarget(path));
    }
    Ok(path)
}

/// An absolute path without `.` and `..`, one slash between names.
pub(super) fn plain_absolute(path: &Path) -> Result<PathBuf, Error> {
    let dotted = path.as_os_str().as_bytes().split(|byte| *byte == b'/').any(|name| name == b"." || name == b"..");
    if !path.is_absolute() || dotted {
        return Err(Error::BindTarget(path.to_owned()));
    }
    Ok(path.components().collect())
}

/// `path` without `.`; nothing, if it has a `..`, whose meaning depends on links.
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
