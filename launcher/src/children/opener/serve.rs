//! The child process: it answers the questions of the launcher with the rights of the user.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;
use nix::sys::statfs::FUSE_SUPER_MAGIC;

use crate::children::ask::{self, OsText};
use crate::children::{glibc, mpi_fit};
use crate::image::{self, Image, digest};
use coracle::report::{Kind, Refusal};
use coracle::request::Digest;
use coracle::sys::{self, Channel, Filter};

use super::GROUPS;
use super::question::{Answer, Question};

/// Time after which the child process ends, whatever the state of its parent process; longer than the start of a step.
const PATIENCE: Duration = Duration::from_secs(3600);
/// A file with less than one part in this many stored is a hole, not an image. Images are compressed, and even a file
/// system that compresses them again stores more than that.
const HOLES: u64 = 64;
/// Length in bytes below which a file is hashed without the check for holes.
const SHORT: u64 = 64 << 20;

/// State of the child process.
pub(super) struct Service<'a> {
    channel: &'a Channel,
    /// The user.
    uid: u32,
    /// The image that was opened last.
    image: Option<File>,
}

impl<'a> Service<'a> {
    pub(super) fn new(channel: &'a Channel, uid: u32) -> Self {
        Self { channel, uid, image: None }
    }

    /// Answers until no process can ask any more, or for a question that makes no sense.
    ///
    /// The filter is installed before the first byte of a file of the user is read. A look-up of the account, the first
    /// question of a step, is answered before: it reads what the site wrote, and the launcher then works on the answer
    /// during the tenth of a millisecond that the kernel needs for the filter. Threads that a name service has started by then
    /// get the filter, too.
    pub(super) fn run(mut self, filter: &Filter) {
        let far = Instant::now() + PATIENCE;
        let mut question = ask::next_question(self.channel, far);
        if let Some((first @ Question::Account(_), fds)) = question {
            if self.answer(first, fds).is_none() {
                return;
            }
            question = None;
        }
        if let Err(error) = filter.install_in_all_threads() {
            return self.refuse(&error, question.is_some());
        }
        while let Some((asked, fds)) = question.take().or_else(|| ask::next_question(self.channel, far)) {
            if self.answer(asked, fds).is_none() {
                return;
            }
        }
    }

    /// Answers a question with a refusal, for a process that could not give up its rights. `asked` is true if the
    /// question has been received.
    pub(super) fn refuse(&self, error: &sys::Error, asked: bool) {
        let cause = format!("the process that opens files as the user cannot be confined: {error}");
        let far = Instant::now() + PATIENCE;
        if asked || ask::next_question::<Question>(self.channel, far).is_some() {
            self.tell(Err(&Refusal::new(Kind::System, "", cause)), None);
        }
    }

