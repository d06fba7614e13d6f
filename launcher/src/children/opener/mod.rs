//! Child process with the user's ids that opens the paths that the user named.
//!
//! Root never opens a path of the user's choice. A file that only root may read must stay closed, and a file on a file
//! system that squashes root must open. A file system that does not answer must only hang a process that can be
//! abandoned. For the same reasons, the child process also reads the image's headers and looks up names (NSS).
#![forbid(unsafe_code)]

mod question;
mod serve;
mod slots;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Owner;
use crate::image;
use crate::mpi::Fit;
use crate::plan::Shape;
use crate::store::Record;
use coracle::report::{Kind, Refusal};
use coracle::request::Digest;
use coracle::sys::{self, CachedStat, Channel, Child, Filter, Forked, Identity, Ids, Preamble};
use nix::errno::Errno;
use nix::sys::resource::Resource;

use crate::children::ask::{self, Failure, OsText, Reply};
use crate::children::{filter, mpi_fit};
use question::{Answer, Question};
use serve::Service;
use slots::Slot;

/// Child process that opens files as the user, and the channel to it. The process ends when this is dropped.
#[derive(Debug)]
pub struct Opener {
    channel: Channel,
    /// The user.
    uid: u32,
    deadline: Cell<Instant>,
    /// The object of an unanswered question. No other question follows it, because a late answer would be taken for the
    /// answer to the next question.
    unanswered: RefCell<Option<String>>,
    /// Groups of a question about the account whose answer has not been received.
    begun: RefCell<Option<Vec<u32>>>,
    child: Child,
}

/// An open image, and its identified content.
#[derive(Debug)]
pub struct Opened {
    /// Open for reading; a directory only with O_PATH.
    pub file: File,
    /// Length of the file, in bytes.
    pub length: u64,
    /// Part of the file that is mounted.
    pub image: image::Image,
    /// Digest of the file, if it is known.
    pub digest: Option<Digest>,
    /// Record of the site's store, if there is one.
    pub record: Option<Record>,
    /// Keys that sign all of the image, if they are known.
    pub signers: Option<Vec<String>>,
}

/// Directory or file of the node, open as the user (O_PATH), or the error of open(2).
pub type OpenedSource = Result<(OwnedFd, Shape), Errno>;

/// Entries of the node's user database for a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// The line for /etc/passwd, without its newline; empty if the node has no entry for the user.
    pub passwd: String,
    /// The home directory.
    pub home: Option<PathBuf>,
    /// The lines for /etc/group.
    pub groups: Vec<String>,
}

impl Account {
    /// The user's name.
    pub fn name(&self) -> Option<&str> {
        self.passwd.split(':').next().filter(|name| !name.is_empty())
    }
}

/// Time limit for the end of a killed child process.
const PARTING: Duration = Duration::from_millis(100);
/// Limit on the group entries of a user, in bytes. A user with thousands of groups gets the first ones.
const GROUPS: usize = 64 * 1024;
/// Memory limit of the child process, in bytes: hashing and parsing need a fraction.
const MEMORY: u64 = 512 << 20;
/// Object of messages about the node's user database.
const DATABASE: &str = "the user database";
/// Limits on one question about several paths: descriptors on their way count as the user's, up to their limit on open
/// files (unix(7)), and a question has a length limit.
const PATHS: usize = 32;
const PATH_BYTES: usize = 32 << 10;

impl Opener {
    /// Starts the child process as `identity`. Each question waits until `deadline` at most.
    pub fn start(identity: &Identity, deadline: Instant) -> Result<Self, Refusal> {
        Self::start_in(None, identity, deadline)
    }

    /// Like [`Self::start`], for a step: the child process takes one of the user's slots on the node.
    pub fn of_step(identity: &Identity, deadline: Instant) -> Result<Self, Refusal> {
        Self::start_in(Some(Slot::take(identity.uid)?), identity, deadline)
    }

