#![forbid(unsafe_code)]

use super::*;
use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, Deserializable, KeyType, SecretKeyParamsBuilder, SignedSecretKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{KeyDetails, Password, Timestamp};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sha2::Digest as _;

#[path = "../../../../tests/images/sif_writer.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod sif_writer;
use sif_writer::{DESCRIPTOR, Part, TABLE, append_signature, put, sif};

const BIRTH: u64 = 1_700_000_000;

/// After the times in the keys' self-signatures, which the library sets when it makes them.
fn now() -> SystemTime {
    SystemTime::now() + Duration::from_secs(1000)
}

fn time(after: u64) -> Timestamp {
    Timestamp::try_from(UNIX_EPOCH + Duration::from_secs(BIRTH + after)).unwrap()
}

/// An image with two objects in group 1.
fn plain() -> Vec<u8> {
    let part = |data, kind| Part { filesystem: 1, kind, architecture: *b"02\0", data };
    sif(&[part(b"first object", 2), part(b"second", 3)])
}

fn slot(number: usize) -> usize {
    TABLE + (number - 1) * DESCRIPTOR
}

fn part(bytes: &[u8], at: usize, size: usize) -> &[u8] {
    &bytes[at..at + size]
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_le_bytes(part(bytes, at, 8).try_into().unwrap())).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Signed document of group 1, written from the format's description, not with the tested code.
fn document(image: &[u8], name: &str, hash: impl Fn(&[u8]) -> Vec<u8>) -> String {
    document_of(image, 1..=2, name, hash)
}

