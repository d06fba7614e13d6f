//! Serves one caller of the store's service: reads the request, checks it, and answers.
//!
//! The order is: a free name and space → a hidden copy → its digest → its structure and signatures, checked by a child
//! process without other privileges → the site's scanner → its name. If this process ends early, it leaves nothing. On
//! some file systems it leaves a file that the next caller removes.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coracle::report::{Kind, Refusal};
use coracle::request::StoredName;
use coracle::sys::{Channel, Received};
use coracle_launcher::config::{self, Config};
use coracle_launcher::store::{Locked, Question, Record, Reply, Seen, Shelf, Tenant};
use nix::fcntl::{FcntlArg, OFlag};
use nix::unistd::User;

use super::scan::{self, Subject};
use super::{copy, inspect, say};
use coracle_launcher::children::verify::Need;

/// Time limit for a caller's first message.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Time between tries to lock a directory.
const TRY: Duration = Duration::from_millis(50);

/// Answers one caller.
pub fn serve(caller: &Channel, uid: u32, gid: u32, config: &Path) {
    let answer =
        Conversation::begin(caller, uid, gid, config).and_then(|(conversation, question, file)| match question {
            Question::Copy { name } => conversation.copy(&name, file),
            Question::Remove { name } => conversation.remove(&name),
        });
    // The caller may have ended.
    let _ = say(caller, &answer.unwrap_or_else(Reply::from));
}

struct Conversation<'a> {
    caller: &'a Channel,
    config: Config,
    user: User,
    tenant: Tenant,
}

impl<'a> Conversation<'a> {
    fn begin(
        caller: &'a Channel,
        uid: u32,
        gid: u32,
        config: &Path,
    ) -> Result<(Self, Question, Option<OwnedFd>), Refusal> {
        let config = Config::load(config)?;
        let garbled = || Refusal::new(Kind::Usage, "the store", "was asked for something that makes no sense");
        let packet = match caller.receive(Instant::now() + FIRST_WORD) {
            Ok(Received::Packet(packet)) => packet,
            _ => return Err(garbled()),
        };
        let question = serde_json::from_slice(&packet.data).map_err(|_| garbled())?;
        let user = User::from_uid(uid.into()).ok().flatten().ok_or_else(|| {
            Refusal::new(
                Kind::Store,
                format!("user {uid}"),
                "the machine of the store's service does not know this user",
            )
        })?;
        let store = &config.store;
        let tenant = Tenant { uid, gid, max_images: store.max_images(), max_bytes: store.max_bytes() };
        Ok((Self { caller, config, user, tenant }, question, packet.fds.into_iter().next()))
    }

    fn shelf(&self, object: &str) -> Result<Shelf, Refusal> {
        Shelf::open_or_make(self.config.store.path(), &self.user.name, &self.tenant)
            .map_err(|error| error.refuse(object))
    }

    /// Checks that the caller is still connected.
    fn is_there(&self) -> Result<(), Refusal> {
        match self.caller.receive(Instant::now()) {
            Err(error) if error.errno() == nix::errno::Errno::ETIMEDOUT => Ok(()),
            _ => Err(Refusal::new(Kind::Store, "the caller", "is gone")),
        }
    }

    /// Waits until no other process changes the user's directory. Each user has only one copy in progress: that
    /// keeps the limits exact, and unfinished copies from filling the file system.
    fn lock<'s>(&self, shelf: &'s Shelf, object: &str) -> Result<Locked<'s>, Refusal> {
        let mut waits = false;
        loop {
            if let Some(locked) = shelf.lock(self.tenant).map_err(|error| error.refuse(object))? {
                locked.tidy().map_err(|error| error.refuse(object))?;
                return Ok(locked);
            }
            if !std::mem::replace(&mut waits, true) {
                say(self.caller, &Reply::Waiting)?;
            }
            self.is_there()?;
            std::thread::sleep(TRY);
        }
    }

    fn remove(&self, name: &str) -> Result<Reply, Refusal> {
        let stored = StoredName::parse(name.as_ref())?;
        let shelf = self.shelf(name)?;
        self.lock(&shelf, name)?.remove(&stored).map_err(|error| error.refuse(name))?;
        Ok(Reply::Removed)
    }

    fn copy(&self, name: &str, file: Option<OwnedFd>) -> Result<Reply, Refusal> {
        let stored = StoredName::parse(name.as_ref())?;
        let (image, size) = readable(name, file)?;
        let refuse = |error: coracle_launcher::store::Error| error.refuse(name);
        let shelf = self.shelf(name)?;
        let locked = self.lock(&shelf, name)?;
        locked.admits(&stored, size).map_err(refuse)?;
        // A file that is no image needs no copy.
        inspect::first_look(name, &image)?;
        let draft = locked.draft().map_err(refuse)?;
        let digest = copy::copy(name, &image, size, &draft.file, self.caller, |bytes| {
            say(self.caller, &Reply::Copied { bytes, total: size })
        })?;
        drop(image);
        let draft = locked.seal(draft).map_err(refuse)?;
        say(self.caller, &Reply::Checking)?;
        let holds = inspect::structure(name, &draft.file)?;
        let signers = inspect::signers(name, &draft.file, size, Need::WhoeverSigned)?;
        let scanned = match &self.config.store.scanner {
            None => None,
            Some(scanner) => {
                say(self.caller, &Reply::Scanning)?;
                config::open_trusted(&scanner.program)?;
                let subject = Subject { user: &self.user.name, name, digest };
                let limit = self.config.store.scanner_timeout();
                Some(scan::scan(scanner, limit, &draft.file, &subject, || self.is_there())?)
            }
        };
        let found = draft.file.metadata().map_err(|cause| refuse(cause.into()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = Record {
            version: 1,
            digest,
            stored: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            uid: self.tenant.uid,
            holds,
            signers,
            scanned,
            verity: draft.verity.clone(),
            file: Seen::from(&found),
        };
        self.is_there()?;
        locked.publish(&draft, &stored, &record).map_err(refuse)?;
        Ok(Reply::Stored(Box::new(record)))
    }
}

/// The caller's file and its length, if the file can be read to its end.
fn readable(name: &str, file: Option<OwnedFd>) -> Result<(File, u64), Refusal> {
    let refuse = |kind, cause: &str| Refusal::new(kind, name, cause);
    let file = file.ok_or_else(|| refuse(Kind::Usage, "no image came along"))?;
    let flags = nix::fcntl::fcntl(file.as_fd(), FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    if !flags.is_ok_and(|flags| !flags.contains(OFlag::O_PATH) && flags & OFlag::O_ACCMODE != OFlag::O_WRONLY) {
        return Err(refuse(Kind::ImageUnreadable, "is not open for reading"));
    }
    let file = File::from(file);
    // A file system that the user runs may refuse this or take long; only this caller's process waits.
    let found = file.metadata().map_err(|cause| refuse(Kind::of_reading(&cause), &cause.to_string()))?;
    if !found.is_file() {
        return Err(refuse(Kind::ImageType, "no regular file, so not an image file"));
    }
    Ok((file, found.len()))
}
