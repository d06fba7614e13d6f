//! coracle.yaml: site policy and additions. The launcher reads it, both as root and as the user, and only if no user
//! but root can write it.
#![forbid(unsafe_code)]

mod audit;
mod devices;
mod gpu;
mod imported;
mod metrics;
mod mpi;
mod place;
mod registry;
mod rule;
mod store;
mod trusted;
mod values;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use coracle::options::{OPTIONS, RawOptions};
use coracle::report::{Kind, Refusal};
use coracle::request::{Access, Mpi, Settings};

pub use audit::{Audit, USER_RECORDS, UserRecords};
pub use devices::DeviceRules;
pub use gpu::{DriverFrom, Gpu, LibraryName, ProgramName};
pub use imported::RegistryImages;
pub use metrics::Metrics;
pub use mpi::{Folder, Profile, Profiles};
pub use place::place_of;
pub use registry::{Mirror, Registries, Registry, canonical, is_host, is_repository};
pub use rule::{Allowed, DefaultImage, Digest, Fingerprint, Folders, MaxSize, OptionKey, Rule, Scope, YesNo};
pub use store::{Scanner, Store};
pub use trusted::{append_trusted, open_trusted, read_trusted, trust, trust_folder};
pub use values::{Absolute, Limit, Log, LogPlan, Squashfuse, StartTimeout};
use values::{SiteValue, Target};

/// Path of the file, unless plugstack.conf sets `config=PATH`. `make install` sets `CORACLE_CONFIG` for a SYSCONFDIR
/// other than /etc.
pub const PATH: &str = match option_env!("CORACLE_CONFIG") {
    Some(path) => path,
    None => "/etc/coracle/coracle.yaml",
};

/// Settings of the site.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of this file's format; only 1 exists.
    pub version: Version,
    /// Reader of images that no rule of `image_paths` covers. Without it they are refused.
    pub user_images: Option<UserImages>,
    /// Handling of `--container=docker://…`. There is no default: while it is unset, such requests are refused.
    pub registry_images: Option<RegistryImages>,
    /// Path of squashfuse_ll, if it is not where packages install it.
    pub squashfuse: Option<Squashfuse>,
    /// Directories whose images are trusted.
    #[serde(default)]
    pub image_paths: Vec<ImagePath>,
    /// Store of users' images.
    #[serde(default)]
    pub store: Store,
    /// Policy on directories of the node as images; unset means that they are not images.
    pub directories: Option<Directories>,
    /// Binds of every container.
    #[serde(default)]
    pub binds: Vec<SiteBind>,
    /// Slurm client commands of the node, visible in every container.
    #[serde(default)]
    pub slurm_client: SlurmClient,
    /// Time limit for a container to be ready.
    #[serde(default)]
    pub start_timeout: StartTimeout,
    /// Target of the line about each step.
    #[serde(default)]
    pub log: Log,
    /// True if the lines of each step's plan are logged, too.
    #[serde(default)]
    pub log_plan: LogPlan,
    /// Further target of the record of each step.
    #[serde(default)]
    pub audit: Audit,
    /// Counters of each node's steps.
    #[serde(default)]
    pub metrics: Metrics,
    /// Site defaults for `options::OPTIONS`, which hold unless the user sets an option.
    #[serde(default)]
    pub options: SiteOptions,
    /// MPI libraries of the host that may replace those of an image.
    #[serde(default)]
    pub mpi: Profiles,
    /// Device nodes that containers have besides the usual ones.
    #[serde(default)]
    pub devices: DeviceRules,
    /// Files of a GPU's driver that containers get.
    #[serde(default)]
    pub gpu: Gpu,
    /// Access to registries of images.
    #[serde(default)]
    pub registries: Registries,
    /// Limit and default size, on each node, of a writable layer in memory.
    #[serde(default)]
    pub writable_limit: Limit,
    /// [`Rule::default_image`] for everybody, as are the following.
    pub default_image: Option<DefaultImage>,
    /// [`Rule::required`]
    pub required: Option<YesNo>,
    /// [`Rule::digests`]
    pub digests: Option<Allowed<Digest>>,
    /// [`Rule::signers`]
    pub signers: Option<Allowed<Fingerprint>>,
    /// [`Rule::max_image_size`]
    pub max_image_size: Option<MaxSize>,
    /// [`Rule::bind_allow`]
    pub bind_allow: Option<Allowed<Absolute>>,
    /// [`Rule::bind_deny`]
    pub bind_deny: Option<Folders>,
    /// [`Rule::user_options`]
    pub user_options: Option<Allowed<OptionKey>>,
    /// Rules of partitions.
    #[serde(default)]
    pub partitions: Scope,
    /// Rules of accounts.
    #[serde(default)]
    pub accounts: Scope,
    /// Rules of qualities of service.
    #[serde(default)]
    pub qos: Scope,
    /// Rules of users, by name or user id.
    #[serde(default)]
    pub users: Scope,
    /// Rules of groups, by name or group id.
    #[serde(default)]
    pub groups: Scope,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: Version,
            user_images: None,
            registry_images: None,
            squashfuse: None,
            image_paths: Vec::new(),
            store: Store::default(),
            directories: None,
            binds: Vec::new(),
            slurm_client: SlurmClient::default(),
            start_timeout: StartTimeout::default(),
            log: Log::default(),
            log_plan: LogPlan::default(),
            audit: Audit::default(),
            metrics: Metrics::default(),
            options: SiteOptions::default(),
            mpi: Profiles::default(),
            devices: DeviceRules::default(),
            gpu: Gpu::default(),
            registries: Registries::default(),
            writable_limit: Limit::default(),
            default_image: None,
            required: None,
            digests: None,
            signers: None,
            max_image_size: None,
            bind_allow: None,
            bind_deny: None,
            user_options: None,
            partitions: Scope::default(),
            accounts: Scope::default(),
            qos: Scope::default(),
            users: Scope::default(),
            groups: Scope::default(),
        }
    }
}

