//! Makes arguments of Coracle's own commands from the table of options ([`coracle::options`]).
//!
//! `run`, `exec` and `shell` omit the prefix and accept some of Apptainer's names. `explain` takes exactly the options
//! of srun.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use coracle::options::{Argument, Id, Naming, OPTIONS, RawOptions, Spec};

use super::mount;

/// Apptainer's names of an option: a letter, and whole words.
const ALSO: &[(Id, Option<char>, &[&str])] = &[
    (Id::Bind, Some('B'), &[]),
    (Id::Workdir, None, &["pwd", "cwd"]),
    (Id::CleanEnv, Some('e'), &["cleanenv"]),
    (Id::Writable, None, &["writable-tmpfs"]),
];
/// Long form of a bind in Apptainer and docker.
const MOUNT: &str = "mount";
/// Options that have a meaning only in a job.
const OF_JOBS: &[Id] = &[Id::Scope];
const PREFIX: &str = "container-";

/// Options without their prefix.
#[derive(Debug, Default)]
pub struct Short(pub RawOptions);

/// Options as srun has them.
#[derive(Debug, Default)]
pub struct Full(pub RawOptions);

fn full_name(spec: &Spec) -> String {
    spec.name_in(Naming::Container).to_string_lossy().into_owned()
}

fn short_name(spec: &Spec) -> String {
    full_name(spec).replacen(PREFIX, "", 1)
}

fn short() -> impl Iterator<Item = (&'static Spec, String)> {
    OPTIONS.iter().filter(|spec| !OF_JOBS.contains(&spec.id)).map(|spec| (spec, short_name(spec)))
}

fn full() -> impl Iterator<Item = (&'static Spec, String)> {
    OPTIONS.iter().map(|spec| (spec, full_name(spec)))
}

fn argument(spec: &Spec, name: &str) -> Arg {
    let arg = Arg::new(name.to_owned())
        .long(name.to_owned())
        .help(spec.help.to_string_lossy().into_owned())
        .action(ArgAction::Append)
        .value_parser(OsStringValueParser::new());
    let shown = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    match spec.argument {
        Argument::Value(value) => arg.value_name(shown(value)),
        Argument::Maybe(value, implied) => {
            arg.value_name(shown(value)).num_args(0..=1).require_equals(true).default_missing_value(implied)
        }
        Argument::Flag(implied) => arg.num_args(0).default_missing_value(implied),
    }
}

