//! Chooses the MPI of the host that replaces an image's.
//!
//! The image's files are hostile, and only its user may be able to read those of a directory. So the process with the
//! user's ids reads both ([`crate::children::opener`]), and root checks its answer before use.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use crate::config::{Profile, Profiles};
use crate::mpi::Fit;
use coracle::report::{Kind, Refusal};
use coracle::request::{Mpi, Variable};

use crate::children::mpi_fit;
use crate::children::opener::Opener;

/// Profile that was chosen for a container.
#[derive(Debug, Default)]
pub struct Replacement {
    /// The profile; nothing if none was requested, or none fits.
    pub chosen: Option<Chosen>,
    /// Reasons why other profiles do not fit.
    pub passed: Vec<String>,
}

/// A profile that fits.
#[derive(Debug)]
pub struct Chosen {
    /// Name of the profile.
    pub name: String,
    /// Settings of the profile in coracle.yaml.
    pub profile: Profile,
    /// Fit of its files.
    pub fit: Fit,
}

impl Replacement {
    /// Notes for the user about a profile that they requested by name.
    pub fn doubts(&self) -> impl Iterator<Item = String> {
        let chosen = self.chosen.iter();
        chosen.flat_map(|chosen| chosen.fit.doubts.iter().map(|doubt| format!("MPI profile {}: {doubt}", chosen.name)))
    }

    /// Variables that are set with it.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.chosen.iter().flat_map(|chosen| chosen.profile.env())
    }
}

/// Finds the profile `wanted` for the image that the user calls `image` and that is mounted as `root`.
pub fn choose(
    opener: &Opener,
    root: BorrowedFd<'_>,
    wanted: &Mpi,
    profiles: &Profiles,
    image: &str,
) -> Result<Replacement, Refusal> {
    let ask = |name: &str, profile: &Profile| -> Result<Chosen, Refusal> {
        let question = mpi_fit::Question { image: image.to_owned(), name: name.to_owned(), profile: profile.clone() };
        let fit = Some(opener.fit_mpi(root, question, image)?).filter(|fit| fit.is_about(profile));
        let garbled = || Refusal::new(Kind::Internal, image, "what was found of its libraries makes no sense");
        Ok(Chosen { name: name.to_owned(), profile: profile.clone(), fit: fit.ok_or_else(garbled)? })
    };
    if wanted.word() != Mpi::AUTO {
        let name = wanted.word();
        let profile = profiles.get(name).ok_or_else(|| unknown(name, profiles))?;
        return Ok(Replacement { chosen: Some(ask(name, profile)?), passed: Vec::new() });
    }
    let mut passed = Vec::new();
    for (name, profile) in &profiles.0 {
        let name = name.word();
        match ask(name, profile) {
            Ok(Chosen { fit, .. }) if !fit.doubts.is_empty() => {
                passed.push(format!("{name}: {}", fit.doubts.join("; ")))
            }
            Ok(chosen) if chosen.fit.replaces() => return Ok(Replacement { chosen: Some(chosen), passed }),
            Ok(_) => passed.push(format!("{name}: the image has none of its libraries")),
            // The fit is unknown then, and the next question would not be answered either.
            Err(refusal) if matches!(refusal.kind, Kind::Timeout | Kind::Internal) => return Err(refusal),
            Err(refusal) => passed.push(format!("{name}: {}", refusal.cause)),
        }
    }
    Ok(Replacement { chosen: None, passed })
}

fn unknown(name: &str, profiles: &Profiles) -> Refusal {
    let known = match profiles.0.is_empty() {
        true => "coracle.yaml of this node has none".to_owned(),
        false => format!("coracle.yaml of this node has {}", profiles.names()),
    };
    Refusal::new(Kind::Usage, name, format!("no such MPI profile; {known}"))
        .hint("--container-mpi=none runs with the image's own MPI")
}