/// Format version 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Version;

impl TryFrom<u64> for Version {
    type Error = String;
    fn try_from(number: u64) -> Result<Self, String> {
        if number == 1 { Ok(Self) } else { Err(format!("`version` {number} is not known, only 1 is")) }
    }
}

/// Handling of user images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum UserImages {
    /// The kernel mounts it.
    Kernel,
    /// A process of the user reads it, and the kernel asks that process (fuse(4)).
    Fuse,
    /// Refused.
    Deny,
}

impl TryFrom<String> for UserImages {
    type Error = String;
    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "kernel" => Ok(Self::Kernel),
            "deny" => Ok(Self::Deny),
            "fuse" => Ok(Self::Fuse),
            other => Err(format!("`user_images` is kernel, fuse or deny, not {other:?}")),
        }
    }
}

/// Policy on directories of the node as images. `user_images` and `image_paths` hold for them as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Directories {
    /// Refused.
    Deny,
    /// Allowed.
    Allow,
}

impl TryFrom<String> for Directories {
    type Error = String;
    fn try_from(word: String) -> Result<Self, String> {
        match word.as_str() {
            "deny" => Ok(Self::Deny),
            "allow" => Ok(Self::Allow),
            other => Err(format!("`directories` is deny or allow, not {other:?}")),
        }
    }
}

impl fmt::Display for UserImages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Kernel => "kernel",
            Self::Fuse => "fuse",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Directories {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        })
    }
}

/// Directory whose images are trusted, because only their owner can write them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePath {
    /// The directory; images may lie anywhere below it.
    pub path: Absolute,
    /// Required owner of the image files: a user's name or user id.
    #[serde(default)]
    pub owner: Owner,
    /// Signers of which one must also have signed all objects of an image below `path`.
    pub signers: Option<Vec<Fingerprint>>,
}

/// User, by name or user id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "`owner` is a user's name or number")]
pub enum Owner {
    /// A user id.
    Number(u32),
    /// A user's name.
    Name(String),
}

impl Default for Owner {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(0) => out.write_str("root"),
            Self::Number(uid) => write!(out, "user {uid}"),
            Self::Name(name) => out.write_str(name),
        }
    }
}

/// Directory or file of the node that every container shows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteBind {
    /// Path on the node.
    pub source: Absolute,
    /// Path inside; `source` if unset.
    target: Option<Target>,
    /// `ro` or `rw`.
    #[serde(default)]
    mode: Mode,
    /// True if a node without `source` refuses to start containers.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

impl SiteBind {
    /// Path inside.
    pub fn target(&self) -> &Path {
        self.target.as_ref().map_or(&self.source.0, |target| &target.0)
    }

