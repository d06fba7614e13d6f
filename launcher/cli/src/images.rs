//! Executes `coracle-images` for commands that make and show images, with the words of the user.
//!
//! An image may be meant for the store, or for a job that names an image of a registry. `registry_images` of
//! coracle.yaml says which. The submit host fetches it as the user, without root: once, for any number of nodes.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, Metadata};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use coracle::report::{Kind, Refusal};
use coracle::request::{Digest, StoredName};
use coracle::wire::Answer;
use coracle_launcher::config::RegistryImages;
use coracle_launcher::store::Record;
use coracle_orders::{Order, Pull, SOCKET, file_name};
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg};

use crate::store;
use coracle_launcher::container::local;
use coracle_launcher::place;

/// Prefix of the names of images in registries.
const SCHEME: &str = "docker://";
/// Number of hexadecimal digits of a digest that distinguish a user's images.
const SHORT: usize = 16;

/// Carries out a command of `coracle-images`. Prints no name of an image in the store if `silent`.
pub fn main(order: &Order, silent: bool) -> Result<ExitCode, Refusal> {
    match order {
        Order::Pull(given) if given.for_job => Ok(fetch_for_job(given)),
        Order::Pull(given) if given.store.is_some() => pull_into_store(given, silent),
        _ => {
            let error = Command::new(place::images()).args(words_of_user()).exec();
            Err(missing(&error))
        }
    }
}

/// Words behind the name of this program. `coracle-images` reads them, too.
fn words_of_user() -> Vec<OsString> {
    std::env::args_os().skip(1).collect()
}

/// Fetches an image for the plugin, which reads the output and reports errors itself.
fn fetch_for_job(given: &Pull) -> ExitCode {
    let said = fetched(OsStr::new(&given.image), &given.access.config)
        .map_or_else(|refusal| Answer::Refused(refusal).to_bytes(), |image| image.as_bytes().to_vec());
    std::io::stdout().write_all(&said).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Carries out `coracle pull --store`.
fn pull_into_store(given: &Pull, silent: bool) -> Result<ExitCode, Refusal> {
    let name = match &given.store {
        Some(name) if !name.is_empty() => StoredName::parse(name)?,
        _ => StoredName::parse(OsStr::new(&file_name(&given.image)))?,
    };
    let Some(record) = into_store(&given.image, words_of_user(), &name, &given.socket)? else {
        return Ok(ExitCode::FAILURE);
    };
    if given.json || !silent {
        store::show_stored(&name, &record, given.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Image as the user typed it; for an image of a registry, the file that was made of it.
pub fn fetched<'a>(typed: &'a OsStr, config: &Path) -> Result<Cow<'a, OsStr>, Refusal> {
    let Some(image) = typed.to_str().filter(|typed| typed.starts_with(SCHEME)) else { return Ok(typed.into()) };
    let found = import(image, config)?;
    let refusal = || Refusal::new(Kind::Registry, image, "was not fetched; what is wrong has just been said");
    found.map(|path| path.into_os_string().into()).ok_or_else(refusal)
}

/// Value of `--container` for an image of a registry: the path of a file, or `store:NAME`. `None` if coracle-images has
/// reported why there is none.
fn import(image: &str, settings: &Path) -> Result<Option<PathBuf>, Refusal> {
    let config = local::load_settings(settings)?;
    let said = |why: &str| {
        let by_hand = format!("coracle pull {image} {}", file_name(image));
        Refusal::new(Kind::Policy, image, why).hint(format!("make a file of it first: {by_hand}"))
    };
    match config.registry_images {
        None => Err(said("nothing is fetched for jobs: registry_images is not set in coracle.yaml")),
        Some(RegistryImages::Deny) => Err(said("the site fetches nothing for jobs (registry_images: deny)")),
        Some(RegistryImages::File) => as_file(image, settings),
        Some(RegistryImages::Store) => {
            let Some(digest) = resolve(image, settings)? else { return Ok(None) };
            let stem = file_name(image);
            let name = format!("{}-{}.sif", stem.trim_end_matches(".sif"), &hex(&digest)[..SHORT]);
            let name = StoredName::parse(OsStr::new(&name))?;
            let pinned = pinned(image, &digest);
            let words = pull_words(&pinned, settings);
            let there = store::has(&config, &name)? || into_store(&pinned, words, &name, Path::new(SOCKET))?.is_some();
            Ok(there.then(|| format!("store:{name}").into()))
        }
    }
}

/// The user's file of the image, named by the digest of the manifest. A tag that has moved is another file, so no job
/// loses the image that it runs.
fn as_file(image: &str, settings: &Path) -> Result<Option<PathBuf>, Refusal> {
    let Some(digest) = resolve(image, settings)? else { return Ok(None) };
    let directory = directory()?;
    let refuse = |path: &Path, error: &std::io::Error| {
        Refusal::new(Kind::System, path.display().to_string(), error.to_string())
            .hint("CORACLE_CACHEDIR names another directory, which the nodes of the job must see, too")
    };
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(|error| refuse(&directory, &error))?;
    // Another user who can write there could choose what the job runs.
    let own = |found: &Metadata| found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
    let found = directory.symlink_metadata().map_err(|error| refuse(&directory, &error))?;
    if !found.is_dir() || !own(&found) {
        let cause = "it is a link, or belongs to somebody else, or others may write to it";
        return Err(Refusal::new(Kind::System, directory.display().to_string(), cause)
            .hint("CORACLE_CACHEDIR names another directory, which the nodes of the job must see, too"));
    }
    let path = directory.join(format!("{}.sif", hex(&digest)));
    // A second process that wants the same image waits for the first, and finds the file. Some cluster file systems
    // have no locks: there both make it, and one of the two files is in place, complete.
    let lock = directory.join(format!(".{}.lock", hex(&digest)));
    let nofollow = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let opened = File::options().write(true).create(true).truncate(false).custom_flags(nofollow).open(&lock);
    let held = Flock::lock(opened.map_err(|error| refuse(&lock, &error))?, FlockArg::LockExclusive).ok();
    let mut words = pull_words(&pinned(image, &digest), settings);
    words.push(path.clone().into());
    let there = || path.symlink_metadata().is_ok_and(|found| found.is_file() && own(&found));
    // Without a lock, another process may have made it first.
    let there = there() || carry_out(words)? || held.is_none() && there();
    drop(held);
    Ok(there.then_some(path))
}

/// Directory of jobs' images, in the home directory: the nodes of a cluster usually see that.
fn directory() -> Result<PathBuf, Refusal> {
    coracle_orders::place::cache().map(|cache| cache.join("images")).ok_or_else(|| {
        Refusal::new(Kind::System, "HOME", "is not set, so there is no place for the image")
            .hint("set CORACLE_CACHEDIR")
    })
}

/// Makes an image in a file without a name, by the command line `words`, and puts that file into the store.
fn into_store(
    image: &str,
    mut words: Vec<OsString>,
    name: &StoredName,
    socket: &Path,
) -> Result<Option<Record>, Refusal> {
    let file = unnamed()?;
    words.insert(0, format!("--descriptor={}", file.as_raw_fd()).into());
    if !carry_out(words)? {
        return Ok(None);
    }
    store::put(&file, image, name, socket).map(Some)
}

/// File without a name that coracle-images inherits. It vanishes when the last process closes it.
fn unnamed() -> Result<File, Refusal> {
    let directory = coracle_orders::place::scratch();
    let refuse = |errno: nix::errno::Errno| {
        Refusal::new(Kind::System, directory.display().to_string(), errno.desc())
            .hint("CORACLE_TMPDIR names the directory in which images are made")
    };
    let (file, path) = nix::unistd::mkstemp(&directory.join("coracle-XXXXXX")).map_err(refuse)?;
    nix::unistd::unlink(&path).map_err(refuse)?;
    nix::fcntl::fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).map_err(refuse)?;
    Ok(file.into())
}

/// Digest of the image that the tag names now.
fn resolve(image: &str, settings: &Path) -> Result<Option<Digest>, Refusal> {
    let mut command = Command::new(place::images());
    command.arg("--resolve").args(pull_words(image, settings)).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| missing(&error))?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = output.stdout.trim_ascii();
    Digest::parse(OsStr::from_bytes(text))
        .map(Some)
        .map_err(|_| Refusal::new(Kind::Internal, image, "its digest was asked for, and something else was said"))
}

