//! `coracle verify`: who has signed an image, and whether it is the one of a published list of hashes.
//!
//! [`look`] is for whoever else wants to know that. The bytes of images and keys are parsed in the [`sandbox`](crate::sandbox).
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use coracle::config;
use coracle::image::digest;
use coracle::report::{Kind, Refusal, clean};
use coracle::request::Digest;
use coracle::signature::{self, Keyring, Signer};
use coracle::sys::{Cgroups, Identity};
use nix::libc;
use serde_json::json;

use crate::command::{Verify, WRONG};
use crate::document;
use crate::verdict;

/// The keys that the site accepts: files whose names end in .asc, .gpg or .pem. `make install` sets `CORACLE_KEYS` for
/// another SYSCONFDIR than /etc.
pub const KEYS: &str = match option_env!("CORACLE_KEYS") {
    Some(path) => path,
    None => "/etc/coracle/keys",
};
/// The image is not as it should be.
const BAD: u8 = 1;
/// The longest list of hashes that is read, in bytes.
const MAX_SUMS: u64 = 16 << 20;
/// Time limit for starting and reading keys.
const PATIENCE: Duration = Duration::from_secs(60);
/// The slowest file system and processor that an image is read from, in bytes a second.
const SLOWEST: u64 = 10 << 20;

/// A file with keys, by the name that messages have for it.
#[derive(Debug)]
pub struct KeyFile {
    /// The path.
    pub path: PathBuf,
    /// Open for reading, at its start.
    pub file: File,
}

/// Weight of a missing signature by a known key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is refused.
    Signed,
    /// It has no signers; what contradicts its signatures is refused all the same.
    WhoeverSigned,
}

/// Findings about an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Who has signed all of it: at least one, if that was asked.
    pub signers: Vec<Signer>,
    /// The SHA-256 of the whole file, if that was asked.
    pub digest: Option<Digest>,
}

/// Time limit for looking at an image of `length` bytes, when nobody is in a hurry.
pub fn patience(length: u64) -> Duration {
    PATIENCE + Duration::from_secs(length / SLOWEST)
}

/// Who has signed `image` with one of `keys`, if there are such to be asked for, and its digest, if `hash`.
///
/// `image` has `length` bytes. `object` is what the user calls it. Root's child becomes `as_user`, or nobody.
pub fn look(
    as_user: Option<&Identity>,
    groups: Option<&Cgroups>,
    object: &str,
    (image, length): (&File, u64),
    asked: Option<(&[KeyFile], Need)>,
    hash: bool,
    limit: Duration,
) -> Result<Found, Refusal> {
    let keys = asked.map(|(keys, _)| keys);
    let now = SystemTime::now();
    let names: Vec<String> = keys.unwrap_or_default().iter().map(|key| key.path.display().to_string()).collect();
    let fds: Vec<BorrowedFd<'_>> = keys.unwrap_or_default().iter().map(|key| key.file.as_fd()).collect();
    let answer = verdict::of(as_user, groups, object, &[&[image.as_fd()], &fds[..]].concat(), limit, |files| {
        let (image, keys_read) = files.split_first().ok_or_else(|| verdict::garbled(object))?;
        let keys = asked.map(|(_, need)| (keys_read, names.as_slice(), need));
        inside(object, image, length, keys, hash, now)
    })?;
    read(&answer).ok_or_else(|| verdict::garbled(object))
}

/// The part that runs in the sandbox: digest NUL key NUL name NUL key NUL name …
fn inside(
    object: &str,
    image: &File,
    length: u64,
    keys: Option<(&[File], &[String], Need)>,
    hash: bool,
    now: SystemTime,
) -> Result<Vec<u8>, Refusal> {
    let mut fields = vec![String::new()];
    if let Some((files, names, need)) = keys {
        let keyring = Keyring::read(files).map_err(|(index, error)| {
            Refusal::new(Kind::Usage, names.get(index).map_or("", String::as_str), error.to_string())
        })?;
        let signers = match signature::verify(image, length, &keyring, now) {
            Err(error) if need == Need::WhoeverSigned && error.is_absence() => Vec::new(),
            signers => signers.map_err(|error| error.refuse(object))?,
        };
        fields.extend(signers.into_iter().flat_map(|signer| [signer.key, signer.name.unwrap_or_default()]));
    }
    if hash {
        let unreadable = |cause| Refusal::new(Kind::of_reading(&cause), object, format!("cannot be read: {cause}"));
        fields[0] = digest::compute(image).map_err(unreadable)?.to_string();
    }
    // A name is the text of whoever made the key.
    let fields: Vec<String> = fields.into_iter().map(|field| field.replace('\0', " ")).collect();
    Ok(fields.join("\0").into_bytes())
}

