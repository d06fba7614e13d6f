//! `gpu:` of coracle.yaml: where the files of a GPU's driver come from.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::values::{Absolute, Target};

/// Directories of specifications of the Container Device Interface; what stands behind comes before what stands in
/// front.
const CDI: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Files of a GPU's driver that programs in containers get.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gpu {
    /// Source of the list of these files.
    pub driver: DriverFrom,
    /// The folders with specifications, the less important ones first.
    cdi: Vec<Absolute>,
    /// Libraries beyond those that are known.
    pub libraries: Vec<LibraryName>,
    /// Programs beyond those that are known.
    pub programs: Vec<ProgramName>,
    /// Files, sockets and folders that appear at their own path.
    files: Vec<Target>,
}

impl Default for Gpu {
    fn default() -> Self {
        let cdi = CDI.iter().map(|folder| Absolute(folder.into())).collect();
        Self { driver: DriverFrom::Auto, cdi, libraries: Vec::new(), programs: Vec::new(), files: Vec::new() }
    }
}

impl Gpu {
    /// The folders with specifications, the less important ones first.
    pub fn cdi(&self) -> impl Iterator<Item = &Path> {
        self.cdi.iter().map(|folder| folder.0.as_path())
    }

    /// Files, sockets and folders that appear at their own path.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.0.as_path())
    }
}

/// Source of the list of a driver's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum DriverFrom {
    /// A specification if there is one for what was granted, else the loader's list.
    #[default]
    Auto,
    /// A specification (Container Device Interface); without one no container with a GPU starts.
    Cdi,
    /// The loader's list, and names that are known.
    Libraries,
    /// Nothing: images bring all but the device nodes.
    None,
}

/// A library of the node's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LibraryName {
    /// As the loader's list has it, or its beginning: `libcuda.so` is libcuda.so.1, too.
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

/// A program of the node's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ProgramName {
    /// One in the usual folders.
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
