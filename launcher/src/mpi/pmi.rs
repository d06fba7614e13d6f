//! Decides if an MPI library can use the process management interface that Slurm offers.
#![forbid(unsafe_code)]

use std::fmt;

use super::library::{Family, Mpi};

/// Variable in which srun names the step's MPI plugin (mpi.c); unset for `none`.
pub const TYPE: &str = "SLURM_MPI_TYPE";

/// A process management interface, by Slurm's `--mpi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pmi {
    /// A PMIx server on each node.
    Pmix,
    /// The protocols PMI-1 and PMI-2 over a socket, `PMI_FD`.
    Pmi2,
    /// No interface.
    None,
}

impl Pmi {
    /// All interfaces.
    pub const ALL: [Self; 3] = [Self::Pmix, Self::Pmi2, Self::None];

    /// Interface for a value of `--mpi`, if it is one of these: `pmix_v4` counts as `pmix`.
    pub fn of_option(word: &str) -> Option<Self> {
        match word {
            word if word.starts_with("pmix") => Some(Self::Pmix),
            "pmi2" => Some(Self::Pmi2),
            "none" | "openmpi" => Some(Self::None),
            _ => None,
        }
    }

    /// Value of `--mpi`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pmix => "pmix",
            Self::Pmi2 => "pmi2",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Pmi {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Pmix => "PMIx",
            Self::Pmi2 => "PMI-2",
            Self::None => "no PMI",
        })
    }
}

/// Result for an MPI library in a step with several tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The tasks become the ranks of one world.
    Starts,
    /// Each task becomes a world of its own, rank 0 of 1, without any error.
    Alone,
    /// MPI_Init ends the task.
    Fails,
    /// The files do not show the result.
    Unknown,
}

impl Verdict {
    /// Result in plain words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Starts => "starts",
            Self::Alone => "each task would be rank 0 of 1, a world of its own",
            Self::Fails => "MPI_Init would end each task",
            Self::Unknown => "cannot be told from its files",
        }
    }
}

/// Result of `mpi` with `pmi`, as measured with Open MPI 4.1, 5.0 and 6.0 and MPICH 3.4 to 5.0.
pub fn judge(mpi: &Mpi, pmi: Pmi) -> Verdict {
    if mpi.speaks.contains(&pmi) {
        return Verdict::Starts;
    }
    match mpi.family {
        _ if !mpi.certain => Verdict::Unknown,
        // It detects that srun started it, and that it cannot talk to srun (ess/pmi, ess/singleton).
        Family::OpenMpi if mpi.major().is_some_and(|major| major < 5) => Verdict::Fails,
        // "Runtime environment uses unsupported PMI version PMIx".
        Family::Mpich if pmi == Pmi::Pmix && mpi.major().is_some_and(|major| major >= 5) => Verdict::Fails,
        Family::OpenMpi | Family::Mpich | Family::Mvapich => Verdict::Alone,
        Family::Intel => Verdict::Unknown,
    }
}

/// Note on a start that cannot do what the user intends; `None` unless that is certain.
pub fn warning(program: &str, mpi: &Mpi, pmi: Pmi, tasks: u32) -> Option<String> {
    let verdict = judge(mpi, pmi);
    let outcome = match verdict {
        _ if tasks < 2 => return None,
        Verdict::Starts | Verdict::Unknown => return None,
        Verdict::Alone => format!("each of its {tasks} tasks will be rank 0 of 1"),
        Verdict::Fails => "MPI_Init will fail".to_owned(),
    };
    let offer = match pmi {
        Pmi::None => "this step has no PMI".to_owned(),
        pmi => format!("this step has {pmi}"),
    };
    let spoken: Vec<String> = mpi.speaks.iter().map(Pmi::to_string).collect();
    let (speaks, hint) = match mpi.speaks.first() {
        Some(first) => (format!("speaks {}", spoken.join(" and ")), format!(": srun --mpi={} is for it", first.word())),
        None => ("speaks nothing that Slurm offers".to_owned(), String::new()),
    };
    Some(format!("{program}: {mpi} {speaks}, and {offer}, so {outcome}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mpi(family: Family, version: &str, speaks: &[Pmi]) -> Mpi {
        Mpi {
            family,
            version: Some(version.into()),
            path: "/usr/lib/libmpi.so.40".into(),
            speaks: speaks.to_vec(),
            certain: true,
        }
    }

    #[test]
    fn what_was_seen_on_a_cluster_is_what_is_foretold() {
        for (family, version, speaks, verdicts) in [
            (Family::OpenMpi, "4.1.4", &[Pmi::Pmix][..], [Verdict::Starts, Verdict::Fails, Verdict::Fails]),
            (Family::OpenMpi, "5.0.7", &[Pmi::Pmix], [Verdict::Starts, Verdict::Alone, Verdict::Alone]),
            (Family::OpenMpi, "6.0.0rc2", &[Pmi::Pmix], [Verdict::Starts, Verdict::Alone, Verdict::Alone]),
            (Family::Mpich, "3.4.1", &[Pmi::Pmi2], [Verdict::Alone, Verdict::Starts, Verdict::Alone]),
            (Family::Mpich, "5.0.2", &[Pmi::Pmi2], [Verdict::Fails, Verdict::Starts, Verdict::Alone]),
            (Family::Mpich, "4.3.0", &[Pmi::Pmi2, Pmi::Pmix], [Verdict::Starts, Verdict::Starts, Verdict::Alone]),
        ] {
            let found = Pmi::ALL.map(|pmi| judge(&mpi(family, version, speaks), pmi));
            assert_eq!(found, verdicts, "{family:?} {version}");
        }
    }

    #[test]
    fn what_is_not_known_for_certain_is_not_foretold() {
        let unsure = Mpi { certain: false, ..mpi(Family::OpenMpi, "4.1.4", &[]) };
        assert_eq!(judge(&unsure, Pmi::Pmi2), Verdict::Unknown);
        assert_eq!(warning("a", &unsure, Pmi::Pmi2, 4), None);
        assert_eq!(judge(&mpi(Family::Intel, "2021.9", &[Pmi::Pmi2]), Pmi::Pmix), Verdict::Unknown);
    }

    #[test]
    fn a_warning_says_what_will_be_and_what_would_help() {
        let mpich = mpi(Family::Mpich, "4.0.2", &[Pmi::Pmi2]);
        assert_eq!(
            warning("./ring", &mpich, Pmi::Pmix, 6).unwrap(),
            "./ring: MPICH 4.0.2 speaks PMI-2, and this step has PMIx, so each of its 6 tasks will be rank 0 of 1: \
             srun --mpi=pmi2 is for it"
        );
        assert_eq!(
            warning("./ring", &mpi(Family::OpenMpi, "4.1.4", &[Pmi::Pmix]), Pmi::None, 2).unwrap(),
            "./ring: Open MPI 4.1.4 speaks PMIx, and this step has no PMI, so MPI_Init will fail: srun --mpi=pmix is for it"
        );
        assert_eq!(warning("./ring", &mpich, Pmi::Pmi2, 6), None);
        assert_eq!(warning("./ring", &mpich, Pmi::Pmix, 1), None);
    }

    #[test]
    fn a_generation_of_pmix_is_pmix() {
        assert_eq!(Pmi::of_option("pmix_v4"), Some(Pmi::Pmix));
        assert_eq!(Pmi::of_option("cray_shasta"), None);
    }
}
