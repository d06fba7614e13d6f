//! Command-line arguments for making images.
//!
//! `coracle` parses it, and hands it over to `coracle-images`, which has what takes networks and archives: nothing of
//! that is in the program that root starts for jobs.
#![forbid(unsafe_code)]
#![allow(rustdoc::broken_intra_doc_links, reason = "comments of arguments are what --help prints, brackets included")]

pub mod place;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// The site's settings, as everywhere.
const CONFIG: &str = match option_env!("CORACLE_CONFIG") {
    Some(path) => path,
    None => "/etc/coracle/coracle.yaml",
};
/// Socket of the store's service.
const SOCKET: &str = "/run/coracle/store.sock";
/// For how many seconds a registry may send nothing.
const STALL: u32 = 60;

/// Orders for the other program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Order {
    /// `coracle pull`
    Pull(Pull),
    /// Say the digest of the manifest that a pull would take.
    Resolve(Pull),
    /// `coracle build`
    Build(Build),
    /// `coracle inspect`
    Inspect(Inspect),
    /// `coracle sif`
    Sif(Sif),
    /// `coracle sign`
    Sign(Sign),
}

impl Order {
    /// The form in which one program gives it to the other, as an argument.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads [`Order::to_json`].
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// Packing of the root file system.
#[derive(Debug, Clone, Serialize, Deserialize, Args)]
pub struct Packing {
    /// Compressor of the files
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Compression::Zstd)]
    pub compression: Compression,
    /// Effort, in the compressor's own numbers (default: 9 of zstd, else the compressor's)
    #[arg(long, value_name = "N")]
    pub level: Option<u32>,
    /// Number of bytes that are compressed together: 4K to 1M, a power of two
    #[arg(long, value_name = "BYTES", default_value = "128K")]
    pub block_size: BlockSize,
    /// Number of processors that may work (default: those that this process may use)
    #[arg(long, value_name = "N")]
    pub processors: Option<u32>,
    /// True if neither progress nor what was made is printed.
    #[arg(skip)]
    pub silent: bool,
}

impl Default for Packing {
    fn default() -> Self {
        let block_size = BlockSize(128 << 10);
        Self { compression: Compression::Zstd, level: None, block_size, processors: None, silent: false }
    }
}

/// The compressors of squashfs that every kernel in use has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Compression {
    /// Fast to read and small
    Zstd,
    /// Slow to read; every reader has it
    Gzip,
    /// The fastest to read, and larger
    Lz4,
    /// The smallest, and by far the slowest to read
    Xz,
    /// Older than zstd and worse
    Lzo,
}

impl fmt::Display for Compression {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
        })
    }
}

/// The size of a block of squashfs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockSize(pub u32);

impl FromStr for BlockSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, factor) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
            _ => (text, 1),
        };
        let bytes = number.parse::<u32>().ok().and_then(|number| number.checked_mul(factor));
        match bytes {
            Some(bytes) if bytes.is_power_of_two() && (4 << 10..=1 << 20).contains(&bytes) => Ok(Self(bytes)),
            _ => Err("a power of two from 4K to 1M is wanted".into()),
        }
    }
}

/// Access to registries.
#[derive(Debug, Clone, Serialize, Deserialize, Args)]
pub struct Access {
    /// Speak HTTP without TLS to the registry that is named: whoever is on the way can read and change what is said
    #[arg(long)]
    pub plain_http: bool,
    /// User names and passwords, as docker login and podman login write them (default: their own places)
    #[arg(long, value_name = "FILE")]
    #[serde(with = "maybe_bytes")]
    pub authfile: Option<PathBuf>,
    /// Of images for several processors, the one for this: amd64, arm64, ppc64le or another (default: this machine's)
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// Try again, and in the end give up, when a registry has sent nothing for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = STALL, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: u32,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    #[serde(with = "bytes")]
    pub config: PathBuf,
}

