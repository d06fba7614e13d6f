//! Runs `coracle cp`, `ls` and `rm` on a user's images in the store.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, UNIX_EPOCH};

use coracle::report::{Kind, Refusal, clean};
use coracle::request::StoredName;
use coracle::sys::{self, Channel, Received};
use coracle_launcher::config::Config;
use coracle_launcher::store::{Kept, Question, Record, Reply, Shelf};
use indicatif::BinaryBytes;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::User;
use serde_json::{Value, json};

use super::PATIENCE;
use super::progress::Progress;
use crate::arguments::{Copy, List, Remove};
use crate::document;
use coracle_launcher::container::local;

/// Last second of the year 9999: later dates are not written.
const LAST: u64 = 253_402_300_799;
/// Time limit between messages of the service: a scanner may take a day.
const SILENCE: Duration = Duration::from_secs(2 * 86_400);

/// Puts an image into the store.
pub fn cp(given: &Copy) -> Result<ExitCode, Refusal> {
    let typed = given.image.display().to_string();
    let name = given.name.as_deref().or(given.image.file_name()).unwrap_or_default();
    let record = put(&open(&given.image)?, &typed, &StoredName::parse(name)?, &given.socket)?;
    show_stored(&StoredName::parse(name)?, &record, given.json)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the stored image.
pub fn show_stored(name: &StoredName, record: &Record, json: bool) -> Result<(), Refusal> {
    if json {
        return document::print(as_json(name, record));
    }
    println!("{name} {}", record.digest);
    Ok(())
}

/// Stored image as in `--json`.
fn as_json(name: &StoredName, record: &Record) -> Value {
    json!({
        "name": name.as_str(),
        "size": record.file.size,
        "digest": record.digest.to_string(),
        "stored": when(record),
        "uid": record.uid,
        "holds": record.holds,
        "signers": record.signers,
        "scanned": record.scanned.as_ref().map(|scanned| json!({ "by": scanned.by, "output": scanned.output })),
        "verity": record.verity,
    })
}

/// Time at which an image was stored: RFC 3339, UTC.
fn when(record: &Record) -> Option<String> {
    let seconds = Duration::from_secs(u64::try_from(record.stored).ok().filter(|seconds| *seconds <= LAST)?);
    UNIX_EPOCH.checked_add(seconds).map(|time| humantime::format_rfc3339_seconds(time).to_string())
}

/// Puts an open file into the store as `name`; messages call it `typed`.
pub fn put(file: &File, typed: &str, name: &StoredName, socket: &Path) -> Result<Record, Refusal> {
    let line = call(socket)?;
    ask(&line, &Question::Copy { name: name.to_string() }, Some(file))?;
    let mut progress = Progress::of(typed);
    loop {
        match next(&line)? {
            Reply::Waiting => progress.phase("waits for another image of yours"),
            Reply::Copied { bytes, total } => progress.bytes(bytes, total),
            Reply::Checking => progress.phase("is being checked"),
            Reply::Scanning => progress.phase("is being scanned"),
            Reply::Stored(record) => return Ok(*record),
            reply => return Err(unexpected(&reply)),
        }
    }
}

/// True if this user has an image of that name in the store.
pub fn has(config: &Config, name: &StoredName) -> Result<bool, Refusal> {
    let shelf = Shelf::open(config.store.path(), &me()?).map_err(|error| error.refuse(name.as_str()))?;
    Ok(shelf.is_some_and(|shelf| shelf.image(name).is_ok()))
}

/// Removes images from the store.
pub fn rm(given: &Remove) -> Result<ExitCode, Refusal> {
    for name in &given.name {
        let name = StoredName::parse(name)?;
        let line = call(&given.socket)?;
        ask(&line, &Question::Remove { name: name.to_string() }, None)?;
        loop {
            match next(&line)? {
                Reply::Waiting => {}
                Reply::Removed => break,
                reply => return Err(unexpected(&reply)),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists images. This needs no service: the user can read the directory.
pub fn ls(given: &List) -> Result<ExitCode, Refusal> {
    let config = local::load_settings(&given.config)?;
    let user = match &given.user {
        Some(name) => name.clone(),
        None => me()?,
    };
    let store = config.store.path();
    let directory = Shelf::path(store, &user)
        .ok_or_else(|| Refusal::new(Kind::Usage, &user, "no user who can have images in the store"))?;
    if given.folder {
        println!("{}", directory.display());
        return Ok(ExitCode::SUCCESS);
    }
    let refuse = |error: coracle_launcher::store::Error| error.refuse(&directory.display().to_string());
    let Some(shelf) = Shelf::open(store, &user).map_err(refuse)? else {
        if given.json {
            document::print(json!({ "images": [] }))?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let images = shelf.images().map_err(refuse)?;
    let known = |kept: &Kept| shelf.image(&kept.name).and_then(|image| shelf.record(&kept.name, &image));
    if given.json {
        let all = images.iter().map(|kept| match known(kept) {
            Ok(record) => {
                let mut image = as_json(&kept.name, &record);
                image["path"] = directory.join(kept.name.as_str()).to_string_lossy().into();
                image
            }
            Err(error) => json!({ "name": kept.name.as_str(), "error": error.to_string() }),
        });
        document::print(json!({ "images": all.collect::<Vec<_>>() }))?;
    } else if given.long {
        let rows: Vec<[String; 6]> = images.iter().map(|kept| row(kept, known(kept))).collect();
        table(&rows);
        println!("{}", usage(&images, &config));
    } else {
        images.iter().for_each(|kept| println!("{}", kept.name));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(kept: &Kept, known: Result<Record, coracle_launcher::store::Error>) -> [String; 6] {
    let size = BinaryBytes(kept.size).to_string();
    match known {
        Ok(record) => {
            let stored = when(&record).unwrap_or_else(|| "?".into());
            let signed = if record.signers.is_empty() { "-".into() } else { record.signers.join(",") };
            let scanned = record.scanned.map_or_else(|| "-".into(), |scanned| scanned.by);
            [kept.name.to_string(), size, stored, record.digest.to_string(), clean(&signed), clean(&scanned)]
        }
        Err(error) => [kept.name.to_string(), size, "-".into(), clean(&error.to_string()), "-".into(), "-".into()],
    }
}

const HEADER: [&str; 6] = ["NAME", "SIZE", "STORED", "DIGEST", "SIGNED BY", "SCANNED BY"];

fn table(rows: &[[String; 6]]) {
    let header = HEADER.map(str::to_owned);
    let all = || std::iter::once(&header).chain(rows);
    let widths: [usize; 6] =
        std::array::from_fn(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in all() {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

fn usage(images: &[Kept], config: &Config) -> String {
    let used = BinaryBytes(images.iter().map(|kept| kept.size).sum());
    let (images, limit, bytes) = (images.len(), config.store.max_images(), BinaryBytes(config.store.max_bytes()));
    format!("{images} of {limit} images, {used} of {bytes}")
}

fn me() -> Result<String, Refusal> {
    let uid = nix::unistd::geteuid();
    let user = User::from_uid(uid).ok().flatten();
    Ok(user.ok_or_else(|| Refusal::new(Kind::System, format!("user {uid}"), "this machine does not know you"))?.name)
}

/// Opens the image with the caller's privileges.
fn open(path: &Path) -> Result<File, Refusal> {
    let refuse = |kind, cause: String| Refusal::new(kind, path.display().to_string(), cause);
    let found = sys::open_untrusted(path, OFlag::O_RDONLY).map(File::from).map_err(|error| match error.errno() {
        Errno::ENOENT | Errno::ENOTDIR => refuse(Kind::ImageMissing, "no such file".into()),
        Errno::EACCES | Errno::EPERM => refuse(Kind::ImageUnreadable, "you may not read it".into()),
        _ => refuse(Kind::of_reading(&error), error.to_string()),
    })?;
    match found.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(found),
        Ok(_) => Err(refuse(Kind::ImageType, "no regular file, so not an image file".into())),
        Err(cause) => Err(refuse(Kind::of_reading(&cause), cause.to_string())),
    }
}

fn call(socket: &Path) -> Result<Channel, Refusal> {
    Channel::connect(socket).map_err(|error| {
        let cause = format!("the store's service does not answer here: {}", error.errno().desc());
        Refusal::new(Kind::Store, socket.display().to_string(), cause)
            .hint("is this a machine where images are stored? the site's admin starts it: systemctl start coracle-store.socket")
    })
}

fn ask(line: &Channel, question: &Question, file: Option<&File>) -> Result<(), Refusal> {
    let text = serde_json::to_vec(question).map_err(|cause| Refusal::new(Kind::Internal, "cp", cause.to_string()))?;
    let file = file.map(File::as_fd);
    line.send(&text, file.as_slice(), Instant::now() + PATIENCE).map_err(|error| Refusal::system("the store", &error))
}

fn next(line: &Channel) -> Result<Reply, Refusal> {
    let ended = || {
        Refusal::new(Kind::Store, "the store", "its service has ended without a word")
            .hint("coracle ls shows whether it was done")
    };
    match line.receive(Instant::now() + SILENCE) {
        Ok(Received::Packet(packet)) => {
            let reply: Reply = serde_json::from_slice(&packet.data).map_err(|_| ended())?;
            reply.refusal().map_or(Ok(reply), Err)
        }
        _ => Err(ended()),
    }
}

fn unexpected(reply: &Reply) -> Refusal {
    Refusal::new(Kind::Internal, "the store", format!("said {reply:?}, which is no answer to this"))
}
