//! Child process with the user's ids that opens the paths that the user named.
//!
//! Root never opens a path of the user's choice. A file that only root may read must stay closed, and a file on a file
//! system that squashes root must open. A file system that does not answer must only hang a process that can be
//! abandoned. For the same reasons, the child process also reads the image's headers and looks up names (NSS).
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Owner;
use crate::image::{self, digest};
use crate::plan::Shape;
use crate::store::Record;
use coracle::report::{Kind, Refusal};
use coracle::request::Digest;
use coracle::sys::{self, CachedStat, Channel, Child, Forked, Identity, Packet, Received};
use coracle::wire::Answer;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::Resource;
use nix::sys::stat::SFlag;
use nix::sys::statfs::FUSE_SUPER_MAGIC;

use crate::children::glibc;
use crate::children::mpi_fit;
use crate::children::opener_slots::Slot;

/// Child process that opens files as the user, and the channel to it. The process ends when this is dropped.
#[derive(Debug)]
pub struct Opener {
    channel: Channel,
    deadline: Cell<Instant>,
    /// The object of an unanswered question. No other question follows it, because a late answer would be taken for the
    /// answer to the next question.
    unanswered: RefCell<Option<String>>,
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

/// Time after which the child process ends, whatever the state of its parent process; longer than the start of a step.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Time limit for the end of a killed child process.
const PARTING: Duration = Duration::from_millis(100);
/// Limit on the group entries of a user, in bytes. A user with thousands of groups gets the first ones.
const GROUPS: usize = 64 * 1024;
/// Memory limit of the child process, in bytes: hashing and parsing need a fraction.
const MEMORY: u64 = 512 << 20;
/// A file with less than one part in this many stored is a hole, not an image. Images are compressed, and even a file
/// system that compresses them again stores more than that.
const HOLES: u64 = 64;
/// Length in bytes below which a file is hashed without the check for holes.
const SHORT: u64 = 64 << 20;

mod ask {
    pub const IMAGE: u8 = b'i';
    pub const SOURCE: u8 = b's';
    pub const BENEATH: u8 = b'b';
    pub const READ: u8 = b'r';
    pub const ENTER: u8 = b'e';
    pub const DIGEST: u8 = b'd';
    pub const ACCOUNT: u8 = b'a';
    pub const UID: u8 = b'u';
    pub const LOOP: u8 = b'l';
    pub const MPI: u8 = b'm';
    pub const GLIBC: u8 = b'g';
}
mod reply {
    pub const DONE: u8 = b'+';
    pub const ERRNO: u8 = b'-';
    pub const REFUSED: u8 = b'!';
}

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
        let child = sys::fork_alone(|forked| match become_opener(forked, &theirs, slot.as_ref(), identity, seconds) {
            Ok(()) => serve(&theirs, uid),
            Err(_) => 1,
        })
        .map_err(failed)?;
        Ok(Self { channel, deadline: Cell::new(deadline), unanswered: RefCell::new(None), child })
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
        let reply = self.ask(&[&[ask::IMAGE], path.as_os_str().as_bytes()].concat(), &[], what)?;
        let mut fds = reply.fds.into_iter();
        let text = done(&reply.data, what)?;
        let mut fields = text.split(|byte| *byte == 0).map(|field| std::str::from_utf8(field).unwrap_or(""));
        let words = fields.next().unwrap_or("");
        let length = fields.next().and_then(|text| text.parse().ok()).ok_or_else(|| garbled(()))?;
        let file = File::from(fds.next().ok_or_else(|| garbled(()))?);
        // Root cannot read a user's FUSE file system (fuse(4), allow_other), so the length comes from the child
        // process. A wrong length makes a loop device that is too short or reads zeros.
        let image = image::Image::from_words(words, length).ok_or_else(|| garbled(()))?;
        Ok(Opened { file, length, image, digest: None, record: None, signers: None })
    }

    /// Digest of the image that was opened last.
    pub fn digest(&self, what: &str) -> Result<Digest, Refusal> {
        let reply = self.ask(&[ask::DIGEST], &[], what)?;
        let text = std::str::from_utf8(done(&reply.data, what)?).map_err(garbled)?;
        Digest::parse(OsStr::new(text)).map_err(garbled)
    }

    /// Opens a directory or file of the node, as the user, for a bind mount.
    pub fn open_source(&self, path: &Path) -> Result<Result<(OwnedFd, Shape), Errno>, Refusal> {
        let question = [&[ask::SOURCE], path.as_os_str().as_bytes()].concat();
        let found = self.descriptor(&question, &[], &path.display().to_string())?;
        Ok(found.map(|(fd, word)| (fd, if word == b"folder" { Shape::Folder } else { Shape::File })))
    }

    /// Opens `path` below the directory `folder` as the user; no link leads out of it.
    pub fn open_beneath(&self, folder: BorrowedFd<'_>, path: &Path) -> Result<Result<OwnedFd, Errno>, Refusal> {
        self.open_beneath_as(folder, path, &path.display().to_string())
    }

    /// Like [`Self::open_beneath`], with `what` as the object of messages.
    pub fn open_beneath_as(
        &self,
        folder: BorrowedFd<'_>,
        path: &Path,
        what: &str,
    ) -> Result<Result<OwnedFd, Errno>, Refusal> {
        let question = [&[ask::BENEATH], path.as_os_str().as_bytes()].concat();
        Ok(self.descriptor(&question, &[folder], what)?.map(|(fd, _)| fd))
    }

    /// Enters `path` below the directory `folder` as the user, and leaves it. If that file system does not answer, this
    /// child process hangs, not a task. The task itself reports any other error of the directory.
    pub fn try_directory(&self, folder: BorrowedFd<'_>, path: &Path, what: &str) -> Result<(), Refusal> {
        self.ask(&[&[ask::ENTER], path.as_os_str().as_bytes()].concat(), &[folder], what).map(drop)
    }

    /// Opens `path` below the directory `folder` like [`Self::open_beneath`], for reading.
    pub fn read_beneath(&self, folder: BorrowedFd<'_>, path: &Path) -> Result<Result<File, Errno>, Refusal> {
        let question = [&[ask::READ], path.as_os_str().as_bytes()].concat();
        Ok(self.descriptor(&question, &[folder], &path.display().to_string())?.map(|(fd, _)| File::from(fd)))
    }

    /// Entries of the node's user database for the user and for `groups`.
    pub fn account(&self, groups: &[u32]) -> Result<Account, Refusal> {
        let list: Vec<String> = groups.iter().map(u32::to_string).collect();
        let question = [&[ask::ACCOUNT], list.join(",").as_bytes()].concat();
        let reply = self.ask(&question, &[], "the user database")?;
        let mut fields = reply.data.get(1..).unwrap_or_default().split(|byte| *byte == 0);
        let mut field = || OsString::from_vec(fields.next().unwrap_or_default().to_vec());
        let (passwd, home) = (field(), field());
        let groups = std::iter::from_fn(|| Some(field()).filter(|line| !line.is_empty()));
        Ok(Account {
            passwd: passwd.to_string_lossy().into_owned(),
            home: Some(PathBuf::from(home)).filter(|home| home.is_absolute()),
            groups: groups.map(|line| line.to_string_lossy().into_owned()).collect(),
        })
    }

    fn uid_of(&self, name: &str) -> Result<Option<u32>, Refusal> {
        let reply = self.ask(&[&[ask::UID], name.as_bytes()].concat(), &[], "the user database")?;
        let text = reply.data.get(1..).and_then(|text| std::str::from_utf8(text).ok());
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// User id of the owner that coracle.yaml names, if that user exists.
    pub fn owner(&self, owner: &Owner) -> Result<Option<u32>, Refusal> {
        match owner {
            Owner::Number(uid) => Ok(Some(*uid)),
            Owner::Name(name) => self.uid_of(name),
        }
    }

    /// True if `path` below the directory `folder` is this same file. A path is only a hint.
    pub fn is_beneath(&self, folder: BorrowedFd<'_>, path: &Path, file: &CachedStat) -> Result<bool, Refusal> {
        let Ok(found) = self.open_beneath(folder, path)? else { return Ok(false) };
        let found = CachedStat::of(&found);
        Ok(found.is_ok_and(|found| (found.device, found.inode) == (file.device, file.inode)))
    }

    /// Asks a question of [`mpi_fit`] about the image `what` that is mounted as `root`.
    pub fn fit_mpi(&self, root: BorrowedFd<'_>, question: &[u8], what: &str) -> Result<Vec<u8>, Refusal> {
        let reply = self.ask(&[&[ask::MPI], question].concat(), &[root], what)?;
        done(&reply.data, what).map(<[u8]>::to_vec)
    }

    /// Newest version of glibc, such as `GLIBC_2.36`, in the image `what` that is mounted as `root`; nothing if it has
    /// none for this processor.
    pub fn glibc(&self, root: BorrowedFd<'_>, what: &str) -> Result<Option<String>, Refusal> {
        let reply = self.ask(&[ask::GLIBC], &[root], what)?;
        glibc::parse_answer(done(&reply.data, what)?).map_err(garbled)
    }

    /// Attaches the image that was opened last to the loop device `device`.
    pub fn configure_loop(&self, device: BorrowedFd<'_>, offset: u64, size: u64) -> sys::Result<()> {
        let question = [&[ask::LOOP][..], format!("{offset} {size}").as_bytes()].concat();
        let failed = |errno| sys::Error::new(format!("ioctl(LOOP_CONFIGURE, offset={offset} size={size})"), errno);
        let reply = self.ask(&question, &[device], "the image").map_err(|_| failed(Errno::ETIMEDOUT))?;
        match reply.data.split_first() {
            Some((&reply::DONE, _)) => Ok(()),
            Some((_, number)) => Err(failed(errno_of(number))),
            None => Err(failed(Errno::EIO)),
        }
    }

    fn descriptor(
        &self,
        question: &[u8],
        fds: &[BorrowedFd<'_>],
        what: &str,
    ) -> Result<Result<(OwnedFd, Vec<u8>), Errno>, Refusal> {
        let reply = self.ask(question, fds, what)?;
        match (reply.data.split_first(), reply.fds.into_iter().next()) {
            (Some((&reply::DONE, word)), Some(fd)) => Ok(Ok((fd, word.to_vec()))),
            (Some((&reply::ERRNO, number)), None) => Ok(Err(errno_of(number))),
            _ => Err(garbled(())),
        }
    }

    fn ask(&self, question: &[u8], fds: &[BorrowedFd<'_>], what: &str) -> Result<Packet, Refusal> {
        let late = |what: &str| {
            Refusal::new(Kind::Timeout, what, "the file system, or the user database, did not answer in time")
        };
        if let Some(first) = self.unanswered.borrow().as_deref() {
            return Err(late(first));
        }
        self.unanswered.replace(Some(what.to_owned()));
        let answer =
            self.channel.send(question, fds, self.deadline()).and_then(|()| self.channel.receive(self.deadline()));
        match answer {
            Ok(Received::Packet(packet)) => {
                self.unanswered.replace(None);
                Ok(packet)
            }
            Ok(Received::Closed) => {
                Err(Refusal::new(Kind::Internal, what, "the process that opens files as the user has died"))
            }
            Err(error) if error.errno() == Errno::ETIMEDOUT => Err(late(what)),
            Err(error) => Err(Refusal::system(what, &error)),
        }
    }
}

fn errno_of(number: &[u8]) -> Errno {
    let number = std::str::from_utf8(number).ok().and_then(|text| text.parse().ok());
    number.map_or(Errno::EIO, Errno::from_raw)
}

fn garbled(_: impl Sized) -> Refusal {
    Refusal::new(Kind::Internal, "the process that opens files as the user", "gave an answer that makes no sense")
}

/// Content of a successful answer about `what`.
fn done<'a>(reply: &'a [u8], what: &str) -> Result<&'a [u8], Refusal> {
    match reply.split_first() {
        Some((&reply::DONE, text)) => Ok(text),
        Some((&reply::REFUSED, answer)) => Err(refused(answer).map_or_else(garbled, named(what))),
        _ => Err(garbled(())),
    }
}