/// Arguments of `coracle pull`.
#[derive(Debug, Clone, Serialize, Deserialize, Args)]
pub struct Pull {
    /// The image: docker://[REGISTRY/]REPOSITORY[:TAG|@DIGEST]
    pub image: String,
    /// The file to write (default: the repository's last part, _ and the tag, with .sif)
    #[serde(with = "maybe_bytes")]
    pub output: Option<PathBuf>,
    /// Put it into the site's store, under this name (default: as the file would be called), and keep no file
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with_all = ["output", "force"])]
    pub store: Option<OsString>,
    /// Socket of the store's service
    #[arg(long, value_name = "PATH", default_value = SOCKET, hide = true)]
    #[serde(with = "bytes")]
    pub socket: PathBuf,
    /// Print what --container has for this image, which becomes a file or an image in the store if it is none yet
    #[arg(long, hide = true, conflicts_with_all = ["output", "force", "store"])]
    pub for_job: bool,
    /// The file to write has no name, and is open as this descriptor.
    #[arg(skip)]
    pub descriptor: Option<i32>,
    /// Replace the file if there is one
    #[arg(short = 'F', long)]
    pub force: bool,
    /// Print what was made as JSON
    #[arg(long)]
    pub json: bool,
    /// Access to the registry.
    #[command(flatten)]
    pub access: Access,
    /// Packing of the image.
    #[command(flatten)]
    pub packing: Packing,
}

impl Pull {
    /// Nothing but an image and the site's settings.
    pub fn of(image: &str, config: &Path) -> Self {
        let access =
            Access { plain_http: false, authfile: None, arch: None, timeout: STALL, config: config.to_owned() };
        Self {
            image: image.to_owned(),
            output: None,
            store: None,
            socket: SOCKET.into(),
            for_job: false,
            descriptor: None,
            force: false,
            json: false,
            access,
            packing: Packing::default(),
        }
    }
}

/// Name of an image's file if nobody gives one: the image's last name, and the tag, or the beginning of its digest.
pub fn file_name(image: &str) -> String {
    let name = image.strip_prefix("docker://").unwrap_or(image);
    let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    let (last, tag) = last.split_once(':').map_or((last, None), |(last, tag)| (last, Some(tag)));
    let digest = digest.map(|digest| digest.rsplit(':').next().unwrap_or(digest).chars().take(12).collect::<String>());
    let text = format!("{last}_{}.sif", tag.map(str::to_owned).or(digest).unwrap_or_else(|| "latest".into()));
    // A file must not become another one by what is in a name.
    text.chars().map(|known| if known.is_ascii_alphanumeric() || "._-".contains(known) { known } else { '_' }).collect()
}

/// Arguments of `coracle build`.
#[derive(Debug, Clone, Serialize, Deserialize, Args)]
pub struct Build {
    /// The SIF to write
    #[serde(with = "bytes")]
    pub output: PathBuf,
    /// Source: a directory, a tar file, a definition file, a SIF or squashfs, docker-archive:FILE,
    /// oci:DIRECTORY[:TAG], oci-archive:FILE or docker://IMAGE
    pub source: OsString,
    /// Replace the file if there is one
    #[arg(short = 'F', long)]
    pub force: bool,
    /// Print what was made as JSON
    #[arg(long)]
    pub json: bool,
    /// Apptainer's flag for a directory instead of a file, which is refused
    #[arg(long, hide = true)]
    pub sandbox: bool,
    /// Leave out %test of a definition file
    #[arg(short = 'T', long)]
    pub notest: bool,
    /// A value for {{ NAME }} in a definition file: NAME=VALUE
    #[arg(long = "build-arg", value_name = "NAME=VALUE")]
    pub arguments: Vec<String>,
    /// Access to a registry.
    #[command(flatten)]
    pub access: Access,
    /// Packing of the image.
    #[command(flatten)]
    pub packing: Packing,
}

