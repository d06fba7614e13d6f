//! Compares a profile of the host's MPI with an image, in the process with the user's ids.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use coracle::report::Refusal;
use serde::{Deserialize, Serialize};

use crate::config::Profile;
use crate::elf::{Libraries, Machine, Root};
use crate::mpi::{self, Fit, Incompatibility};

/// A profile and an image, with the names that messages have for them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// User's name of the image.
    pub image: String,
    /// Name of the profile.
    pub name: String,
    /// Files of the profile.
    pub profile: Profile,
}

/// Fit of the profile to the image that is mounted as `root`.
pub fn answer(root: OwnedFd, question: &Question) -> Result<Fit, Refusal> {
    let refuse = |incompatibility: Incompatibility| incompatibility.refuse(&question.image, &question.name);
    let failed = |error: std::io::Error| refuse(Incompatibility::Image("libraries".into(), error.into()));
    let node = Root::node().map_err(|error| Refusal::system("/", &error))?;
    let libraries = Libraries::new(Root::of_mount(root), Machine::own()).map_err(failed)?;
    let folders = mpi::directories_of_libraries(libraries.root());
    mpi::fit(&question.profile, &node, &libraries, &folders).map_err(refuse)
}
