//! What a user asked for, checked: the image, the binds, the digest.
//!
//! A request is made at the submit side and travels to the nodes in `SLURM_CORACLE_REQUEST`, in the job's own
//! environment, which its user can set to anything. So reading it there checks everything again, and there is
//! no way to a [`Request`] that leaves a check out.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use crate::options::RawOptions;
use crate::report::{Kind, Refusal};

/// The longest request in the environment, in bytes. Slurm limits the environment as a whole; this leaves room.
pub const MAX_LEN: usize = 32 * 1024;
/// The most binds of one request.
pub const MAX_BINDS: usize = 128;
/// The prefix that says which form the rest has.
const FORM: &str = "1:";

/// What a container is to be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The image.
    pub image: ImageRef,
    /// The user's own binds, in the order given.
    pub binds: Vec<Bind>,
    /// The digest that the image file must have.
    pub digest: Option<Digest>,
}

/// Where the image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    /// The absolute path; whether it names an image is seen on the node.
    pub path: PathBuf,
    /// What the user typed, for messages.
    pub typed: OsString,
}

/// One folder or file of the node that is to be visible inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The absolute path on the node.
    pub source: PathBuf,
    /// The absolute path inside, without `.` and `..`.
    pub target: PathBuf,
    /// Whether it can be written to.
    pub access: Access,
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

/// A SHA-256 (FIPS 180-4) of an image file.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let wrong = || Error::Digest(text.to_owned());
        let hex = text.as_bytes().strip_prefix(b"sha256:").ok_or_else(wrong)?;
        if hex.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks(2)) {
            *byte = hex_byte(pair).ok_or_else(wrong)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// What is wrong with what was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// `--container=` with nothing behind it.
    NoImage,
    /// A scheme such as `docker://` that no node resolves.
    Scheme(OsString),
    /// An option that needs an image, and none was asked for.
    WithoutImage(String),
    /// Not `sha256:` and 64 hexadecimal digits.
    Digest(OsString),
    /// `IMAGE@sha256:…` and `--container-digest` name different ones.
    TwoDigests(OsString),
    /// Not `SRC[:DST[:ro|rw]]`.
    BindSyntax(OsString),
    /// A path inside the container that is not absolute, or has `.` or `..` in it.
    BindTarget(PathBuf),
    /// A path inside the container that belongs to the system.
    ReservedTarget(PathBuf),
    /// More than [`MAX_BINDS`].
    TooManyBinds(usize),
    /// Longer than [`MAX_LEN`].
    TooLong(usize),
    /// `SLURM_CORACLE_REQUEST` is not something that the submit side writes.
    Garbled(&'static str),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let lossy = |text: &OsStr| text.to_string_lossy().into_owned();
        match error {
            Error::NoImage => Self::new(Kind::Usage, "--container", "the name of an image is missing"),
            Error::Scheme(text) => Self::new(Kind::Usage, lossy(&text), "images are not fetched when a job starts")
                .hint("make a file of it first, for instance: apptainer pull img.sif docker://…"),
            Error::WithoutImage(flag) => Self::new(Kind::Usage, flag, "no image was asked for")
                .hint("add --container=IMAGE, or leave this option out"),
            Error::Digest(text) => {
                Self::new(Kind::Usage, lossy(&text), "not a digest: sha256: and 64 hexadecimal digits are wanted")
            }
            Error::TwoDigests(text) => {
                Self::new(Kind::Usage, lossy(&text), "the digest behind @ and the one of --container-digest differ")
            }
            Error::BindSyntax(text) => Self::new(
                Kind::Usage,
                lossy(&text),
                "not a bind: SRC[:DST[:ro|rw]] is wanted, several with commas between",
            ),
            Error::BindTarget(path) => Self::new(
                Kind::Usage,
                path.display().to_string(),
                "a path inside the container must be absolute and have no . or .. in it",
            ),
            Error::ReservedTarget(path) => {
                Self::new(Kind::Bind, path.display().to_string(), "nothing may be bound over /, /proc, /sys and /dev")
            }
            Error::TooManyBinds(count) => {
                Self::new(Kind::Usage, "--container-bind", format!("{count} binds, at most {MAX_BINDS} are possible"))
            }
            Error::TooLong(length) => Self::new(
                Kind::Usage,
                "--container",
                format!("the options take {length} bytes, at most {MAX_LEN} are possible"),
            ),
            Error::Garbled(what) => Self::new(Kind::Usage, "SLURM_CORACLE_REQUEST", format!("cannot be read: {what}"))
                .hint("this variable is made by srun, sbatch and salloc; do not set it"),
        }
    }
}