/// Reads the answer of a process that may have been taken over; nothing, if it makes no sense.
fn read(answer: &[u8]) -> Option<Found> {
    let mut fields = std::str::from_utf8(answer).ok()?.split('\0');
    let digest = fields.next().filter(|text| !text.is_empty());
    let digest = digest.map(|text| Digest::parse(OsStr::new(text))).transpose().ok()?;
    let mut signers = Vec::new();
    while let Some(key) = fields.next() {
        let name = clean(fields.next()?);
        let known = |character: char| character.is_ascii_alphanumeric() || ":+/".contains(character);
        if key.is_empty() || !key.chars().all(known) {
            return None;
        }
        signers.push(Signer { key: key.to_owned(), name: Some(name).filter(|name| !name.is_empty()) });
    }
    Some(Found { signers, digest })
}

/// The site's keys; none, if there is no such folder. All of it must be root's alone.
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
    // This looks at the folder, too, and at those above it.
    let open = |path: PathBuf| Ok(KeyFile { file: config::open_trusted(&path)?, path });
    paths.into_iter().map(open).collect::<Result<_, config::Error>>().map_err(Refusal::from)
}

/// Does what the command line says.
pub fn main(verify: &Verify) -> ExitCode {
    let found = check(verify);
    let object = verify.image.display().to_string();
    match &found {
        Err(refusal) if refusal.kind == Kind::Usage => {
            eprintln!("{refusal}");
            return ExitCode::from(WRONG);
        }
        Err(refusal) => eprintln!("{refusal}"),
        Ok(_) => {}
    }
    if verify.json {
        let signers = |found: &Found| {
            let signer = |signer: &Signer| json!({ "key": signer.key, "name": signer.name });
            found.signers.iter().map(signer).collect::<Vec<_>>()
        };
        let printed = document::print(json!({
            "image": object,
            "digest": found.as_ref().ok().and_then(|found| found.digest).map(|digest| digest.to_string()),
            "verdict": if found.is_ok() { "good" } else { "bad" },
            "signers": found.as_ref().map(signers).unwrap_or_default(),
            "error": found.as_ref().err().map(Refusal::line),
        }));
        if let Err(refusal) = printed {
            eprintln!("{refusal}");
            return ExitCode::from(BAD);
        }
    } else if let Ok(found) = &found {
        if found.signers.is_empty() && verify.sums.is_none() {
            println!("{}", clean(&format!("{object}: signed in parts, all of it by nobody alone")));
        }
        for signer in &found.signers {
            let name = signer.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
            println!("{}", clean(&format!("{object}: signed by {signer}{name}")));
        }
        if let (Some(digest), Some(sums)) = (found.digest, &verify.sums) {
            println!("{}", clean(&format!("{object}: {digest}, as {} has it", sums.display())));
        }
    }
    ExitCode::from(if found.is_ok() { 0 } else { BAD })
}

fn check(verify: &Verify) -> Result<Found, Refusal> {
    let object = verify.image.display().to_string();
    let wanted = verify.sums.as_deref().map(|sums| wanted_digest(sums, &verify.image)).transpose()?;
    let usage = |path: &Path, cause: io::Error| {
        Refusal::new(Kind::Usage, path.display().to_string(), format!("cannot be read: {cause}"))
    };
    let keys = match (verify.keys.as_slice(), &wanted) {
        // A list of hashes is good for any file; only a SIF has signatures.
        ([], Some(_)) => None,
        ([], None) => Some(site_keys(Path::new(KEYS))?),
        (paths, _) => {
            let key = |path: &PathBuf| {
                let file = open_regular(path).map_err(|cause| usage(path, cause))?;
                Ok(KeyFile { path: path.clone(), file })
            };
            Some(paths.iter().map(key).collect::<Result<Vec<_>, Refusal>>()?)
        }
    };
    let image = open_regular(&verify.image).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => Refusal::new(Kind::ImageMissing, &object, "no such file"),
        io::ErrorKind::InvalidInput => Refusal::new(Kind::ImageType, &object, "no regular file"),
        _ => Refusal::new(Kind::of_reading(&cause), &object, format!("cannot be read: {cause}")),
    })?;
    let length =
        image.metadata().map_err(|cause| Refusal::new(Kind::of_reading(&cause), &object, cause.to_string()))?;
    let asked = keys.as_deref().map(|keys| (keys, Need::Signed));
    let found = look(None, None, &object, (&image, length.len()), asked, wanted.is_some(), patience(length.len()));
    let found = found.map_err(|refusal| match refusal.kind {
        // The site's own keys, of which the command line says nothing.
        Kind::Usage if verify.keys.is_empty() => Refusal { kind: Kind::Config, ..refusal },
        _ => refusal,
    })?;
    match (found.digest, wanted) {
        (Some(digest), Some(wanted)) if digest != wanted => {
            Err(Refusal::new(Kind::Digest, &object, format!("its SHA-256 is {digest}, wanted is {wanted}")))
        }
        _ => Ok(found),
    }
}