    /// Access that the bind gives.
    pub fn access(&self) -> Access {
        match self.mode {
            Mode::Ro => Access::ReadOnly,
            Mode::Rw => Access::ReadWrite,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Ro,
    #[default]
    Rw,
}

/// Client commands of the node (srun, sbatch, squeue …) that jobs can call inside containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlurmClient {
    /// Visible; unset paths are searched for.
    Shown(ClientPaths),
    /// Not visible: `none`.
    None,
}

impl SlurmClient {
    /// Configured paths of the commands; the node has them even if images do not.
    pub fn paths(&self) -> ClientPaths {
        match self {
            Self::Shown(paths) => paths.clone(),
            Self::None => ClientPaths::default(),
        }
    }
}

impl Default for SlurmClient {
    fn default() -> Self {
        Self::Shown(ClientPaths::default())
    }
}

impl<'de> Deserialize<'de> for SlurmClient {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A derived untagged enum does not report which key is wrong.
        struct WordOrKeys;

        impl<'de> Visitor<'de> for WordOrKeys {
            type Value = SlurmClient;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("none, or the keys bin, conf, plugins and libraries")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<SlurmClient, E> {
                if word == "none" {
                    Ok(SlurmClient::None)
                } else {
                    Err(E::custom(format!("none or keys are expected, not {word:?}")))
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SlurmClient, A::Error> {
                ClientPaths::deserialize(MapAccessDeserializer::new(map)).map(SlurmClient::Shown)
            }
        }

        deserializer.deserialize_any(WordOrKeys)
    }
}

/// Paths of the node's client commands and of the files that they need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientPaths {
    /// Directory of srun.
    pub bin: Option<Absolute>,
    /// Directory of slurm.conf.
    pub conf: Option<Absolute>,
    /// Directories of Slurm's plugins (PluginDir of slurm.conf(5)).
    #[serde(default)]
    pub plugins: Vec<Absolute>,
    /// Further directories with libraries that the commands need.
    #[serde(default)]
    pub libraries: Vec<Absolute>,
}

/// Defaults for options, with their names without `--container-` as keys.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Default)]
#[serde(try_from = "std::collections::BTreeMap<String, SiteValue>")]
pub struct SiteOptions(pub Settings);

impl TryFrom<std::collections::BTreeMap<String, SiteValue>> for SiteOptions {
    type Error = String;
    fn try_from(map: std::collections::BTreeMap<String, SiteValue>) -> Result<Self, String> {
        let mut raw = RawOptions::default();
        for (key, value) in map {
            let spec = OPTIONS.iter().find(|spec| spec.key == key && spec.site);
            let spec = spec.ok_or_else(|| format!("unknown option `{key}`"))?;
            let values = match value {
                SiteValue::Flag(flag) => vec![if flag { "yes" } else { "no" }.to_owned()],
                SiteValue::Number(number) => vec![number.to_string()],
                SiteValue::Text(text) => vec![text],
                SiteValue::List(list) if spec.repeats => list,
                SiteValue::List(_) => return Err(format!("`{key}` takes one value, not a list")),
            };
            values.into_iter().for_each(|value| raw.take(spec, value.into()));
        }
        Settings::parse(&raw, Path::new("/")).map(Self).map_err(|error| {
            let refusal = Refusal::from(error);
            format!("{:?}: {}", refusal.object, refusal.cause)
        })
    }
}

/// Error in a configuration file; no container starts until an administrator corrects it.
#[derive(Debug)]
pub enum Error {
    /// Users other than root can write the file, or a directory above it.
    Untrusted {
        /// The file or directory.
        path: PathBuf,
        /// Reason why it is not trusted.
        why: String,
    },
    /// The file cannot be read.
    Read(PathBuf, io::Error),
    /// The file cannot be written.
    Write(PathBuf, io::Error),
    /// The content is invalid.
    Content {
        /// The file.
        path: PathBuf,
        /// Line and column, from 1, if the parser reports them.
        place: Option<(usize, usize)>,
        /// The key and what is wrong with it.
        cause: String,
    },
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let hint = "no container starts on this node before the site's admin has mended it";
        match error {
            Error::Untrusted { path, why } => Self::new(Kind::Config, path.display().to_string(), why).hint(hint),
            Error::Read(path, cause) => {
                Self::new(Kind::Config, path.display().to_string(), format!("cannot be read: {cause}")).hint(hint)
            }
            Error::Write(path, cause) => {
                Self::new(Kind::System, path.display().to_string(), format!("cannot be written to: {cause}"))
            }
            Error::Content { path, place, cause } => {
                let object = match place {
                    Some((line, column)) => format!("{}:{line}:{column}", path.display()),
                    None => path.display().to_string(),
                };
                Self::new(Kind::Config, object, cause).hint(hint)
            }
        }
    }
}