/// Name of the image with this digest only.
fn pinned(image: &str, digest: &Digest) -> String {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    format!("{name}@{digest}")
}

/// Command line that pulls an image for a job. The output, if there is one, is the next word.
fn pull_words(image: &str, settings: &Path) -> Vec<OsString> {
    let mut config = OsString::from("--config=");
    config.push(settings);
    vec!["pull".into(), config, "--".into(), image.into()]
}

/// Lets coracle-images pull an image. Returns false if that failed; it has then reported the reason itself. Its output
/// is for users who want a file.
fn carry_out(words: Vec<OsString>) -> Result<bool, Refusal> {
    let mut command = Command::new(place::images());
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command.status().map_err(|error| missing(&error))?.success())
}

fn missing(error: &std::io::Error) -> Refusal {
    Refusal::new(Kind::System, place::images().display().to_string(), error.to_string())
        .hint("it is installed with coracle: make install")
}

fn hex(digest: &Digest) -> String {
    digest.to_string().trim_start_matches("sha256:").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_orders::CommandLine;

    #[test]
    fn an_image_for_a_job_is_pulled_with_the_settings_of_the_job() {
        let digest = Digest::parse(OsStr::new(&format!("sha256:{}", "1".repeat(64)))).unwrap();
        let pinned = pinned("docker://-x/a:1", &digest);
        let mut words = pull_words(&pinned, Path::new("-c.yaml"));
        words.extend(["-out.sif".into()]);
        words.splice(0..0, ["coracle-images".into(), "--resolve".into(), "--descriptor=7".into()]);
        let CommandLine { order: Order::Pull(pull), resolve: true, .. } = CommandLine::read(&words).unwrap() else {
            panic!()
        };
        assert_eq!(pull.image, format!("docker://-x/a:1@{digest}"));
        assert_eq!((pull.access.config, pull.output), ("-c.yaml".into(), Some("-out.sif".into())));
        assert_eq!((pull.descriptor, pull.packing.silent), (Some(7), false));
    }
}
