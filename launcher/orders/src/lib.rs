//! Command line of `coracle-images`, and the words of users that it has in common with `coracle`.
//!
//! `coracle` reads its own command line first: help and errors are its part. Then it executes `coracle-images`, which
//! has what reads networks and archives, with the same words.
#![forbid(unsafe_code)]
#![allow(rustdoc::broken_intra_doc_links, reason = "comments of arguments are what --help prints, brackets included")]

pub mod place;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use coracle_launcher::config::PATH as CONFIG;

/// Default socket of the store's service.
pub const SOCKET: &str = "/run/coracle/store.sock";
/// Default time limit for a silent registry, in seconds.
const STALL: u32 = 60;

/// Command line of `coracle-images`: words of a user, and in front of them options that only `coracle` gives.
#[derive(Debug, Parser)]
#[command(name = "coracle-images", disable_help_flag = true, disable_help_subcommand = true)]
pub struct CommandLine {
    /// Pull into the file that is open as this descriptor, which has no name
    #[arg(long, value_name = "NUMBER")]
    pub descriptor: Option<i32>,
    /// Print the digest of the manifest that a pull would take, and pull nothing
    #[arg(long)]
    pub resolve: bool,
    /// Flag of every command.
    #[command(flatten)]
    pub silence: Silence,
    /// Command of the user.
    #[command(subcommand)]
    pub order: Order,
}

impl CommandLine {
    /// Reads a whole command line, and copies what stands outside of the command's own arguments to them.
    pub fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        let mut read = Self::try_parse_from(words)?;
        let silent = read.silence.silent > 0;
        match &mut read.order {
            Order::Pull(pull) => {
                pull.packing.silent = silent;
                pull.descriptor = read.descriptor;
            }
            Order::Build(build) => {
                build.packing.silent = silent;
                build.sandbox |= is_given_behind(words, "build", 's');
            }
            Order::Inspect(inspect) => inspect.startscript = is_given_behind(words, "inspect", 's'),
            Order::Sif(_) | Order::Sign(_) => {}
        }
        Ok(read)
    }
}

/// Flag of every command.
#[derive(Debug, Args)]
pub struct Silence {
    /// Say nothing but what is wrong, as always: Apptainer's flag, for those who give it
    #[arg(short, long, visible_short_alias = 'q', alias = "quiet", global = true, hide = true, action = ArgAction::Count)]
    pub silent: u8,
}

/// Commands that `coracle-images` carries out.
#[derive(Debug, Subcommand)]
pub enum Order {
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
}

/// True if the flag `letter` stands behind the command `verb`: there, Apptainer gives the letter another meaning than in
/// front of it.
fn is_given_behind(words: &[OsString], verb: &str, letter: char) -> bool {
    let behind = words.iter().skip(1).skip_while(|word| *word != verb).skip(1).take_while(|word| *word != "--");
    let has_letter = |word: &OsStr| {
        let word = word.to_string_lossy();
        let letters = word.strip_prefix('-').unwrap_or_default();
        letters.contains(letter) && letters.chars().all(|other| other.is_ascii_alphabetic())
    };
    behind.map(OsString::as_os_str).any(has_letter)
}

/// Packing of the root file system.
#[derive(Debug, Clone, Args)]
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

