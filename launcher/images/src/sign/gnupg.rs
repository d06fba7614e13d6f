//! Signs with GnuPG: the user's keyring, and the agent, which asks for passphrases and uses security tokens.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use coracle::report::{Kind, Refusal};
use coracle_verify::signature::{Keyring, Statement};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Signature;

/// Limit of gpg's output, in bytes.
const MOST: u64 = 1 << 20;
/// Start of a status line of gpg (doc/DETAILS of GnuPG).
const CREATED: &str = "[GNUPG:] SIG_CREATED ";

/// Key of GnuPG that signs.
pub struct Gnupg {
    user: Option<String>,
}

impl Gnupg {
    /// Selects the key: `user` as for gpg's --local-user, or gpg's default key.
    pub fn new(user: Option<&str>) -> Self {
        Self { user: user.map(str::to_owned) }
    }

    /// Signs a statement with gpg.
    pub fn sign(&self, statement: &Statement) -> Result<Signature, Refusal> {
        let refuse = |cause: &str| Refusal::new(Kind::Signature, "gpg", cause);
        let system = |error: std::io::Error| Refusal::new(Kind::System, "gpg", error.to_string());
        let mut status = memory(b"")?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), status.as_raw_fd());
        let mut words: Vec<OsString> =
            ["--status-file", &path, "--digest-algo", "SHA256", "--output", "-"].map(OsString::from).into();
        if let Some(user) = &self.user {
            words.extend(["--local-user".into(), user.into()]);
        }
        words.push("--clear-sign".into());
        let text = format!("{}\n", statement.text);
        let message = run(&words, text.as_bytes(), self.user.as_deref())?;
        let mut said = String::new();
        status.rewind().map_err(system)?;
        status.take(MOST).read_to_string(&mut said).map_err(system)?;
        let line = said.lines().find_map(|line| line.strip_prefix(CREATED));
        let part = line.and_then(|line| line.split(' ').nth(5));
        let part = part.filter(|part| part.len() == 40).ok_or_else(|| refuse("it does not say who has signed"))?;
        let listed = run(&["--with-colons", "--list-keys", part].map(OsString::from), b"", None)?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let whole = listed.lines().find_map(|line| line.strip_prefix("fpr:")).and_then(|line| line.split(':').nth(8));
        let whole = whole.ok_or_else(|| refuse("it does not show the key that has signed"))?;
        let fingerprint = bytes_of(whole)
            .ok_or_else(|| refuse("the key has no fingerprint of 20 bytes, and a SIF has no room for another"))?;
        let mut keys = Keyring::default();
        keys.add(&run(&["--export", whole].map(OsString::from), b"", None)?)
            .map_err(|error| refuse(&format!("the public key {whole}: {error}")))?;
        statement
            .is_signed_by(&message, &fingerprint, &keys, SystemTime::now())
            .map_err(|fault| refuse(&format!("what key {whole} signs would not be accepted: {fault}")))?;
        Ok(Signature { group: statement.group, message, fingerprint })
    }
}

/// Runs gpg and returns its output.
fn run(words: &[OsString], input: &[u8], user: Option<&str>) -> Result<Vec<u8>, Refusal> {
    let mut command = Command::new("gpg");
    command.args(["--batch", "--no-tty"]).args(words);
    // Not through a pipe: two processes that each fill a pipe wait for each other for ever.
    command.stdin(memory(input)?).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Terminal on which gpg's agent may ask for a passphrase.
    if std::env::var_os("GPG_TTY").is_none()
        && let Ok(terminal) = nix::unistd::ttyname(std::io::stdin())
    {
        command.env("GPG_TTY", terminal);
    }
    let output = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Refusal::new(Kind::System, "gpg", "not found")
            .hint("it is in the package gnupg; with --key FILE it is not needed"),
        _ => Refusal::new(Kind::System, "gpg", error.to_string()),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let last = last.map_or_else(|| output.status.to_string(), |line| line.trim_start_matches("gpg: ").to_owned());
    let object = user.map_or_else(|| "gpg".to_owned(), |user| format!("gpg --local-user {user}"));
    Err(Refusal::new(Kind::Signature, object, last).hint("gpg --list-secret-keys lists the keys that can sign"))
}

/// Makes a file in memory with these bytes, open at its start.
fn memory(bytes: &[u8]) -> Result<File, Refusal> {
    let failed = |error: std::io::Error| Refusal::new(Kind::System, "memfd", error.to_string());
    let file = memfd_create("gpg", MFdFlags::MFD_CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let mut file = File::from(file);
    file.write_all(bytes).and_then(|()| file.rewind()).map_err(failed)?;
    Ok(file)
}

fn bytes_of(digits: &str) -> Option<[u8; 20]> {
    let digits = digits.as_bytes();
    let number = |digit: u8| char::from(digit).to_digit(16).and_then(|number| u8::try_from(number).ok());
    let bytes = digits.chunks_exact(2).map(|pair| Some(number(pair[0])? << 4 | number(pair[1])?));
    bytes.collect::<Option<Vec<u8>>>().filter(|_| digits.len() == 40)?.try_into().ok()
}
