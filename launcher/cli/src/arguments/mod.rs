//! Defines the command line for users and workflow tools, and reads it.
#![forbid(unsafe_code)]

mod apptainer;
mod container;
#[cfg(test)]
mod documented;
mod host;
mod mount;
mod options;
mod store;
mod words;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};
use coracle_orders::{Order, Silence};

pub use container::{Common, Exec, Explain, Run, Shell};
pub use host::{Check, Doctor, Log, Role, Verify};
pub use store::{Copy, List, Remove, Service};

/// Run Slurm jobs inside containers
///
/// Jobs need no command of this program: srun --container=IMAGE and sbatch --container=IMAGE do it all.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, arg_required_else_help = true)]
pub struct CommandLine {
    /// Flag of every command.
    #[command(flatten)]
    pub silence: Silence,
    /// Command of the user.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Commands of `coracle`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command inside an image, outside of a job or in one; root can run it as another user
    Exec(Exec),
    /// Run an image's entry point, with these arguments
    Run(Run),
    /// Open a shell inside an image
    Shell(Shell),
    /// Print what srun --container=IMAGE would do on this node, and run nothing
    Explain(Explain),
    /// Report what this node has and lacks for containers and GPUs
    ///
    /// A line each: good, note or bad. The exit status is 1 if there is a bad one.
    Doctor(Doctor),
    /// Make, show and sign images.
    #[command(flatten)]
    Image(Order),
    /// Copy an image into the site's store, where it cannot be changed
    Cp(Copy),
    /// List your images in the store
    Ls(List),
    /// Remove images of yours from the store
    Rm(Remove),
    /// Serve the store: systemd starts it, and admins who try it out
    StoreService(Service),
    /// Check who has signed an image, or that it is the one of a list of hashes
    Verify(Verify),
    /// Print what ran in containers, by the records of this node
    ///
    /// They are read from audit.file of coracle.yaml if the site has one, else from the journal, with your own rights.
    /// Without the right to read them, you see the records of your own steps. Each node has its own: srun -w NODE coracle log.
    /// The exit status is 1 if nothing was found.
    Log(Log),
    /// Check the site's settings
    #[command(subcommand)]
    Config(Settings),
}

/// Commands of `coracle config`.
#[derive(Debug, Subcommand)]
pub enum Settings {
    /// Say whether coracle.yaml is right, and which of its lines decides for a user, job and image
    Check(Check),
}

/// Whole command line, for its manual.
#[cfg(feature = "manual")]
pub fn tree() -> clap::Command {
    CommandLine::command()
}

impl CommandLine {
    /// Reads a whole command line, in which all words behind an image belong to the image.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let words = words::separated(&mut Self::command(), words.into_iter().collect());
        let starts = words::starts(&words);
        Self::try_parse_from(words).map_err(|error| if starts { apptainer::explained(error) } else { error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle::options::Id;

    #[test]
    fn the_command_line_is_without_contradictions() {
        CommandLine::command().debug_assert();
    }

    fn read(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::read(line.split(' ').map(OsString::from))
    }

    /// Image, words behind it, binds, and number of `-s`.
    fn started(line: &str) -> (String, String, Vec<OsString>, u8) {
        let CommandLine { verb, silence } = read(line).unwrap();
        let (common, image, words) = match verb {
            Verb::Exec(Exec { common, image, command, .. }) => (common, image.unwrap(), command),
            Verb::Run(Run { common, image, arguments }) | Verb::Shell(Shell { common, image, arguments }) => {
                (common, image, arguments)
            }
            other => panic!("{other:?}"),
        };
        let binds = common.raw().values(Id::Bind).map(OsString::from).collect();
        (image.into_string().unwrap(), words.join(" ".as_ref()).into_string().unwrap(), binds, silence.silent)
    }

    #[test]
    fn everything_behind_the_image_belongs_to_the_image() {
        let own = [
            "",
            "--help",
            "-h",
            "-B /x",
            "--bind=/x",
            "-s x",
            "-q",
            "--silent",
            "--version",
            "-V",
            "--",
            "-- ls",
            "--user root",
            "--config /x",
            "--writable",
            "--nv",
            "--plan",
            "--job 1",
            "-w n1",
            "-c true",
            "exec",
            "ls -l --bind -- -B",
        ];
        for verb in ["exec", "run", "shell"] {
            for words in own {
                for front in ["", " --"] {
                    let line = format!("coracle {verb}{front} i.sif {words}");
                    let (image, behind, binds, silent) = started(line.trim_end());
                    assert_eq!(
                        (image.as_str(), behind.as_str(), binds.len(), silent),
                        ("i.sif", words, 0, 0),
                        "{line}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_stands_for_an_option_of_apptainers_is_told() {
        for (option, instead) in [
            ("--contain", "--no-home hides your home"),
            ("-C", "--no-home hides your home"),
            ("--fakeroot", "not needed: containers run in a user namespace, as you"),
            ("--env-file=x", "--env=NAME=VALUE sets a variable"),
            ("--scratch", "--bind=tmpfs:DST[:SIZE] is an empty directory in memory"),
        ] {
            let said = read(&format!("coracle exec {option} i.sif true")).unwrap_err().to_string();
            let name = option.split('=').next().unwrap();
            assert!(said.contains(&format!("tip: {name} is an option of Apptainer; ")), "{said}");
            assert!(said.contains(instead) && !said.contains("similar argument"), "{said}");
        }
        let said = read("coracle exec --bnd /a i.sif true").unwrap_err().to_string();
        assert!(said.contains("a similar argument exists: '--bind'"), "{said}");
    }

    #[test]
    fn options_in_front_of_the_image_are_ours() {
        for (front, binds, silent) in [
            ("coracle -s run", 0, 1),
            ("coracle run -s -q", 0, 2),
            ("coracle run -B /a --bind /b --bind=/c", 3, 0),
            ("coracle run -eB /a", 1, 0),
            ("coracle run -B/a", 1, 0),
            ("coracle run -sB=/a", 1, 1),
            ("coracle run --pwd /w --env A=1 --cleanenv", 0, 0),
            ("coracle run --writable", 0, 0),
            ("coracle run --writable=1g --nv", 0, 0),
            ("coracle run --user alice --config /c", 0, 0),
        ] {
            let found = started(&format!("{front} i.sif -B /x --help"));
            assert_eq!((found.0.as_str(), found.1.as_str()), ("i.sif", "-B /x --help"), "{front}");
            assert_eq!((found.2.len(), found.3), (binds, silent), "{front}");
        }
        for help in ["coracle run --help i.sif", "coracle exec -h", "coracle --help exec i.sif"] {
            assert_eq!(read(help).unwrap_err().kind(), clap::error::ErrorKind::DisplayHelp, "{help}");
        }
        for wrong in ["coracle run --no-such i.sif", "coracle run -B", "coracle run -z i.sif", "coracle shell -s"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_is_of_a_job() {
        assert!(CommandLine::try_parse_from(["coracle", "exec", "-w", "n1", "i.sif", "ls"]).is_err());
        assert!(CommandLine::try_parse_from(["coracle", "exec", "--job", "1", "--plan", "ls"]).is_err());
        for line in ["coracle exec --job=7.0 -w n1 -- ls --help", "coracle exec --job 7.0 -w n1 ls --help"] {
            let Verb::Exec(exec) = read(line).unwrap().verb else { panic!() };
            assert_eq!((exec.image.unwrap(), exec.command), ("ls".into(), vec![OsString::from("--help")]));
            assert_eq!((exec.job.as_deref(), exec.node.as_deref()), (Some("7.0"), Some("n1")));
        }
    }
}