/// Opens a file, and never waits for whoever writes into a FIFO.
fn open_regular(path: &Path) -> io::Result<File> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file"));
    }
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Digest of the image in a list of hashes: the line with its name, or the only one.
fn wanted_digest(sums: &Path, image: &Path) -> Result<Digest, Refusal> {
    let refuse = |cause: String| Refusal::new(Kind::Usage, sums.display().to_string(), cause);
    let mut bytes = Vec::new();
    let read = open_regular(sums).and_then(|file| file.take(MAX_SUMS + 1).read_to_end(&mut bytes));
    read.map_err(|cause| refuse(format!("cannot be read: {cause}")))?;
    if bytes.len() as u64 > MAX_SUMS {
        return Err(refuse(format!("longer than {MAX_SUMS} bytes")));
    }
    let lines: Vec<(Digest, PathBuf)> = bytes.split(|byte| *byte == b'\n').filter_map(sum).collect();
    let named: Vec<&Digest> =
        lines.iter().filter(|(_, name)| name.file_name() == image.file_name()).map(|(digest, _)| digest).collect();
    match (named.as_slice(), lines.as_slice()) {
        ([first, rest @ ..], _) if rest.iter().all(|digest| digest == first) => Ok(**first),
        ([_, ..], _) => Err(refuse("has different hashes for this name".into())),
        ([], [(digest, _)]) => Ok(*digest),
        ([], []) => Err(refuse("has no line of a SHA-256 and a name, as sha256sum writes it".into())),
        ([], _) => {
            let name = image.file_name().unwrap_or_default();
            Err(refuse(format!("has no line for {}", name.display())))
        }
    }
}

/// One line of sha256sum(1): 64 digits, then two spaces, or a space and an asterisk, and the name.
fn sum(line: &[u8]) -> Option<(Digest, PathBuf)> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (digits, rest) = line.split_at_checked(64)?;
    let digest = Digest::parse(OsStr::from_bytes(&[b"sha256:", digits].concat())).ok()?;
    let name = match rest {
        [] => &[][..],
        [b' ', b' ' | b'*', name @ ..] if !name.is_empty() => name,
        _ => return None,
    };
    Some((digest, PathBuf::from(std::ffi::OsString::from_vec(name.to_vec()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1111111111111111111111111111111111111111111111111111111111111111";
    const TWO: &str = "2222222222222222222222222222222222222222222222222222222222222222";

    fn wanted(text: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("SUMS");
        std::fs::write(&path, text).unwrap();
        let found = wanted_digest(&path, Path::new("/images/a.sif"));
        found.map(|digest| digest.to_string()[7..8].to_owned()).map_err(|refusal| refusal.cause)
    }

    #[test]
    fn the_line_of_the_image_counts() {
        assert_eq!(wanted(&format!("{ONE}  b.sif\n{TWO}  a.sif\n")), Ok("2".into()));
        assert_eq!(wanted(&format!("{ONE}  b.sif\n{TWO} */srv/a.sif\r\n")), Ok("2".into()));
        assert_eq!(wanted(&format!("# made today\n{TWO}  a.sif\n{TWO}  old/a.sif\n")), Ok("2".into()));
    }

    #[test]
    fn the_only_line_counts_whatever_its_name() {
        assert_eq!(wanted(&format!("{ONE}  renamed.sif")), Ok("1".into()));
        assert_eq!(wanted(ONE), Ok("1".into()));
    }

    #[test]
    fn what_says_nothing_of_the_image_is_refused() {
        assert_eq!(wanted(&format!("{ONE}  b.sif\n{TWO}  c.sif\n")).unwrap_err(), "has no line for a.sif");
        assert_eq!(wanted(&format!("{ONE}  a.sif\n{TWO}  a.sif\n")).unwrap_err(), "has different hashes for this name");
        for empty in ["", "\n", &ONE[1..], &format!("{ONE} a.sif"), &format!("{ONE}0  a.sif"), "SHA256 (a.sif) = 1"] {
            assert!(wanted(empty).unwrap_err().starts_with("has no line of a SHA-256"), "{empty:?}");
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        let key = "A".repeat(40);
        let good = read(format!("\0{key}\0Some Body").as_bytes()).unwrap();
        assert_eq!(good.signers, [Signer { key, name: Some("Some Body".into()) }]);
        for wrong in [&b"x"[..], b"sha256:1", b"\0\0", b"\0AB", b"\0A\x1b\0", b"\xff"] {
            assert!(read(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_folder_of_keys_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(site_keys(&folder.path().join("none")).unwrap().is_empty());
        assert!(site_keys(folder.path()).unwrap().is_empty());
        std::fs::write(folder.path().join("README"), "no key").unwrap();
        assert!(site_keys(folder.path()).unwrap().is_empty());
        std::fs::write(folder.path().join("key.pem"), "no key").unwrap();
        // The folder for temporary files is everybody's.
        let refusal = site_keys(folder.path()).unwrap_err();
        assert_eq!(refusal.kind, Kind::Config);
        assert!(refusal.cause.contains("writable by others") || refusal.cause.contains("must belong to root"));
    }
}
