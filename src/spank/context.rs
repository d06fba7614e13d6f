//! Distinguishes the programs that load the plugin.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::Path;

/// Program that has loaded the plugin, as SPANK distinguishes them (spank.h, `spank_context_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// srun
    Srun,
    /// sbatch or salloc
    Allocator,
    /// slurmstepd
    Stepd,
    /// slurmd
    Slurmd,
    /// Any other program, in which the plugin does nothing.
    Other,
}

/// Command that submits a job or starts a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// srun
    Srun,
    /// sbatch
    Sbatch,
    /// salloc
    Salloc,
}

impl Context {
    /// Returns the client command that this is; `name` is the program's own name, the first of its words. SPANK does
    /// not distinguish sbatch and salloc.
    pub fn program(self, name: &OsStr) -> Option<Program> {
        match self {
            Self::Srun => Some(Program::Srun),
            Self::Allocator if Path::new(name).file_name() == Some(OsStr::new("salloc")) => Some(Program::Salloc),
            Self::Allocator => Some(Program::Sbatch),
            Self::Stepd | Self::Slurmd | Self::Other => None,
        }
    }

    /// True if the plugin registers its options: slurmstepd refuses options of a job that it does not know.
    pub fn has_options(self) -> bool {
        matches!(self, Self::Srun | Self::Allocator | Self::Stepd)
    }

    /// True if a fault before task_init is recorded for task_init. Slurm's other programs end with it at once.
    pub fn records_faults(self) -> bool {
        self == Self::Stepd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salloc_is_known_by_its_own_name_only() {
        for (name, program) in [
            ("salloc", Program::Salloc),
            ("/usr/bin/salloc", Program::Salloc),
            ("sbatch", Program::Sbatch),
            ("/opt/salloc/sbatch", Program::Sbatch),
            ("salloc2", Program::Sbatch),
            ("", Program::Sbatch),
        ] {
            assert_eq!(Context::Allocator.program(name.as_ref()), Some(program), "{name}");
        }
    }

    #[test]
    fn srun_is_srun_under_any_name() {
        for name in ["srun", "salloc", ""] {
            assert_eq!(Context::Srun.program(name.as_ref()), Some(Program::Srun), "{name}");
        }
    }

    #[test]
    fn no_daemon_is_a_client_command() {
        for context in [Context::Stepd, Context::Slurmd, Context::Other] {
            assert_eq!(context.program("salloc".as_ref()), None, "{context:?}");
        }
    }

    #[test]
    fn options_are_registered_by_the_commands_and_slurmstepd() {
        let all = [Context::Srun, Context::Allocator, Context::Stepd, Context::Slurmd, Context::Other];
        assert_eq!(all.map(Context::has_options), [true, true, true, false, false]);
    }

    #[test]
    fn a_fault_waits_for_task_init_in_slurmstepd_only() {
        let all = [Context::Srun, Context::Allocator, Context::Stepd, Context::Slurmd, Context::Other];
        assert_eq!(all.map(Context::records_faults), [false, false, true, false, false]);
    }
}
