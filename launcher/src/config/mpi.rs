//! `mpi:` of coracle.yaml: libraries of the host that may replace those of an image.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::values::{Absolute, Target};
use coracle::report::Refusal;
use coracle::request::{self, Mpi};

/// Profiles by name, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profiles(pub Vec<(Mpi, Profile)>);

/// One MPI of the host. Only its files are serialized, for the process that compares them with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Libraries that programs are linked with.
    pub libraries: Libraries,
    /// Dependencies of these libraries; every image gets them, even if it has its own.
    #[serde(default)]
    pub dependencies: Vec<Absolute>,
    /// Directories that the libraries open by path: components and configuration.
    #[serde(default, skip_serializing)]
    pub folders: Vec<ProfileDirectory>,
    /// Variables that are set with the profile.
    #[serde(default, skip_serializing)]
    env: Vec<Assignment>,
}

impl Profiles {
    /// The profile called `name`.
    pub fn get(&self, name: &str) -> Option<&Profile> {
        self.0.iter().find(|(known, _)| known.word() == name).map(|(_, profile)| profile)
    }

    /// Names of all profiles, for a message that offers the choice.
    pub fn names(&self) -> String {
        self.0.iter().map(|(name, _)| name.word()).collect::<Vec<_>>().join(", ")
    }
}

impl Profile {
    /// The libraries, then their dependencies.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.libraries.0.iter().chain(&self.dependencies).map(|file| file.0.as_path())
    }

    /// Variables that are set with the profile.
    pub fn env(&self) -> impl Iterator<Item = request::Variable> {
        self.env.iter().map(|one| one.0.clone())
    }
}

impl<'de> Deserialize<'de> for Profiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Named;

        impl<'de> Visitor<'de> for Named {
            type Value = Profiles;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("names, each with the keys libraries, dependencies, folders and env")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Profiles, A::Error> {
                let mut profiles = Profiles::default();
                while let Some(text) = map.next_key::<String>()? {
                    let name =
                        Mpi::parse(text.as_ref()).ok().filter(|name| ![Mpi::NONE, Mpi::AUTO].contains(&name.word()));
                    let Some(name) = name else {
                        return Err(de::Error::custom(format!("`{text}` cannot be the name of a profile")));
                    };
                    if profiles.get(name.word()).is_some() {
                        return Err(de::Error::custom(format!("`{text}` stands there twice")));
                    }
                    profiles.0.push((name, map.next_value()?));
                }
                Ok(profiles)
            }
        }

        deserializer.deserialize_map(Named)
    }
}

/// List of at least one library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Absolute>")]
pub struct Libraries(pub Vec<Absolute>);

impl TryFrom<Vec<Absolute>> for Libraries {
    type Error = String;
    fn try_from(files: Vec<Absolute>) -> Result<Self, String> {
        if files.is_empty() { Err("`libraries` names none".into()) } else { Ok(Self(files)) }
    }
}

/// Directory of the host, and its path in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileDirectory {
    /// Path on the host.
    pub source: Absolute,
    target: Option<Target>,
}

impl ProfileDirectory {
    /// Path inside; `source` if unset.
    pub fn target(&self) -> &Path {
        self.target.as_ref().map_or(&self.source.0, |target| &target.0)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    source: Absolute,
    target: Option<Target>,
}

impl<'de> Deserialize<'de> for ProfileDirectory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A derived untagged enum does not report which key is wrong.
        struct PathOrKeys;

        impl<'de> Visitor<'de> for PathOrKeys {
            type Value = ProfileDirectory;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an absolute path, or the keys source and target")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<ProfileDirectory, E> {
                // The source is the target, too: the same rules apply as for a target.
                let target = Target::try_from(Path::new(path).to_owned()).map_err(E::custom)?;
                Ok(ProfileDirectory { source: Absolute(target.0), target: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ProfileDirectory, A::Error> {
                let Elsewhere { source, target } = Elsewhere::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ProfileDirectory { source, target })
            }
        }

        deserializer.deserialize_any(PathOrKeys)
    }
}

/// `NAME=VALUE`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Assignment(request::Variable);

impl TryFrom<String> for Assignment {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match request::Variable::parse(text.as_ref()) {
            Ok(variable @ request::Variable::Set(..)) => Ok(Self(variable)),
            Ok(_) => Err(format!("{text:?} is not NAME=VALUE")),
            Err(error) => Err(format!("{text:?}: {}", Refusal::from(error).cause)),
        }
    }
}