    fn start_in(slot: Option<Slot>, identity: &Identity, deadline: Instant) -> Result<Self, Refusal> {
        let failed = |error: sys::Error| Refusal::system("starting as the user", &error);
        let (channel, theirs) = Channel::pair().map_err(failed)?;
        let uid = identity.uid;
        // All of its work is over at the deadline.
        let seconds = deadline.saturating_duration_since(Instant::now()).as_secs().saturating_add(1);
        let child = sys::fork_alone(|forked| {
            let service = Service::new(&theirs, uid);
            match become_opener(forked, &theirs, slot.as_ref(), identity, seconds) {
                Ok(filter) => service.run(&filter),
                Err(error) => service.refuse(&error, false),
            }
            0
        })
        .map_err(failed)?;
        Ok(Self {
            channel,
            uid,
            deadline: Cell::new(deadline),
            unanswered: RefCell::default(),
            begun: RefCell::default(),
            child,
        })
    }

    /// Ends the child process and waits for its end: a process that executes another program must keep no child process
    /// of Coracle.
    pub fn end(self) {
        self.child.end(PARTING);
    }

    /// Puts the child process into the control groups of a job, those of its slurmstepd `daemon`. The job is charged
    /// for work that grows with the size of the image.
    pub fn enter_job(&self, daemon: u32) -> Result<(), Refusal> {
        let child = u32::try_from(self.child.id()).unwrap_or_default();
        let entered = sys::Cgroups::of(daemon).and_then(|groups| groups.put_into_job(child));
        entered.map_err(|error| Refusal::system("the control groups of the job", &error))
    }

    /// Time at which the process that waits for the container gives up.
    pub fn deadline(&self) -> Instant {
        self.deadline.get()
    }

    /// Extends the deadline by time that does not count: the image's scripts have a time limit of their own.
    pub fn postpone(&self, by: Duration) {
        self.deadline.set(self.deadline.get() + by);
    }

    /// Opens and identifies the image at `path`, which the user calls `what`.
    pub fn open_image(&self, path: &Path, what: &str) -> Result<Opened, Refusal> {
        let reply = self.ask(&Question::OpenImage(path.into()), &[], what)?;
        // Root cannot read a user's FUSE file system (fuse(4), allow_other), so the length comes from the child
        // process. A wrong length makes a loop device that is too short or reads zeros.
        let (image, length, file) = reply.into_image().ok_or_else(garbled)?;
        Ok(Opened { file, length, image, digest: None, record: None, signers: None })
    }

    /// Digest of the image that was opened last.
    pub fn digest(&self, what: &str) -> Result<Digest, Refusal> {
        self.ask(&Question::Digest, &[], what)?.into_digest().ok_or_else(garbled)
    }

    /// Opens a directory or file of the node, as the user, for a bind mount.
    pub fn open_source(&self, path: &Path) -> Result<OpenedSource, Refusal> {
        self.open_sources(&[path])?.pop().ok_or_else(garbled)
    }

    /// Opens several of them, in this order. The child process opens the next one while this process takes the one before.
    pub fn open_sources(&self, paths: &[&Path]) -> Result<Vec<OpenedSource>, Refusal> {
        let mut opened = Vec::with_capacity(paths.len());
        let mut rest = paths;
        while let Some(first) = rest.first() {
            let mut left = PATH_BYTES;
            let fits = |path: &&&Path| {
                left = left.saturating_sub(path.as_os_str().len());
                left > 0
            };
            let (now, later) = rest.split_at(rest.iter().take(PATHS).take_while(fits).count().max(1));
            let question = Question::OpenSources(now.iter().map(|path| OsText::from(path.as_os_str())).collect());
            self.send(&question, &[], &first.display().to_string())?;
            for (index, path) in now.iter().enumerate() {
                let what = path.display().to_string();
                let reply = self.receive(&what).and_then(|reply| reply.into_opened().ok_or_else(garbled));
                opened.push(reply.inspect_err(|_| {
                    // The answers about the paths behind it are still to come.
                    if index + 1 < now.len() {
                        self.unanswered.replace(Some(what));
                    }
                })?);
            }
            rest = later;
        }
        Ok(opened)
    }

