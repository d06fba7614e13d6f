//! Defines and reads the command line for users and workflow tools.
#![forbid(unsafe_code)]

mod apptainer;
#[cfg(test)]
mod documented;
mod mount;
mod options;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use coracle::options::{Id, RawOptions, Spec};
use coracle::report::{Kind, Refusal};
use coracle::sys;
use coracle_orders::{Build, Inspect, Order, Pull, Sif, Sign};

use crate::attach;
use crate::config_check;
use crate::doctor;
use crate::doctor::Role;
use crate::exec;
use crate::explain;
use crate::images;
use crate::log;
use crate::store;
use crate::verify;

pub use options::{Full, Short};

/// Status if Coracle refused or failed, as in docker and podman.
pub const REFUSED: u8 = 125;
/// Status if a command that manages something failed.
const BAD: u8 = 1;
/// Status of a wrong command line.
pub const WRONG: u8 = 2;

/// Run Slurm jobs inside containers
///
/// Jobs need no command of this program: srun --container=IMAGE and sbatch --container=IMAGE do it all.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, arg_required_else_help = true)]
struct Command {
    /// Say nothing but what is wrong, as always: Apptainer's flag, for those who give it
    #[arg(short, long, visible_short_alias = 'q', alias = "quiet", global = true, hide = true, action = ArgAction::Count)]
    silent: u8,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a command inside an image, outside of a job or in one; as yourself, or as root for somebody
    Exec(Exec),
    /// Run an image's entry point, with these arguments
    Run(Run),
    /// Open a shell inside an image
    Shell(Shell),
    /// Print what srun --container=IMAGE would do on this node, and run nothing
    Explain(Explain),
    /// Say what this node has for containers and GPUs, and what it lacks
    ///
    /// A line each: good, note or bad. The exit status is 1 if there is a bad one.
    Doctor(Doctor),
    /// Fetch an image from a registry and make a SIF of it
    Pull(Pull),
    /// Make a SIF from a directory, an archive, another image or a definition file
    ///
    /// Commands of a definition file run as root of a user namespace: over what is yours, and nothing else.
    Build(Build),
    /// Show what an image says of itself: labels, scripts, environment, parts, signatures
    Inspect(Inspect),
    /// Look at the parts of a SIF
    Sif(Sif),
    /// Sign a SIF with an OpenPGP key
    Sign(Sign),
    /// Put an image into the site's store, where nobody changes it any more
    Cp(store::Copy),
    /// List your images in the store
    Ls(store::List),
    /// Remove images of yours from the store
    Rm(store::Remove),
    /// Serve the store: systemd starts it, and admins who try it out
    StoreService(store::Service),
    /// Check who has signed an image, or that it is the one of a list of hashes
    Verify(Verify),
    /// Print what ran in containers, by the records of this node
    ///
    /// They are read from audit.file of coracle.yaml if the site has one, else from the journal, with your own rights.
    /// Where these do not let you, you see the records of your own steps. Each node has its own: srun -w NODE coracle log.
    /// The exit status is 1 if nothing was found.
    Log(Log),
    /// Look after the site's settings
    #[command(subcommand)]
    Config(Settings),
}

/// Commands that run a program: the status of a refusal must differ from that of the program.
const RUNNING: [&str; 4] = ["exec", "run", "shell", "explain"];

impl Verb {
    fn is_running(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::Run(_) | Self::Shell(_) | Self::Explain(_))
    }

    /// True if users read the output page by page.
    fn is_printing(&self) -> bool {
        matches!(self, Self::Explain(_) | Self::Doctor(_) | Self::Ls(_) | Self::Log(_) | Self::Config(_))
    }
}

#[derive(Debug, Subcommand)]
enum Settings {
    /// Say whether coracle.yaml is right, and which of its lines decides for a user, job and image
    Check(Check),
}

/// Arguments of `coracle config check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// The file
    #[arg(default_value = coracle_launcher::config::PATH)]
    pub file: PathBuf,
    /// Show the rules that hold for this user (others than you: root only)
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// And for a job in this partition
    #[arg(long, value_name = "NAME")]
    pub partition: Option<String>,
    /// And of this account
    #[arg(long, value_name = "NAME")]
    pub account: Option<String>,
    /// And with this quality of service
    #[arg(long, value_name = "NAME")]
    pub qos: Option<String>,
    /// And what they say of this image
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<OsString>,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
}

impl Check {
    /// True if more is requested than a check of the file.
    pub fn asks(&self) -> bool {
        [&self.user, &self.partition, &self.account, &self.qos].iter().any(|said| said.is_some())
            || self.image.is_some()
    }
}

/// Arguments that go with every image.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// The options of the table.
    #[command(flatten)]
    pub options: Short,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = coracle_launcher::config::PATH)]
    pub config: PathBuf,
    /// Open the image and run the command as this user, with the user's groups: only root can be another user (default: you)
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// GPUs, as Apptainer's users ask for NVIDIA's: the same as --gpu=auto
    #[arg(long, hide = true)]
    pub nv: bool,
    /// And for AMD's
    #[arg(long, hide = true)]
    pub rocm: bool,
}

