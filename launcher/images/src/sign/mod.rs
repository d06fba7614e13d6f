//! Runs `coracle sign`: signs each group of objects of a SIF.
//!
//! The image is copied, and the copy takes its name when it is completely on disk. Processes that run the old file keep
//! it, and a power failure leaves no incomplete signature in the only copy. Signatures of others stay as they are.
#![forbid(unsafe_code)]

mod gnupg;
mod key;
mod passphrase;
mod write;

use std::path::Path;
use std::process::ExitCode;

use coracle::report::{Kind, Refusal, clean};
use coracle_orders::Sign;
use coracle_verify::signature::{self, Statement};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::output;
use crate::show::subject::Subject;
use gnupg::Gnupg;
use key::SecretKey;

/// Signature that becomes an object of the image.
#[derive(Debug)]
pub struct Signature {
    /// Group that it signs.
    pub group: u32,
    /// Clear-signed message.
    pub message: Vec<u8>,
    /// Fingerprint of the key.
    pub fingerprint: [u8; 20],
}

/// Signing key: of GnuPG or of a file.
enum Signer {
    Key(Box<SecretKey>),
    Gnupg(Gnupg),
}

impl Signer {
    fn sign(&self, statement: &Statement) -> Result<Signature, Refusal> {
        match self {
            Self::Key(key) => key.sign(statement),
            Self::Gnupg(gnupg) => gnupg.sign(statement),
        }
    }
}

/// Signs the image.
pub fn main(given: &Sign) -> Result<ExitCode, Refusal> {
    let typed = given.image.display().to_string();
    let subject = Subject::open(&given.image, OFlag::O_RDWR)?;
    let _lock = lock(&subject)?;
    let (_, objects) = subject.objects("has no room for a signature")?;
    let groups: std::collections::BTreeSet<u32> = objects.iter().filter_map(|object| object.group()).collect();
    write::check_room(&subject, groups.len())?;
    let signer = match &given.key {
        Some(path) => Signer::Key(Box::new(SecretKey::read(path, given.passphrase_file.as_deref())?)),
        None => Signer::Gnupg(Gnupg::new(given.user.as_deref())),
    };
    let statements = signature::statements(&subject.file, subject.length()).map_err(|error| match error {
        signature::Error::Empty => {
            Refusal::new(Kind::ImageFormat, &typed, "none of its objects is in a group, so there is nothing to sign")
        }
        error => error.refuse(&typed),
    })?;
    let signatures =
        statements.iter().map(|statement| signer.sign(statement)).collect::<Result<Vec<Signature>, Refusal>>()?;
    // A link stays: its target gets the signature.
    let place = given.image.canonicalize();
    let place = place.map_err(|error| Refusal::new(Kind::ImageMissing, &typed, error.to_string()))?;
    write::write(&subject, &place, &signatures)?;
    for Signature { group, fingerprint, .. } in &signatures {
        let line = format!("{typed}: group {group} signed by {}", key::hex(fingerprint));
        output::print(format!("{}\n", clean(&line)).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Locks the image: of two processes that sign it at a time, the second would replace the signature of the first.
fn lock(subject: &Subject) -> Result<Option<Flock<std::fs::File>>, Refusal> {
    let refuse = |cause: String| Refusal::new(Kind::System, &subject.typed, cause);
    let file = subject.file.try_clone().map_err(|error| refuse(error.to_string()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Err(refuse("somebody else is signing it, or has locked it".into())),
        // Lustre and NFS may have no locks. Before the replacement, the file is checked for being the same.
        Err((_, Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENOLCK)) => Ok(None),
        Err((_, errno)) => Err(refuse(format!("flock(): {}", errno.desc()))),
    }
}

/// Contents of a small file, such as a key.
fn read_small(path: &Path, most: u64) -> Result<Vec<u8>, Refusal> {
    use std::io::Read;
    let refuse = |cause: String| Refusal::new(Kind::Usage, path.display().to_string(), cause);
    let file = std::fs::File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => refuse("no such file".into()),
        std::io::ErrorKind::PermissionDenied => refuse("you may not read it".into()),
        _ => refuse(error.to_string()),
    })?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| refuse(error.to_string()))?;
    if bytes.len() as u64 > most {
        return Err(refuse(format!("longer than {most} bytes")));
    }
    Ok(bytes)
}
