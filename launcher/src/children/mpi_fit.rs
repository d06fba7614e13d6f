//! Compares a profile of the host's MPI with an image, in the process with the user's ids.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use coracle::report::{Kind, Refusal};

use crate::config::Profile;
use crate::elf::{Libraries, Machine, Root};
use crate::mpi::{self, Incompatibility};

/// Fit of a profile to the image that is mounted as `root`. `question` is JSON: the names of image and profile, and the
/// profile.
pub fn answer(root: OwnedFd, question: &[u8]) -> Result<Vec<u8>, Refusal> {
    let garbled = || Refusal::new(Kind::Internal, "the MPI profile", "cannot be read");
    let (image, name, profile): (String, String, Profile) = serde_json::from_slice(question).map_err(|_| garbled())?;
    let failed = |error: std::io::Error| Incompatibility::Image("libraries".into(), error.into()).refuse(&image, &name);
    let node = Root::node().map_err(|error| Refusal::system("/", &error))?;
    let libraries = Libraries::new(Root::of_mount(root), Machine::own()).map_err(failed)?;
    let folders = mpi::folders_of_libraries(libraries.root());
    let fit = mpi::fit(&profile, &node, &libraries, &folders)
        .map_err(|incompatibility| incompatibility.refuse(&image, &name))?;
    serde_json::to_vec(&fit).map_err(|_| garbled())
}
