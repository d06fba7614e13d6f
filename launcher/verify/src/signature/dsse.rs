//! Verifies DSSE envelopes (github.com/secure-systems-lab/dsse, protocol.md), as `apptainer sign --key` makes them.
#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;

use super::{Keyring, SignatureFault, Signer};

/// Media type of the payload of a SIF's signature.
const PAYLOAD: &str = "application/vnd.sylabs.sif-metadata+json";
/// Limit on the signatures in an envelope: each costs a verification with each key.
const MAX_SIGNATURES: usize = 16;

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "payloadType")]
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    /// Not signed itself. If it is set, only that key is tried, as in Apptainer.
    #[serde(default)]
    keyid: Option<String>,
    sig: String,
}

/// Payload, and the signers with a good signature: at least one. Signatures of other keys are ignored.
pub(super) fn verify(bytes: &[u8], keys: &Keyring) -> Result<(Vec<u8>, Vec<Signer>), SignatureFault> {
    let format = |why: &str| SignatureFault::Format(why.into());
    let envelope: Envelope = serde_json::from_slice(bytes)
        .map_err(|_| format("neither an OpenPGP clear-signed message nor a DSSE envelope"))?;
    if envelope.payload_type != PAYLOAD {
        return Err(format("an envelope for something else than a SIF"));
    }
    if envelope.signatures.len() > MAX_SIGNATURES {
        return Err(SignatureFault::Format(format!("an envelope with more than {MAX_SIGNATURES} signatures")));
    }
    let payload = decode(&envelope.payload).ok_or_else(|| format("the envelope's payload is no base64"))?;
    let signed = pre_authentication_encoding(&payload);
    let mut signers = Vec::new();
    for signature in &envelope.signatures {
        let value = decode(&signature.sig).ok_or_else(|| format("a signature in the envelope is no base64"))?;
        let id = signature.keyid.as_deref().unwrap_or_default();
        let meant = keys.pem().iter().filter(|key| id.is_empty() || key.fingerprint() == id);
        let made = meant.filter(|key| key.has_signed(&signed, &value));
        signers.extend(made.map(|key| Signer { key: key.fingerprint().to_owned(), name: None }));
    }
    if signers.is_empty() {
        let named = envelope.signatures.into_iter().find_map(|signature| signature.keyid);
        // This text comes from the maker of the image.
        let named = named.filter(|id| id.starts_with("SHA256:") && id.len() <= 64).unwrap_or_default();
        let ours = keys.pem().iter().any(|key| key.fingerprint() == named);
        return Err(if ours { SignatureFault::Wrong } else { SignatureFault::UnknownKey(named) });
    }
    Ok((payload, signers))
}

/// PAE of protocol.md: the signed bytes, which include the type so that a payload cannot pass for another type.
fn pre_authentication_encoding(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD} {} ", PAYLOAD.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Decodes either alphabet (protocol.md).
fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}