/// What an image option says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Run in this container.
    Container(Request),
    /// `--container=none`: run on the node itself, whatever was inherited.
    Host,
}

impl Request {
    /// Checks what was typed. Relative paths are taken from `directory`, an absolute path.
    pub fn parse(raw: &RawOptions, image: &OsStr, directory: &Path) -> Result<Choice, Error> {
        if image == "none" {
            return Ok(Choice::Host);
        }
        let (name, pinned) = split_digest(image)?;
        let asked = raw.digest.as_deref().map(Digest::parse).transpose()?;
        let digest = match (pinned, asked) {
            (Some(pinned), Some(asked)) if pinned != asked => return Err(Error::TwoDigests(image.to_owned())),
            (pinned, asked) => pinned.or(asked),
        };
        let binds = raw
            .binds
            .iter()
            .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
            .map(|text| Bind::parse(OsStr::from_bytes(text), directory))
            .collect::<Result<Vec<_>, _>>()?;
        Self { image: ImageRef::parse(name, directory)?, binds, digest }.checked().map(Choice::Container)
    }

    /// Adds what was typed beside an image that was inherited.
    pub fn amend(mut self, raw: &RawOptions, directory: &Path) -> Result<Self, Error> {
        if !raw.binds.is_empty() || raw.digest.is_some() {
            let path = self.image.path.clone().into_os_string();
            let Choice::Container(fresh) = Self::parse(raw, &path, directory)? else { return Ok(self) };
            if !raw.binds.is_empty() {
                self.binds = fresh.binds;
            }
            self.digest = fresh.digest.or(self.digest);
        }
        Ok(self)
    }

    fn checked(self) -> Result<Self, Error> {
        if self.binds.len() > MAX_BINDS {
            return Err(Error::TooManyBinds(self.binds.len()));
        }
        let length = self.to_env().len();
        if length > MAX_LEN {
            return Err(Error::TooLong(length));
        }
        Ok(self)
    }

    /// The form in `SLURM_CORACLE_REQUEST`: `1:image=…;as=…;bind=SRC:DST:rw;digest=…`, printable ASCII.
    pub fn to_env(&self) -> String {
        let mut text = format!("{FORM}image={};as={}", escape(self.image.path.as_os_str()), escape(&self.image.typed));
        for bind in &self.binds {
            let (source, target) = (escape(bind.source.as_os_str()), escape(bind.target.as_os_str()));
            text.push_str(&format!(";bind={source}:{target}:{}", bind.access.word()));
        }
        if let Some(digest) = self.digest {
            text.push_str(&format!(";digest={}", escape(OsStr::new(&digest.to_string()))));
        }
        text
    }

    /// Reads [`Request::to_env`]'s form with all the checks of [`Request::parse`].
    pub fn from_env(text: &OsStr) -> Result<Self, Error> {
        if text.len() > MAX_LEN {
            return Err(Error::Garbled("longer than 32768 bytes"));
        }
        let text = text.to_str().ok_or(Error::Garbled("not ASCII"))?;
        let fields = text.strip_prefix(FORM).ok_or(Error::Garbled("not of form 1"))?;
        let (mut image, mut typed, mut binds, mut digest) = (None, None, Vec::new(), None);
        for field in fields.split(';') {
            let (key, value) = field.split_once('=').ok_or(Error::Garbled("a field without a value"))?;
            match key {
                "image" if image.is_none() => image = Some(unescape(value)?),
                "as" if typed.is_none() => typed = Some(unescape(value)?),
                "digest" if digest.is_none() => digest = Some(Digest::parse(&unescape(value)?)?),
                "bind" => {
                    let mut parts = value.split(':');
                    let (Some(source), Some(target), Some(access), None) =
                        (parts.next(), parts.next(), parts.next(), parts.next())
                    else {
                        return Err(Error::Garbled("a bind without three parts"));
                    };
                    let access = Access::from_word(OsStr::new(access)).ok_or(Error::Garbled("a bind's access"))?;
                    binds.push(Bind::checked(unescape(source)?.into(), unescape(target)?.into(), access)?);
                }
                _ => return Err(Error::Garbled("an unknown or repeated field")),
            }
        }
        let path = PathBuf::from(image.ok_or(Error::Garbled("no image"))?);
        if !path.is_absolute() {
            return Err(Error::Garbled("an image path that is not absolute"));
        }
        let typed = typed.unwrap_or_else(|| path.clone().into_os_string());
        Self { image: ImageRef { path, typed }, binds, digest }.checked()
    }
}

