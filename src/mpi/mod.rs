//! Needs of MPI on the node: to find its peers, and, where the host's library stands in for the image's, to fit.
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

#[cfg(feature = "launcher")]
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
pub const MUNGE: &str = "/run/munge";

/// Directory of the PMIx server of a step on a node with this SlurmdSpoolDir (mpi/pmix, pmixp_info.c).
#[cfg(feature = "launcher")]
pub fn server_folder(spool: &Path, job: u32, step: u32) -> PathBuf {
    spool.join(format!("pmix.{job}.{step}"))
}

#[cfg(test)]
#[cfg(feature = "launcher")]
mod tests;
