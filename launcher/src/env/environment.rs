//! Builds the environment of a step's tasks.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use super::{Change, DEFAULT_PATH, Item, Pair, names};
use coracle::env::is_name;

/// Settings for an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// True if only variables for Slurm, MPI and the terminal pass from the host.
    pub clean: bool,
    /// Variables of the host that name a directory which is of no use in the container.
    pub useless: Vec<OsString>,
    /// True if the host's environment is that of a task in the same image.
    pub already_inside: bool,
    /// Default of the site.
    pub site: Vec<Item>,
    /// `--container-env`
    pub user: Vec<Item>,
    /// `CORACLE_IMAGE`
    pub image: OsString,
    /// `CORACLE_NAME`
    pub name: OsString,
    /// `CORACLE_DIGEST`, if it is known.
    pub digest: Option<OsString>,
    /// `CORACLE_ALLOWED_DIR`, if the user can have images in the site's store.
    pub allowed_dir: Option<OsString>,
}

/// Origin of a variable's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The job's environment on the node.
    Host,
    /// The job's environment on the node, with a fact of Slurm or of its PMI.
    Slurm,
    /// File of the image.
    Image(Arc<str>),
    /// The `Env` of an OCI image.
    ImageConfig,
    /// `APPTAINERENV_…` or `SINGULARITYENV_…`.
    Prefixed,
    /// `--container-env`
    Option,
    /// Default of the site.
    Site,
    /// Row 7 of the table.
    Coracle,
    /// [`DEFAULT_PATH`]
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => out.write_str("host"),
            Self::Slurm => out.write_str("slurm"),
            Self::Image(file) => write!(out, "image: {file}"),
            Self::ImageConfig => out.write_str("image: config Env"),
            Self::Prefixed => out.write_str("APPTAINERENV_"),
            Self::Option => out.write_str("--container-env"),
            Self::Site => out.write_str("site"),
            Self::Coracle => out.write_str("coracle"),
            Self::Default => out.write_str("default"),
        }
    }
}

/// Value of a variable, with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The value.
    pub value: OsString,
    /// Origin of the value.
    pub origin: Origin,
}

/// Environment of a step's tasks on this node; see the table of [`crate::env`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    pub(super) variables: BTreeMap<OsString, Variable>,
    /// Variables that the image's scripts set without exporting them; `None` for those that are exported once they get
    /// a value.
    pub(super) shell: BTreeMap<OsString, Option<OsString>>,
    /// Bytes that all scripts evaluated so far have read and produced: one limit bounds their memory and time.
    pub(super) work: usize,
}

impl Environment {
    /// Applies rows 1 and 2. If `host` has a name twice, the first value counts, as for getenv(3).
    pub fn start(host: &[Pair], rules: &Rules) -> Self {
        let mut environment = Self::default();
        for (name, value) in host {
            if passes(name.as_bytes(), rules)
                && !rules.useless.contains(name)
                && !environment.variables.contains_key(name)
            {
                let origin = origin_of(name);
                environment.variables.insert(name.clone(), Variable { value: value.clone(), origin });
            }
        }
        if !rules.already_inside {
            environment.set(OsStr::new("PATH"), DEFAULT_PATH.into(), &Origin::Default);
            for name in names::LOADER {
                environment.variables.remove(OsStr::new(name));
            }
        }
        environment
    }

    /// The variable `name`.
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&Variable> {
        self.variables.get(name.as_ref())
    }