fn refused(answer: &[u8]) -> Result<Refusal, ()> {
    match Answer::from_bytes(answer) {
        Ok(Answer::Refused(refusal)) => Ok(refusal),
        _ => Err(()),
    }
}

/// Sets the object of a refusal to the name that the user typed.
fn named(what: &str) -> impl Fn(Refusal) -> Refusal {
    move |refusal| Refusal { object: what.to_owned(), ..refusal }
}

/// Drops the privileges of the child process and sets its limits. `seconds` limits its CPU time.
fn become_opener(
    forked: &Forked,
    channel: &Channel,
    slot: Option<&Slot>,
    identity: &Identity,
    seconds: u64,
) -> sys::Result<()> {
    let kept: Vec<BorrowedFd<'_>> = slot.iter().map(|slot| slot.file().as_fd()).chain([channel.as_fd()]).collect();
    sys::close_others(forked, &kept)?;
    sys::become_user(identity)?;
    sys::set_no_new_privileges()?;
    sys::set_undumpable()?;
    sys::die_with_parent()?;
    sys::limit(&[(Resource::RLIMIT_AS, MEMORY), (Resource::RLIMIT_FSIZE, 0), (Resource::RLIMIT_CPU, seconds)])
}

fn serve(channel: &Channel, uid: u32) -> u8 {
    let far = Instant::now() + PATIENCE;
    let mut image: Option<File> = None;
    while let Ok(Received::Packet(packet)) = channel.receive(far) {
        let Some((verb, rest)) = packet.data.split_first() else { return 1 };
        let sent = match (*verb, rest) {
            (ask::IMAGE, path) => match image_of(Path::new(OsStr::from_bytes(path))) {
                Ok((file, text)) => {
                    let sent = send(channel, reply::DONE, &text, Some(file.as_fd()));
                    image = Some(file);
                    sent
                }
                Err(refusal) => send(channel, reply::REFUSED, &Answer::Refused(refusal).to_bytes(), None),
            },
            (ask::DIGEST, _) => match image.as_ref().map(digest_of) {
                Some(Ok(digest)) => send(channel, reply::DONE, digest.to_string().as_bytes(), None),
                Some(Err(refusal)) => send(channel, reply::REFUSED, &Answer::Refused(refusal).to_bytes(), None),
                None => return 1,
            },
            (ask::SOURCE, path) => {
                answer(channel, sys::open_untrusted(Path::new(OsStr::from_bytes(path)), OFlag::O_PATH))
            }
            (ask::BENEATH | ask::READ, path) => match packet.fds.first() {
                Some(folder) => {
                    let how = if *verb == ask::READ { OFlag::O_RDONLY | OFlag::O_NONBLOCK } else { OFlag::O_PATH };
                    answer(channel, sys::open_beneath(folder, Path::new(OsStr::from_bytes(path)), how))
                }
                None => return 1,
            },
            (ask::ENTER, path) => match packet.fds.first() {
                Some(folder) => {
                    enter(folder, Path::new(OsStr::from_bytes(path)));
                    send(channel, reply::DONE, &[], None)
                }
                None => return 1,
            },
            (ask::MPI, question) => match packet.fds.into_iter().next().map(|root| mpi_fit::answer(root, question)) {
                Some(Ok(answer)) => send(channel, reply::DONE, &answer, None),
                Some(Err(refusal)) => send(channel, reply::REFUSED, &Answer::Refused(refusal).to_bytes(), None),
                None => return 1,
            },
            (ask::GLIBC, _) => match packet.fds.into_iter().next().map(glibc::answer) {
                Some(Ok(answer)) => send(channel, reply::DONE, &answer, None),
                Some(Err(refusal)) => send(channel, reply::REFUSED, &Answer::Refused(refusal).to_bytes(), None),
                None => return 1,
            },
            (ask::LOOP, numbers) => match (packet.fds.first(), &image) {
                (Some(device), Some(image)) => match configure(device.as_fd(), image, numbers) {
                    Ok(()) => send(channel, reply::DONE, &[], None),
                    Err(errno) => send(channel, reply::ERRNO, (errno as i32).to_string().as_bytes(), None),
                },
                _ => return 1,
            },
            (ask::ACCOUNT, groups) => send(channel, reply::DONE, &account_of(uid, groups), None),
            (ask::UID, name) => {
                let user = std::str::from_utf8(name).ok().and_then(|name| nix::unistd::User::from_name(name).ok()?);
                send(channel, reply::DONE, user.map(|user| user.uid.to_string()).unwrap_or_default().as_bytes(), None)
            }
            _ => return 1,
        };
        if sent.is_err() {
            return 1;
        }
    }
    0
}