/// The compressors of squashfs that every kernel in use has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, Args)]
pub struct Access {
    /// Speak HTTP without TLS to the registry that is named: whoever is on the way can read and change what is said
    #[arg(long)]
    pub plain_http: bool,
    /// User names and passwords, as docker login and podman login write them (default: their own places)
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Of images for several processors, the one for this: amd64, arm64, ppc64le or another (default: this machine's)
    #[arg(long, value_name = "NAME")]
    pub arch: Option<String>,
    /// Try again, and in the end give up, when a registry has sent nothing for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = STALL, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: u32,
    /// The site's settings
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,
}

/// Arguments of `coracle pull`.
#[derive(Debug, Clone, Args)]
pub struct Pull {
    /// The image: docker://[REGISTRY/]REPOSITORY[:TAG|@DIGEST]
    pub image: String,
    /// The file to write (default: the repository's last part, _ and the tag, with .sif)
    pub output: Option<PathBuf>,
    /// Put it into the site's store, under this name (default: as the file would be called), and keep no file
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with_all = ["output", "force"])]
    pub store: Option<OsString>,
    /// Socket of the store's service
    #[arg(long, value_name = "PATH", default_value = SOCKET, hide = true)]
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
#[derive(Debug, Clone, Args)]
pub struct Build {
    /// The SIF to write
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
#[derive(Debug, Clone, Args)]
pub struct Inspect {
    /// The image: a SIF or squashfs
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
    /// True for Apptainer's -s, which is refused.
    #[arg(skip)]
    pub startscript: bool,
}

/// Arguments of `coracle sif`.
#[derive(Debug, Clone, Args)]
pub struct Sif {
    /// Action on the parts.
    #[command(subcommand)]
    pub what: SifVerb,
}

/// Actions on the parts of a SIF.
#[derive(Debug, Clone, Subcommand)]
pub enum SifVerb {
    /// List the data objects of a SIF
    List {
        /// The file
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
        image: PathBuf,
    },
}

/// Arguments of `coracle sign`.
#[derive(Debug, Clone, Args)]
pub struct Sign {
    /// The SIF, which gets the signature
    pub image: PathBuf,
    /// Sign with the secret OpenPGP key in this file (default: gpg does it, with your own keyring and agent)
    #[arg(long, value_name = "FILE", conflicts_with = "user")]
    pub key: Option<PathBuf>,
    /// Read the passphrase of --key from the first line of this file, such as /dev/fd/3 (default: from the terminal)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub passphrase_file: Option<PathBuf>,
    /// With this key of your keyring: a fingerprint, key number or address (default: gpg's default key)
    #[arg(short = 'u', long, value_name = "KEY")]
    pub user: Option<String>,
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

    fn read(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::read(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_is_without_contradictions() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
    }

    #[test]
    fn options_of_coracle_stand_in_front_of_the_users_words() {
        let given = read("coracle-images --descriptor=5 -s pull --store=a.sif docker://a --arch arm64").unwrap();
        let Order::Pull(pull) = given.order else { panic!() };
        assert_eq!((pull.descriptor, pull.packing.silent, given.resolve), (Some(5), true, false));
        assert!(read("coracle-images --resolve pull docker://a").unwrap().resolve);
        for users in ["pull --descriptor=5 docker://a", "pull --resolve docker://a", "--help", "help", ""] {
            assert!(read(&format!("coracle-images {users}")).is_err(), "{users}");
        }
    }

    #[test]
    fn paths_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let name = OsString::from_vec(b"a\xff b".to_vec());
        let given = CommandLine::read(&["coracle-images".into(), "sign".into(), name.clone()]).unwrap();
        let Order::Sign(sign) = given.order else { panic!() };
        assert_eq!(sign.image.into_os_string(), name);
    }

    #[test]
    fn a_flag_in_front_of_the_command_is_another_one() {
        let sandbox = |line: &str| match read(&format!("coracle-images {line}")).unwrap().order {
            Order::Build(build) => (build.sandbox, build.packing.silent),
            other => panic!("{other:?}"),
        };
        for line in ["build -s box x.sif", "build -Fs box x.sif", "-q build x.sif -s box", "build --force -s a b"] {
            assert_eq!(sandbox(line), (true, true), "{line}");
        }
        assert_eq!(sandbox("build --sandbox a b"), (true, false));
        assert_eq!(sandbox("-s build box x.sif"), (false, true));
        for line in ["build box.sif sources", "build --notest a b", "build -- -s a"] {
            assert_eq!(sandbox(line), (false, false), "{line}");
        }
        for (line, given) in [("inspect -s a.sif", true), ("-s inspect a.sif", false), ("inspect -dlr a.sif", false)] {
            let Order::Inspect(inspect) = read(&format!("coracle-images {line}")).unwrap().order else { panic!() };
            assert_eq!(inspect.startscript, given, "{line}");
        }
    }
}
