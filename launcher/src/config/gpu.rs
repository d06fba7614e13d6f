//! `gpu:` of coracle.yaml: source of the files of a GPU's driver.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::values::{Absolute, Target};

/// Directories of specifications of the Container Device Interface; a later one takes precedence over an earlier one.
const CDI: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Files of a GPU's driver that containers get.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gpu {
    /// Source of the list of these files.
    pub driver: DriverFrom,
    /// Directories of specifications, in ascending order of precedence.
    cdi: Vec<Absolute>,
    /// Libraries beyond the built-in list.
    pub libraries: Vec<LibraryName>,
    /// Programs beyond the built-in list.
    pub programs: Vec<ProgramName>,
    /// Files, sockets and directories that appear at their own path.
    files: Vec<Target>,
}

impl Default for Gpu {
    fn default() -> Self {
        let cdi = CDI.iter().map(|folder| Absolute(folder.into())).collect();
        Self { driver: DriverFrom::Auto, cdi, libraries: Vec::new(), programs: Vec::new(), files: Vec::new() }
    }
}

impl Gpu {
    /// Directories of specifications, in ascending order of precedence.
    pub fn cdi(&self) -> impl Iterator<Item = &Path> {
        self.cdi.iter().map(|folder| folder.0.as_path())
    }

    /// Files, sockets and directories that appear at their own path.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.0.as_path())
    }
}

/// Source of the list of a driver's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum DriverFrom {
    /// A specification if one describes the granted devices, else the loader's list.
    #[default]
    Auto,
    /// A specification (Container Device Interface); without one, no container with a GPU starts.
    Cdi,
    /// The loader's list and the built-in names.
    Libraries,
    /// No source: images bring all files but the device nodes.
    None,
}

/// Library of the node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LibraryName {
    /// Name or prefix of a name in the loader's list: `libcuda.so` matches libcuda.so.1, too.
    Listed(String),
    /// A file.
    File(PathBuf),
}

impl TryFrom<String> for LibraryName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if Path::new(&text).is_absolute() {
            return Ok(Self::File(text.into()));
        }
        let named = text.ends_with(".so") || text.contains(".so.");
        match named && !text.starts_with('.') && !text.contains(['/', '\0']) {
            true => Ok(Self::Listed(text)),
            false => Err(format!("{text:?} is neither a library's name, such as libcuda.so, nor an absolute path")),
        }
    }
}

/// Program of the node.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ProgramName {
    /// Name of a program in one of the usual directories.
    Listed(String),
    /// A file.
    File(PathBuf),
}

impl TryFrom<String> for ProgramName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            path if Path::new(path).is_absolute() && Path::new(path).file_name().is_some() => {
                Ok(Self::File(text.into()))
            }
            "" | "." | ".." => Err(format!("{text:?} is neither a program's name nor an absolute path")),
            name if name.contains(['/', '\0']) => {
                Err(format!("{text:?} is neither a program's name nor an absolute path"))
            }
            _ => Ok(Self::Listed(text)),
        }
    }
}
