//! Determines the units of generic resources that a step has.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;

use super::gres::Unit;

/// Variable with the numbers of a step's GPUs. If the cluster has GPUs at all, slurmstepd sets or unsets it before it
/// calls any plugin (slurmstepd.c, _step_setup). [`JOB_GPUS`] is that of a job script.
pub const STEP_GPUS: &str = "SLURM_STEP_GPUS";
/// See [`STEP_GPUS`].
pub const JOB_GPUS: &str = "SLURM_JOB_GPUS";

/// Slurm's grant of GPUs to a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Slurm's numbers of the GPUs.
    pub numbers: BTreeSet<usize>,
}

impl Grant {
    /// Parses one of the variables: `0,3`. Anything but numbers is ignored.
    pub fn from_numbers(text: &str) -> Self {
        Self { numbers: text.split(',').filter_map(|number| number.trim().parse().ok()).collect() }
    }

    /// Selects from `units` those that are granted.
    ///
    /// `open` tells if the device rules of the step's control group let it open a file; it is `None` if they have not
    /// been checked. These rules are the authority: if they permit no more GPUs than were granted, the permitted ones
    /// are the grant. If they permit more, Slurm does not constrain devices, and its numbers select the GPUs. Other
    /// resources have no numbers, so only rules that Slurm made (`constrained`) grant any.
    pub fn of<'a>(&self, units: &'a [Unit], open: Option<&dyn Fn(&Path) -> bool>, constrained: bool) -> Granted<'a> {
        let may = |unit: &Unit| open.is_none_or(|open| unit.files.iter().all(|file| open(file)));
        let gpus: Vec<(usize, &Unit)> = units.iter().filter(|unit| unit.is_gpu()).enumerate().collect();
        let open_gpus = gpus.iter().filter(|(_, unit)| may(unit)).count();
        let by_rules = open.is_some() && open_gpus <= self.numbers.len();
        let granted = |index: usize, unit: &Unit| may(unit) && (by_rules || self.numbers.contains(&index));
        let mut found: Vec<&Unit> =
            gpus.iter().filter(|(index, unit)| granted(*index, unit)).map(|(_, unit)| *unit).collect();
        if constrained && open.is_some() {
            found.extend(units.iter().filter(|unit| !unit.is_gpu() && may(unit)));
        }
        let more = gpus.len() > self.numbers.len() && !by_rules;
        Granted { units: found, numbers: if more { self.numbers.iter().copied().collect() } else { Vec::new() } }
    }
}

/// Units granted to a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted<'a> {
    /// Units, GPUs first.
    pub units: Vec<&'a Unit>,
    /// Slurm's numbers of the GPUs, if they also count GPUs that the step does not see and Slurm does not know that.
    pub numbers: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::super::gres::units;
    use super::*;

    const NODE: &str = "Name=gpu File=/dev/nvidia[0-3]\nName=fpga File=/dev/xdma0";

    fn has(numbers: &str, open: Option<&[&str]>, constrained: bool) -> Vec<String> {
        let units = units(NODE.lines(), "n");
        let rules = |path: &Path| open.unwrap_or_default().iter().any(|file| Path::new(file) == path);
        let rules: Option<&dyn Fn(&Path) -> bool> = if open.is_some() { Some(&rules) } else { None };
        let found = Grant::from_numbers(numbers).of(&units, rules, constrained);
        found.units.iter().map(|unit| unit.files[0].display().to_string()).collect()
    }

    const ALL: &[&str] = &["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia2", "/dev/nvidia3", "/dev/xdma0"];

    #[test]
    fn the_rules_of_the_control_group_are_the_authority() {
        // Slurm's order may differ from that of the records (AutoDetect, links).
        assert_eq!(has("0,1", Some(&["/dev/nvidia2", "/dev/nvidia3"]), true), ["/dev/nvidia2", "/dev/nvidia3"]);
        assert_eq!(has("0,1,2,3", Some(ALL), true), ALL);
        assert_eq!(has("1", Some(&[]), true), [""; 0]);
    }

    #[test]
    fn without_rules_slurms_numbers_are() {
        assert_eq!(has("1,3", Some(ALL), false), ["/dev/nvidia1", "/dev/nvidia3"]);
        assert_eq!(has("1,3", None, false), ["/dev/nvidia1", "/dev/nvidia3"]);
        assert_eq!(has("7", Some(ALL), false), [""; 0]);
    }

    #[test]
    fn numbers_have_to_be_translated_only_where_rules_hide_nothing() {
        let units = units(NODE.lines(), "n");
        let numbers = |numbers: &str, open: &[&str]| {
            let rules = |path: &Path| open.iter().any(|file| Path::new(file) == path);
            Grant::from_numbers(numbers).of(&units, Some(&rules), false).numbers
        };
        assert_eq!(numbers("2,3", ALL), [2, 3]);
        assert_eq!(numbers("2,3", &["/dev/nvidia2", "/dev/nvidia3"]), [0; 0]);
        assert_eq!(numbers("0,1,2,3", ALL), [0; 0]);
        assert_eq!(numbers("", ALL), [0; 0]);
    }

    #[test]
    fn a_step_without_gpus_has_none_whatever_it_could_open() {
        assert_eq!(has("", Some(ALL), false), [""; 0]);
        assert_eq!(has("", Some(ALL), true), ["/dev/xdma0"]);
        assert_eq!(has("GPU-1234", Some(ALL), false), [""; 0]);
    }
}