fn send(channel: &Channel, verb: u8, rest: &[u8], fd: Option<BorrowedFd<'_>>) -> sys::Result<()> {
    channel.send(&[&[verb], rest].concat(), fd.as_slice(), Instant::now() + PATIENCE)
}

fn answer(channel: &Channel, result: sys::Result<OwnedFd>) -> sys::Result<()> {
    match result {
        Ok(fd) => {
            let mode = nix::sys::stat::fstat(&fd).map_or(0, |stat| stat.st_mode);
            let folder = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
            send(channel, reply::DONE, if folder { b"folder" } else { b"file" }, Some(fd.as_fd()))
        }
        Err(error) => send(channel, reply::ERRNO, (error.errno() as i32).to_string().as_bytes(), None),
    }
}

/// Enters a directory below `folder`. Some FUSE file systems receive no other request for it (fuse(4), FUSE_ACCESS).
fn enter(folder: &OwnedFd, path: &Path) {
    let entered = sys::open_beneath(folder, path, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .is_ok_and(|directory| nix::unistd::fchdir(&directory).is_ok());
    if entered {
        let _ = nix::unistd::chdir("/");
    }
}

/// Attaches `image` to `device`. `numbers` is an offset and a size.
fn configure(device: BorrowedFd<'_>, image: &File, numbers: &[u8]) -> Result<(), Errno> {
    let (offset, size) =
        std::str::from_utf8(numbers).ok().and_then(|text| text.split_once(' ')).ok_or(Errno::EINVAL)?;
    let number = |text: &str| text.parse().map_err(|_| Errno::EINVAL);
    sys::configure_loop(device, image.as_fd(), number(offset)?, number(size)?).map_err(|error| error.errno())
}

/// Opens and identifies an image. The caller fills in the refusal's object, the name that the user typed.
fn image_of(path: &Path) -> Result<(File, Vec<u8>), Refusal> {
    let refuse = |kind, cause: String| Refusal::new(kind, "", cause);
    // O_PATH finds the file type without opening a FIFO, a device or a file of /proc.
    let found = sys::open_untrusted(path, OFlag::O_PATH).map(File::from).map_err(|error| opening(path, &error))?;
    let metadata = found.metadata().map_err(|cause| refuse(Kind::of_reading(&cause), cause.to_string()))?;
    let kind = metadata.file_type();
    if !kind.is_file() && !kind.is_dir() {
        let name = [
            (kind.is_fifo(), "a FIFO"),
            (kind.is_socket(), "a socket"),
            (kind.is_char_device() || kind.is_block_device(), "a device"),
        ];
        let name = name.iter().find(|(is, _)| *is).map_or("no regular file", |(_, name)| name);
        return Err(refuse(Kind::ImageType, format!("{name}, not an image file")));
    }
    let statfs =
        nix::sys::statfs::fstatfs(&found).map_err(|errno| refuse(Kind::of_reading(&errno), errno.desc().into()))?;
    if PSEUDO.contains(&statfs.filesystem_type()) {
        return Err(refuse(Kind::ImageType, "a file of the kernel's own, not an image file".into()));
    }
    if kind.is_dir() {
        // O_PATH needs no permission on the directory itself; a lookup of "." does.
        sys::open_beneath(&found, Path::new("."), OFlag::O_PATH).map_err(|error| opening(path, &error))?;
        return Ok((found, format!("{}\x000", image::Image::directory().to_words()).into_bytes()));
    }
    let file = sys::open_untrusted(path, OFlag::O_RDONLY).map(File::from).map_err(|error| opening(path, &error))?;
    let opened = file.metadata().map_err(|cause| refuse(Kind::of_reading(&cause), cause.to_string()))?;
    if (opened.dev(), opened.ino()) != (metadata.dev(), metadata.ino()) {
        return Err(refuse(Kind::ImageType, "was replaced while it was being opened".into()));
    }
    let image = image::identify(&file, std::env::consts::ARCH).map_err(|error| error.refuse(""))?;
    Ok((file, format!("{}\0{}", image.to_words(), opened.len()).into_bytes()))
}

fn digest_of(image: &File) -> Result<Digest, Refusal> {
    match image.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(Refusal::new(Kind::Digest, "", "a directory, which has no digest")),
        Ok(metadata) if is_hole(image, &metadata) => Err(Refusal::new(
            Kind::ImageFormat,
            "",
            format!("{} bytes long, of which only {} are stored: not hashed", metadata.len(), metadata.blocks() * 512),
        )
        .hint("a copy made without --sparse is stored whole")),
        _ => digest::compute(image)
            .map_err(|cause| Refusal::new(Kind::of_reading(&cause), "", format!("cannot be read: {cause}"))),
    }
}