/// Arguments of `coracle inspect`.
#[derive(Debug, Clone, Serialize, Deserialize, Args)]
pub struct Inspect {
    /// The image: a SIF or squashfs
    #[serde(with = "bytes")]
    pub image: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Print the labels only
    #[arg(short, long)]
    pub labels: bool,
    /// Print the run script only
    #[arg(short, long)]
    pub runscript: bool,
    /// Print the scripts of the environment only
    #[arg(short, long)]
    pub environment: bool,
    /// Print the definition file only
    #[arg(short, long)]
    pub deffile: bool,
    /// Print the help text only
    #[arg(short = 'H', long)]
    pub helpfile: bool,
    /// Print the test script only
    #[arg(short, long)]
    pub test: bool,
}

/// Arguments of `coracle sif`.
#[derive(Debug, Clone, Serialize, Deserialize, Args)]
pub struct Sif {
    /// Action on the parts.
    #[command(subcommand)]
    pub what: SifVerb,
}

/// Actions on the parts of a SIF.
#[derive(Debug, Clone, Serialize, Deserialize, Subcommand)]
pub enum SifVerb {
    /// List the data objects of a SIF
    List {
        /// The file
        #[serde(with = "bytes")]
        image: PathBuf,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a data object to standard output, as it is
    Dump {
        /// The object's number, as list has it
        id: u32,
        /// The file
        #[serde(with = "bytes")]
        image: PathBuf,
    },
}

/// Arguments of `coracle sign`.
#[derive(Debug, Clone, Serialize, Deserialize, Args)]
pub struct Sign {
    /// The SIF, which gets the signature
    #[serde(with = "bytes")]
    pub image: PathBuf,
    /// Sign with the secret OpenPGP key in this file (default: gpg does it, with your own keyring and agent)
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    #[serde(with = "maybe_bytes")]
    pub key: Option<PathBuf>,
    /// Read the passphrase of --key from the first line of this file, such as /dev/fd/3 (default: from the terminal)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub passphrase_file: Option<PathBuf>,
    /// With this key of your keyring: a fingerprint, key number or address (default: gpg's default key)
    #[arg(short = 'u', long, value_name = "KEY")]
    pub user: Option<String>,
}

/// Paths as bytes: those of serde must be UTF-8.
mod bytes {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        OsString::deserialize(deserializer).map(PathBuf::from)
    }
}

/// The same where there may be none.
mod maybe_bytes {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_ref().map(|path| path.as_os_str()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<OsString>::deserialize(deserializer)?.map(PathBuf::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_by_the_last_name_and_the_tag() {
        for (image, wanted) in [
            ("docker://alpine", "alpine_latest.sif"),
            ("docker://alpine:3.20", "alpine_3.20.sif"),
            ("docker://registry.site.it:5000/group/app:1", "app_1.sif"),
            ("docker://a/b@sha256:0123456789abcdef", "b_0123456789ab.sif"),
            ("docker://a/b:t@sha256:0123456789abcdef", "b_t.sif"),
            ("docker://a/..", ".._latest.sif"),
            ("docker://a/b:x y/../z", "z_latest.sif"),
        ] {
            assert_eq!(file_name(image), wanted);
        }
    }

    #[test]
    fn a_block_is_a_power_of_two_within_the_limits() {
        let size = |text: &str| text.parse::<BlockSize>().map(|size| size.0);
        assert_eq!(
            (size("4K"), size("128k"), size("1M"), size("65536")),
            (Ok(4096), Ok(131_072), Ok(1 << 20), Ok(65536))
        );
        for wrong in ["", "K", "3K", "2K", "2M", "100000", "-1", "8192M"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_order_comes_back_as_it_was() {
        use std::os::unix::ffi::OsStringExt;
        let name = OsString::from_vec(b"a\xff b".to_vec());
        let order = Order::Sign(Sign { image: PathBuf::from(&name), key: None, passphrase_file: None, user: None });
        let Order::Sign(sign) = Order::from_json(&order.to_json().unwrap()).unwrap() else { panic!() };
        assert_eq!(sign.image.into_os_string(), name);
    }
}
