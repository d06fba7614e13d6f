//! Names of MPI's that the plugin and the launcher both know.
#![forbid(unsafe_code)]

/// The variable in which Slurm's PMIx plugin names the directory of the step's server (mpi/pmix, pmixp_common.h).
pub const SERVER_FOLDER: &std::ffi::CStr = c"PMIX_SERVER_TMPDIR";

/// munged's directory. PMIx' psec/munge, which a server may insist on, opens the socket in it.
pub const MUNGE: &str = "/run/munge";
