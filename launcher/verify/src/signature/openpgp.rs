//! Verifies OpenPGP clear-signed messages with their keys (RFC 9580).
//!
//! Only a key's self-signatures with an algorithm of the SHA-2 family count: they state that it may sign, until when,
//! and which subkeys belong to it.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use pgp::composed::{CleartextSignedMessage, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::types::{KeyDetails, Tag};

use super::{KeyFault, Keyring, SignatureFault, Signer};

const START: &[u8] = b"-----BEGIN PGP SIGNED MESSAGE-----";
/// Limit on the signatures of one message that are checked.
const MAX_SIGNATURES: usize = 16;

/// True if `bytes` start like such a message.
pub(super) fn is_clear_signed(bytes: &[u8]) -> bool {
    bytes.starts_with(START)
}

/// A message whose signature has not been checked.
pub(super) struct Signed {
    message: CleartextSignedMessage,
    text: Vec<u8>,
}

/// Possible maker of a signature: a key, or one of its subkeys.
struct Candidate<'a> {
    key: &'a SignedPublicKey,
    subkey: Option<&'a SignedPublicSubKey>,
}

impl Signed {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, SignatureFault> {
        let wrong = || SignatureFault::Format("a damaged OpenPGP clear-signed message".into());
        let (message, _) = CleartextSignedMessage::from_armor(bytes).map_err(|_| wrong())?;
        if message.signatures().len() > MAX_SIGNATURES {
            return Err(SignatureFault::Format(format!("a message with more than {MAX_SIGNATURES} signatures")));
        }
        let text = message.signed_text().into_bytes();
        Ok(Self { message, text })
    }

    /// Text with CR LF between its lines, as signed.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Signer of the text: the first signature by a known key must be good.
    pub(super) fn verify(&self, keys: &Keyring, entity: &[u8; 20], now: u32) -> Result<Signer, SignatureFault> {
        let mut issuer = String::new();
        for signature in self.message.signatures() {
            if let Some(weak) = weak_hash(signature) {
                return Err(SignatureFault::WeakHash(weak));
            }
            let verify = |candidate: Candidate<'_>| candidate.verify(signature, &self.text, entity, now);
            let found: Vec<_> = candidates(keys, signature).map(verify).collect();
            // Of several copies of a key, only one may contain its revocation, or its renewal.
            let revoked = |one: &&Result<_, _>| matches!(one, Err(SignatureFault::Key(_, KeyFault::Revoked)));
            let decides = found.iter().find(revoked).or_else(|| found.iter().find(|one| one.is_ok())).or(found.first());
            match decides {
                Some(one) => return one.clone(),
                None => issuer = issuer_of(signature),
            }
        }
        Err(SignatureFault::UnknownKey(issuer))
    }
}

impl Candidate<'_> {
    fn verify(
        &self,
        signature: &Signature,
        text: &[u8],
        entity: &[u8; 20],
        now: u32,
    ) -> Result<Signer, SignatureFault> {
        if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
            return Err(SignatureFault::Format("a signature of something else than a text".into()));
        }
        let good = match self.subkey {
            None => signature.verify(&self.key.primary_key, text),
            Some(subkey) => signature.verify(&subkey.key, text),
        };
        good.map_err(|_| SignatureFault::Wrong)?;
        if has_unknown_critical(signature) {
            return Err(SignatureFault::Format("it has a critical subpacket that we do not know".into()));
        }
        if !is_current(signature, now) {
            return Err(SignatureFault::Time);
        }
        let fingerprint = self.key.fingerprint();
        let key = hex(fingerprint.as_bytes());
        let name = self.judge(now).map_err(|fault| SignatureFault::Key(key.clone(), fault))?;
        // The descriptor has 20 bytes for the fingerprint of a version 4 key, which Apptainer compares.
        if fingerprint.as_bytes() != entity {
            return Err(SignatureFault::OtherKey);
        }
        Ok(Signer { key, name })
    }

    /// Checks that the key may sign at `now`; returns the user that it names.
    fn judge(&self, now: u32) -> Result<Option<String>, KeyFault> {
        let details = &self.key.details;
        // Also a revocation by a designated revoker, which cannot be verified.
        if !details.revocation_signatures.is_empty() {
            return Err(KeyFault::Revoked);
        }
        let (own, name) = self.primary_user()?;
        let direct = details.direct_signatures.iter();
        let direct = newest(direct.filter(|signature| signature.verify_key(&self.key.primary_key).is_ok()));
        for signature in [Some(own), direct].into_iter().flatten() {
            good_until(signature, self.key.primary_key.created_at().as_secs(), now)?;
        }
        let Some(subkey) = self.subkey else {
            return if own.key_flags().sign() { Ok(name) } else { Err(KeyFault::Usage) };
        };
        let is_own =
            |signature: &&Signature| signature.verify_subkey_binding(&self.key.primary_key, &subkey.key).is_ok();
        let is_revocation = |signature: &&Signature| signature.typ() == Some(SignatureType::SubkeyRevocation);
        if subkey.signatures.iter().filter(is_revocation).any(|signature| is_own(&signature)) {
            return Err(KeyFault::Revoked);
        }
        let bindings = subkey.signatures.iter().filter(|signature| !is_revocation(signature) && is_own(signature));
        let binding = newest(bindings).ok_or(KeyFault::Unbound)?;
        good_until(binding, subkey.key.created_at().as_secs(), now)?;
        if !binding.key_flags().sign() {
            return Err(KeyFault::Usage);
        }
        // The signature of the subkey, without which any key could claim another key's subkey.
        let back = binding.embedded_signature().filter(|back| weak_hash(back).is_none());
        let back = back.filter(|back| back.verify_primary_key_binding(&subkey.key, &self.key.primary_key).is_ok());
        if !is_current(back.ok_or(KeyFault::Unbound)?, now) {
            return Err(KeyFault::Expired);
        }
        Ok(name)
    }

    /// Self-signature of the key for its primary user, and that user's name.
    fn primary_user(&self) -> Result<(&Signature, Option<String>), KeyFault> {
        let primary = &self.key.primary_key;
        let mut best: Option<(bool, bool, u32, &Signature, Option<String>)> = None;
        for user in &self.key.details.users {
            let own = |signature: &&Signature| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok();
            let is_revocation = |signature: &&Signature| signature.typ() == Some(SignatureType::CertRevocation);
            let revoked = user.signatures.iter().filter(is_revocation).any(|signature| own(&signature));
            let certifications = user.signatures.iter().filter(|signature| !is_revocation(signature) && own(signature));
            let Some(newest) = newest(certifications) else { continue };
            let rank = (!revoked, newest.is_primary(), created(newest));
            if best.as_ref().is_none_or(|best| rank > (best.0, best.1, best.2)) {
                best = Some((rank.0, rank.1, rank.2, newest, user.id.as_str().map(str::to_owned)));
            }
        }
        match best {
            Some((true, _, _, signature, name)) => Ok((signature, name)),
            Some(_) => Err(KeyFault::Revoked),
            None => Err(KeyFault::Unbound),
        }
    }
}