    /// Opens `path` below `directory` as the user; no link leads out of it.
    pub fn open_beneath(&self, directory: BorrowedFd<'_>, path: &Path) -> Result<Result<OwnedFd, Errno>, Refusal> {
        self.open_beneath_as(directory, path, &path.display().to_string())
    }

    /// Like [`Self::open_beneath`], with `what` as the object of messages.
    pub fn open_beneath_as(
        &self,
        directory: BorrowedFd<'_>,
        path: &Path,
        what: &str,
    ) -> Result<Result<OwnedFd, Errno>, Refusal> {
        let reply = self.ask(&Question::OpenBeneath(path.into()), &[directory], what)?;
        Ok(reply.into_opened().ok_or_else(garbled)?.map(|(fd, _)| fd))
    }

    /// Enters `path` below `directory` as the user, and leaves it. If that file system does not answer, this
    /// child process hangs, not a task. The task itself reports any other error of the directory.
    pub fn try_directory(&self, directory: BorrowedFd<'_>, path: &Path, what: &str) -> Result<(), Refusal> {
        let reply = self.ask(&Question::Enter(path.into()), &[directory], what)?;
        reply.into_done().ok_or_else(garbled).map(drop)
    }

    /// Opens `path` below `directory` like [`Self::open_beneath`], for reading.
    pub fn read_beneath(&self, directory: BorrowedFd<'_>, path: &Path) -> Result<Result<File, Errno>, Refusal> {
        let reply = self.ask(&Question::ReadBeneath(path.into()), &[directory], &path.display().to_string())?;
        Ok(reply.into_opened().ok_or_else(garbled)?.map(|(fd, _)| File::from(fd)))
    }

    /// Begins the look-up of [`Self::account`], while this process does other work.
    pub fn begin_account(&self, groups: &[u32]) -> Result<(), Refusal> {
        self.send(&Question::Account(groups.to_vec()), &[], DATABASE)?;
        self.begun.replace(Some(groups.to_vec()));
        Ok(())
    }

    /// Entries of the node's user database for the user and for `groups`.
    pub fn account(&self, groups: &[u32]) -> Result<Account, Refusal> {
        if self.begun.borrow().as_deref() != Some(groups) {
            self.begin_account(groups)?;
        }
        self.begun.take();
        let reply = self.receive(DATABASE)?;
        reply.into_account(self.uid, groups).ok_or_else(garbled)
    }

    fn uid_of(&self, name: &str) -> Result<Option<u32>, Refusal> {
        self.ask(&Question::Uid(name.to_owned()), &[], DATABASE)?.into_uid().ok_or_else(garbled)
    }

    /// User id of the owner that coracle.yaml names, if that user exists.
    pub fn owner(&self, owner: &Owner) -> Result<Option<u32>, Refusal> {
        match owner {
            Owner::Number(uid) => Ok(Some(*uid)),
            Owner::Name(name) => self.uid_of(name),
        }
    }

    /// True if `path` below `directory` is this same file. A path is only a hint.
    pub fn is_beneath(&self, directory: BorrowedFd<'_>, path: &Path, file: &CachedStat) -> Result<bool, Refusal> {
        let Ok(found) = self.open_beneath(directory, path)? else { return Ok(false) };
        let found = CachedStat::of(&found);
        Ok(found.is_ok_and(|found| (found.device, found.inode) == (file.device, file.inode)))
    }

    /// Fits an MPI profile to the image `what` that is mounted as `root`. The caller checks the names in the answer.
    pub fn fit_mpi(&self, root: BorrowedFd<'_>, question: mpi_fit::Question, what: &str) -> Result<Fit, Refusal> {
        self.ask(&Question::FitMpi(question), &[root], what)?.into_fit().ok_or_else(garbled)
    }

