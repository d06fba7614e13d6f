//! Reads specifications from their files.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::{self, read_trusted};
use crate::devices::Error;

/// Maximum size of a file, in bytes; one for eight GPUs with seven parts each has some 100 kB.
const MAX_LEN: u64 = 4 << 20;
/// Maximum nesting of brackets.
const MAX_DEPTH: usize = 256;
/// Maximum number of files in all directories.
const MAX_FILES: usize = 256;

/// Specification.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Path of its file.
    pub path: PathBuf,
    /// `vendor/class`
    pub kind: String,
    /// Precedence: of two specifications with the same device, the one with the higher number counts.
    pub priority: usize,
    pub(super) devices: Vec<Device>,
    pub(super) edits: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    cdi_version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Whole {
    #[serde(rename = "cdiVersion")]
    _version: IgnoredAny,
    kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

/// Device, under one of its names.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, rename = "annotations")]
    _annotations: IgnoredAny,
    pub(super) container_edits: Edits,
}

/// Changes to a container.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<Mount>,
    pub(super) hooks: Vec<Hook>,
    // Slurm assigns groups, resource groups of the processor, and the network of steps.
    pub(super) additional_gids: Option<IgnoredAny>,
    pub(super) intel_rdt: Option<IgnoredAny>,
    pub(super) net_devices: Option<IgnoredAny>,
}

/// Device node. Its numbers, owner and mode are those on the node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DeviceNode {
    path: PathBuf,
    host_path: Option<PathBuf>,
    #[serde(default, rename = "type")]
    _type: IgnoredAny,
    #[serde(default, rename = "major")]
    _major: IgnoredAny,
    #[serde(default, rename = "minor")]
    _minor: IgnoredAny,
    #[serde(default, rename = "fileMode")]
    _file_mode: IgnoredAny,
    #[serde(default, rename = "permissions")]
    _permissions: IgnoredAny,
    #[serde(default, rename = "uid")]
    _uid: IgnoredAny,
    #[serde(default, rename = "gid")]
    _gid: IgnoredAny,
}

impl DeviceNode {
    /// Path on the node.
    pub(super) fn host(&self) -> &Path {
        self.host_path.as_deref().filter(|path| !path.as_os_str().is_empty()).unwrap_or(&self.path)
    }
}

/// File of the node that appears in the container. Coracle decides the mount's flags.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    #[serde(default, rename = "options")]
    _options: IgnoredAny,
    #[serde(default, rename = "type")]
    pub(super) kind: Option<String>,
}

/// Program that would be run; none is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Hook {
    #[serde(rename = "hookName")]
    _name: String,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default, rename = "env")]
    _env: IgnoredAny,
    #[serde(default, rename = "timeout")]
    _timeout: IgnoredAny,
}

impl Spec {
    /// Parses the text of a file called `path`: JSON if its name says so, else YAML.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let wrong = |place, cause: String| Error::File(config::Error::Content { path: path.to_owned(), place, cause });
        let whole = match path.extension().is_some_and(|extension| extension == "json") {
            true => {
                let wrong =
                    |error: serde_json::Error| wrong(Some((error.line(), error.column())), config::cause_of(&error));
                let head: Head = serde_json::from_str(text).map_err(wrong)?;
                is_known(path, &head)?;
                serde_json::from_str::<Whole>(text).map_err(wrong)?
            }
            false => {
                if has_aliases(text) {
                    return Err(wrong(None, "has anchors and aliases, which are not read".into()));
                }
                if is_deep(text) {
                    return Err(wrong(None, format!("more than {MAX_DEPTH} brackets in each other")));
                }
                let wrong = |error: serde_yaml::Error| {
                    wrong(error.location().map(|place| (place.line(), place.column())), config::cause_of(&error))
                };
                let head: Head = serde_yaml::from_str(text).map_err(wrong)?;
                is_known(path, &head)?;
                serde_yaml::from_str::<Whole>(text).map_err(wrong)?
            }
        };
        let Whole { kind, devices, container_edits: edits, .. } = whole;
        let named = kind.split_once('/').is_some_and(|(vendor, class)| !vendor.is_empty() && !class.is_empty());
        if !named {
            return Err(wrong(None, format!("kind: {kind:?} is not vendor/class")));
        }
        let mut names = BTreeSet::new();
        for device in &devices {
            if device.name.is_empty() {
                return Err(wrong(None, "a device has no name".into()));
            }
            if !names.insert(&device.name) {
                return Err(wrong(None, format!("the device {:?} stands there twice", device.name)));
            }
        }
        Ok(Self { path: path.to_owned(), kind, priority: 0, devices, edits })
    }
}

