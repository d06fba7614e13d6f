//! Checks what MPI needs on the node: a process management interface, and, if the host's library replaces that of the
//! image, compatible libraries.
#![forbid(unsafe_code)]

mod fit;
mod incompatibility;
mod library;
mod places;
mod pmi;

use std::path::{Path, PathBuf};

pub use fit::{Fit, Needs, Over, Shown, fit, needs};
pub use incompatibility::Incompatibility;
pub use library::{Family, Mpi, Pmix, all, is_mpi, missing, pmix, pmix_release};
pub use places::directories_of_libraries;
pub use pmi::{Pmi, TYPE, Verdict, judge, warning};

pub use coracle::mpi::{MUNGE, SERVER_DIRECTORY};

/// Directory of the PMIx server of a step on a node with this SlurmdSpoolDir (mpi/pmix, pmixp_info.c).
pub fn server_directory(spool: &Path, job: u32, step: u32) -> PathBuf {
    spool.join(format!("pmix.{job}.{step}"))
}

#[cfg(test)]
mod tests;