/// True if the file is long only because of holes. Many FUSE file systems report that nothing is stored (fuse(4)).
fn is_hole(image: &File, metadata: &Metadata) -> bool {
    let fuse = nix::sys::statfs::fstatfs(image).is_ok_and(|found| found.filesystem_type() == FUSE_SUPER_MAGIC);
    let stored = metadata.blocks().saturating_mul(512);
    !fuse && metadata.len() > SHORT && stored < metadata.len() / HOLES
}

/// File systems whose regular files the kernel generates (statfs(2)).
const PSEUDO: &[nix::sys::statfs::FsType] = &[
    nix::sys::statfs::PROC_SUPER_MAGIC,
    nix::sys::statfs::SYSFS_MAGIC,
    nix::sys::statfs::DEBUGFS_MAGIC,
    nix::sys::statfs::TRACEFS_MAGIC,
    nix::sys::statfs::CGROUP_SUPER_MAGIC,
    nix::sys::statfs::CGROUP2_SUPER_MAGIC,
    nix::sys::statfs::SECURITYFS_MAGIC,
];

fn opening(path: &Path, error: &sys::Error) -> Refusal {
    let path = path.display();
    match error.errno() {
        Errno::ENOENT | Errno::ENOTDIR => Refusal::new(Kind::ImageMissing, "", "no such file on this node")
            .hint(format!("looked for {path}; is that directory mounted on the compute nodes?")),
        Errno::EACCES | Errno::EPERM => {
            Refusal::new(Kind::ImageUnreadable, "", "you may not read it: permission denied on this node")
        }
        Errno::ELOOP => {
            Refusal::new(Kind::ImageType, "", "the path leads through too many links, or through one of /proc")
        }
        Errno::ENAMETOOLONG => Refusal::new(Kind::ImageMissing, "", "the path is too long"),
        // open(2): O_NONBLOCK and a FIFO, a device without a driver, or a socket.
        Errno::ENXIO | Errno::ENODEV => Refusal::new(Kind::ImageType, "", "a device or a socket, not an image file"),
        _ => Refusal::new(Kind::of_reading(error), "", error.to_string()),
    }
}

/// `passwd line NUL home NUL group line NUL group line …`
fn account_of(uid: u32, groups: &[u8]) -> Vec<u8> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => {
            let home = user.dir.into_os_string().into_vec();
            let gecos = user.gecos.to_bytes();
            let shell = user.shell.into_os_string().into_vec();
            let ids = format!(":x:{uid}:{}:", user.gid);
            fields.push([user.name.as_bytes(), ids.as_bytes(), gecos, b":", &home, b":", &shell].concat());
            fields.push(home);
        }
        _ => fields.extend([Vec::new(), Vec::new()]),
    }
    for gid in std::str::from_utf8(groups).unwrap_or("").split(',').filter_map(|gid| gid.parse::<u32>().ok()) {
        if fields.iter().map(Vec::len).sum::<usize>() > GROUPS {
            break;
        }
        if let Ok(Some(group)) = nix::unistd::Group::from_gid(gid.into()) {
            fields.push(format!("{}:x:{gid}:", group.name).into_bytes());
        }
    }
    for field in &mut fields {
        field.retain(|byte| !matches!(byte, 0 | b'\n'));
    }
    fields.join(&0)
}

#[cfg(test)]
#[path = "opener_attacks.rs"]
mod attacks;
