//! Asks `coracle-verify` about the bytes of an image.
//!
//! One `coracle-verify` is started for each question. It parses the image and the keys in a sandboxed, unprivileged
//! child process that can only compute.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coracle::report::{Kind, Refusal, clean};
use coracle::request::Digest;
use coracle::sys::{self, Cgroups, Channel, Identity};
use serde::{Deserialize, Serialize};

use super::ask::{self, Failure};
use crate::config;
use crate::place;

/// Directory of the keys that the site accepts: files whose names end in .asc, .gpg or .pem. `make install` sets
/// `CORACLE_KEYS` if SYSCONFDIR is not /etc.
pub const KEYS: &str = match option_env!("CORACLE_KEYS") {
    Some(path) => path,
    None => "/etc/coracle/keys",
};
/// Time limit for starting and reading keys.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lowest read and hash rate to allow for, in bytes per second.
const SLOWEST: u64 = 10 << 20;
/// Time that the program has, beyond the limit of its own child process, to report that the limit was reached.
const GRACE: Duration = Duration::from_secs(5);
/// Limit on the text about an image's structure, in bytes.
const MAX_STRUCTURE: usize = 64 * 1024;

/// A file with keys.
#[derive(Debug)]
pub struct KeyFile {
    /// Path, for messages.
    pub path: PathBuf,
    /// Open for reading, at its start.
    pub file: File,
}

/// Effect of a missing signature by an accepted key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Need {
    /// The image is refused.
    Signed,
    /// The image has no signers. An image that contradicts its signatures is still refused.
    WhoeverSigned,
}

/// Signer of an image. Its text form is that of keys in coracle.yaml.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Signer {
    /// The key: an OpenPGP fingerprint in upper-case hexadecimal digits, or `SHA256:` and the base64 digest of a PEM
    /// key, as `ssh-keygen -l` prints it and Apptainer writes it into signatures.
    pub key: String,
    /// The user id of an OpenPGP key: a statement of the key's maker that is not verified.
    pub name: Option<String>,
}

impl std::fmt::Display for Signer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.key)
    }
}

/// Findings about an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Signers of all of the image; at least one, if a signature was required.
    pub signers: Vec<Signer>,
    /// SHA-256 of the whole file, if it was requested.
    pub digest: Option<Digest>,
}

/// Question to `coracle-verify`. The image and the key files follow it, one message each.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// Name of the image in messages.
    pub object: String,
    /// Length of the image, in bytes.
    pub length: u64,
    /// Ids of the child process, if not those of an unprivileged user: uid, gid and groups.
    pub user: Option<(u32, u32, Vec<u32>)>,
    /// Time limit in milliseconds.
    pub milliseconds: u64,
    /// Names of the key files.
    pub keys: Vec<String>,
    /// Part of the image that is read.
    pub look: Look,
}

/// Part of an image that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Look {
    /// First bytes, which must be those of an image.
    Format,
    /// All metadata of the file systems.
    Structure,
    /// Signatures by one of the keys, if `need` is set, and the digest.
    Signatures {
        /// Effect of a missing signature; nothing if signatures are not checked.
        need: Option<Need>,
        /// True if the SHA-256 of the file is requested.
        digest: bool,
    },
}

/// Answer of `coracle-verify`, and of its child process.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Signers of all of the image.
    pub signers: Vec<Signer>,
    /// Digest, as text.
    pub digest: Option<String>,
    /// File systems, as text.
    pub structure: Option<String>,
}

impl Reply {
    /// Validates the answer of a process that may be compromised; nothing if it is invalid.
    pub fn checked(self) -> Option<Self> {
        let known = |character: char| character.is_ascii_alphanumeric() || ":+/".contains(character);
        let key = |signer: &Signer| !signer.key.is_empty() && signer.key.chars().all(known);
        let digest = |text: &String| Digest::parse(OsStr::new(text)).is_ok_and(|digest| digest.to_string() == *text);
        let sound = self.signers.iter().all(key)
            && self.digest.as_ref().is_none_or(digest)
            && self.structure.as_ref().is_none_or(|text| text.len() <= MAX_STRUCTURE);
        let name = |signer: Signer| Signer {
            name: signer.name.map(|name| clean(&name)).filter(|name| !name.is_empty()),
            ..signer
        };
        sound.then(|| Self {
            signers: self.signers.into_iter().map(name).collect(),
            structure: self.structure.map(|text| clean(&text)),
            ..self
        })
    }
}

/// Time limit for reading an image of `length` bytes when no step waits for it.
pub fn patience(length: u64) -> Duration {
    PATIENCE + Duration::from_secs(length / SLOWEST)
}

