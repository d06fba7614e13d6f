//! Holds names of MPI that both the plugin and the launcher use.
#![forbid(unsafe_code)]

/// The variable in which Slurm's PMIx plugin names the directory of the step's server (mpi/pmix, pmixp_common.h).
pub const SERVER_DIRECTORY: &std::ffi::CStr = c"PMIX_SERVER_TMPDIR";

/// Directory of munged. PMIx' psec/munge, which a server may require, opens the socket in it.
pub const MUNGE: &str = "/run/munge";
