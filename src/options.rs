//! Lists the options of srun, sbatch and salloc in one table. The plugin registers it; the launcher's own commands, the
//! man page and the completions are made from it; `options` of coracle.yaml has its words as keys.
//!
//! `--container` is not among them: since Slurm 21.08 it is Slurm's own (srun(1)), and a plugin option of that
//! name is dropped with an error on every command.
#![forbid(unsafe_code)]

mod bind;
mod digest;
mod error;
mod list;
mod mistyped;
mod mpi;
mod own;
mod settings;
mod spec;
mod stored;
mod table;
mod variable;

use std::ffi::{CStr, OsStr, OsString};

use Argument::Flag;
pub use bind::{Access, Bind, BindSource, Binds, PRIVATE, inside};
pub use digest::Digest;
pub(crate) use digest::{hex_byte, split as split_digest};
pub use error::Error;
pub use mistyped::note_of_variable;
pub use mpi::Mpi;
pub use own::{Images, OfComponent, Place};
use settings::WRITES;
pub use settings::{MAX_BINDS, Scope, Settings, Size, Writable};
pub use spec::{Argument, Naming, Spec};
pub(crate) use stored::PREFIX as STORE_PREFIX;
pub use stored::StoredName;
pub use table::{Id, OPTIONS};
pub use variable::{FACTS, Variable};

/// Returns `text` with the option names of `naming`, so that a message can be written without the site's choice of
/// names.
pub fn called(text: &str, naming: Naming) -> String {
    if naming == Naming::Container {
        return text.to_owned();
    }
    OPTIONS.iter().fold(text.to_owned(), |text, spec| text.replace(&spec.flag(Naming::Container), &spec.flag(naming)))
}

/// Options as typed: nothing is checked, and no file is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawOptions {
    given: Vec<(Id, OsString)>,
    naming: Naming,
}

impl RawOptions {
    /// Returns no options; messages will use the names of `naming`.
    pub fn named(naming: Naming) -> Self {
        Self { given: Vec::new(), naming }
    }

    /// Takes the value of one option. If the option may be given once only, the last value counts, as everywhere in
    /// Slurm.
    pub fn take(&mut self, spec: &Spec, value: OsString) {
        if !spec.repeats {
            self.given.retain(|(id, _)| *id != spec.id);
        }
        self.given.push((spec.id, value));
    }

    /// Sets options that the command line does not have from the `CORACLE_CONTAINER_…` variables.
    pub fn fill_from(&mut self, variable: impl Fn(&CStr) -> Option<OsString>) {
        let writes = WRITES.iter().any(|id| self.value(*id).is_some());
        for spec in OPTIONS.iter().filter(|spec| !writes || !WRITES.contains(&spec.id)) {
            if let Some(name) = spec.variable
                && self.values(spec.id).next().is_none()
                && let Some(value) = variable(name).filter(|value| !value.is_empty())
            {
                self.take(spec, value);
            }
        }
    }

    /// Returns every value about `id`, in the order given.
    pub fn values(&self, id: Id) -> impl Iterator<Item = &OsStr> {
        self.given.iter().filter(move |(given, _)| *given == id).map(|(_, value)| value.as_os_str())
    }

    /// Returns the value about `id`, of an option that may be given once only.
    pub fn value(&self, id: Id) -> Option<&OsStr> {
        self.values(id).next()
    }

    /// Returns the naming of the options.
    pub fn naming(&self) -> Naming {
        self.naming
    }

    /// True if no option was typed.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Returns an option about `id` under the user's name for it.
    pub fn flag(&self, id: Id) -> String {
        Spec::of(id).map(|spec| spec.flag(self.naming)).unwrap_or_default()
    }

    /// Returns the flag of an option on the command line that has no effect without an image.
    pub fn lone_flag(&self) -> Option<String> {
        let (id, value) = self.given.first()?;
        let same = |spec: &&Spec| spec.id == *id && matches!(spec.argument, Flag(word) if value == word);
        Some(OPTIONS.iter().find(same).map_or_else(|| self.flag(*id), |spec| spec.flag(self.naming)))
    }
}

#[cfg(test)]
mod tests {
    use super::Argument::{Maybe, Value};
    use super::*;