/// Arguments of `coracle exec`.
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// Everything beside the image.
    #[command(flatten)]
    pub common: Common,
    /// Print the plan and run nothing
    #[arg(long)]
    pub plan: bool,
    /// Run in the container of a step that runs, instead of in one of an image: the job, and the step's number, batch
    /// or interactive (default: the job script's, or else the lowest)
    #[arg(long, value_name = "JOB[.STEP]", conflicts_with_all = ["plan", "user", "config"])]
    pub job: Option<String>,
    /// On which node of the job (default: srun takes one)
    #[arg(short = 'w', long, value_name = "NODE", requires = "job")]
    pub node: Option<String>,
    /// The image: a SIF, squashfs or directory; none with --job
    pub image: Option<OsString>,
    /// The command, looked up in the image
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// Arguments of `coracle run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Everything beside the image.
    #[command(flatten)]
    pub common: Common,
    /// The image: a SIF, squashfs or directory
    pub image: OsString,
    /// The arguments of its entry point
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// Arguments of `coracle shell`.
#[derive(Debug, clap::Args)]
pub struct Shell {
    /// Everything beside the image.
    #[command(flatten)]
    pub common: Common,
    /// The image: a SIF, squashfs or directory
    pub image: OsString,
    /// The arguments of the shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<OsString>,
}

/// Arguments of `coracle explain`.
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// The image, as srun has it
    #[arg(long, value_name = "IMAGE")]
    pub container: OsString,
    /// The options of the table.
    #[command(flatten)]
    pub options: Full,
    /// Explain the job script of sbatch, instead of a step
    #[arg(long)]
    pub script: bool,
    /// Of how many tasks the step is, as srun has it: Slurm's commands are shown to a single one
    #[arg(short, long, value_name = "N", default_value_t = 1, conflicts_with = "script")]
    pub ntasks: u32,
    /// Say which MPI the image has, what this node offers it, and what comes of both, instead of plan and environment
    #[arg(long)]
    pub mpi: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = coracle_launcher::config::PATH)]
    pub config: PathBuf,
    /// Explain for this user (root only; default: you)
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
}

/// Arguments of `coracle doctor`.
///
/// Exit status: 0 containers start here, 1 something keeps them from it.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Parts that this host plays, instead of those that are found out; may be repeated
    #[arg(long, value_name = "ROLE", value_enum)]
    pub role: Vec<Role>,
    /// This host is a compute node, whether slurmd runs yet or not: for HealthCheckProgram and ExecStartPre=
    #[arg(long, conflicts_with = "role")]
    pub node: bool,
    /// Print warnings and errors only
    #[arg(long)]
    pub faults: bool,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = coracle_launcher::config::PATH)]
    pub config: PathBuf,
}

/// Arguments of `coracle verify`.
///
/// Exit status: 0 the image is good, 1 it is not, 2 the command line or a file that it names makes no sense.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// A public key that is accepted: OpenPGP, armoured or binary, or PEM (default: the site's, /etc/coracle/keys)
    #[arg(long = "key", value_name = "FILE")]
    pub keys: Vec<PathBuf>,
    /// Compare the file's SHA-256 with this list, as sha256sum writes it; signatures are then only looked at with --key
    #[arg(long, value_name = "FILE")]
    pub sums: Option<PathBuf>,
    /// Print one line of JSON: image, digest, verdict, signers and error
    #[arg(long)]
    pub json: bool,
    /// The image: a SIF, or with --sums any file
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
}

/// Arguments of `coracle log`.
#[derive(Debug, clap::Args)]
pub struct Log {
    /// Of this job only, or of one step of it: a number, batch or interactive
    #[arg(long, value_name = "JOB[.STEP]")]
    pub job: Option<log::Asked>,
    /// Of this user only
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Not before this time: 2026-11-22, 2026-11-22T10:00:00 (both UTC), or 2h, 3days for so long ago
    #[arg(long, value_name = "TIME", value_parser = log::since)]
    pub since: Option<std::time::SystemTime>,
    /// Print each record as it is: JSON, a line each
    #[arg(long)]
    pub json: bool,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = coracle_launcher::config::PATH)]
    pub config: PathBuf,
}

/// Whole command line, for its manual.
#[cfg(feature = "manual")]
pub fn tree() -> clap::Command {
    Command::command()
}

impl Command {
    /// Reads a whole command line, in which all words behind an image belong to the image.
    fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let words = words::separated(&mut Self::command(), words.into_iter().collect());
        let starts = words::starts(&words);
        Self::try_parse_from(words).map_err(|error| if starts { apptainer::explained(error) } else { error })
    }
}

