//! What MPI needs of the node: to find its peers, and, where the host's library stands in for the image's, to fit.
#![forbid(unsafe_code)]

#[cfg(feature = "launcher")]
mod fit;
#[cfg(feature = "launcher")]
mod library;
#[cfg(feature = "launcher")]
mod misfit;
#[cfg(feature = "launcher")]
mod places;
#[cfg(feature = "launcher")]
mod pmi;

use std::path::{Path, PathBuf};

#[cfg(feature = "launcher")]
pub use fit::{Fit, Needs, Over, Shown, fit, needs};
#[cfg(feature = "launcher")]
pub use library::{Family, Mpi, Pmix, all, is_mpi, missing, pmix, pmix_release};
#[cfg(feature = "launcher")]
pub use misfit::Misfit;
#[cfg(feature = "launcher")]
pub use places::folders_of_libraries;
#[cfg(feature = "launcher")]
pub use pmi::{Pmi, TYPE, Verdict, judge, warning};

/// The variable in which Slurm's PMIx plugin names the folder of the step's server (mpi/pmix, pmixp_common.h).
pub const SERVER_FOLDER: &std::ffi::CStr = c"PMIX_SERVER_TMPDIR";

/// munged's folder. PMIx' psec/munge, which a server may insist on, opens the socket in it.
const MUNGE: &str = "/run/munge";

/// A folder of the node that has to appear at its own path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The path.
    pub path: PathBuf,
    /// Whether MPI cannot start without it.
    pub required: bool,
}

/// The folders for a step with this PMIx server, if it has one.
pub fn folders(server: Option<&Path>) -> Vec<Folder> {
    let server = server.map(|path| Folder { path: path.to_owned(), required: true });
    server.into_iter().chain([Folder { path: MUNGE.into(), required: false }]).collect()
}

#[cfg(test)]
#[cfg(feature = "launcher")]
mod tests;
