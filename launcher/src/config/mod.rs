//! coracle.yaml: site policy and additions. The launcher reads it, both as root and as the user, and only if no user
//! but root can write it.
#![forbid(unsafe_code)]

mod audit;
mod binds;
mod client;
mod devices;
mod error;
mod gpu;
mod images;
mod imported;
pub mod keys;
mod metrics;
mod mpi;
mod options;
mod place;
mod registry;
mod rule;
mod store;
mod trusted;
mod values;

use std::io;
use std::path::Path;

use serde::Deserialize;

use coracle::request::Mpi;

pub use audit::{Audit, USER_RECORDS, UserRecords};
pub use binds::SiteBind;
pub use client::{ClientPaths, SlurmClient};
pub use devices::DeviceRules;
pub use error::{Error, cause_of};
pub use gpu::{DriverFrom, Gpu, LibraryName, ProgramName};
pub use images::{Directories, ImagePath, Owner, UserImages};
pub use imported::RegistryImages;
pub use metrics::Metrics;
pub use mpi::{Profile, ProfileDirectory, Profiles};
pub use options::SiteOptions;
pub use place::place_of;
use place::{find_key, place_of_cause};
pub use registry::{Mirror, Registries, Registry, canonical, is_host, is_repository};
pub(crate) use rule::rule_keys;
pub use rule::{Allowed, DefaultImage, Digest, Fingerprint, HiddenPaths, MaxSize, OptionKey, Rule, Scope, YesNo};
pub use store::{Scanner, Store};
pub use trusted::{append_trusted, make_private_directory, open_trusted, read_trusted, trust, trust_directory};
pub use values::{Absolute, Limit, Log, LogPlan, Squashfuse, StartTimeout};

/// Path of the file, unless plugstack.conf sets `config=PATH`. `make install` sets `CORACLE_CONFIG` for a SYSCONFDIR
/// other than /etc.
pub const PATH: &str = match option_env!("CORACLE_CONFIG") {
    Some(path) => path,
    None => "/etc/coracle/coracle.yaml",
};

macro_rules! define_config {
    ($($(#[$doc:meta])* $key:ident: $value:ty,)*) => {
        /// Settings of the site.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Config {
            /// Version of this file's format; only 1 exists.
            pub version: Version,
            $($(#[$doc])* pub $key: Option<$value>,)*
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

        impl Config {
            /// Rule of the top level, for everybody.
            pub fn top(&self) -> Rule {
                Rule { $($key: self.$key.clone(),)* }
            }
        }
    };
}

rule_keys!(define_config);

/// Format version 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Version;

impl TryFrom<u64> for Version {
    type Error = String;
    fn try_from(number: u64) -> Result<Self, String> {
        if number == 1 { Ok(Self) } else { Err(format!("`version` {number} is not known, only 1 is")) }
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

#[cfg(test)]
mod tests;
