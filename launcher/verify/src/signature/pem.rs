//! Reads public keys in PEM files (RFC 7468), and verifies their signatures: Ed25519 (RFC 8032), ECDSA over P-256,
//! P-384 and P-521 (FIPS 186-5) and RSA (RFC 8017, PKCS #1 v1.5), the last two over SHA-256, as Apptainer does for each
//! of them.
#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ed25519_dalek::pkcs8::DecodePublicKey;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use rsa::pkcs1::DecodeRsaPublicKey;
use rsa::traits::PublicKeyParts;
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use sha2::{Digest, Sha256};

/// A key.
#[derive(Debug)]
pub(super) struct PemKey {
    kind: Kind,
    fingerprint: String,
}

#[derive(Debug)]
enum Kind {
    Ed25519(ed25519_dalek::VerifyingKey),
    P256(p256::ecdsa::VerifyingKey),
    P384(p384::ecdsa::VerifyingKey),
    P521(p521::PublicKey),
    Rsa(RsaPublicKey),
}

impl PemKey {
    /// Parses one PEM block, including its BEGIN and END lines.
    pub(super) fn parse(block: &str) -> Option<Self> {
        let kind = if let Ok(key) = ed25519_dalek::VerifyingKey::from_public_key_pem(block) {
            Kind::Ed25519(key)
        } else if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_pem(block) {
            Kind::P256(key)
        } else if let Ok(key) = p384::ecdsa::VerifyingKey::from_public_key_pem(block) {
            Kind::P384(key)
        } else if let Ok(key) = p521::PublicKey::from_public_key_pem(block) {
            Kind::P521(key)
        } else {
            let key = RsaPublicKey::from_public_key_pem(block).or_else(|_| RsaPublicKey::from_pkcs1_pem(block));
            Kind::Rsa(key.ok()?)
        };
        let hash = Sha256::digest(kind.ssh());
        Some(Self { kind, fingerprint: format!("SHA256:{}", STANDARD_NO_PAD.encode(hash)) })
    }

    /// Fingerprint in the format of `ssh-keygen -l`.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// True if `signature` is made with this key, of `message`.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let hash = Sha256::digest(message);
        match &self.kind {
            Kind::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                // Without keys and points of small order, whose signatures are valid for any message.
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
            Kind::P256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&hash, &signature).is_ok()),
            Kind::P384(key) => p384::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(&hash, &signature).is_ok()),
            Kind::P521(key) => {
                // The library requires at least half of the field; leading zeros do not change the number.
                let padded = [&[0; 34][..], &hash].concat();
                let key = p521::ecdsa::VerifyingKey::from_affine(*key.as_affine());
                p521::ecdsa::Signature::from_der(signature)
                    .is_ok_and(|signature| key.is_ok_and(|key| key.verify_prehash(&padded, &signature).is_ok()))
            }
            Kind::Rsa(key) => key.verify(Pkcs1v15Sign::new::<Sha256>(), &hash, signature).is_ok(),
        }
    }
}

impl Kind {
    /// The key in the encoding of SSH (RFC 4253, 6.6; RFC 5656, 3.1; RFC 8709, 4).
    fn ssh(&self) -> Vec<u8> {
        let curve =
            |name: &str, point: &[u8]| strings(&[format!("ecdsa-sha2-{name}").as_bytes(), name.as_bytes(), point]);
        match self {
            Self::Ed25519(key) => strings(&[b"ssh-ed25519", key.as_bytes()]),
            Self::P256(key) => curve("nistp256", key.to_encoded_point(false).as_bytes()),
            Self::P384(key) => curve("nistp384", key.to_encoded_point(false).as_bytes()),
            Self::P521(key) => curve("nistp521", key.to_encoded_point(false).as_bytes()),
            Self::Rsa(key) => {
                strings(&[b"ssh-rsa", &positive(&key.e().to_bytes_be()), &positive(&key.n().to_bytes_be())])
            }
        }
    }
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        // A key file has at most 1 MiB.
        out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(part);
    }
    out
}

/// A number whose first bit is not read as a sign.
fn positive(bytes: &[u8]) -> Vec<u8> {
    let high = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    [if high { &[0][..] } else { &[] }, bytes].concat()
}
