//! Signs with a secret OpenPGP key from a file.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::SystemTime;

use coracle::report::{Kind, Refusal};
use coracle_verify::signature::{Keyring, SignatureFault, Statement};
use pgp::composed::{ArmorOptions, CleartextSignedMessage, PublicOrSecret, SignedSecretKey, SignedSecretSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails, KeyVersion, Password, SigningKey, Timestamp};

use super::{Signature, passphrase, read_small};

/// Limit of a key file, in bytes.
const MOST: u64 = 1 << 20;

/// Unlocked key that can sign.
pub struct SecretKey {
    typed: String,
    key: SignedSecretKey,
    fingerprint: [u8; 20],
    /// Public part of the key.
    keys: Keyring,
}

impl SecretKey {
    /// Reads the key of a file, armoured or binary, and asks for its passphrase if it has one.
    pub fn read(path: &Path, passphrase_file: Option<&Path>) -> Result<Self, Refusal> {
        let typed = path.display().to_string();
        let refuse = |cause: String| Refusal::new(Kind::Usage, &typed, cause);
        let bytes = read_small(path, MOST)?;
        let mut key = only(&bytes).map_err(refuse)?;
        if key.version() != KeyVersion::V4 {
            return Err(refuse("a key of another version than 4, whose fingerprint a SIF has no room for".into()));
        }
        let fingerprint = <[u8; 20]>::try_from(key.fingerprint().as_bytes());
        let fingerprint = fingerprint.map_err(|_| refuse("a key without a fingerprint of 20 bytes".into()))?;
        let mut keys = Keyring::default();
        key.to_public_key()
            .to_bytes()
            .map_err(|error| error.to_string())
            .and_then(|bytes| keys.add(&bytes).map_err(|error| error.to_string()))
            .map_err(|error| refuse(format!("it has no public part: {error}")))?;
        open(&mut key, &typed, passphrase_file)?;
        Ok(Self { typed, key, fingerprint, keys })
    }

    /// Subkeys for signing, the newest first, as in GnuPG.
    fn signing_subkeys(&self) -> impl Iterator<Item = &SignedSecretSubKey> {
        let signs = |one: &&SignedSecretSubKey| one.signatures.iter().any(|signature| signature.key_flags().sign());
        let mut subkeys: Vec<&SignedSecretSubKey> = self.key.secret_subkeys.iter().filter(signs).collect();
        subkeys.sort_by_key(|one| std::cmp::Reverse(one.key.created_at().as_secs()));
        subkeys.into_iter()
    }

    /// Signs with the first part of the key whose signature will be accepted.
    pub fn sign(&self, statement: &Statement) -> Result<Signature, Refusal> {
        let mut why = None;
        let mut tried: Vec<Result<Vec<u8>, String>> = Vec::new();
        tried.extend(self.signing_subkeys().map(|one| message(&one.key, &statement.text)));
        tried.push(message(&self.key.primary_key, &statement.text));
        for made in tried {
            let refused = match made {
                Err(cause) => cause,
                Ok(message) => {
                    match statement.is_signed_by(&message, &self.fingerprint, &self.keys, SystemTime::now()) {
                        Ok(_) => {
                            let fingerprint = self.fingerprint;
                            return Ok(Signature { group: statement.group, message, fingerprint });
                        }
                        Err(SignatureFault::Key(key, fault)) => format!("key {key} {fault}"),
                        Err(fault) => format!("what it signs would not be accepted: {fault}"),
                    }
                }
            };
            why.get_or_insert(refused);
        }
        Err(Refusal::new(Kind::Usage, &self.typed, why.unwrap_or_default()))
    }
}

/// Unlocks the parts of a key that have a passphrase. Some parts may have no secret here.
fn open(key: &mut SignedSecretKey, typed: &str, passphrase_file: Option<&Path>) -> Result<(), Refusal> {
    let locked = key.primary_key.secret_params().is_encrypted()
        || key.secret_subkeys.iter().any(|subkey| subkey.key.secret_params().is_encrypted());
    if !locked {
        return Ok(());
    }
    let password = Password::from(&passphrase::get(typed, passphrase_file)?[..]);
    // Once: each try takes as long as the author of the key has chosen.
    let is_locked = key.primary_key.secret_params().is_encrypted();
    let mut opened = is_locked && key.primary_key.remove_password(&password).is_ok();
    for subkey in &mut key.secret_subkeys {
        opened |= subkey.key.secret_params().is_encrypted() && subkey.key.remove_password(&password).is_ok();
    }
    if opened { Ok(()) } else { Err(Refusal::new(Kind::Usage, typed, "the passphrase does not open it")) }
}

/// Single secret key of a file.
fn only(bytes: &[u8]) -> Result<SignedSecretKey, String> {
    let none = || "no OpenPGP secret key, armoured or binary".to_owned();
    let (found, _) = PublicOrSecret::from_reader_many(bytes).map_err(|_| none())?;
    let (mut secret, mut public) = (Vec::new(), false);
    for key in found {
        match key {
            Ok(PublicOrSecret::Secret(key)) => secret.push(key),
            Ok(PublicOrSecret::Public(_)) => public = true,
            Err(_) => {}
        }
    }
    match (secret.pop(), secret.len()) {
        (Some(key), 0) => Ok(key),
        (Some(_), more) => Err(format!("{} secret keys, where one is wanted", more + 1)),
        (None, _) if public => Err("a public key, where the secret one is wanted".into()),
        (None, _) => Err(none()),
    }
}

/// Clear-signed message, as in Apptainer.
fn message<K: SigningKey>(key: &K, text: &str) -> Result<Vec<u8>, String> {
    let sign = || {
        // A hash that Apptainer accepts and that is strong enough for the key.
        let hash = match key.hash_alg() {
            hash @ (HashAlgorithm::Sha384 | HashAlgorithm::Sha512) => hash,
            _ => HashAlgorithm::Sha256,
        };
        let mut config = SignatureConfig::v4(SignatureType::Text, key.algorithm(), hash);
        config.hashed_subpackets = vec![
            Subpacket::regular(SubpacketData::SignatureCreationTime(Timestamp::now()))?,
            Subpacket::regular(SubpacketData::IssuerFingerprint(key.fingerprint()))?,
        ];
        config.unhashed_subpackets = vec![Subpacket::regular(SubpacketData::IssuerKeyId(key.legacy_key_id()))?];
        let text = format!("{text}\n");
        CleartextSignedMessage::new(&text, config, key, &Password::empty())?.to_armored_bytes(ArmorOptions::default())
    };
    sign().map_err(|error: pgp::errors::Error| format!("it does not sign: {error}"))
}

/// Fingerprint in its usual form.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