/// Finds the signers of `image` among `keys`, if `asked` is set, and its digest, if `digest` is true.
///
/// `image` has `length` bytes. `object` is the user's name for it. Root's child process becomes `as_user`, or an
/// unprivileged user.
pub fn look(
    as_user: Option<&Identity>,
    groups: Option<&Cgroups>,
    object: &str,
    (image, length): (&File, u64),
    asked: Option<(&[KeyFile], Need)>,
    digest: bool,
    limit: Duration,
) -> Result<Found, Refusal> {
    let (keys, need) = asked.map_or((&[][..], None), |(keys, need)| (keys, Some(need)));
    let question = Question {
        object: object.to_owned(),
        length,
        user: as_user.map(|user| (user.uid, user.gid, user.groups.clone())),
        milliseconds: milliseconds(limit),
        keys: keys.iter().map(|key| key.path.display().to_string()).collect(),
        look: Look::Signatures { need, digest },
    };
    let reply = ask_verifier(&question, groups, image, keys, limit)?;
    let digest = reply.digest.map(|text| Digest::parse(OsStr::new(&text))).transpose();
    Ok(Found { signers: reply.signers, digest: digest.map_err(|_| ask::garbled(object))? })
}

/// Checks that the first bytes of a file are those of an image, within `limit`.
pub fn look_at_format(object: &str, image: &File, limit: Duration) -> Result<(), Refusal> {
    look_at(Look::Format, object, image, limit).map(drop)
}

/// Reads all metadata of an image, and returns a text about its file systems.
pub fn look_at_structure(object: &str, image: &File, limit: Duration) -> Result<String, Refusal> {
    look_at(Look::Structure, object, image, limit)?.structure.ok_or_else(|| ask::garbled(object))
}

fn look_at(look: Look, object: &str, image: &File, limit: Duration) -> Result<Reply, Refusal> {
    let (object, milliseconds) = (object.to_owned(), milliseconds(limit));
    let question = Question { object, length: 0, user: None, milliseconds, keys: Vec::new(), look };
    ask_verifier(&question, None, image, &[], limit)
}

fn milliseconds(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

/// A child process that is killed and waited for when its owner is dropped.
struct Verifier(Child);

impl Drop for Verifier {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask_verifier(
    question: &Question,
    groups: Option<&Cgroups>,
    image: &File,
    keys: &[KeyFile],
    limit: Duration,
) -> Result<Reply, Refusal> {
    let object = question.object.as_str();
    let system = |error: sys::Error| Refusal::system(object, &error);
    let deadline = Instant::now() + limit + GRACE;
    let (channel, theirs) = Channel::pair().map_err(system)?;
    let program = place::verifier();
    let started =
        Command::new(&program).env_clear().current_dir("/").stdin(theirs.into_stdio()).stdout(Stdio::null()).spawn();
    let child = Verifier(started.map_err(|error| {
        Refusal::new(Kind::System, program.display().to_string(), error.to_string())
            .hint("it is installed with coracle: make install")
    })?);
    // The child process of `coracle-verify`, which does the work, inherits the groups.
    groups.map_or(Ok(()), |groups| groups.put_into_job(child.0.id())).map_err(system)?;
    let died = || Refusal::new(Kind::Internal, object, "the process that looks at it has died");
    let failed = |failure| match failure {
        Failure::Refused(refusal) => refusal,
        Failure::Late => Refusal::new(Kind::Timeout, object, format!("took longer than {} s", limit.as_secs_f64())),
        Failure::Ended => died(),
        Failure::Garbled => ask::garbled(object),
        Failure::System(error) => system(error),
    };
    ask::send(&channel, question, &[image.as_fd()], deadline).map_err(failed)?;
    for key in keys {
        channel.send(b"key", &[key.file.as_fd()], deadline).map_err(|_| died())?;
    }
    ask::decode(channel.receive(deadline)).map(|reply| reply.found).map_err(failed)
}

/// The site's keys; none if the directory `folder` does not exist. Only root may be able to write the directory and its
/// files.
pub fn site_keys(folder: &Path) -> Result<Vec<KeyFile>, Refusal> {
    let failed =
        |cause: io::Error| Refusal::new(Kind::Config, folder.display().to_string(), format!("cannot be read: {cause}"));
    let entries = match folder.read_dir() {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|end| ["asc", "gpg", "pem"].iter().any(|known| end == *known)) {
            paths.push(path);
        }
    }
    paths.sort();
    // This also checks the directory and its parent directories.
    let open = |path: PathBuf| Ok(KeyFile { file: config::open_trusted(&path)?, path });
    paths.into_iter().map(open).collect::<Result<_, config::Error>>().map_err(Refusal::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        let key = "A".repeat(40);
        let signer = |key: &str, name: &str| Signer { key: key.to_owned(), name: Some(name.to_owned()) };
        let reply = |signer: Signer| Reply { signers: vec![signer], ..Reply::default() };
        assert_eq!(reply(signer(&key, "Some Body")).checked(), Some(reply(signer(&key, "Some Body"))));
        let cleaned = reply(signer(&key, "\x1b[2J")).checked().unwrap();
        assert!(!cleaned.signers[0].name.as_ref().unwrap().contains('\x1b'));
        for wrong in ["", "A\x1b", "A B", "A;"] {
            assert_eq!(reply(signer(wrong, "n")).checked(), None, "{wrong:?}");
        }
        for wrong in ["x", "sha256:1", "SHA256:", ""] {
            assert_eq!(Reply { digest: Some(wrong.to_owned()), ..Reply::default() }.checked(), None, "{wrong:?}");
        }
    }
}
