//! Lists the options of srun, sbatch and salloc in one table. The plugin registers it; the launcher's own commands, the
//! man page and the completions are made from it; `options` of coracle.yaml has its words as keys.
//!
//! `--container` is not among them: since Slurm 21.08 it is Slurm's own (srun(1)), and a plugin option of that
//! name is dropped with an error on every command.
#![forbid(unsafe_code)]

mod mistyped;
mod own;

use std::ffi::{CStr, OsStr, OsString};

pub use mistyped::note_of_variable;
pub use own::{Images, OfComponent, Place};

/// Subject of an option. `--container-home` and `--no-container-home` have the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// Files and directories of the node that are visible.
    Bind,
    /// Digest that the image must have.
    Digest,
    /// Directory in which tasks start.
    Workdir,
    /// Visibility of the home directory.
    Home,
    /// Variables that pass or are set.
    Env,
    /// Leaves the host's variables outside.
    CleanEnv,
    /// Lets tasks write into the image for as long as the step runs.
    Writable,
    /// Directory in which changes to the image are kept.
    Overlay,
    /// Entry point of the image, which runs the command.
    Entrypoint,
    /// Parts of a job that run inside.
    Scope,
    /// MPI library that programs get.
    Mpi,
    /// Visibility of the job's GPUs.
    Gpu,
}

/// Argument of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// A value, shown so in help.
    Value(&'static CStr),
    /// A value that may be left out, and the value that is then meant.
    Maybe(&'static CStr, &'static str),
    /// No value: the option stands for this one.
    Flag(&'static str),
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Subject of the option.
    pub id: Id,
    /// Its name without the dashes.
    pub name: &'static CStr,
    /// Its name where another plugin has the first one (plugin argument `options=long`).
    pub long: &'static CStr,
    /// Its argument.
    pub argument: Argument,
    /// Effect of the option, in one line for `srun --help`.
    pub help: &'static CStr,
    /// Variable that gives the value in the user's environment if the command line does not.
    pub variable: Option<&'static CStr>,
    /// Value if neither the user nor the site sets one; `None` where the option is then left out.
    pub default: Option<&'static str>,
    /// The key in `options` of coracle.yaml.
    pub key: &'static str,
    /// True if coracle.yaml may have the key. The site sets the other options elsewhere, or not at all: an image's
    /// digest is the user's own claim.
    pub site: bool,
    /// True if the option may be given more than once; the values add up.
    pub repeats: bool,
}

/// Choice of an option's two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// `--container-bind`
    #[default]
    Container,
    /// `--coracle-bind`
    Coracle,
}

const fn c_string(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a NUL inside"),
    }
}

macro_rules! option {
    ($id:ident, $no:literal, $word:literal, { $($field:ident: $value:expr,)* }) => {
        Spec {
            id: Id::$id,
            name: c_string(concat!($no, "container-", $word, "\0")),
            long: c_string(concat!($no, "coracle-", $word, "\0")),
            key: $word,
            $($field: $value,)*
        }
    };
}

use Argument::{Flag, Maybe, Value};

