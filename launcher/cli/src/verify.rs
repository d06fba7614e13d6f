//! Runs `coracle verify`: checks the signers of an image, and its entry in a published list of digests.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coracle::report::{Kind, Refusal, clean};
use coracle::request::Digest;
use coracle_launcher::children::verify::{Found, KEYS, KeyFile, Need, Signer, look, patience, site_keys};
use nix::libc;
use serde_json::json;

use crate::arguments::Verify;
use crate::document;

/// Exit status for an image that fails the check.
const BAD: u8 = 1;
/// Limit of a list of digests, in bytes.
const MAX_SUMS: u64 = 16 << 20;

/// Verifies the image as the command line says.
pub fn main(verify: &Verify) -> Result<ExitCode, Refusal> {
    let found = match check(verify) {
        Err(refusal) if refusal.kind == Kind::Usage => return Err(refusal),
        found => found,
    };
    if let Err(refusal) = &found {
        eprintln!("{refusal}");
    }
    let object = verify.image.display().to_string();
    if verify.json {
        let signers = |found: &Found| {
            let signer = |signer: &Signer| json!({ "key": signer.key, "name": signer.name });
            found.signers.iter().map(signer).collect::<Vec<_>>()
        };
        document::print(json!({
            "image": object,
            "digest": found.as_ref().ok().and_then(|found| found.digest).map(|digest| digest.to_string()),
            "verdict": if found.is_ok() { "good" } else { "bad" },
            "signers": found.as_ref().map(signers).unwrap_or_default(),
            "error": found.as_ref().err().map(Refusal::line),
        }))?;
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
    Ok(ExitCode::from(if found.is_ok() { 0 } else { BAD }))
}

fn check(verify: &Verify) -> Result<Found, Refusal> {
    let object = verify.image.display().to_string();
    let wanted = verify.sums.as_deref().map(|sums| wanted_digest(sums, &verify.image)).transpose()?;
    let usage = |path: &Path, cause: io::Error| {
        Refusal::new(Kind::Usage, path.display().to_string(), format!("cannot be read: {cause}"))
    };
    let keys = match (verify.keys.as_slice(), &wanted) {
        // A list of digests can hold any file; only a SIF has signatures.
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
        // The site's own keys: the command line names none.
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

/// Opens a file without waiting for the writer of a FIFO.
fn open_regular(path: &Path) -> io::Result<File> {
    if !path.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file"));
    }
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Digest of the image in a list: that of the line with its name, or of the only line.
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
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("SUMS");
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
}