fn is_known(path: &Path, head: &Head) -> Result<(), Error> {
    let mut numbers = head.cdi_version.split('.').map(|number| number.parse::<u32>().ok());
    let known = match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(0), Some(minor)) => minor >= 3,
        (Some(1), Some(_)) => true,
        _ => false,
    };
    let version = head.cdi_version.clone();
    if known { Ok(()) } else { Err(Error::Version { path: path.to_owned(), version }) }
}

/// True if aliases may expand a text to a multiple of its size: the parser limits the number of aliases, but not the
/// size of their anchors. Real specifications have none, so any text that looks like an anchor and an alias counts.
pub(super) fn has_aliases(text: &str) -> bool {
    let mut before = b' ';
    let mut signs = [false, false];
    for (at, byte) in text.bytes().enumerate() {
        let starts = before.is_ascii_whitespace() || !before.is_ascii() || matches!(before, b'[' | b'{' | b',' | b':');
        let named = text.as_bytes().get(at + 1).is_some_and(|next| !next.is_ascii_whitespace());
        if starts && named {
            signs[0] |= byte == b'&';
            signs[1] |= byte == b'*';
        }
        before = byte;
    }
    signs == [true, true]
}

/// True if brackets are nested deeper than in any real specification: the parser's time is quadratic in the depth.
fn is_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > MAX_DEPTH
    })
}

/// Reads the specifications in `directories`, in ascending order of precedence. A missing directory has none. A file
/// that users other than root can write, or that is invalid, is an error.
pub fn read<'a>(directories: impl Iterator<Item = &'a Path>) -> Result<Vec<Spec>, Error> {
    let mut specs = Vec::new();
    let mut seen: Vec<PathBuf> = Vec::new();
    for (priority, directory) in directories.enumerate() {
        let directory = resolved(directory);
        if seen.contains(&directory) {
            continue;
        }
        for path in files(&directory)? {
            if specs.len() >= MAX_FILES {
                let why = format!("more than {MAX_FILES} specifications");
                return Err(Error::File(config::Error::Untrusted { path, why }));
            }
            let text = read_trusted(&path, MAX_LEN).map_err(Error::File)?;
            match Spec::parse(&path, &text) {
                Ok(spec) => specs.push(Spec { priority, ..spec }),
                // An invalid specification of another kind of device, such as a network card, must not disable GPUs.
                Err(_) if is_of_no_gpu(&text) => {}
                Err(error) => return Err(error),
            }
        }
        seen.push(directory);
    }
    Ok(specs)
}

/// True if an invalid specification states a kind other than GPUs.
pub(super) fn is_of_no_gpu(text: &str) -> bool {
    let words = text.lines().filter_map(|line| line.trim().trim_matches(['"', ',']).split_once(':'));
    let mut kinds = words.filter(|(key, _)| key.trim_matches(['"', ' ']) == "kind");
    let kind = kinds.next().map(|(_, kind)| kind.trim_matches([' ', '"', '\'', ',']));
    kind.and_then(|kind| kind.split_once('/')).is_some_and(|(vendor, class)| {
        !["nvidia", "amd", "intel"].iter().any(|known| vendor.contains(known)) && !class.contains("gpu")
    })
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |cause| Error::File(config::Error::Read(directory.to_owned(), cause));
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(failed(cause)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "json" || extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// `directory` with /var/run, the one link that every system has, resolved; opening a file refuses any other link.
fn resolved(directory: &Path) -> PathBuf {
    let link = Path::new("/var/run");
    let Ok(rest) = directory.strip_prefix(link) else { return directory.to_owned() };
    let roots = link.symlink_metadata().is_ok_and(|found| found.is_symlink() && found.uid() == 0);
    let leads = link.read_link().is_ok_and(|target| target == Path::new("/run") || target == Path::new("../run"));
    if roots && leads { Path::new("/run").join(rest) } else { directory.to_owned() }
}
