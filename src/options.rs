//! The options of srun, sbatch and salloc, in one table: the plugin registers it, the launcher's own commands, the
//! man page and the completions are made from it, and coracle.yaml's `options` has its words as keys.
//!
//! `--container` is not among them: since Slurm 21.08 it is Slurm's own (srun(1)), and a plugin option of that
//! name is dropped with an error on every command.
#![forbid(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString};

/// What an option is about. `--container-home` and `--no-container-home` are about the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// What of the node is visible.
    Bind,
    /// Which image it must be.
    Digest,
    /// Where tasks start.
    Workdir,
    /// Whether the home is visible.
    Home,
    /// Variables that pass or are set.
    Env,
    /// Whether the host's variables stay outside.
    CleanEnv,
    /// Whether the image can be written to for as long as the step runs.
    Writable,
    /// Where changes to the image are kept.
    Overlay,
    /// Whether the image's entry point runs the command.
    Entrypoint,
    /// What of a job runs inside.
    Scope,
}

/// What stands behind an option's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// A value, shown so in help.
    Value(&'static CStr),
    /// A value that may be left out, and what is meant then.
    Maybe(&'static CStr, &'static str),
    /// Nothing: the option stands for this value.
    Flag(&'static str),
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// What it is about.
    pub id: Id,
    /// Its name without the dashes.
    pub name: &'static CStr,
    /// Its name where another plugin has the first one (plugin argument `options=long`).
    pub long: &'static CStr,
    /// Its argument.
    pub argument: Argument,
    /// What it does, in one line for `srun --help`.
    pub help: &'static CStr,
    /// The rest, for the man page.
    pub more: &'static str,
    /// The variable that gives the value in the submitter's environment when the command line does not.
    pub variable: Option<&'static CStr>,
    /// The key in `options` of coracle.yaml.
    pub key: &'static str,
    /// May be given more than once; the values add up.
    pub repeats: bool,
}

/// By which of its two names an option is called.
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
    ($id:ident, $no:literal, $word:literal, $argument:expr, $variable:expr, $repeats:literal, $help:literal, $more:literal) => {
        Spec {
            id: Id::$id,
            name: c_string(concat!($no, "container-", $word, "\0")),
            long: c_string(concat!($no, "coracle-", $word, "\0")),
            argument: $argument,
            help: $help,
            more: $more,
            variable: $variable,
            key: $word,
            repeats: $repeats,
        }
    };
}

use Argument::{Flag, Maybe, Value};