/// Reads the command line and runs its command.
pub fn main() -> ExitCode {
    let (done, failure) = match Command::read(std::env::args_os()) {
        Ok(Command { mut verb, silent }) => {
            if let Verb::Build(Build { packing, .. }) | Verb::Pull(Pull { packing, .. }) = &mut verb {
                packing.silent = silent > 0;
            }
            if verb.is_printing() {
                // If that fails, a page that is not read to its end ends in the message of a panic.
                let _ = sys::restore_default_sigpipe();
            }
            (
                match &verb {
                    Verb::Exec(exec) if exec.job.is_some() => attach::main(exec),
                    Verb::Exec(exec) => exec::exec(exec),
                    Verb::Run(run) => exec::run(run),
                    Verb::Shell(shell) => exec::shell(shell),
                    Verb::Explain(explain) => explain::main(explain),
                    Verb::Doctor(doctor) => doctor::main(doctor),
                    Verb::Pull(pull) => images::pull(pull),
                    Verb::Build(build) => {
                        let sandbox = build.sandbox || options::is_given_behind("build", 's');
                        images::hand_over(&Order::Build(Build { sandbox, ..build.clone() }))
                    }
                    Verb::Inspect(_) if options::is_given_behind("inspect", 's') => {
                        Err(Refusal::new(Kind::Usage, "inspect -s", "a start script is not shown by itself")
                            .hint("coracle inspect without -s shows what there is"))
                    }
                    Verb::Inspect(inspect) => images::hand_over(&Order::Inspect(inspect.clone())),
                    Verb::Sif(sif) => images::hand_over(&Order::Sif(sif.clone())),
                    Verb::Sign(sign) => images::hand_over(&Order::Sign(sign.clone())),
                    Verb::Cp(copy) => store::cp(copy),
                    Verb::Ls(list) => store::ls(list),
                    Verb::Rm(remove) => store::rm(remove),
                    Verb::StoreService(service) => store::serve(service),
                    Verb::Verify(verify) => Ok(verify::main(verify)),
                    Verb::Log(log) => log::main(log),
                    Verb::Config(Settings::Check(check)) => config_check::main(check),
                },
                if verb.is_running() { REFUSED } else { BAD },
            )
        }
        Err(error) => {
            // Help and version go to standard output and are no error.
            let _ = error.print();
            let known = |word: OsString| RUNNING.iter().any(|verb| word == *verb);
            let verb = std::env::args_os().skip(1).find(|word| !word.to_string_lossy().starts_with('-'));
            let usage = if verb.is_some_and(known) { REFUSED } else { WRONG };
            return if error.use_stderr() { ExitCode::from(usage) } else { ExitCode::SUCCESS };
        }
    };
    done.unwrap_or_else(|refusal| {
        eprintln!("{refusal}");
        ExitCode::from(if refusal.kind == Kind::Usage && failure == BAD { WRONG } else { failure })
    })
}

impl Common {
    /// The options of the table, including those with names of Apptainer.
    pub fn raw(&self) -> RawOptions {
        let mut raw = self.options.0.clone();
        if let Some(spec) = Spec::of(Id::Gpu).filter(|_| (self.nv || self.rocm) && raw.value(Id::Gpu).is_none()) {
            raw.take(spec, "auto".into());
        }
        raw
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_without_contradictions() {
        Command::command().debug_assert();
    }

    fn read(line: &str) -> Result<Command, clap::Error> {
        Command::read(line.split(' ').map(OsString::from))
    }

    /// Image, words behind it, binds, and number of `-s`.
    fn started(line: &str) -> (String, String, Vec<OsString>, u8) {
        let Command { verb, silent } = read(line).unwrap();
        let (common, image, words) = match verb {
            Verb::Exec(Exec { common, image, command, .. }) => (common, image.unwrap(), command),
            Verb::Run(Run { common, image, arguments }) | Verb::Shell(Shell { common, image, arguments }) => {
                (common, image, arguments)
            }
            other => panic!("{other:?}"),
        };
        let binds = common.raw().values(Id::Bind).map(OsString::from).collect();
        (image.into_string().unwrap(), words.join(" ".as_ref()).into_string().unwrap(), binds, silent)
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
        assert!(Command::try_parse_from(["coracle", "exec", "-w", "n1", "i.sif", "ls"]).is_err());
        assert!(Command::try_parse_from(["coracle", "exec", "--job", "1", "--plan", "ls"]).is_err());
        for line in ["coracle exec --job=7.0 -w n1 -- ls --help", "coracle exec --job 7.0 -w n1 ls --help"] {
            let Verb::Exec(exec) = read(line).unwrap().verb else { panic!() };
            assert_eq!((exec.image.unwrap(), exec.command), ("ls".into(), vec![OsString::from("--help")]));
            assert_eq!((exec.job.as_deref(), exec.node.as_deref()), (Some("7.0"), Some("n1")));
        }
    }
}