    /// All variables, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &Variable)> {
        self.variables.iter().map(|(name, variable)| (name.as_os_str(), variable))
    }

    /// Environment for a program that starts now, such as the image's shell.
    pub fn exported(&self) -> Vec<Pair> {
        self.variables.iter().map(|(name, variable)| (name.clone(), variable.value.clone())).collect()
    }

    /// Sets a variable. If it has this value already, it keeps its origin. Names and values that are invalid in an
    /// environment are ignored.
    pub(super) fn set(&mut self, name: &OsStr, value: OsString, origin: &Origin) {
        let known = self.variables.get(name).is_some_and(|variable| variable.value == value);
        if !known && is_name(name.as_bytes()) && !value.as_bytes().contains(&0) {
            self.variables.insert(name.to_owned(), Variable { value, origin: origin.clone() });
        }
    }

    /// Takes over what the image's shell exports (`after`) after sourcing `file` and the later scripts. Names that no
    /// shell can assign keep their values.
    pub fn take_over(&mut self, after: &[Pair], file: &str) {
        let is_noise = |name: &OsStr| {
            matches!(name.as_bytes(), b"PWD" | b"OLDPWD" | b"SHLVL" | b"_") || !names::is_proper(name.as_bytes())
        };
        let kept: BTreeSet<&OsStr> = after.iter().map(|(name, _)| name.as_os_str()).collect();
        self.variables.retain(|name, _| kept.contains(name.as_os_str()) || is_noise(name));
        let origin = Origin::Image(Arc::from(file));
        for (name, value) in after {
            if !is_noise(name) && !names::is_protected(name.as_bytes()) {
                self.set(name, value.clone(), &origin);
            }
        }
    }

    /// Reads `/etc/environment` of an image: `NAME=VALUE` lines, as enroot writes them and pam_env(8) reads them. A
    /// leading `export`, quotes around the whole value, and comments are removed; nothing is expanded.
    pub fn environment_file(&mut self, text: &[u8]) {
        let origin = Origin::Image(Arc::from("/etc/environment"));
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.trim_ascii();
            let line = line.strip_prefix(b"export ").map_or(line, <[u8]>::trim_ascii_start);
            let Some(equals) = line.iter().position(|byte| *byte == b'=') else { continue };
            let (name, value) = (&line[..equals], &line[equals + 1..]);
            if names::is_proper(name) {
                self.set(OsStr::from_bytes(name), OsString::from_vec(unquoted(value).to_vec()), &origin);
            }
        }
    }

    /// Applies `config.Env` of an OCI image (image-spec, config.md): a list of `NAME=VALUE`.
    pub fn oci_env<T: AsRef<OsStr>>(&mut self, list: &[T]) {
        for entry in list {
            let entry = entry.as_ref().as_bytes();
            if let Some(equals) = entry.iter().position(|byte| *byte == b'=') {
                let value = OsString::from_vec(entry[equals + 1..].to_vec());
                self.set(OsStr::from_bytes(&entry[..equals]), value, &Origin::ImageConfig);
            }
        }
    }

    /// Applies rows 4 to 7.
    pub fn finish(&mut self, host: &[Pair], rules: &Rules) {
        let host = first_of_each(host);
        self.restore_protected(&host, rules);
        if !rules.already_inside {
            self.complete_path();
        }
        self.apply_prefixed(&host);
        for (items, origin) in [(&rules.site, Origin::Site), (&rules.user, Origin::Option)] {
            for item in items {
                self.apply(item, &host, &origin);
            }
        }
        let ours = [
            ("CORACLE_IMAGE", Some(&rules.image)),
            ("CORACLE_NAME", Some(&rules.name)),
            ("CORACLE_DIGEST", rules.digest.as_ref()),
        ];
        for (name, value) in ours {
            self.variables.remove(OsStr::new(name));
            if let Some(value) = value {
                self.set(OsStr::new(name), value.clone(), &Origin::Coracle);
            }
        }
        // The variable is valid outside the container, too: a value from the login shell is kept.
        if let Some(directory) = &rules.allowed_dir {
            self.put("CORACLE_ALLOWED_DIR", directory.clone());
        }
    }

    /// Sets a variable that Coracle defines.
    pub fn put(&mut self, name: &str, value: OsString) {
        self.set(OsStr::new(name), value, &Origin::Coracle);
    }

    /// Puts a directory in front of a list such as `PATH`, unless it is there.
    pub fn prepend(&mut self, list: &str, directory: &str) {
        let mut value = OsString::from(directory);
        if let Some(rest) = self.get(list).filter(|list| !list.value.is_empty()) {
            if rest.value.as_bytes().split(|byte| *byte == b':').next() == Some(directory.as_bytes()) {
                return;
            }
            value.push(":");
            value.push(&rest.value);
        }
        self.put(list, value);
    }

    /// Removes a directory from a list.
    pub fn leave_out(&mut self, list: &str, directory: &str) {
        let Some(variable) = self.get(list) else { return };
        let parts = variable.value.as_bytes().split(|byte| *byte == b':');
        let kept: Vec<&[u8]> = parts.filter(|part| *part != directory.as_bytes()).collect();
        let value = OsString::from_vec(kept.join(&b':'));
        if value.is_empty() {
            self.variables.remove(OsStr::new(list));
        } else if value != variable.value {
            self.put(list, value);
        }
    }

    /// Appends the directories of [`DEFAULT_PATH`] that the image's `PATH` lacks, as Apptainer does: an image may name
    /// only its own directory and still expect a shell.
    fn complete_path(&mut self) {
        let path = OsStr::new("PATH");
        let Some(variable) = self.variables.get_mut(path).filter(|variable| !variable.value.is_empty()) else {
            return self.set(path, DEFAULT_PATH.into(), &Origin::Default);
        };
        let listed: BTreeSet<Vec<u8>> =
            variable.value.as_bytes().split(|byte| *byte == b':').map(<[u8]>::to_vec).collect();
        for directory in DEFAULT_PATH.split(':').filter(|directory| !listed.contains(directory.as_bytes())) {
            variable.value.push(":");
            variable.value.push(directory);
        }
    }

    fn restore_protected(&mut self, host: &BTreeMap<&OsStr, &OsStr>, rules: &Rules) {
        self.variables.retain(|name, _| !names::is_protected(name.as_bytes()));
        for (name, value) in host {
            if names::is_protected(name.as_bytes()) && passes(name.as_bytes(), rules) {
                self.set(name, (*value).to_owned(), &origin_of(name));
            }
        }
    }

    fn apply_prefixed(&mut self, host: &BTreeMap<&OsStr, &OsStr>) {
        let mut wanted = BTreeMap::new();
        for prefix in [b"SINGULARITYENV_".as_slice(), b"APPTAINERENV_"] {
            for (name, value) in host.range(OsStr::from_bytes(prefix)..) {
                let Some(name) = name.as_bytes().strip_prefix(prefix) else { break };
                if names::is_proper(name) && !names::is_slurms(name) && name != b"HOME" {
                    wanted.insert(name, *value);
                }
            }
        }
        for list in ["PATH", "LD_LIBRARY_PATH"] {
            let front = wanted.remove(format!("PREPEND_{list}").as_bytes());
            let back = wanted.remove(format!("APPEND_{list}").as_bytes());
            let parts = [front, self.variables.get(OsStr::new(list)).map(|variable| variable.value.as_os_str()), back];
            let parts: Vec<&OsStr> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
            if front.is_some() || back.is_some() {
                let value = parts.join(OsStr::new(":"));
                self.set(OsStr::new(list), value, &Origin::Prefixed);
            }
        }
        for (name, value) in wanted {
            self.set(OsStr::from_bytes(name), value.to_owned(), &Origin::Prefixed);
        }
    }

    fn apply(&mut self, item: &Item, host: &BTreeMap<&OsStr, &OsStr>, origin: &Origin) {
        match item {
            Item::Set(name, value) => self.set(name, value.clone(), origin),
            Item::Keep(name) => match name.as_bytes().strip_suffix(b"*") {
                Some(prefix) => {
                    for (name, value) in host.range(OsStr::from_bytes(prefix)..) {
                        if !name.as_bytes().starts_with(prefix) {
                            break;
                        }
                        self.set(name, (*value).to_owned(), origin);
                    }
                }
                None => {
                    if let Some(value) = host.get(name.as_os_str()) {
                        self.set(name, (*value).to_owned(), origin);
                    }
                }
            },
        }
    }

    /// Changes that turn the environment `host` into this one, sorted by name.
    pub fn changes(&self, host: &[Pair]) -> Vec<Change> {
        let host = first_of_each(host);
        let mut changes = Vec::new();
        for name in host.keys() {
            if !self.variables.contains_key(*name) {
                changes.push(Change::Unset((*name).to_owned()));
            }
        }
        for (name, variable) in &self.variables {
            if host.get(name.as_os_str()) != Some(&variable.value.as_os_str()) {
                changes.push(Change::Set(name.clone(), variable.value.clone()));
            }
        }
        changes.sort_by(|left, right| left.name().cmp(right.name()));
        changes
    }
}

/// Environment of the host by name; of a duplicate name, the first value.
pub(super) fn first_of_each(host: &[Pair]) -> BTreeMap<&OsStr, &OsStr> {
    let mut map = BTreeMap::new();
    for (name, value) in host {
        map.entry(name.as_os_str()).or_insert(value.as_os_str());
    }
    map
}

/// Row 1: true if the host's variable passes.
fn passes(name: &[u8], rules: &Rules) -> bool {
    let prefixed = name.starts_with(b"APPTAINERENV_") || name.starts_with(b"SINGULARITYENV_");
    let stranger = names::tells_of_apptainer(name) && !rules.already_inside;
    !prefixed && !stranger && (!rules.clean || rules.already_inside || names::passes_clean(name))
}

fn origin_of(name: &OsStr) -> Origin {
    let is_slurms = names::is_slurms(name.as_bytes()) && !name.as_bytes().starts_with(b"CORACLE_");
    if is_slurms { Origin::Slurm } else { Origin::Host }
}

/// `value` without quotes around the whole of it.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        _ => value,
    }
}
