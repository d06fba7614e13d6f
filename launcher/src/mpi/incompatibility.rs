//! Describes the incompatibility of the host's MPI with an image.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;

use crate::elf;
use coracle::report::{Kind, Refusal};

/// Reason why the host's MPI cannot replace that of an image.
#[derive(Debug)]
pub enum Incompatibility {
    /// A file of the profile is not on this node.
    Missing(PathBuf),
    /// A file of the profile is not a library for this node.
    Broken(PathBuf, elf::Error),
    /// A file of the profile is for another machine.
    Machine {
        /// The file.
        file: PathBuf,
        /// Machine that it is for.
        found: String,
        /// Machine of this node.
        wanted: String,
    },
    /// A file of the profile without a SONAME, which no program can need.
    Nameless(PathBuf),
    /// A part of glibc in the profile: it works only with the other parts of the same glibc.
    Glibc(PathBuf),
    /// A file of the profile needs a version that another file of the profile lacks.
    Contradiction {
        /// File that needs the version.
        file: String,
        /// File that lacks it.
        library: String,
        /// The version.
        version: String,
    },
    /// The image uses musl.
    Musl {
        /// Loader of the image.
        loader: String,
    },
    /// The image has no C library for this machine.
    NoGlibc {
        /// The machine.
        machine: String,
    },
    /// The image has MPI libraries, but none with a SONAME of the profile.
    Family {
        /// Library of the profile.
        host: String,
        /// Libraries of the image.
        image: Vec<String>,
    },
    /// A library that the host's files need is neither in the profile nor in the image.
    Lacks {
        /// File that needs it.
        file: String,
        /// The library.
        library: String,
    },
    /// A library of the image is too old for the host's files.
    Older {
        /// File that needs it.
        file: String,
        /// The library.
        library: String,
        /// Version that the file needs.
        needed: String,
        /// Newest version of the same kind in the library, if any.
        newest: Option<String>,
    },
    /// A library of the host is too old for the image's programs.
    Newer {
        /// File of the host.
        file: String,
        /// File of the image with the same SONAME.
        image: String,
        /// Version that the image's file has and the host's lacks.
        version: String,
        /// Newest version of the same kind in the host's file, if any.
        newest: Option<String>,
    },
    /// A library of the image cannot be read.
    Image(String, elf::Error),
}

impl Incompatibility {
    /// Refusal of the image that the user calls `image`, with the profile that was requested.
    pub fn refuse(&self, image: &str, profile: &str) -> Refusal {
        let on_this_node = matches!(
            self,
            Self::Missing(_)
                | Self::Broken(..)
                | Self::Machine { .. }
                | Self::Nameless(_)
                | Self::Glibc(_)
                | Self::Contradiction { .. }
        );
        let (kind, cause) = match self {
            _ if on_this_node => (Kind::System, format!("MPI profile {profile}: {self}")),
            Self::Image(_, elf::Error::Read(cause)) => {
                (Kind::of_reading(cause), format!("MPI profile {profile}: {self}"))
            }
            _ => (Kind::Mpi, format!("MPI profile {profile} does not fit: {self}")),
        };
        Refusal::new(kind, image, cause).hint("--container-mpi=none runs with the image's own MPI")
    }
}

impl fmt::Display for Incompatibility {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(file) => write!(out, "{} is not on this node", file.display()),
            Self::Broken(file, cause) => write!(out, "{}: {cause}", file.display()),
            Self::Machine { file, found, wanted } => {
                write!(out, "{} is for {found}, this node is {wanted}", file.display())
            }
            Self::Nameless(file) => write!(out, "{} has no SONAME", file.display()),
            Self::Glibc(file) => write!(out, "{} is a part of glibc, which is always the image's own", file.display()),
            Self::Contradiction { file, library, version } => {
                write!(out, "{file} needs {version}, and its {library} does not have it")
            }
            Self::Musl { loader } => write!(out, "the image is made with musl ({loader}), the host's MPI with glibc"),
            Self::NoGlibc { machine } => write!(out, "the image has no glibc for {machine}"),
            Self::Family { host, image } => {
                write!(out, "the image has {}, the host {host}", image.join(" and "))
            }
            Self::Lacks { file, library } => {
                write!(out, "the host's {file} needs {library}, which neither the profile nor the image has")
            }
            Self::Older { file, library, needed, newest } => {
                write!(out, "the host's {file} needs {needed}, the image's {library} has {}", shown(newest.as_deref()))
            }
            Self::Newer { file, image, version, newest } => {
                write!(out, "the image's {image} has {version}, the host's {file} {}", shown(newest.as_deref()))
            }
            Self::Image(library, cause) => write!(out, "the image's {library}: {cause}"),
        }
    }
}

fn shown(newest: Option<&str>) -> String {
    newest.map_or("none of that kind".to_owned(), |newest| format!("up to {newest}"))
}

impl std::error::Error for Incompatibility {}