/// Every option, in the order in which help shows them.
pub const OPTIONS: &[Spec] = &[
    option!(
        Bind,
        "",
        "bind",
        Value(c"SRC[:DST[:ro|rw]][,...]"),
        Some(c"CORACLE_CONTAINER_BIND"),
        true,
        c"make a folder or file of the node visible in the container, or an empty tmpfs:DST[:SIZE]; may be repeated",
        "SRC is opened with your rights on the node. Without DST it appears at its own path; missing mount points are \
         made. A relative SRC is taken from the working directory. The words tmpfs:DST[:SIZE] give an empty folder in \
         memory, one for each node and step."
    ),
    option!(
        Digest,
        "",
        "digest",
        Value(c"sha256:HEX"),
        Some(c"CORACLE_CONTAINER_DIGEST"),
        false,
        c"run only if this is the SHA-256 of the image file",
        "The same as IMAGE@sha256:HEX. The file is read to its end before the first task starts."
    ),
    option!(
        Workdir,
        "",
        "workdir",
        Value(c"DIR"),
        Some(c"CORACLE_CONTAINER_WORKDIR"),
        false,
        c"start in this folder of the container instead of the job's working directory",
        "An absolute path inside the container. A folder that is not there is refused."
    ),
    option!(
        Home,
        "",
        "home",
        Flag("yes"),
        Some(c"CORACLE_CONTAINER_HOME"),
        false,
        c"show your home (the default, unless the site says otherwise)",
        "The variable takes yes or no."
    ),
    option!(
        Home,
        "no-",
        "home",
        Flag("no"),
        None,
        false,
        c"do not show your home; a working directory below it still is",
        "HOME keeps its value."
    ),
    option!(
        Env,
        "",
        "env",
        Value(c"NAME|NAME=VALUE[,...]"),
        Some(c"CORACLE_CONTAINER_ENV"),
        true,
        c"pass variables of the host whatever the image says, or set them; may be repeated",
        "NAME passes the host's value over the image's, also with --container-clean-env; a trailing * stands for all \
         names that begin so. A backslash before a comma makes it part of a value."
    ),
    option!(
        CleanEnv,
        "",
        "clean-env",
        Flag("yes"),
        Some(c"CORACLE_CONTAINER_CLEAN_ENV"),
        false,
        c"pass only the variables of Slurm, MPI, locale and terminal",
        "docs/environment.md has the list. The variable takes yes or no."
    ),
    option!(
        Writable,
        "",
        "writable",
        Maybe(c"SIZE", "yes"),
        Some(c"CORACLE_CONTAINER_WRITABLE"),
        false,
        c"let tasks write into the image: in memory, at most SIZE on each node, gone with the step",
        "The image file is never changed. SIZE is a number of bytes with k, m or g behind it; 1g if left out, or what \
         the site says. What is written counts as memory of the job. File modes count as everywhere: what only root \
         may write in the image stays so where the kernel cannot map its owner to you (before Linux 6.2)."
    ),
    option!(
        Overlay,
        "",
        "overlay",
        Value(c"DIR"),
        Some(c"CORACLE_CONTAINER_OVERLAY"),
        false,
        c"let tasks write into the image, and keep what they write in this folder of yours",
        "DIR is on the node, belongs to you, and gets the folders upper and work, as Apptainer's overlays have them. It \
         has to be on a file system that the kernel's overlay can write to (a local disk, not NFS), and serves one \
         step of a node at a time."
    ),
    option!(
        Entrypoint,
        "",
        "entrypoint",
        Flag("yes"),
        Some(c"CORACLE_CONTAINER_ENTRYPOINT"),
        false,
        c"run the command through the image's entry point (SIF runscript, OCI ENTRYPOINT, enroot's /etc/rc)",
        "The command and its arguments become the entry point's arguments. Not with --multi-prog."
    ),
    option!(
        Entrypoint,
        "no-",
        "entrypoint",
        Flag("no"),
        None,
        false,
        c"run the command itself (the default, unless the site says otherwise)",
        ""
    ),
    option!(
        Scope,
        "",
        "scope",
        Value(c"script|steps|all"),
        Some(c"CORACLE_CONTAINER_SCOPE"),
        false,
        c"what of a job runs in the container: only the job script, only its steps, or all of it (the default)",
        "With script, an srun in the job script runs on the node unless it names an image itself; with steps, the \
         script of sbatch and the shell of salloc stay on the node."
    ),
];

impl Spec {
    /// Its name without dashes.
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

    /// The value that stands for the option when it was given without one.
    pub fn implied(&self) -> Option<&'static str> {
        match self.argument {
            Value(_) => None,
            Maybe(_, implied) | Flag(implied) => Some(implied),
        }
    }

    /// The first option about `id`.
    pub fn of(id: Id) -> Option<&'static Self> {
        OPTIONS.iter().find(|spec| spec.id == id)
    }
}

/// `text` with the options called as `naming` has it. Whoever writes a message need not know what the site calls them.
pub fn called(text: &str, naming: Naming) -> String {
    if naming == Naming::Container {
        return text.to_owned();
    }
    OPTIONS.iter().fold(text.to_owned(), |text, spec| text.replace(&spec.flag(Naming::Container), &spec.flag(naming)))
}

/// What was typed, unread: nothing here has been checked, and no file has been looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawOptions {
    given: Vec<(Id, OsString)>,
    naming: Naming,
}

impl RawOptions {
    /// Nothing yet, to be called by these names in messages.
    pub fn named(naming: Naming) -> Self {
        Self { given: Vec::new(), naming }
    }

    /// Takes the value of one option. Of an option that may stand once, the last one counts, as everywhere in Slurm.
    pub fn take(&mut self, spec: &Spec, value: OsString) {
        if !spec.repeats {
            self.given.retain(|(id, _)| *id != spec.id);
        }
        self.given.push((spec.id, value));
    }

    /// Fills what the command line left open from the `CORACLE_CONTAINER_…` variables.
    pub fn fill_from(&mut self, variable: impl Fn(&CStr) -> Option<OsString>) {
        // Both answer whether tasks may write into the image.
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

    /// Every value about `id`, in the order given.
    pub fn values(&self, id: Id) -> impl Iterator<Item = &OsStr> {
        self.given.iter().filter(move |(given, _)| *given == id).map(|(_, value)| value.as_os_str())
    }

    /// The value about `id`, of an option that may stand once.
    pub fn value(&self, id: Id) -> Option<&OsStr> {
        self.values(id).next()
    }

    /// True when nothing was typed.
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// An option about `id` as the user calls it.
    pub fn flag(&self, id: Id) -> String {
        Spec::of(id).map(|spec| spec.flag(self.naming)).unwrap_or_default()
    }

    /// The flag of an option on the command line that means nothing without an image.
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
}
