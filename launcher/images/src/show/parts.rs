//! Runs `coracle sif`: lists and prints the data objects of a SIF.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;

use coracle::report::{Kind, Refusal, clean, plain};
use coracle_launcher::image::sif::{DATA_SIGNATURE, Descriptor, Link};
use coracle_orders::{Sif, SifVerb};
use nix::fcntl::OFlag;
use serde::Serialize;

use crate::output;
use crate::show::subject::Subject;

/// Number of bytes that are copied at once.
const BUFFER: usize = 1 << 20;
/// Limit of an object that is checked for being text, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// Object as in `--json`.
#[derive(Debug, Serialize)]
struct Row {
    id: u32,
    group: Option<u32>,
    linked_group: Option<u32>,
    linked_id: Option<u32>,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    offset: u64,
    size: u64,
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filesystem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    architecture: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
}

/// Runs the requested subcommand.
pub fn main(given: &Sif) -> Result<ExitCode, Refusal> {
    match &given.what {
        SifVerb::List { image, json } => list(image, *json),
        SifVerb::Dump { id, image } => dump(*id, image),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn list(image: &Path, json: bool) -> Result<(), Refusal> {
    let subject = Subject::open(image, OFlag::O_RDONLY)?;
    let (_, descriptors) = subject.objects("has no data objects")?;
    let rows = descriptors
        .iter()
        .map(|descriptor| Row::of(descriptor, subject.length()))
        .collect::<Result<Vec<Row>, _>>()
        .map_err(|error| error.refuse(&subject.typed))?;
    if json {
        let list = serde_json::json!({ "version": output::VERSION, "image": &subject.typed, "objects": rows });
        return output::print(output::json(&list)?.as_bytes());
    }
    let mut text = format!("{:>4} {:>6} {:>9} {:>13} {:>13}  TYPE\n", "ID", "GROUP", "LINK", "OFFSET", "SIZE");
    for row in &rows {
        let group = row.group.map_or_else(|| "-".into(), |group| group.to_string());
        let link = match (row.linked_group, row.linked_id) {
            (Some(group), _) => format!("group {group}"),
            (_, Some(id)) => id.to_string(),
            _ => "-".into(),
        };
        let about = clean(&row.about());
        let _ = writeln!(text, "{:>4} {group:>6} {link:>9} {:>13} {:>13}  {about}", row.id, row.offset, row.size);
    }
    output::print(text.as_bytes())
}

impl Row {
    fn of(descriptor: &Descriptor, length: u64) -> Result<Self, coracle_launcher::image::Error> {
        let (offset, size) = descriptor.place("a data object", length)?;
        let partition = descriptor.partition();
        let known = |name: Option<&str>| name.unwrap_or("unknown").to_owned();
        let (linked_group, linked_id) = match descriptor.link() {
            Some(Link::Group(group)) => (Some(group), None),
            Some(Link::Object(id)) => (None, Some(id)),
            None => (None, None),
        };
        Ok(Self {
            id: descriptor.id(),
            group: descriptor.group(),
            linked_group,
            linked_id,
            kind: descriptor.type_name().map_or_else(|| format!("{:#x}", descriptor.data_type()), str::to_owned),
            name: descriptor.name(),
            offset,
            size,
            created: output::time(descriptor.created()),
            filesystem: partition.map(|partition| known(partition.filesystem())),
            role: partition.map(|partition| known(partition.role())),
            architecture: partition.map(|partition| known(partition.architecture())),
            fingerprint: fingerprint(descriptor),
        })
    }

    /// Text of the last column.
    fn about(&self) -> String {
        let mut text = self.kind.clone();
        for more in [&self.role, &self.filesystem, &self.architecture].into_iter().flatten() {
            let _ = write!(text, " {more}");
        }
        if let Some(fingerprint) = &self.fingerprint {
            let _ = write!(text, " by {fingerprint}");
        }
        if !self.name.is_empty() {
            let _ = write!(text, " {:?}", self.name);
        }
        text
    }
}

/// Fingerprint of the OpenPGP key that a signature names; it is not verified.
pub fn fingerprint(descriptor: &Descriptor) -> Option<String> {
    let (_, fingerprint) = descriptor.signer();
    (descriptor.data_type() == DATA_SIGNATURE && fingerprint != [0; 20]).then(|| {
        fingerprint.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        })
    })
}

fn dump(id: u32, image: &Path) -> Result<(), Refusal> {
    let subject = Subject::open(image, OFlag::O_RDONLY)?;
    let (_, descriptors) = subject.objects("has no data objects")?;
    let descriptor = descriptors.iter().find(|descriptor| descriptor.id() == id).ok_or_else(|| {
        Refusal::new(Kind::Usage, &subject.typed, format!("it has no object {id}"))
            .hint(format!("coracle sif list {} lists them", subject.typed))
    })?;
    let place = descriptor.place("a data object", subject.length()).map_err(|error| error.refuse(&subject.typed))?;
    let (mut offset, mut left) = place;
    if std::io::stdout().is_terminal() {
        return show(&subject, offset, left, id);
    }
    let mut buffer = vec![0; BUFFER];
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
        read(&subject, &mut buffer[..part], offset)?;
        output::print(&buffer[..part])?;
        offset += part as u64;
        left -= part as u64;
    }
    Ok(())
}

/// Prints an object. A terminal gets only text without control characters.
fn show(subject: &Subject, offset: u64, size: u64, id: u32) -> Result<(), Refusal> {
    let refuse = || {
        Refusal::new(Kind::Usage, &subject.typed, format!("object {id} is no text, and standard output is a terminal"))
            .hint("send it into a file: > FILE")
    };
    let size = usize::try_from(size).ok().filter(|_| size <= MAX_TEXT).ok_or_else(refuse)?;
    let mut bytes = vec![0; size];
    read(subject, &mut bytes, offset)?;
    let text = std::str::from_utf8(&bytes).ok().filter(|text| plain(text) == *text).ok_or_else(refuse)?;
    output::print(text.as_bytes())
}

fn read(subject: &Subject, buffer: &mut [u8], offset: u64) -> Result<(), Refusal> {
    let read = subject.file.read_exact_at(buffer, offset);
    read.map_err(|error| Refusal::new(Kind::of_reading(&error), &subject.typed, error.to_string()))
}