    /// Newest version of glibc, such as `GLIBC_2.36`, in the image `what` that is mounted as `root`; nothing if it has
    /// none for this processor.
    pub fn glibc(&self, root: BorrowedFd<'_>, what: &str) -> Result<Option<String>, Refusal> {
        self.ask(&Question::Glibc, &[root], what)?.into_glibc().ok_or_else(garbled)
    }

    /// Attaches the image that was opened last to the loop device `device`.
    pub fn configure_loop(&self, device: BorrowedFd<'_>, offset: u64, size: u64) -> sys::Result<()> {
        let failed = |errno| sys::Error::new(format!("ioctl(LOOP_CONFIGURE, offset={offset} size={size})"), errno);
        let question = Question::ConfigureLoop { offset, size };
        let reply = self.ask(&question, &[device], "the image").map_err(|_| failed(Errno::ETIMEDOUT))?;
        reply.into_done().unwrap_or(Err(Errno::EIO)).map_err(failed)
    }

    fn ask(&self, question: &Question, fds: &[BorrowedFd<'_>], what: &str) -> Result<Reply<Answer>, Refusal> {
        self.send(question, fds, what)?;
        self.receive(what)
    }

    /// Sends a question, after all earlier ones are answered.
    fn send(&self, question: &Question, fds: &[BorrowedFd<'_>], what: &str) -> Result<(), Refusal> {
        if let Some(first) = self.unanswered.borrow().as_deref() {
            return Err(late(first));
        }
        if self.begun.take().is_some() {
            self.receive(DATABASE)?;
        }
        let sent = ask::send(&self.channel, question, fds, self.deadline());
        sent.or_else(|failure| self.check(Err(failure), what))
    }

    /// Receives the next answer to the last question.
    fn receive(&self, what: &str) -> Result<Reply<Answer>, Refusal> {
        self.check(ask::decode(self.channel.receive(self.deadline())), what)
    }

    /// Keeps the object of a question that remains without an answer.
    fn check<T>(&self, answered: Result<T, Failure>, what: &str) -> Result<T, Refusal> {
        if !matches!(answered, Ok(_) | Err(Failure::Refused(_) | Failure::Garbled)) {
            self.unanswered.replace(Some(what.to_owned()));
        }
        answered.map_err(|failure| match failure {
            // The object is the name that the user typed.
            Failure::Refused(refusal) => Refusal { object: what.to_owned(), ..refusal },
            Failure::Late => late(what),
            Failure::Ended => Refusal::new(Kind::Internal, what, "the process that opens files as the user has died"),
            Failure::Garbled => garbled(),
            Failure::System(error) => Refusal::system(what, &error),
        })
    }
}

fn late(what: &str) -> Refusal {
    Refusal::new(Kind::Timeout, what, "the file system, or the user database, did not answer in time")
}

fn garbled() -> Refusal {
    Refusal::new(Kind::Internal, "the process that opens files as the user", "gave an answer that makes no sense")
}

/// Gives up the rights of the child process and sets its limits. `seconds` limits its CPU time. Returns the filter, the
/// last step of the preamble.
fn become_opener(
    forked: &Forked,
    channel: &Channel,
    slot: Option<&Slot>,
    identity: &Identity,
    seconds: u64,
) -> sys::Result<Filter> {
    let kept: Vec<BorrowedFd<'_>> = slot.iter().map(|slot| slot.file().as_fd()).chain([channel.as_fd()]).collect();
    let preamble = Preamble {
        kept: Some(&kept),
        executes: false,
        ids: Ids::Of(identity),
        limits: &[
            (Resource::RLIMIT_AS, MEMORY),
            (Resource::RLIMIT_FSIZE, 0),
            (Resource::RLIMIT_CORE, 0),
            (Resource::RLIMIT_CPU, seconds),
        ],
        ..Preamble::default()
    };
    preamble.enter(forked)?;
    filter::of_reader()
}

#[cfg(test)]
mod attacks;
