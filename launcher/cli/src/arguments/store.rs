//! Arguments of the store's commands and of its service.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::PathBuf;

use coracle_orders::SOCKET;

/// Arguments of `coracle cp`.
#[derive(Debug, clap::Args)]
pub struct Copy {
    /// The image file
    pub image: PathBuf,
    /// Name in the store (default: the file's name)
    pub name: Option<OsString>,
    /// Print one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Socket of the store's service
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Arguments of `coracle rm`.
#[derive(Debug, clap::Args)]
pub struct Remove {
    /// Names in the store
    #[arg(required = true)]
    pub name: Vec<OsString>,
    /// Socket of the store's service
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Arguments of `coracle ls`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// With size, date, digest, signers and the scanner's word
    #[arg(short, long)]
    pub long: bool,
    /// All that is known, as JSON
    #[arg(long, conflicts_with = "long")]
    pub json: bool,
    /// Only the directory in which they are, as CORACLE_ALLOWED_DIR has it
    #[arg(long, conflicts_with_all = ["long", "json"])]
    pub folder: bool,
    /// Owner of the images, as far as you may look (default: you)
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = coracle_launcher::config::PATH)]
    pub config: PathBuf,
}

/// Arguments of `coracle store-service`.
#[derive(Debug, clap::Args)]
pub struct Service {
    /// Listen here, instead of at the socket that systemd passes on
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = coracle_launcher::config::PATH)]
    pub config: PathBuf,
}
