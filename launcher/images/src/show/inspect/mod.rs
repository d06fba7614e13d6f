//! Runs `coracle inspect`: shows the metadata of an image.
//!
//! The image is neither mounted nor unpacked, and no program of it runs. The library reads the requested files, follows
//! no link, and stops at its limits. So any user can inspect an image of any other.
#![forbid(unsafe_code)]

mod contents;
mod text;

use std::collections::BTreeMap;
use std::process::ExitCode;

use coracle::report::{Kind, Refusal};
use coracle_launcher::image::sif::{
    DATA_DEFINITION, DATA_JSON, DATA_SIGNATURE, Descriptor, Header, Link, METADATA, OCI_CONFIG,
};
use coracle_orders::Inspect;
use coracle_verify::squashfs::{Files, Superblock};
use nix::fcntl::OFlag;
use serde::Serialize;

use crate::output;
use crate::show::parts::fingerprint;
use crate::show::subject::{Form, Subject};
use contents::Contents;

/// Version of the document; it changes with incompatible changes.
const VERSION: u32 = 1;

/// Metadata that is shown. Its fields have the names of `--json`; docs/inspect.md explains them.
#[derive(Debug, Default, Serialize)]
struct About {
    version: u32,
    image: String,
    #[serde(rename = "type")]
    form: String,
    size: u64,
    architecture: Option<String>,
    id: Option<String>,
    created: Option<String>,
    modified: Option<String>,
    partitions: Vec<Partition>,
    signatures: Vec<Signature>,
    /// True if these signatures were verified: never.
    signatures_checked: bool,
    #[serde(flatten)]
    contents: Contents,
    oci: Option<serde_json::Value>,
    /// Parts that could not be shown, with the reason.
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Partition {
    /// Number of the object. `None` for a file without a table of objects.
    id: Option<u32>,
    group: Option<u32>,
    role: String,
    filesystem: String,
    architecture: Option<String>,
    compression: Option<String>,
    block_size: Option<u32>,
    offset: u64,
    size: u64,
}

#[derive(Debug, Serialize)]
struct Signature {
    id: u32,
    group: Option<u32>,
    object: Option<u32>,
    /// Fingerprint of an OpenPGP key, as the image states it.
    fingerprint: Option<String>,
    /// Other keys, as the image states them.
    keys: Vec<String>,
}

/// Shows the requested metadata.
pub fn main(given: &Inspect) -> Result<ExitCode, Refusal> {
    if given.startscript {
        return Err(Refusal::new(Kind::Usage, "inspect -s", "a start script is not shown by itself")
            .hint("coracle inspect without -s shows what there is"));
    }
    let subject = Subject::open(&given.image, OFlag::O_RDONLY)?;
    let about = About::of(&subject)?;
    let text = if given.json { output::json(&about)? } else { text::of(&about, given) };
    output::print(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

impl About {
    fn of(subject: &Subject) -> Result<Self, Refusal> {
        let mut about = Self {
            version: VERSION,
            image: subject.typed.clone(),
            form: subject.form.word().into(),
            size: subject.length(),
            ..Self::default()
        };
        match subject.form {
            Form::Sif => {
                let (header, descriptors) = subject.objects("")?;
                about.sif(subject, &header, &descriptors)?;
            }
            Form::Squashfs => {
                about.partition(subject, None, 0, subject.length(), "squashfs", true)?;
                about.contents = read_files(subject, 0, subject.length(), &mut about.notes)?;
            }
            Form::Erofs => {
                about.partition(subject, None, 0, subject.length(), "erofs", false)?;
                about.notes.push("what is in an EROFS is not shown".into());
            }
        }
        Ok(about)
    }

    fn sif(&mut self, subject: &Subject, header: &Header, descriptors: &[Descriptor]) -> Result<(), Refusal> {
        let damaged = |error: coracle_launcher::image::Error| error.refuse(&subject.typed);
        self.architecture = header.architecture().map(str::to_owned);
        self.id = Some(uuid(header.uuid()));
        self.created = output::time(header.created());
        self.modified = output::time(header.modified());
        let mut root = None;
        for descriptor in descriptors {
            let (offset, size) = descriptor.place("a data object", subject.length()).map_err(damaged)?;
            if let Some(partition) = descriptor.partition() {
                let filesystem = partition.filesystem().unwrap_or("unknown");
                self.partition(subject, Some(descriptor), offset, size, filesystem, partition.is_squashfs())?;
                if partition.is_root() && root.replace((partition, offset, size)).is_some() {
                    self.notes.push("it has two root file systems, so nothing runs it".into());
                }
            }
            if descriptor.data_type() == DATA_SIGNATURE {
                self.signatures.push(self.signature(subject, descriptor, size));
            }
        }
        match root {
            Some((partition, offset, size)) if partition.is_squashfs() => {
                self.contents = read_files(subject, offset, size, &mut self.notes)?;
            }
            found => {
                self.notes.push(match found {
                    Some((partition, ..)) if partition.is_encrypted() => {
                        format!("the root file system is encrypted: what follows is what {METADATA} says")
                    }
                    Some(_) => format!("the root file system is no squashfs: what follows is what {METADATA} says"),
                    None => "it has no root file system".into(),
                });
                if let Some(bytes) = object(subject, descriptors, DATA_JSON, Some(METADATA), &mut self.notes)? {
                    self.contents = Contents::of_metadata(&bytes, &mut self.notes);
                }
            }
        }
        if self.contents.definition.is_none() {
            let bytes = object(subject, descriptors, DATA_DEFINITION, None, &mut self.notes)?;
            self.contents.definition = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        }
        if let Some(bytes) = object(subject, descriptors, DATA_JSON, Some(OCI_CONFIG), &mut self.notes)? {
            match serde_json::from_slice(&bytes) {
                Ok(value) => self.oci = Some(value),
                Err(error) => self.notes.push(format!("{OCI_CONFIG} is no JSON: {error}")),
            }
        }
        Ok(())
    }

    fn partition(
        &mut self,
        subject: &Subject,
        descriptor: Option<&Descriptor>,
        offset: u64,
        size: u64,
        filesystem: &str,
        is_squashfs: bool,
    ) -> Result<(), Refusal> {
        let described = descriptor.and_then(Descriptor::partition);
        let superblock = match is_squashfs {
            true => Some(
                Superblock::read(&subject.file, offset, size, subject.length())
                    .map_err(|error| error.refuse(&subject.typed))?,
            ),
            false => None,
        };
        self.partitions.push(Partition {
            id: descriptor.map(Descriptor::id),
            group: descriptor.and_then(Descriptor::group),
            role: described.map_or("root", |one| one.role().unwrap_or("unknown")).into(),
            filesystem: filesystem.into(),
            architecture: described.and_then(|one| one.architecture()).map(str::to_owned),
            compression: superblock.map(|superblock| superblock.compression.to_string()),
            block_size: superblock.map(|superblock| superblock.block_size()),
            offset,
            size,
        });
        Ok(())
    }

    fn signature(&self, subject: &Subject, descriptor: &Descriptor, size: u64) -> Signature {
        let (group, object) = match descriptor.link() {
            Some(Link::Group(group)) => (Some(group), None),
            Some(Link::Object(id)) => (None, Some(id)),
            None => (None, None),
        };
        let fingerprint = fingerprint(descriptor);
        let keys = if fingerprint.is_none() { envelope_keys(subject, descriptor, size) } else { Vec::new() };
        Signature { id: descriptor.id(), group, object, fingerprint, keys }
    }
}

/// Keys that a DSSE envelope names as its signers.
fn envelope_keys(subject: &Subject, descriptor: &Descriptor, size: u64) -> Vec<String> {
    let place = descriptor.place("a signature", subject.length());
    let bytes = place.ok().and_then(|(offset, _)| bytes_of(subject, offset, size).ok()).unwrap_or_default();
    let envelope: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let signatures = envelope.get("signatures").and_then(|all| all.as_array()).map_or(&[][..], Vec::as_slice);
    let keys = signatures.iter().filter_map(|one| one.get("keyid")?.as_str());
    keys.filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

fn read_files(subject: &Subject, offset: u64, size: u64, notes: &mut Vec<String>) -> Result<Contents, Refusal> {
    let damaged = |error: coracle_launcher::image::Error| error.refuse(&subject.typed);
    let mut files = Files::open(&subject.file, offset, size).map_err(damaged)?;
    Contents::read(&mut files, notes).map_err(damaged)
}

/// First object of a type, and of a name if one is given.
fn object(
    subject: &Subject,
    descriptors: &[Descriptor],
    kind: i32,
    name: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Option<Vec<u8>>, Refusal> {
    let is_it = |one: &&Descriptor| one.data_type() == kind && name.is_none_or(|name| one.name() == name);
    let Some(found) = descriptors.iter().find(is_it) else { return Ok(None) };
    let place = found.place("a data object", subject.length());
    let (offset, size) = place.map_err(|error| error.refuse(&subject.typed))?;
    if size > contents::LIMIT {
        notes.push(format!("object {} has {size} bytes, which are not shown", found.id()));
        return Ok(None);
    }
    let bytes = bytes_of(subject, offset, size);
    bytes.map(Some).map_err(|error| coracle_launcher::image::Error::Read(error).refuse(&subject.typed))
}

/// Part of the file. Empty if it is longer than the limit.
fn bytes_of(subject: &Subject, offset: u64, size: u64) -> std::io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let size = usize::try_from(size).ok().filter(|_| size <= contents::LIMIT).unwrap_or(0);
    let mut bytes = vec![0; size];
    subject.file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Texts by name.
type Texts = BTreeMap<String, String>;