fn augment(command: Command, names: impl Iterator<Item = (&'static Spec, String)>, also: bool) -> Command {
    names.fold(command, |command, (spec, name)| {
        let mut arg = argument(spec, &name);
        let alias = ALSO.iter().find(|(id, ..)| *id == spec.id).filter(|_| also);
        if let Some((_, letter, words)) = alias {
            arg = arg.visible_aliases(words.iter().copied());
            arg = letter.map_or(arg.clone(), |letter| arg.short(letter));
        }
        command.arg(arg)
    })
}

/// Options in the order in which they were given: of two with the same meaning, the later one counts.
fn given(matches: &ArgMatches, names: impl Iterator<Item = (&'static Spec, String)>) -> RawOptions {
    let mut found: Vec<(usize, &Spec, OsString)> = Vec::new();
    for (spec, name) in names {
        let values = matches.get_many::<OsString>(&name).into_iter().flatten();
        let places = matches.indices_of(&name).into_iter().flatten();
        found.extend(places.zip(values).map(|(place, value)| (place, spec, value.clone())));
    }
    found.sort_by_key(|(place, ..)| *place);
    let mut raw = RawOptions::default();
    found.into_iter().for_each(|(_, spec, value)| raw.take(spec, value));
    raw
}

impl Args for Short {
    fn augment_args(command: Command) -> Command {
        let mount = Arg::new(MOUNT)
            .long(MOUNT)
            .value_name(mount::FORM)
            .help("the same as --bind=SRC:DST[:ro], in the words of Apptainer and docker; may be repeated")
            .action(ArgAction::Append)
            .value_parser(OsStringValueParser::new().try_map(|text: OsString| mount::as_bind(&text)));
        augment(command, short(), true).arg(mount)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Short {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mount = Spec::of(Id::Bind).map(|spec| (spec, MOUNT.to_owned()));
        Ok(Self(given(matches, short().chain(mount))))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Full {
    fn augment_args(command: Command) -> Command {
        augment(command, full(), false)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Full {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self(given(matches, full())))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::ffi::OsStr;

    #[derive(Debug, Parser)]
    struct OfShort {
        #[command(flatten)]
        options: Short,
        image: Option<OsString>,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    }

    #[derive(Debug, Parser)]
    struct OfFull {
        #[command(flatten)]
        options: Full,
    }

    fn short_options(words: &[&str]) -> OfShort {
        OfShort::try_parse_from([&["coracle"], words].concat()).unwrap()
    }

    #[test]
    fn the_names_of_apptainer_are_the_same_options() {
        let parsed = short_options(&[
            "-B",
            "/a",
            "--bind",
            "/b:/c:ro",
            "--pwd",
            "/w",
            "--env",
            "A=1",
            "-e",
            "--no-home",
            "--writable-tmpfs",
            "i.sif",
            "ls",
            "-B",
        ]);
        let raw = &parsed.options.0;
        assert_eq!(raw.values(Id::Bind).collect::<Vec<_>>(), ["/a", "/b:/c:ro"]);
        assert_eq!(raw.value(Id::Workdir), Some(OsStr::new("/w")));
        assert_eq!((raw.value(Id::Env), raw.value(Id::CleanEnv)), (Some(OsStr::new("A=1")), Some(OsStr::new("yes"))));
        assert_eq!((raw.value(Id::Home), raw.value(Id::Writable)), (Some(OsStr::new("no")), Some(OsStr::new("yes"))));
        assert_eq!(parsed.image.as_deref(), Some(OsStr::new("i.sif")));
        assert_eq!(parsed.command, ["ls", "-B"]);
    }

    #[test]
    fn a_mount_is_a_bind_in_its_place() {
        let parsed = short_options(&["-B", "/a", "--mount", "type=bind,src=/b,dst=/c,ro", "--bind=/d", "i.sif", "ls"]);
        assert_eq!(parsed.options.0.values(Id::Bind).collect::<Vec<_>>(), ["/a", "/b:/c:ro", "/d"]);
        let wrong = OfShort::try_parse_from(["coracle", "--mount=type=bind,src=/b", "i.sif"]).unwrap_err().to_string();
        assert!(wrong.contains("destination is missing"), "{wrong}");
    }

    #[test]
    fn of_two_options_about_the_same_the_later_counts() {
        for (words, wanted) in [(["--home", "--no-home"], "no"), (["--no-home", "--home"], "yes")] {
            assert_eq!(short_options(&words).options.0.value(Id::Home), Some(OsStr::new(wanted)));
        }
        let sizes = short_options(&["--writable=1g", "--writable"]);
        assert_eq!(sizes.options.0.value(Id::Writable), Some(OsStr::new("yes")));
    }

    #[test]
    fn a_value_where_none_belongs_is_refused() {
        for words in [["coracle", "--home=no"], ["coracle", "--scope=all"], ["coracle", "--container-bind=/a"]] {
            assert!(OfShort::try_parse_from(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn explain_has_every_option_of_srun_with_its_help() {
        use clap::CommandFactory;
        let help = OfFull::command().render_help().to_string();
        for spec in OPTIONS {
            let flag = spec.flag(Naming::Container);
            assert!(help.contains(&flag), "{flag} in {help}");
        }
        let words = ["coracle", "--container-bind=/a", "--no-container-home", "--container-scope=script"];
        let raw = OfFull::try_parse_from(words).unwrap().options.0;
        assert_eq!(raw.values(Id::Bind).collect::<Vec<_>>(), ["/a"]);
        assert_eq!((raw.value(Id::Home), raw.value(Id::Scope)), (Some(OsStr::new("no")), Some(OsStr::new("script"))));
    }
}