impl ImageRef {
    fn parse(name: &OsStr, directory: &Path) -> Result<Self, Error> {
        let bytes = name.as_bytes();
        if bytes.is_empty() {
            return Err(Error::NoImage);
        }
        let scheme = bytes.windows(3).position(|window| window == b"://");
        if scheme.is_some_and(|at| !bytes[..at].contains(&b'/')) || bytes.starts_with(b"store:") {
            return Err(Error::Scheme(name.to_owned()));
        }
        // Without `.` in it; `..` stays, since what it means depends on links.
        Ok(Self { path: directory.join(name).components().collect(), typed: name.to_owned() })
    }

    /// The name without folders and ending, for `CORACLE_NAME`.
    pub fn stem(&self) -> &OsStr {
        self.path.file_stem().unwrap_or(self.path.as_os_str())
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.typed.to_string_lossy())
    }
}

impl Bind {
    fn parse(text: &OsStr, directory: &Path) -> Result<Self, Error> {
        let wrong = || Error::BindSyntax(text.to_owned());
        let parts: Vec<&OsStr> = text.as_bytes().split(|byte| *byte == b':').map(OsStr::from_bytes).collect();
        if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
            return Err(wrong());
        }
        let source = directory.join(parts[0]);
        let access = parts.get(2).map_or(Some(Access::ReadWrite), |word| Access::from_word(word)).ok_or_else(wrong)?;
        let target = match parts.get(1) {
            Some(target) => PathBuf::from(target),
            // What is named relative to the working directory appears where it is on the node.
            None => plain(&source).ok_or_else(|| Error::BindTarget(source.clone()))?,
        };
        Self::checked(source, target, access)
    }

    /// The only way to a bind: `source` absolute, `target` plain and not the system's.
    pub fn checked(source: PathBuf, target: PathBuf, access: Access) -> Result<Self, Error> {
        if !source.is_absolute() {
            return Err(Error::BindSyntax(source.into_os_string()));
        }
        let target = inside(&target)?;
        Ok(Self { source, target, access })
    }
}

/// A path inside the container: absolute, no `.` or `..`, one slash between names, not below the system's own.
pub fn inside(path: &Path) -> Result<PathBuf, Error> {
    let dotted = path.as_os_str().as_bytes().split(|byte| *byte == b'/').any(|name| name == b"." || name == b"..");
    if !path.is_absolute() || dotted {
        return Err(Error::BindTarget(path.to_owned()));
    }
    let path: PathBuf = path.components().collect();
    let reserved = ["/proc", "/sys", "/dev"].iter().any(|top| path.starts_with(top));
    if reserved || path == Path::new("/") {
        return Err(Error::ReservedTarget(path));
    }
    Ok(path)
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

/// `IMAGE@sha256:HEX` in its two parts.
fn split_digest(image: &OsStr) -> Result<(&OsStr, Option<Digest>), Error> {
    let bytes = image.as_bytes();
    match bytes.windows(8).rposition(|window| window == b"@sha256:") {
        Some(at) => Ok((OsStr::from_bytes(&bytes[..at]), Some(Digest::parse(OsStr::from_bytes(&bytes[at + 1..]))?))),
        None => Ok((image, None)),
    }
}

/// Percent-encodes (RFC 3986, 2.1) all but letters, digits and `/._@+~-`, so that `:;=` can separate.
fn escape(text: &OsStr) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'@' | b'+' | b'~' | b'-' => {
                out.push(char::from(*byte));
            }
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

fn unescape(text: &str) -> Result<OsString, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (pair, tail) = rest.split_at_checked(2).ok_or(Error::Garbled("a cut escape"))?;
        match hex_byte(pair).ok_or(Error::Garbled("a wrong escape"))? {
            0 => return Err(Error::Garbled("a NUL byte")),
            byte => bytes.push(byte),
        }
        rest = tail;
    }
    Ok(OsString::from_vec(bytes))
}

fn hex_byte(pair: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match pair {
        [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
