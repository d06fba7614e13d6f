//! Errors in the search for a driver's files.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;

use crate::config;
use crate::elf;
use coracle::report::{Kind, Refusal};
use coracle::sys;

/// Reason why a driver's files cannot be determined.
#[derive(Debug)]
pub enum Error {
    /// A specification that users other than root can write, that cannot be read, or that is invalid.
    File(config::Error),
    /// A specification of an unknown version.
    Version {
        /// The file.
        path: PathBuf,
        /// Version of the specification.
        version: String,
    },
    /// A specification with a hook whose purpose is not known.
    Hook {
        /// The specification.
        path: PathBuf,
        /// Program of the hook.
        hook: PathBuf,
        /// Arguments of the program.
        args: Vec<String>,
    },
    /// Two specifications of one directory describe the same device.
    Twice {
        /// The device.
        device: String,
        /// First specification.
        one: PathBuf,
        /// Second specification.
        other: PathBuf,
    },
    /// coracle.yaml requires a specification, and none describes these device nodes.
    NoDevice(Vec<PathBuf>),
    /// Specifications most of whose libraries are missing.
    Stale(Vec<String>),
    /// The loader's list of this node cannot be read.
    Loader(io::Error),
    /// A system call failed.
    System(sys::Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let hint = "no container with a GPU starts on this node before the site's admin has mended it, or has set \
                    gpu.driver: libraries in coracle.yaml";
        let refusal = match error {
            Error::File(error) => Self::from(error),
            Error::Version { path, version } => Self::new(
                Kind::Config,
                path.display().to_string(),
                format!("cdiVersion {version:?} is not known, only 0.3 to 1.x are"),
            ),
            Error::Hook { path, hook, args } => {
                let args = args.join(" ");
                let cause = format!("wants {} to be run ({args}), and what for is not known", hook.display());
                Self::new(Kind::Config, path.display().to_string(), cause)
            }
            Error::Twice { device, one, other } => {
                let cause = format!("has the device {device}, as {} does", other.display());
                Self::new(Kind::Config, one.display().to_string(), cause)
            }
            Error::NoDevice(nodes) => {
                let nodes: Vec<String> = nodes.iter().map(|node| node.display().to_string()).collect();
                let cause = "gpu.driver is cdi in coracle.yaml, and no specification has this device";
                Self::new(Kind::Config, nodes.join(", "), cause)
            }
            Error::Stale(files) => {
                let cause = "most of its libraries are not on this node: it has to be written again after each update of the \
                             driver";
                Self::new(Kind::Config, files.join(", "), cause)
            }
            Error::Loader(cause) => {
                return Self::new(Kind::System, elf::CACHE, format!("cannot be read: {cause}"));
            }
            Error::System(error) => return Self::system("the driver's files", &error),
        };
        refusal.hint(hint)
    }
}
