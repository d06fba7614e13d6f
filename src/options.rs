//! The options of srun, sbatch and salloc, in one table.
//!
//! `--container` is not among them: since Slurm 21.08 it is Slurm's own (srun(1)), and a plugin option of that
//! name is dropped with an error on every command.
#![forbid(unsafe_code)]

use std::ffi::{CStr, OsString};

/// Which option of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// `--container-bind`
    Bind,
    /// `--container-digest`
    Digest,
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Which one.
    pub id: Id,
    /// Its name on the command line, without the dashes.
    pub name: &'static CStr,
    /// Its value, as `srun --help` shows it.
    pub value: &'static CStr,
    /// What it does, for `srun --help`.
    pub help: &'static CStr,
    /// The variable that gives it in the submitter's environment when the command line does not.
    pub variable: &'static CStr,
}

/// Every option, in the order in which help shows them.
pub const OPTIONS: &[Spec] = &[
    Spec {
        id: Id::Bind,
        name: c"container-bind",
        value: c"SRC[:DST[:ro|rw]][,...]",
        help: c"make a folder or file of the node visible in the container; may be given more than once",
        variable: c"CORACLE_CONTAINER_BIND",
    },
    Spec {
        id: Id::Digest,
        name: c"container-digest",
        value: c"sha256:HEX",
        help: c"run only if this is the SHA-256 of the image file",
        variable: c"CORACLE_CONTAINER_DIGEST",
    },
];

impl Spec {
    /// `--container-bind`
    pub fn flag(&self) -> String {
        format!("--{}", self.name.to_string_lossy())
    }
}

/// What was typed, unread: nothing here has been checked, and no file has been looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawOptions {
    /// Each `--container-bind`.
    pub binds: Vec<OsString>,
    /// `--container-digest`
    pub digest: Option<OsString>,
}

impl RawOptions {
    /// Takes the value of one option. Of an option that may stand once, the last one counts, as everywhere in Slurm.
    pub fn take(&mut self, id: Id, value: OsString) {
        match id {
            Id::Bind => self.binds.push(value),
            Id::Digest => self.digest = Some(value),
        }
    }

    /// Fills what the command line left open from the `CORACLE_CONTAINER_…` variables.
    pub fn fill_from(&mut self, variable: impl Fn(&CStr) -> Option<OsString>) {
        for spec in OPTIONS {
            let open = match spec.id {
                Id::Bind => self.binds.is_empty(),
                Id::Digest => self.digest.is_none(),
            };
            if open && let Some(value) = variable(spec.variable).filter(|value| !value.is_empty()) {
                self.take(spec.id, value);
            }
        }
    }

    /// The flag of an option on the command line that means nothing without an image.
    pub fn lone_flag(&self) -> Option<String> {
        let given = |id| match id {
            Id::Bind => !self.binds.is_empty(),
            Id::Digest => self.digest.is_some(),
        };
        OPTIONS.iter().find(|spec| given(spec.id)).map(Spec::flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let mut raw = RawOptions::default();
        raw.take(Id::Bind, "/cmd".into());
        raw.fill_from(|name| Some(if name == c"CORACLE_CONTAINER_BIND" { "/env" } else { "sha256:00" }.into()));
        assert_eq!(raw.binds, [OsString::from("/cmd")]);
        assert_eq!(raw.digest, Some("sha256:00".into()));
    }

    #[test]
    fn no_name_is_one_that_slurm_has_or_will_have() {
        for spec in OPTIONS {
            let name = spec.name.to_str().unwrap();
            assert!(!["container", "container-id", "container-type", "runtime"].contains(&name), "{name}");
            let variable = format!("CORACLE_{}", name.replace('-', "_").to_uppercase());
            assert_eq!(spec.variable.to_str().unwrap(), variable);
            assert!(name.len() < 75, "SPANK_OPTION_MAXLEN of slurm/spank.h");
        }
    }
}