/// All options, in the order of the help text.
///
/// Slurm breaks `help` into lines of 50 characters. Two such lines are easy to read.
pub const OPTIONS: &[Spec] = &[
    option!(Bind, "", "bind", {
        argument: Value(c"SRC[:DST[:ro|rw]][,...]"),
        help: c"show a file or directory of the node inside, or an empty directory: tmpfs:DST[:SIZE]; may be repeated",
        variable: Some(c"CORACLE_CONTAINER_BIND"),
        default: None,
        site: false,
        repeats: true,
    }),
    option!(Digest, "", "digest", {
        argument: Value(c"sha256:HEX"),
        help: c"run only if the image file has this SHA-256",
        variable: Some(c"CORACLE_CONTAINER_DIGEST"),
        default: None,
        site: false,
        repeats: false,
    }),
    option!(Workdir, "", "workdir", {
        argument: Value(c"DIR"),
        help: c"start in this directory of the container (default: the job's working directory)",
        variable: Some(c"CORACLE_CONTAINER_WORKDIR"),
        default: None,
        site: true,
        repeats: false,
    }),
    option!(Home, "", "home", {
        argument: Flag("yes"),
        help: c"show your home (default, unless the site says otherwise)",
        variable: Some(c"CORACLE_CONTAINER_HOME"),
        default: Some("yes"),
        site: true,
        repeats: false,
    }),
    option!(Home, "no-", "home", {
        argument: Flag("no"),
        help: c"do not show your home, except for a working directory in it",
        variable: None,
        default: Some("yes"),
        site: true,
        repeats: false,
    }),
    option!(Env, "", "env", {
        argument: Value(c"NAME|NAME=VALUE[,...]"),
        help: c"pass variables of the node, whatever the image sets, or set them; may be repeated",
        variable: Some(c"CORACLE_CONTAINER_ENV"),
        default: None,
        site: true,
        repeats: true,
    }),
    option!(CleanEnv, "", "clean-env", {
        argument: Flag("yes"),
        help: c"pass only the variables of Slurm, MPI, locale and terminal",
        variable: Some(c"CORACLE_CONTAINER_CLEAN_ENV"),
        default: Some("no"),
        site: true,
        repeats: false,
    }),
    option!(Writable, "", "writable", {
        argument: Maybe(c"SIZE", "yes"),
        help: c"let tasks write into the image: in memory, at most SIZE on each node, gone with the step",
        variable: Some(c"CORACLE_CONTAINER_WRITABLE"),
        default: Some("no"),
        site: true,
        repeats: false,
    }),
    option!(Overlay, "", "overlay", {
        argument: Value(c"DIR"),
        help: c"let tasks write into the image, and keep what they write in this directory of yours",
        variable: Some(c"CORACLE_CONTAINER_OVERLAY"),
        default: None,
        site: false,
        repeats: false,
    }),
    option!(Entrypoint, "", "entrypoint", {
        argument: Flag("yes"),
        help: c"run the command through the image's entry point (SIF runscript, OCI ENTRYPOINT, enroot's /etc/rc)",
        variable: Some(c"CORACLE_CONTAINER_ENTRYPOINT"),
        default: Some("no"),
        site: true,
        repeats: false,
    }),
    option!(Entrypoint, "no-", "entrypoint", {
        argument: Flag("no"),
        help: c"run the command itself (default, unless the site says otherwise)",
        variable: None,
        default: Some("no"),
        site: true,
        repeats: false,
    }),
    option!(Scope, "", "scope", {
        argument: Value(c"script|steps|all"),
        help: c"what of a job runs in the container: its script, its steps, or all of it (default)",
        variable: Some(c"CORACLE_CONTAINER_SCOPE"),
        default: Some("all"),
        site: true,
        repeats: false,
    }),
    option!(Mpi, "", "mpi", {
        argument: Value(c"PROFILE|auto|none"),
        help: c"run with an MPI library of the node in place of the image's, if it fits (default: none)",
        variable: Some(c"CORACLE_CONTAINER_MPI"),
        default: Some("none"),
        site: true,
        repeats: false,
    }),
    option!(Gpu, "", "gpu", {
        argument: Value(c"auto|none"),
        help: c"show the GPUs that Slurm gave, with their driver (default: auto), or none",
        variable: Some(c"CORACLE_CONTAINER_GPU"),
        default: Some("auto"),
        site: true,
        repeats: false,
    }),
];

impl Spec {
    /// Returns its name without dashes.
    pub fn name_in(&self, naming: Naming) -> &'static CStr {
        match naming {
            Naming::Container => self.name,
            Naming::Coracle => self.long,
        }
    }

    /// `--container-bind`
    pub fn flag(&self, naming: Naming) -> String {
        format!("--{}", self.name_in(naming).to_string_lossy())
    }

    /// Returns the value that stands for the option if it was given without one.
    pub fn implied(&self) -> Option<&'static str> {
        match self.argument {
            Value(_) => None,
            Maybe(_, implied) | Flag(implied) => Some(implied),
        }
    }

    /// Returns the first option about `id`.
    pub fn of(id: Id) -> Option<&'static Self> {
        OPTIONS.iter().find(|spec| spec.id == id)
    }
}

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
        // Both set the permission of tasks to write into the image.
        let writes = [Id::Writable, Id::Overlay];
        let answered = writes.iter().any(|id| self.value(*id).is_some());
        for spec in OPTIONS.iter().filter(|spec| !answered || !writes.contains(&spec.id)) {
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
        raw.fill_from(|name| (name == c"CORACLE_CONTAINER_OVERLAY").then(|| "/o".into()));
        assert_eq!((raw.value(Id::Writable), raw.value(Id::Overlay)), (Some(OsStr::new("yes")), None));
    }

    #[test]
    fn an_option_is_called_as_it_was_typed_and_as_the_site_has_it() {
        let mut raw = RawOptions::named(Naming::Coracle);
        raw.take(spec(c"no-container-home"), "no".into());
        assert_eq!(raw.lone_flag().unwrap(), "--no-coracle-home");
        assert_eq!(
            called("--container-bind: with --container=x", Naming::Coracle),
            "--coracle-bind: with --container=x"
        );
        assert_eq!(called("--container-bind", Naming::Container), "--container-bind");
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
