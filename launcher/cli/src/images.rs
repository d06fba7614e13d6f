//! Hands commands that make and show images to `coracle-images`.
//!
//! An image may be meant for the store, or for a job that names an image of a registry. `registry_images` of
//! coracle.yaml says which. The submit host fetches it as the user, without root: once, for any number of nodes.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ffi::OsStr;
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
use coracle_orders::{Order, Pull, file_name};
use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg};

use crate::store;
use coracle_launcher::container::local;
use coracle_launcher::place;

/// Prefix of the names of images in registries.
const SCHEME: &str = "docker://";
/// Number of hexadecimal digits of a digest that distinguish a user's images.
const SHORT: usize = 16;

/// Becomes the program that carries out `order`. Returns only if that fails.
pub fn hand_over(order: &Order) -> Result<ExitCode, Refusal> {
    let error = command(order)?.exec();
    Err(missing(&error))
}

/// Fetches an image from a registry.
pub fn pull(given: &Pull) -> Result<ExitCode, Refusal> {
    if given.for_job {
        // The plugin reads this output, and reports errors itself.
        let said = fetched(OsStr::new(&given.image), &given.access.config)
            .map_or_else(|refusal| Answer::Refused(refusal).to_bytes(), |image| image.as_bytes().to_vec());
        let written = std::io::stdout().write_all(&said);
        return Ok(written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS));
    }
    let Some(name) = &given.store else { return hand_over(&Order::Pull(given.clone())) };
    let name = if name.is_empty() {
        StoredName::parse(OsStr::new(&file_name(&given.image)))?
    } else {
        StoredName::parse(name)?
    };
    let Some(record) = into_store(given, &name)? else { return Ok(ExitCode::FAILURE) };
    if given.json || !given.packing.silent {
        store::show_stored(&name, &record, given.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Image as the user typed it; for an image of a registry, the file that was made of it.
pub fn fetched<'a>(typed: &'a OsStr, config: &Path) -> Result<Cow<'a, OsStr>, Refusal> {
    let Some(image) = typed.to_str().filter(|typed| typed.starts_with(SCHEME)) else { return Ok(typed.into()) };
    let found = import(&Pull::of(image, config))?;
    let refusal = || Refusal::new(Kind::Registry, image, "was not fetched; what is wrong has just been said");
    found.map(|path| path.into_os_string().into()).ok_or_else(refusal)
}

/// Value of `--container` for an image of a registry: the path of a file, or `store:NAME`. `None` if coracle-images has
/// reported why there is none.
fn import(given: &Pull) -> Result<Option<PathBuf>, Refusal> {
    let config = local::load_settings(&given.access.config)?;
    let said = |why: &str| {
        let by_hand = format!("coracle pull {} {}", given.image, file_name(&given.image));
        Refusal::new(Kind::Policy, &given.image, why).hint(format!("make a file of it first: {by_hand}"))
    };
    match config.registry_images {
        None => Err(said("nothing is fetched for jobs: registry_images is not set in coracle.yaml")),
        Some(RegistryImages::Deny) => Err(said("the site fetches nothing for jobs (registry_images: deny)")),
        Some(RegistryImages::File) => as_file(given),
        Some(RegistryImages::Store) => {
            let Some(digest) = resolve(given)? else { return Ok(None) };
            let stem = file_name(&given.image);
            let name = format!("{}-{}.sif", stem.trim_end_matches(".sif"), &hex(&digest)[..SHORT]);
            let name = StoredName::parse(OsStr::new(&name))?;
            let there = store::has(&config, &name)? || into_store(&pinned(given, &digest), &name)?.is_some();
            Ok(there.then(|| format!("store:{name}").into()))
        }
    }
}

/// The user's file of the image, named by the digest of the manifest. A tag that has moved is another file, so no job
/// loses the image that it runs.
fn as_file(given: &Pull) -> Result<Option<PathBuf>, Refusal> {
    let Some(digest) = resolve(given)? else { return Ok(None) };
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
    let order = Pull { output: Some(path.clone()), for_job: false, ..pinned(given, &digest) };
    let there = || path.symlink_metadata().is_ok_and(|found| found.is_file() && own(&found));
    // Without a lock, another process may have made it first.
    let there = there() || carried_out(order)? || held.is_none() && there();
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

/// Makes the image in a file without a name, and puts that file into the store.
fn into_store(given: &Pull, name: &StoredName) -> Result<Option<Record>, Refusal> {
    let file = unnamed()?;
    let order = Pull { descriptor: Some(file.as_raw_fd()), store: None, for_job: false, ..given.clone() };
    if !carried_out(order)? {
        return Ok(None);
    }
    store::put(&file, &given.image, name, &given.socket).map(Some)
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
fn resolve(given: &Pull) -> Result<Option<Digest>, Refusal> {
    let mut command = command(&Order::Resolve(given.clone()))?;
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().map_err(|error| missing(&error))?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = output.stdout.trim_ascii();
    Digest::parse(OsStr::from_bytes(text)).map(Some).map_err(|_| {
        Refusal::new(Kind::Internal, &given.image, "its digest was asked for, and something else was said")
    })
}

/// Same order, for the image with this digest only.
fn pinned(given: &Pull, digest: &Digest) -> Pull {
    let name = given.image.split_once('@').map_or(given.image.as_str(), |(name, _)| name);
    Pull { image: format!("{name}@{digest}"), ..given.clone() }
}

/// Lets coracle-images pull an image. Returns false if that failed; it has then reported the reason itself. Its output
/// is for users who want a file.
fn carried_out(order: Pull) -> Result<bool, Refusal> {
    let mut command = command(&Order::Pull(order))?;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().map_err(|error| missing(&error))?;
    Ok(status.success())
}

fn command(order: &Order) -> Result<Command, Refusal> {
    let text = order.to_json().map_err(|error| Refusal::new(Kind::Internal, "images", error.to_string()))?;
    let mut command = Command::new(place::images());
    command.arg(text);
    Ok(command)
}

fn missing(error: &std::io::Error) -> Refusal {
    Refusal::new(Kind::System, place::images().display().to_string(), error.to_string())
        .hint("it is installed with coracle: make install")
}

fn hex(digest: &Digest) -> String {
    digest.to_string().trim_start_matches("sha256:").to_owned()
}
