//! Lists the differences between releases of Slurm that the plugin depends on.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use super::Program;
use crate::report::Refusal;
use crate::sys::Release;

/// First release with Slurm's own option `--container`, and with a record of it in the controller.
const FIRST_WITH_CONTAINER: Release = Release(21, 8);
/// First release whose mpi/pmix needs an oci.conf for steps with `--container` (pmixp_info.c).
const FIRST_WITH_PMIX_IN_BUNDLE: Release = Release(23, 2);
/// First release whose slurmstepd begins its lines with the time in place of the node's name (src/common/log.c).
const FIRST_WITHOUT_NODE_NAME: Release = Release(25, 5);

/// True where `--container` is the plugin's option. Where Slurm has it, the plugin must not register one of that name.
pub fn container_is_ours(release: Option<Release>) -> bool {
    release < Some(FIRST_WITH_CONTAINER)
}

/// True if Slurm's own `--container` must be reset: mpi/pmix would put its socket into the directory that only an
/// oci.conf sets for a step with `--container`, and the step would not start.
pub fn resets_container(program: Program, release: Option<Release>) -> bool {
    program == Program::Srun && release >= Some(FIRST_WITH_PMIX_IN_BUNDLE)
}

/// True if slurmstepd executes its own file for each script of a task, inside the task's root, where its loader and
/// libraries are missing; `micro` is the third number of the version. 24.11.7 and 25.05.2 have `direct_exec` for these
/// scripts (run_command.c).
pub fn executes_itself_for_scripts(release: Option<Release>, micro: Option<u32>) -> bool {
    let first_without = match release {
        Some(Release(24, 11)) => 7,
        Some(Release(25, 5)) => 2,
        _ => 0,
    };
    micro.is_some_and(|micro| micro < first_without)
}

/// Names the node in a refusal where slurmstepd does not.
pub fn with_node_name(refusal: &Refusal, node: Option<OsString>, release: Option<Release>) -> Refusal {
    match node.filter(|_| release >= Some(FIRST_WITHOUT_NODE_NAME)) {
        Some(node) => {
            Refusal { cause: format!("{} (node {})", refusal.cause, node.to_string_lossy()), ..refusal.clone() }
        }
        None => refusal.clone(),
    }
}

/// Parameters of `slurm_kill_job_step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillPrototype {
    /// `(uint32_t, uint32_t, uint16_t)`
    Signal,
    /// `(uint32_t, uint32_t, uint16_t, uint16_t)`
    SignalAndFlags,
    /// `(slurm_step_id_t *, uint16_t, uint16_t)`
    StepId,
}

/// Returns the prototype of `slurm_kill_job_step` in a release.
pub fn kill_prototype(release: Release) -> KillPrototype {
    if release >= Release(25, 11) {
        KillPrototype::StepId
    } else if release >= Release(23, 11) {
        KillPrototype::SignalAndFlags
    } else {
        KillPrototype::Signal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Kind;
    use crate::sys::tested;

    fn releases(holds: impl Fn(Release) -> bool) -> Vec<String> {
        tested().filter(|release| holds(*release)).map(|release| release.to_string()).collect()
    }

    #[test]
    fn the_plugin_has_the_option_container_before_21_08_only() {
        assert_eq!(releases(|release| container_is_ours(Some(release))), ["20.11"]);
        assert!(!container_is_ours(Some(Release(21, 8))));
    }

    #[test]
    fn an_unknown_release_is_none_with_slurms_own_option() {
        assert!(container_is_ours(None));
        assert!(!resets_container(Program::Srun, None));
        assert!(!executes_itself_for_scripts(None, Some(0)));
    }

    #[test]
    fn srun_resets_its_option_from_23_02_on() {
        let kept = releases(|release| !resets_container(Program::Srun, Some(release)));
        assert_eq!(kept, ["20.11", "22.05"]);
    }

    #[test]
    fn sbatch_and_salloc_never_reset_the_option() {
        for program in [Program::Sbatch, Program::Salloc] {
            assert_eq!(releases(|release| resets_container(program, Some(release))), [""; 0], "{program:?}");
        }
    }

    #[test]
    fn scripts_run_through_slurmstepd_in_the_first_versions_of_two_releases() {
        assert_eq!(releases(|release| executes_itself_for_scripts(Some(release), Some(0))), ["24.11", "25.05"]);
        let micro = |release| move |micro| executes_itself_for_scripts(Some(release), micro);
        assert_eq!([Some(6), Some(7), None].map(micro(Release(24, 11))), [true, false, false]);
        assert_eq!([Some(1), Some(2), None].map(micro(Release(25, 5))), [true, false, false]);
    }

    #[test]
    fn the_plugin_names_the_node_from_25_05_on() {
        let refusal = Refusal::new(Kind::Policy, "/a.sif", "no").hint("ask");
        let named = |release| with_node_name(&refusal, Some("n2".into()), release) != refusal;
        assert_eq!(releases(|release| named(Some(release))), ["25.05", "25.11", "26.05"]);
        let said = with_node_name(&refusal, Some("n2".into()), Some(Release(25, 5)));
        assert_eq!(said.to_string(), "coracle: /a.sif: no (node n2) [policy]\ncoracle: hint: ask");
        assert_eq!(with_node_name(&refusal, None, Some(Release(26, 5))), refusal);
    }

    #[test]
    fn each_release_has_its_prototype_to_end_a_step() {
        let of = |wanted| releases(|release| kill_prototype(release) == wanted);
        assert_eq!(of(KillPrototype::Signal), ["20.11", "22.05", "23.02"]);
        assert_eq!(of(KillPrototype::SignalAndFlags), ["23.11", "24.05", "24.11", "25.05"]);
        assert_eq!(of(KillPrototype::StepId), ["25.11", "26.05"]);
    }
}