impl Config {
    /// Reads `path`. A missing file means the defaults; anything else that is wrong is an error.
    pub fn load(path: &Path) -> Result<Self, Error> {
        match read_trusted(path, trusted::MAX_LEN) {
            Ok(text) => Self::parse(path, &text),
            Err(Error::Read(_, cause)) if cause.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Reads the text of a file without a check of its owner, for example a user's own file; [`trust`] is that check.
    pub fn text(path: &Path) -> Result<String, Error> {
        trusted::text(path)
    }

    /// Parses the text of a file that messages name `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let config: Self = serde_yaml::from_str(text).map_err(|error| {
            let cause = cause_of(&error);
            // Some errors have no place, or the place of the whole file: then the key in the message gives the place.
            let at = error.location().map(|place| (place.line(), place.column()));
            let place = at.filter(|place| *place != (1, 1));
            // The parser may report the place of what encloses the key.
            let place = place.max(place_of_cause(text, &cause)).or_else(|| find_key(text, &cause)).or(at);
            Error::Content { path: path.to_owned(), place, cause }
        })?;
        match config.unknown_profile() {
            Some(name) => {
                let cause = format!("options.mpi: there is no profile {name} below mpi");
                Err(Error::Content { path: path.to_owned(), place: place_of(text, &["options", "mpi"]), cause })
            }
            None => Ok(config),
        }
    }

    /// Default `mpi` profile of the site, if no profile has that name.
    fn unknown_profile(&self) -> Option<&str> {
        let name = self.options.0.mpi.as_ref().map(Mpi::word)?;
        let known = [Mpi::NONE, Mpi::AUTO].contains(&name) || self.mpi.get(name).is_some();
        (!known).then_some(name)
    }
}

/// Message of a parser without the place at its end: our messages put it in front, as compilers do.
pub fn cause_of(error: &impl fmt::Display) -> String {
    let message = error.to_string();
    simplify_error(message.split(" at line ").next().unwrap_or(&message))
}

/// Message of serde without the names of our types.
fn simplify_error(cause: &str) -> String {
    let mut text = cause.to_owned();
    for (words, plain) in
        [("expected struct ", "expected keys with values"), ("untagged enum ", "what is possible here")]
    {
        if let Some((front, rest)) = text.split_once(words) {
            let rest = rest.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric());
            text = format!("{front}{plain}{rest}");
        }
    }
    [
        (
            "data did not match any variant of what is possible here",
            "neither of the kinds of value that are possible here",
        ),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected keys with values"),
        ("invalid type: map,", "invalid type: keys with values,"),
        ("invalid type: sequence, expected keys", "invalid type: list, expected keys"),
        ("invalid type: unit value", "no value is given"),
        ("expected u64", "expected a number"),
        ("expected u32", "expected a number"),
    ]
    .iter()
    .fold(text, |text, (words, plain)| text.replace(words, plain))
}

/// Place of the key at the start of a message, such as `image_paths[1].owner: …`, or of the key below it that the
/// message names in backquotes.
fn place_of_cause(text: &str, cause: &str) -> Option<(usize, usize)> {
    let path = cause.split(": ").next().filter(|path| *path != cause && !path.contains([' ', '`']))?;
    let path = path.replace('[', ".[");
    let mut keys: Vec<&str> = path.split('.').collect();
    keys.extend(cause.split('`').nth(1));
    place_of(text, &keys)
}

/// Place of the key that a message names in backquotes: some of the parser's errors have no place.
fn find_key(text: &str, cause: &str) -> Option<(usize, usize)> {
    let key = cause.split('`').nth(1)?;
    text.lines().enumerate().find_map(|(index, line)| {
        let start = line.len() - line.trim_start_matches([' ', '-']).len();
        line[start..].strip_prefix(key)?.trim_start().starts_with(':').then_some((index + 1, start + 1))
    })
}

#[cfg(test)]
mod tests;