    /// Answers a question; `None` if it makes no sense, or no process takes the answer.
    fn answer(&mut self, question: Question, fds: Vec<OwnedFd>) -> Option<()> {
        // The directory, image or device of the question.
        let given = fds.first();
        let beneath = |path: &OsText, how| Some(sys::open_beneath(given?, path.path(), how));
        match question {
            Question::OpenImage(path) => match image_of(path.path()) {
                Ok((file, image, length)) => {
                    let answer = Answer::Image { words: image.to_words(), length };
                    let told = self.tell(Ok(&answer), Some(file.as_fd()));
                    self.image = Some(file);
                    told
                }
                Err(refusal) => self.tell(Err(&refusal), None),
            },
            Question::Digest => {
                let digest = digest_of(self.image.as_ref()?);
                self.tell(digest.map(|digest| Answer::Digest(digest.to_string())).as_ref(), None)
            }
            Question::OpenSources(paths) => {
                paths.iter().try_for_each(|path| self.tell_opened(sys::open_untrusted(path.path(), OFlag::O_PATH)))
            }
            Question::OpenBeneath(path) => self.tell_opened(beneath(&path, OFlag::O_PATH)?),
            Question::ReadBeneath(path) => self.tell_opened(beneath(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?),
            Question::Enter(path) => {
                enter(given?, path.path());
                self.tell(Ok(&Answer::Done), None)
            }
            Question::Account(groups) => self.tell(Ok(&account_of(self.uid, &groups)), None),
            Question::Uid(name) => {
                let user = nix::unistd::User::from_name(&name).ok().flatten();
                self.tell(Ok(&Answer::Uid(user.map(|user| user.uid.as_raw()))), None)
            }
            Question::FitMpi(question) => {
                let fit = mpi_fit::answer(fds.into_iter().next()?, &question);
                self.tell(fit.map(Answer::Fit).as_ref(), None)
            }
            Question::Glibc => {
                let version = glibc::answer(fds.into_iter().next()?);
                self.tell(version.map(Answer::Glibc).as_ref(), None)
            }
            Question::ConfigureLoop { offset, size } => {
                let configured = sys::configure_loop(given?.as_fd(), self.image.as_ref()?.as_fd(), offset, size);
                let answer = configured.map_or_else(|error| failed(&error), |()| Answer::Done);
                self.tell(Ok(&answer), None)
            }
        }
    }

    fn tell(&self, result: Result<&Answer, &Refusal>, fd: Option<BorrowedFd<'_>>) -> Option<()> {
        ask::answer(self.channel, result, fd.as_slice(), Instant::now() + PATIENCE).ok()
    }

    fn tell_opened(&self, opened: sys::Result<OwnedFd>) -> Option<()> {
        match opened {
            Ok(fd) => {
                let mode = nix::sys::stat::fstat(&fd).map_or(0, |stat| stat.st_mode);
                let directory = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
                self.tell(Ok(&Answer::Opened { directory }), Some(fd.as_fd()))
            }
            Err(error) => self.tell(Ok(&failed(&error)), None),
        }
    }
}

fn failed(error: &sys::Error) -> Answer {
    Answer::Failed(error.errno() as i32)
}

/// Enters a directory below `directory`. Some FUSE file systems receive no other request for it (fuse(4), FUSE_ACCESS).
fn enter(directory: &OwnedFd, path: &Path) {
    let entered = sys::open_beneath(directory, path, OFlag::O_PATH | OFlag::O_DIRECTORY)
        .is_ok_and(|directory| nix::unistd::fchdir(&directory).is_ok());
    if entered {
        let _ = nix::unistd::chdir("/");
    }
}

/// Opens and identifies an image, and returns the length of its file. The caller fills in the refusal's object, the name
/// that the user typed.
pub(super) fn image_of(path: &Path) -> Result<(File, Image, u64), Refusal> {
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
        return Ok((found, Image::directory(), 0));
    }
    let file = sys::open_untrusted(path, OFlag::O_RDONLY).map(File::from).map_err(|error| opening(path, &error))?;
    let opened = file.metadata().map_err(|cause| refuse(Kind::of_reading(&cause), cause.to_string()))?;
    if (opened.dev(), opened.ino()) != (metadata.dev(), metadata.ino()) {
        return Err(refuse(Kind::ImageType, "was replaced while it was being opened".into()));
    }
    let image = image::identify(&file, std::env::consts::ARCH).map_err(|error| error.refuse(""))?;
    Ok((file, image, opened.len()))
}

pub(super) fn digest_of(image: &File) -> Result<Digest, Refusal> {
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

/// Entries of the user database for `uid`, and for the first of `groups`. Each is one line.
fn account_of(uid: u32, groups: &[u32]) -> Answer {
    let one_line = |mut bytes: Vec<u8>| {
        bytes.retain(|byte| !matches!(byte, 0 | b'\n'));
        bytes
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&one_line(bytes)).into_owned();
    let (mut passwd, mut home) = (String::new(), OsText::default());
    if let Ok(Some(user)) = nix::unistd::User::from_uid(uid.into()) {
        let directory = user.dir.into_os_string().into_vec();
        let shell = user.shell.into_os_string().into_vec();
        let ids = format!(":x:{uid}:{}:", user.gid);
        let fields = [user.name.as_bytes(), ids.as_bytes(), user.gecos.to_bytes(), b":", &directory, b":", &shell];
        passwd = text(fields.concat());
        home = OsText(OsString::from_vec(one_line(directory)));
    }
    let (mut lines, mut length) = (Vec::new(), 0);
    for gid in groups {
        if length > GROUPS {
            break;
        }
        if let Ok(Some(group)) = nix::unistd::Group::from_gid((*gid).into()) {
            let line = text(format!("{}:x:{gid}:", group.name).into_bytes());
            length += line.len();
            lines.push(line);
        }
    }
    Answer::Account { passwd, home, groups: lines }
}