    fn spec(name: &CStr) -> &'static Spec {
        OPTIONS.iter().find(|spec| spec.name == name).unwrap()
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let mut raw = RawOptions::default();
        raw.take(spec(c"container-bind"), "/cmd".into());
        raw.take(spec(c"no-container-home"), "no".into());
        raw.fill_from(|name| {
            let known = [
                (c"CORACLE_CONTAINER_BIND", "/env"),
                (c"CORACLE_CONTAINER_HOME", "yes"),
                (c"CORACLE_CONTAINER_DIGEST", "sha256:00"),
                (c"CORACLE_CONTAINER_SCOPE", ""),
            ];
            known.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        });
        assert_eq!(raw.values(Id::Bind).collect::<Vec<_>>(), ["/cmd"]);
        assert_eq!(raw.value(Id::Home), Some(OsStr::new("no")));
        assert_eq!(raw.value(Id::Digest), Some(OsStr::new("sha256:00")));
        assert_eq!(raw.value(Id::Scope), None);
    }

    #[test]
    fn of_an_option_that_may_stand_once_the_last_one_counts() {
        let mut raw = RawOptions::default();
        for (name, value) in [(c"container-home", "yes"), (c"no-container-home", "no"), (c"container-bind", "/a")] {
            raw.take(spec(name), value.into());
        }
        raw.take(spec(c"container-bind"), "/b".into());
        assert_eq!(raw.values(Id::Home).collect::<Vec<_>>(), ["no"]);
        assert_eq!(raw.values(Id::Bind).collect::<Vec<_>>(), ["/a", "/b"]);
    }

    #[test]
    fn of_two_answers_to_one_question_the_command_lines_counts() {
        let mut raw = RawOptions::default();
        raw.take(spec(c"container-writable"), "yes".into());
        let variables = |name: &CStr| {
            let known = [(c"CORACLE_CONTAINER_OVERLAY", "/o"), (c"CORACLE_CONTAINER_HOME", "no")];
            known.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        raw.fill_from(variables);
        assert_eq!((raw.value(Id::Writable), raw.value(Id::Overlay)), (Some(OsStr::new("yes")), None));
        assert_eq!(raw.value(Id::Home), Some(OsStr::new("no")));
        // Without an answer on the command line, that of the variable counts.
        let mut raw = RawOptions::default();
        raw.fill_from(variables);
        assert_eq!((raw.value(Id::Writable), raw.value(Id::Overlay)), (None, Some(OsStr::new("/o"))));
    }

    #[test]
    fn an_option_is_called_as_it_was_typed_and_as_the_site_has_it() {
        let mut raw = RawOptions::named(Naming::Coracle);
        assert!(raw.is_empty());
        raw.take(spec(c"no-container-home"), "no".into());
        assert!(!raw.is_empty());
        assert_eq!(raw.naming(), Naming::Coracle);
        assert_eq!(raw.lone_flag().unwrap(), "--no-coracle-home");
        assert_eq!(
            called("--container-bind: with --container=x", Naming::Coracle),
            "--coracle-bind: with --container=x"
        );
        assert_eq!(called("--container-bind", Naming::Container), "--container-bind");
    }

    #[test]
    fn an_option_without_a_value_has_the_implied_one() {
        let implied = |name| spec(name).implied();
        assert_eq!((implied(c"container-home"), implied(c"no-container-home")), (Some("yes"), Some("no")));
        assert_eq!((implied(c"container-writable"), implied(c"container-bind")), (Some("yes"), None));
    }

    #[test]
    fn no_name_is_one_that_slurm_has_or_will_have() {
        for spec in OPTIONS {
            for name in [spec.name, spec.long] {
                let name = name.to_str().unwrap();
                assert!(!["container", "container-id", "container-type", "runtime"].contains(&name), "{name}");
                assert!(name.len() < 75, "SPANK_OPTION_MAXLEN of slurm/spank.h");
            }
            if let Some(variable) = spec.variable {
                let wanted = format!("CORACLE_CONTAINER_{}", spec.key.replace('-', "_").to_uppercase());
                assert_eq!(variable.to_str().unwrap(), wanted);
            }
        }
    }

    #[test]
    fn slurm_shows_every_help_on_two_lines_and_no_name_cut() {
        // plugstack.c, _spank_opt_print: names from column 6, at most 80 characters; help in 50 columns behind them.
        for spec in OPTIONS {
            let shown = match spec.argument {
                Value(value) | Maybe(value, _) => value.to_str().unwrap(),
                Flag(_) => "",
            };
            let name = spec.flag(Naming::Container) + "=" + shown;
            assert!(6 + name.len() < 80, "{name}");
            let (mut lines, mut column) = (1, 0);
            for word in spec.help.to_str().unwrap().split(' ') {
                if column + word.len() > 50 {
                    (lines, column) = (lines + 1, 0);
                }
                column += word.len() + 1;
            }
            assert!(lines <= 2, "{}: {lines} lines", spec.flag(Naming::Container));
        }
    }

    #[test]
    fn options_about_the_same_agree_on_key_and_default() {
        for spec in OPTIONS {
            let first = Spec::of(spec.id).unwrap();
            assert_eq!((spec.key, spec.default, spec.site), (first.key, first.default, first.site));
        }
    }
}
