//! `slurm_client` of coracle.yaml: Slurm's client commands inside containers.
#![forbid(unsafe_code)]

use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};

use super::values::Absolute;

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