/// Keys and subkeys that the signature names as its issuer.
fn candidates<'a>(keys: &'a Keyring, signature: &'a Signature) -> impl Iterator<Item = Candidate<'a>> {
    let is_issuer = |key: &dyn KeyDetails| {
        let id = key.legacy_key_id();
        let fingerprint = key.fingerprint();
        signature.issuer_key_id().contains(&&id) || signature.issuer_fingerprint().contains(&&fingerprint)
    };
    keys.openpgp().iter().flat_map(move |key| {
        let primary = is_issuer(&key.primary_key).then_some(Candidate { key, subkey: None });
        let subkeys = key.public_subkeys.iter().filter(move |subkey| is_issuer(&subkey.key));
        primary.into_iter().chain(subkeys.map(move |subkey| Candidate { key, subkey: Some(subkey) }))
    })
}

fn issuer_of(signature: &Signature) -> String {
    let fingerprint = signature.issuer_fingerprint().first().map(|fingerprint| hex(fingerprint.as_bytes()));
    let id = || signature.issuer_key_id().first().map(|id| hex(id.as_ref()));
    fingerprint.or_else(id).unwrap_or_default()
}

/// Newest of a key's own signatures, without those that use a broken hash algorithm.
fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.filter(|signature| weak_hash(signature).is_none()).max_by_key(|signature| created(signature))
}

fn created(signature: &Signature) -> u32 {
    signature.created().map_or(0, |time| time.as_secs())
}

/// True if a signature was made before `now` and has not expired.
fn is_current(signature: &Signature, now: u32) -> bool {
    let made = created(signature);
    made <= now && signature.signature_expiration_time().is_none_or(|after| !is_over(made, after.as_secs(), now))
}

/// Checks by `signature` that a key that was made at `birth` is good.
fn good_until(signature: &Signature, birth: u32, now: u32) -> Result<(), KeyFault> {
    if has_unknown_critical(signature) {
        return Err(KeyFault::Usage);
    }
    let over = signature.key_expiration_time().is_some_and(|after| is_over(birth, after.as_secs(), now));
    if over || birth > now || !is_current(signature, now) { Err(KeyFault::Expired) } else { Ok(()) }
}

/// True if the time is over. Zero seconds mean no end (RFC 9580, 5.2.3.13 and 5.2.3.18).
fn is_over(start: u32, after: u32, now: u32) -> bool {
    after != 0 && u64::from(now) >= u64::from(start) + u64::from(after)
}

/// Name of a hash algorithm outside of the SHA-2 family.
fn weak_hash(signature: &Signature) -> Option<String> {
    match signature.hash_alg() {
        Some(HashAlgorithm::Sha224 | HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512) => None,
        Some(other) => Some(other.to_string()),
        None => Some("an unknown algorithm".into()),
    }
}

/// True for an unknown critical subpacket: "If a subpacket is encountered that is marked critical but is unknown to the
/// evaluating implementation, the evaluator SHOULD consider the signature to be in error" (RFC 9580, 5.2.3.7). No
/// notation is known here.
fn has_unknown_critical(signature: &Signature) -> bool {
    signature.config().is_none_or(|config| {
        config.hashed_subpackets().filter(|subpacket| subpacket.is_critical).any(|subpacket| {
            matches!(
                subpacket.data,
                SubpacketData::Notation(_) | SubpacketData::Experimental(..) | SubpacketData::Other(..)
            )
        })
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
