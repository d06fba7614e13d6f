//! The environment while it is made.
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
    /// Only what Slurm, MPI and the terminal need passes from the host.
    pub clean: bool,
    /// Variables of the host that name a directory which is of no use inside.
    pub useless: Vec<OsString>,
    /// The host's environment is that of a task inside of the same image.
    pub already_inside: bool,
    /// The site's default.
    pub site: Vec<Item>,
    /// `--container-env`
    pub user: Vec<Item>,
    /// `CORACLE_IMAGE`
    pub image: OsString,
    /// `CORACLE_NAME`
    pub name: OsString,
    /// `CORACLE_DIGEST`, when it is known.
    pub digest: Option<OsString>,
    /// `CORACLE_ALLOWED_DIR`, when the user can have images in the site's store.
    pub allowed_dir: Option<OsString>,
}

/// Who gave a variable its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The job's environment on the node.
    Host,
    /// The same, and it is a fact of Slurm's or of its PMI.
    Slurm,
    /// A file of the image.
    Image(Arc<str>),
    /// The `Env` of an OCI image.
    ImageConfig,
    /// `APPTAINERENV_…` or `SINGULARITYENV_…`.
    Prefixed,
    /// `--container-env`
    Option,
    /// The site's default.
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

/// The value of a variable and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// The value.
    pub value: OsString,
    /// Who gave it.
    pub origin: Origin,
}

/// The environment of a step's tasks on this node; see the table of [`crate::env`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    pub(super) variables: BTreeMap<OsString, Variable>,
    /// Variables that the image's scripts know without having exported them; without a value, those that are exported
    /// once they get one.
    pub(super) shell: BTreeMap<OsString, Option<OsString>>,
    /// Bytes that the scripts evaluated so far have had and made: memory and time have one limit for all of them.
    pub(super) work: usize,
}

impl Environment {
    /// Rows 1 and 2. Of a name that `host` has twice, the first counts, as for getenv(3).
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

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &Variable)> {
        self.variables.iter().map(|(name, variable)| (name.as_os_str(), variable))
    }

    /// Environment of a program that starts now, such as the image's own shell.
    pub fn exported(&self) -> Vec<Pair> {
        self.variables.iter().map(|(name, variable)| (name.clone(), variable.value.clone())).collect()
    }

    /// Gives a variable its value. One that has it already keeps its origin; what no environment holds is left out.
    pub(super) fn set(&mut self, name: &OsStr, value: OsString, origin: &Origin) {
        let known = self.variables.get(name).is_some_and(|variable| variable.value == value);
        if !known && is_name(name.as_bytes()) && !value.as_bytes().contains(&0) {
            self.variables.insert(name.to_owned(), Variable { value, origin: origin.clone() });
        }
    }

    /// Takes what the image's own shell exports (`after`) when it has sourced `file` and what comes behind it.
    /// Names that no shell could assign are none of its doing, whatever it did with them.
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

    /// `/etc/environment` of an image: `NAME=VALUE` lines, as enroot writes them and pam_env(8) reads them. `export`
    /// in front, a pair of quotes around the value and comments are taken off; nothing is expanded.
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

    /// `config.Env` of an OCI image (image-spec, config.md): `NAME=VALUE` each.
    pub fn oci_env<T: AsRef<OsStr>>(&mut self, list: &[T]) {
        for entry in list {
            let entry = entry.as_ref().as_bytes();
            if let Some(equals) = entry.iter().position(|byte| *byte == b'=') {
                let value = OsString::from_vec(entry[equals + 1..].to_vec());
                self.set(OsStr::from_bytes(&entry[..equals]), value, &Origin::ImageConfig);
            }
        }
    }

    /// Rows 4 to 7.
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
        // True outside of the container as well: what the login shell has set is not taken away.
        if let Some(folder) = &rules.allowed_dir {
            self.put("CORACLE_ALLOWED_DIR", folder.clone());
        }
    }

    /// Sets a variable of Coracle's own.
    pub fn put(&mut self, name: &str, value: OsString) {
        self.set(OsStr::new(name), value, &Origin::Coracle);
    }

    /// Puts a folder in front of a list such as `PATH`, unless it stands there.
    pub fn prepend(&mut self, list: &str, folder: &str) {
        let mut value = OsString::from(folder);
        if let Some(rest) = self.get(list).filter(|list| !list.value.is_empty()) {
            if rest.value.as_bytes().split(|byte| *byte == b':').next() == Some(folder.as_bytes()) {
                return;
            }
            value.push(":");
            value.push(&rest.value);
        }
        self.put(list, value);
    }

    /// Takes a folder that is not there out of a list.
    pub fn leave_out(&mut self, list: &str, folder: &str) {
        let Some(variable) = self.get(list) else { return };
        let parts = variable.value.as_bytes().split(|byte| *byte == b':');
        let kept: Vec<&[u8]> = parts.filter(|part| *part != folder.as_bytes()).collect();
        let value = OsString::from_vec(kept.join(&b':'));
        if value.is_empty() {
            self.variables.remove(OsStr::new(list));
        } else if value != variable.value {
            self.put(list, value);
        }
    }

    /// Appends those directories of [`DEFAULT_PATH`] that the image's `PATH` lacks, as Apptainer does: an image may name
    /// its own directory alone and still expects a shell.
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

    /// Changes that turn the environment `host` into this one, in the order of the names.
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

/// The host's environment by name; of a name that stands twice, the first.
pub(super) fn first_of_each(host: &[Pair]) -> BTreeMap<&OsStr, &OsStr> {
    let mut map = BTreeMap::new();
    for (name, value) in host {
        map.entry(name.as_os_str()).or_insert(value.as_os_str());
    }
    map
}

/// Row 1: whether the host's variable is seen inside at all.
fn passes(name: &[u8], rules: &Rules) -> bool {
    let prefixed = name.starts_with(b"APPTAINERENV_") || name.starts_with(b"SINGULARITYENV_");
    let stranger = names::tells_of_apptainer(name) && !rules.already_inside;
    !prefixed && !stranger && (!rules.clean || rules.already_inside || names::passes_clean(name))
}

fn origin_of(name: &OsStr) -> Origin {
    let is_slurms = names::is_slurms(name.as_bytes()) && !name.as_bytes().starts_with(b"CORACLE_");
    if is_slurms { Origin::Slurm } else { Origin::Host }
}

/// `value` without the quotes that stand around all of it.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        _ => value,
    }
}
