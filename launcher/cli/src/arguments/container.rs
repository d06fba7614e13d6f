//! Arguments of `coracle exec`, `run`, `shell` and `explain`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;

use coracle::options::{Id, RawOptions, Spec};

use super::options::{Full, Short};

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
    /// GPUs, with the name of Apptainer's option for NVIDIA: the same as --gpu=auto
    #[arg(long, hide = true)]
    pub nv: bool,
    /// GPUs, with the name of Apptainer's option for AMD: the same as --gpu=auto
    #[arg(long, hide = true)]
    pub rocm: bool,
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
    /// Node of the job (default: srun takes one)
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
    /// Number of tasks of the step; Slurm's commands are visible in a step with one task
    #[arg(short, long, value_name = "N", default_value_t = 1, conflicts_with = "script")]
    pub ntasks: u32,
    /// Print the image's MPI, the node's MPI and the result, instead of plan and environment
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