/// Signed document of the group with these objects.
fn document_of(
    image: &[u8],
    ids: std::ops::RangeInclusive<u32>,
    name: &str,
    hash: impl Fn(&[u8]) -> Vec<u8>,
) -> String {
    let digest = |bytes: &[u8]| format!("{name}:{}", hex(&hash(bytes)));
    let first = *ids.start();
    let objects = ids.map(|id| {
        let at = slot(id as usize);
        let raw = part(image, at, DESCRIPTOR);
        let signed =
            [&raw[..5], &(id - first).to_le_bytes(), &raw[13..17], &raw[25..33], &raw[41..49], &raw[57..]].concat();
        let contents = part(image, number(image, at + 17), number(image, at + 25));
        format!(
            r#"{{"relativeId":{},"descriptorDigest":"{}","objectDigest":"{}"}}"#,
            id - first,
            digest(&signed),
            digest(contents)
        )
    });
    let objects: Vec<String> = objects.collect();
    let header = digest(&[&image[..45], &image[48..64]].concat());
    format!(r#"{{"version":1,"header":{{"digest":"{header}"}},"objects":[{}]}}"#, objects.join(","))
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    sha2::Sha256::digest(bytes).to_vec()
}

struct OpenPgp(SignedSecretKey);

impl OpenPgp {
    fn new(seed: u64) -> Self {
        let params = SecretKeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_sign(true)
            .can_certify(true)
            .created_at(time(0))
            .primary_user_id("Site <site@example.org>".into())
            .build();
        Self(params.unwrap().generate(StdRng::seed_from_u64(seed)).unwrap())
    }

    fn fingerprint(&self) -> Vec<u8> {
        self.0.fingerprint().as_bytes().to_vec()
    }

    fn keyring(&self) -> Keyring {
        let mut keys = Keyring::default();
        keys.add(self.0.to_public_key().to_armored_string(ArmorOptions::default()).unwrap().as_bytes()).unwrap();
        keys
    }

    fn message(&self, text: &str, hash: HashAlgorithm, more: Vec<Subpacket>) -> Vec<u8> {
        let mut config = SignatureConfig::v4(SignatureType::Binary, self.0.algorithm(), hash);
        config.hashed_subpackets = vec![
            Subpacket::regular(SubpacketData::SignatureCreationTime(time(10))).unwrap(),
            Subpacket::regular(SubpacketData::IssuerFingerprint(self.0.fingerprint())).unwrap(),
        ];
        config.hashed_subpackets.extend(more);
        config.unhashed_subpackets =
            vec![Subpacket::regular(SubpacketData::IssuerKeyId(self.0.legacy_key_id())).unwrap()];
        let message = CleartextSignedMessage::new(text, config, &self.0.primary_key, &Password::empty()).unwrap();
        message.to_armored_bytes(ArmorOptions::default()).unwrap()
    }

    fn signed(&self, text: impl FnOnce(&[u8]) -> String) -> Vec<u8> {
        let mut image = plain();
        let message = self.message(&text(&image), HashAlgorithm::Sha256, Vec::new());
        append_signature(&mut image, 3, &self.fingerprint(), &message);
        image
    }
}

fn whole(image: &[u8]) -> String {
    document(image, "sha256", sha256)
}

fn ed25519() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn pem() -> Keyring {
    let mut keys = Keyring::default();
    keys.add(ed25519().verifying_key().to_public_key_pem(LineEnding::LF).unwrap().as_bytes()).unwrap();
    keys
}

fn envelope(text: &str) -> Vec<u8> {
    let kind = "application/vnd.sylabs.sif-metadata+json";
    let signed = format!("DSSEv1 {} {kind} {} {text}", kind.len(), text.len());
    let signature = STANDARD.encode(ed25519().sign(signed.as_bytes()).to_bytes());
    let payload = STANDARD.encode(text);
    format!(r#"{{"payloadType":"{kind}","payload":"{payload}","signatures":[{{"sig":"{signature}"}}]}}"#).into_bytes()
}

fn sealed(text: impl FnOnce(&[u8]) -> String) -> Vec<u8> {
    let mut image = plain();
    let data = envelope(&text(&image));
    append_signature(&mut image, 3, &[], &data);
    image
}

fn judge(image: &[u8], keys: &Keyring, now: SystemTime) -> Result<Vec<Signer>, String> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(image).unwrap();
    verify(&file, image.len() as u64, keys, now).map_err(|error| error.to_string())
}

#[test]
fn a_signed_image_names_its_signers() {
    let site = OpenPgp::new(1);
    let key = hex(&site.fingerprint()).to_uppercase();
    let name = Some("Site <site@example.org>".to_owned());
    assert_eq!(judge(&site.signed(whole), &site.keyring(), now()), Ok(vec![Signer { key, name }]));
    let key = "SHA256:QR3SVkr8U0TQK9lvHnk1c3q6sdXWjQoVO7Pl1vfCf0k".len();
    let signers = judge(&sealed(whole), &pem(), now()).unwrap();
    assert!(signers[0].key.starts_with("SHA256:") && signers[0].key.len() == key, "{signers:?}");
}

#[test]
fn who_has_signed_a_part_has_not_signed_the_whole() {
    let (one, other) = (OpenPgp::new(1), OpenPgp::new(2));
    let mut keys = one.keyring();
    keys.add(other.0.to_public_key().to_armored_string(ArmorOptions::default()).unwrap().as_bytes()).unwrap();
    let parts = |first: &OpenPgp, second: &OpenPgp| {
        let mut image = plain();
        image[slot(2) + 9..slot(2) + 13].copy_from_slice(&0xf000_0002u32.to_le_bytes());
        for (id, key) in [(1, first), (2, second)] {
            let text = document_of(&image, id..=id, "sha256", sha256);
            let message = key.message(&text, HashAlgorithm::Sha256, Vec::new());
            append_signature(&mut image, id + 2, &key.fingerprint(), &message);
            let at = slot(id as usize + 2) + 13;
            image[at..at + 4].copy_from_slice(&(0xf000_0000 | id).to_le_bytes());
        }
        judge(&image, &keys, now()).unwrap()
    };
    assert_eq!(parts(&one, &other), []);
    assert_eq!(parts(&one, &one).len(), 1);
}

#[test]
fn every_member_of_the_sha2_family_is_read() {
    type Hash = fn(&[u8]) -> Vec<u8>;
    let all: [(&str, Hash); 6] = [
        ("sha224", |bytes| sha2::Sha224::digest(bytes).to_vec()),
        ("sha256", sha256),
        ("sha384", |bytes| sha2::Sha384::digest(bytes).to_vec()),
        ("sha512", |bytes| sha2::Sha512::digest(bytes).to_vec()),
        ("sha512_224", |bytes| sha2::Sha512_224::digest(bytes).to_vec()),
        ("sha512_256", |bytes| sha2::Sha512_256::digest(bytes).to_vec()),
    ];
    for (name, hash) in all {
        assert!(judge(&sealed(|image| document(image, name, hash)), &pem(), now()).is_ok(), "{name}");
    }
    for name in ["sha1", "md5", "SHA256", "sha3_256"] {
        let refused = judge(&sealed(|image| document(image, name, sha256)), &pem(), now()).unwrap_err();
        assert_eq!(refused, format!("signature 3: made with {}, which no longer protects", name.replace('_', "")));
    }
}

#[test]
fn weak_hashes_times_and_subpackets_are_named() {
    let site = OpenPgp::new(1);
    let with = |hash, more| {
        let mut image = plain();
        let message = site.message(&whole(&image), hash, more);
        append_signature(&mut image, 3, &site.fingerprint(), &message);
        image
    };
    let error = |image: &[u8], now| judge(image, &site.keyring(), now).unwrap_err();
    assert_eq!(
        error(&with(HashAlgorithm::Sha3_256, Vec::new()), now()),
        "signature 3: made with SHA3-256, which no longer protects"
    );
    let good = with(HashAlgorithm::Sha512, Vec::new());
    assert!(judge(&good, &site.keyring(), now()).is_ok());
    let before = UNIX_EPOCH + Duration::from_secs(BIRTH + 5);
    assert_eq!(error(&good, before), "signature 3: has expired, or is dated in the future");
    let expiry = SubpacketData::SignatureExpirationTime(pgp::types::Duration::from_secs(100));
    let short = with(HashAlgorithm::Sha256, vec![Subpacket::regular(expiry).unwrap()]);
    assert_eq!(error(&short, now()), "signature 3: has expired, or is dated in the future");
    let critical = Subpacket::critical(SubpacketData::Experimental(101, b"x"[..].into())).unwrap();
    assert!(error(&with(HashAlgorithm::Sha256, vec![critical]), now()).contains("critical subpacket"));
}

#[test]
fn what_is_not_signed_is_named() {
    let site = OpenPgp::new(1);
    let keys = site.keyring();
    let error = |image: &[u8]| judge(image, &keys, now()).unwrap_err();
    let good = site.signed(whole);
    let after = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = good.clone();
        change(&mut image);
        error(&image)
    };
    assert_eq!(error(&plain()), "not signed: no signature of object group 1");
    assert_eq!(error(b"hsqs"), "not a SIF, so it has no signatures");
    assert_eq!(error(b""), "not a SIF, so it has no signatures");
    let added = |group: u32| {
        move |image: &mut Vec<u8>| {
            append_signature(image, 4, &[], b"more");
            image[slot(4)..slot(4) + 4].copy_from_slice(&0x4007i32.to_le_bytes());
            image[slot(4) + 9..slot(4) + 13].copy_from_slice(&(group | 0xf000_0000).to_le_bytes());
        }
    };
    assert_eq!(after(&added(1)), "object 4 was added after signing");
    assert_eq!(after(&added(2)), "not signed: no signature of object group 2");
    assert_eq!(after(&added(0)), "object 4 is in no group, so no signature covers it");
    assert_eq!(after(&|image| image[slot(2) + 4] = 0), "an object that was signed is missing");
    assert_eq!(after(&|image| image[50] ^= 1), "the header is not the one that was signed");
    assert_eq!(after(&|image| image[slot(2) + 73] ^= 1), "the descriptor of object 2 is not the one that was signed");
    assert_eq!(after(&|image| image[slot(3) + 205] ^= 1), {
        "signature 3: its descriptor names another key than the one that made it"
    });
    assert_eq!(after(&|image| image[slot(2) + 5] = 1), "damaged SIF: two objects have number 1");
    let contents = number(&good, slot(1) + 17);
    assert_eq!(after(&|image| image[contents] ^= 1), "object 1 is not the one that was signed");
    let other = OpenPgp::new(2).signed(whole);
    let issuer = hex(&OpenPgp::new(2).fingerprint()).to_uppercase();
    assert_eq!(error(&other), format!("signature 3: made by {issuer}, which is none of the accepted keys"));
    let twice = site.signed(|image| whole(image).replace(r#""objects":["#, r#""version":1,"objects":["#));
    assert!(error(&twice).contains("duplicate field `version`"));
    assert!(error(&site.signed(|_| "SIFHASH:\n00".into())).contains("only an old signature (SIFHASH)"));
    assert!(error(&site.signed(|image| whole(image).replace("sha256:", "sha256:0"))).contains("a digest is not"));
}

#[test]
fn sizes_and_numbers_are_bounded() {
    let mut long = plain();
    append_signature(&mut long, 3, &[], &vec![b' '; (1 << 20) + 1]);
    assert_eq!(
        judge(&long, &pem(), now()).unwrap_err(),
        "signature 3: not a signature: 1048577 bytes, 1048576 are possible".replace("not a signature: ", "")
    );
    // A table with more signatures than the limit.
    let mut many = sealed(whole);
    let (offset, size) = (number(&many, slot(3) + 17), number(&many, slot(3) + 25));
    let data = part(&many, offset, size).to_vec();
    let table = many.len();
    let copied = part(&many, TABLE, 8 * DESCRIPTOR).to_vec();
    many.extend_from_slice(&copied);
    many.resize(table + 100 * DESCRIPTOR, 0);
    put(&mut many, 88, 100);
    put(&mut many, 96, table as u64);
    put(&mut many, 104, 100 * DESCRIPTOR as u64);
    let third = table + 2 * DESCRIPTOR;
    for extra in 3..67u32 {
        let at = table + extra as usize * DESCRIPTOR;
        let mut slot = part(&many, third, DESCRIPTOR).to_vec();
        slot[5..9].copy_from_slice(&(extra + 1).to_le_bytes());
        many[at..at + DESCRIPTOR].copy_from_slice(&slot);
    }
    assert!(data.starts_with(b"{"));
    assert_eq!(judge(&many, &pem(), now()).unwrap_err(), "it has more than 64 signatures");
    // With 64 of them it is good: they are all the same.
    many[table + 66 * DESCRIPTOR + 4] = 0;
    assert_eq!(judge(&many, &pem(), now()).unwrap().len(), 1);
    for (at, value) in [(17, u64::MAX), (25, u64::MAX), (17, i64::MAX as u64), (25, i64::MAX as u64), (25, 1 << 40)] {
        for object in 1..=3 {
            let mut image = sealed(whole);
            put(&mut image, slot(object) + at, value);
            assert!(judge(&image, &pem(), now()).is_err(), "{object} {at} {value}");
        }
    }
}

#[test]
fn keys_are_read_in_every_form() {
    let site = OpenPgp::new(1);
    let image = site.signed(whole);
    let public = site.0.to_public_key();
    let armoured = public.to_armored_string(ArmorOptions::default()).unwrap();
    let mut binary = Vec::new();
    public.to_writer(&mut binary).unwrap();
    let other = OpenPgp::new(2).0.to_public_key();
    let others = other.to_armored_string(ArmorOptions::default()).unwrap();
    let pem = ed25519().verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    for file in [armoured.clone().into_bytes(), binary, format!("a text\n{others}\n{armoured}{pem}").into_bytes()] {
        let mut keys = Keyring::default();
        keys.add(&file).unwrap();
        assert!(judge(&image, &keys, now()).is_ok());
    }
    let refused = |bytes: &[u8]| Keyring::default().add(bytes).unwrap_err().to_string();
    let secret = site.0.to_armored_string(ArmorOptions::default()).unwrap();
    assert_eq!(refused(secret.as_bytes()), "a private key, where the public one is wanted");
    assert!(refused(b"-----BEGIN PRIVATE KEY-----").contains("a private key"));
    assert!(refused(&vec![b'a'; (1 << 20) + 1]).contains("longer than"));
    for nothing in [&b""[..], b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &[0x99; 50]] {
        assert!(refused(nothing).starts_with("no OpenPGP public key"), "{nothing:?}");
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(armoured.as_bytes()).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let read = Keyring::read(&[file]).unwrap();
    assert!(judge(&image, &read, now()).is_ok());
}

#[test]
fn a_key_without_its_own_word_is_not_believed() {
    let (site, other) = (OpenPgp::new(1), OpenPgp::new(2));
    let image = site.signed(whole);
    let error = |key: &pgp::composed::SignedPublicKey| {
        let mut bytes = Vec::new();
        key.to_writer(&mut bytes).unwrap();
        let mut keys = Keyring::default();
        keys.add(&bytes).unwrap();
        judge(&image, &keys, now()).unwrap_err()
    };
    let mut key = site.0.to_public_key();
    // A certification of this user by another key.
    key.details.users = other.0.to_public_key().details.users;
    assert!(error(&key).ends_with("and that key is not signed by itself with SHA-2"));
    key.details.users.clear();
    assert!(error(&key).ends_with("and that key is not signed by itself with SHA-2"));
}

/// Bytes of the header that no signature covers: architecture, times, free descriptors, offset and size of the data.
const HEADER_FREE: [Range<usize>; 4] = [45..48, 64..80, 80..88, 112..128];
/// Bytes of an object's descriptor that no signature covers: flag of group ids, size with padding, time of change.
const OBJECT_FREE: [Range<usize>; 3] = [12..13, 33..41, 49..57];
/// Bytes of a signature's descriptor that no signature covers: in use (if it is not zero), id, flag of group ids,
/// offset and size (if a signature is there), times, owner, name, old hash algorithm (if it is valid), and the bytes
/// after the fingerprint.
const SIGNATURE_FREE: [Range<usize>; 4] = [4..9, 12..13, 17..205, 225..585];

/// Flips bits of every byte of the header, the used descriptors and the signature, one at a time, and counts.
fn flip_all(image: &[u8], keys: &Keyring, own_fingerprint: bool) -> [usize; 2] {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(image).unwrap();
    let length = image.len() as u64;
    let signers = verify(&file, length, keys, now()).unwrap();
    let signature = number(image, slot(3) + 17)..number(image, slot(3) + 17) + number(image, slot(3) + 25);
    let is_free = |at: usize| {
        let within =
            |start: usize, free: &[Range<usize>]| at >= start && free.iter().any(|range| range.contains(&(at - start)));
        match at {
            _ if signature.contains(&at) => true,
            0..HEADER => within(0, &HEADER_FREE),
            _ if at >= slot(3) => {
                within(slot(3), &SIGNATURE_FREE) || (!own_fingerprint && (205..225).contains(&(at - slot(3))))
            }
            _ if at >= slot(2) => within(slot(2), &OBJECT_FREE),
            _ => within(slot(1), &OBJECT_FREE),
        }
    };
    let (mut flips, mut valid) = (0, 0);
    for at in (0..HEADER).chain(slot(1)..slot(4)).chain(signature.clone()) {
        // All bits of the header, and two of each other byte, which vary from byte to byte.
        for bit in (0..8).filter(|bit| at < HEADER || bit % 4 == at % 4) {
            let flip = |byte: u8| file.write_all_at(&[byte], at as u64).unwrap();
            flip(image[at] ^ 1 << bit);
            if let Ok(found) = verify(&file, length, keys, now()) {
                assert!(is_free(at), "byte {at}, bit {bit} is covered by nothing");
                assert_eq!(found, signers, "byte {at}, bit {bit}");
                valid += 1;
            }
            flip(image[at]);
            flips += 1;
        }
    }
    [flips, valid]
}

const HEADER: usize = 128;

#[test]
fn no_bit_of_what_is_signed_can_be_turned() {
    let site = OpenPgp::new(1);
    let [flips, valid] = flip_all(&site.signed(whole), &site.keyring(), true);
    println!("openpgp: {flips} bits turned, {valid} still valid, all in fields that the format does not sign");
    assert!(flips > 5_000, "{flips}");
    let [flips, valid] = flip_all(&sealed(whole), &pem(), false);
    println!("dsse: {flips} bits turned, {valid} still valid, all in fields that the format does not sign");
    assert!(flips > 5_000, "{flips}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_signature_object_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), start in 0..4usize) {
        let starts = ["", "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n", "{\"payloadType\":\"", "-----BEGIN PGP"];
        let mut image = plain();
        append_signature(&mut image, 3, &[], &[starts[start].as_bytes(), &bytes].concat());
        prop_assert!(judge(&image, &pem(), now()).is_err());
    }

    #[test]
    fn no_key_file_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0..200usize, byte: u8) {
        let _ = Keyring::default().add(&bytes);
        let mut key = Vec::new();
        OpenPgp::new(1).0.to_public_key().to_writer(&mut key).unwrap();
        let at = at % key.len();
        key[at] = byte;
        let mut keys = Keyring::default();
        if keys.add(&key).is_ok() {
            let _ = judge(&OpenPgp::new(1).signed(whole), &keys, now());
        }
        let _ = pgp::composed::SignedPublicKey::from_bytes(&key[..]);
    }
}

#[test]
fn what_is_to_be_signed_is_what_verification_wants() {
    let image = plain();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image).unwrap();
    let made = statements(&file, image.len() as u64).unwrap();
    assert_eq!(made, [Statement { group: 1, text: whole(&image) }]);
    let (site, other) = (OpenPgp::new(1), OpenPgp::new(2));
    let fingerprint: [u8; 20] = site.fingerprint().try_into().unwrap();
    let message = site.message(&made[0].text, HashAlgorithm::Sha256, Vec::new());
    let check = |message: &[u8], keys: &Keyring| made[0].is_signed_by(message, &fingerprint, keys, now());
    assert_eq!(check(&message, &site.keyring()).unwrap().name.as_deref(), Some("Site <site@example.org>"));
    assert!(matches!(check(&message, &other.keyring()), Err(SignatureFault::UnknownKey(_))));
    let another = site.message("{}", HashAlgorithm::Sha256, Vec::new());
    assert!(matches!(check(&another, &site.keyring()), Err(SignatureFault::Format(why)) if why.contains("another")));
    assert!(check(b"nothing", &site.keyring()).is_err());
}
