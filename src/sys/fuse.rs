//! Mounts file systems that a process of the user serves (fuse(4)).

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::ns::enter_user_namespace_as;
use super::state::statx;
use super::{Attributes, Channel, Child, Error, FsContext, Identity, Received, Result, open_beneath, show};

/// The character device behind every FUSE file system.
const DEVICE: &str = "/dev/fuse";
/// Time limit for a child process with a handful of system calls.
const CHILD: Duration = Duration::from_secs(10);

/// One end of a FUSE connection: the process that reads the requests from it serves the file system. The connection
/// breaks when its last descriptor is closed.
#[derive(Debug)]
pub struct FuseDevice {
    file: File,
}

impl FuseDevice {
    /// Opens a new connection. ENOENT, ENODEV, ENXIO: the kernel has no FUSE, or its module is not loaded.
    pub fn open() -> Result<Self> {
        let file = File::options().read(true).write(true).open(DEVICE);
        file.map(|file| Self { file }).map_err(|cause| Error::from_io(format!("open({DEVICE:?}, O_RDWR)"), &cause))
    }

    /// Returns a detached mount of the file system that the process behind this end will serve as `identity`:
    /// read-only, no set-user-ID, no devices, visible to every user, with modes that the kernel checks.
    ///
    /// This call does not wait for that process. `kind` is the type that mount tables show behind `fuse.`.
    pub fn mount(&self, identity: &Identity, kind: &str) -> Result<OwnedFd> {
        self.mount_for((identity.uid, identity.gid), true, kind)
    }

    /// Opens a connection and mounts it, detached. Files that its process reports as root's belong to this process'
    /// user; files that it reports as the user's belong to the overflow user. Only processes of exactly this user and
    /// primary group see the mount.
    ///
    /// The kernel takes owners as numbers of the user namespace in which the mount was made and `/dev/fuse` was opened
    /// (fs/fuse/inode.c). So another process does both in a namespace where the user is root. It is reparented to init
    /// and ends by itself: the kernel needs milliseconds to release its copy of the mount table.
    pub fn open_as_root(kind: &str) -> Result<(Self, OwnedFd)> {
        let deadline = Instant::now() + CHILD;
        let (ours, theirs) = Channel::pair()?;
        let work = || {
            let made = enter_user_namespace_as(0, 0).and_then(|()| {
                let device = Self::open()?;
                let tree = device.mount_for((0, 0), false, kind)?;
                Ok((device, tree))
            });
            let sent = match &made {
                Ok((device, tree)) => theirs.send(&[0], &[device.as_fd(), tree.as_fd()], deadline),
                Err(error) => theirs.send(&(error.errno() as i32).to_le_bytes(), &[], deadline),
            };
            u8::from(sent.is_err())
        };
        super::fork(|| u8::from(super::fork(work).map(Child::release).is_err()))?.wait()?;
        drop(theirs);
        let received = ours.receive(deadline)?;
        let failed = |errno| Error::new("mounting FUSE in a user namespace", errno);
        let Received::Packet(packet) = received else { return Err(failed(Errno::ECHILD)) };
        if let Ok(number) = packet.data.as_slice().try_into().map(i32::from_le_bytes) {
            return Err(failed(Errno::from_raw(number)));
        }
        match <[OwnedFd; 2]>::try_from(packet.fds) {
            Ok([device, tree]) => Ok((Self { file: device.into() }, tree)),
            Err(_) => Err(failed(Errno::EBADMSG)),
        }
    }

    fn mount_for(&self, (uid, gid): (u32, u32), everybody: bool, kind: &str) -> Result<OwnedFd> {
        let context = FsContext::open(c"fuse")?;
        context.string(c"source", "coracle")?;
        context.string(c"subtype", kind)?;
        // The kernel takes this number as text only (fs/fuse/inode.c, fsparam_fd); `rootmode` is octal.
        context.string(c"fd", &self.file.as_raw_fd().to_string())?;
        context.string(c"rootmode", "40000")?;
        context.string(c"user_id", &uid.to_string())?;
        context.string(c"group_id", &gid.to_string())?;
        if everybody {
            // Without it root itself cannot access the file system, and so could not build on it.
            context.flag(c"allow_other")?;
        }
        context.flag(c"default_permissions")?;
        context.flag(c"ro")?;
        context.mount(Attributes { read_only: true, no_suid: true, no_dev: true, no_exec: false })
    }
}

impl AsFd for FuseDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The kernel's files of a FUSE connection. They can break it, whichever process holds its other end.
///
/// Holding it keeps neither the mount nor the connection.
#[derive(Debug)]
pub struct FuseControl {
    abort: File,
    /// Its directory, which is empty when the connection is gone.
    files: OwnedFd,
}

impl FuseControl {
    /// Finds the connection behind `mount`.
    ///
    /// A request that the other end has taken and does not answer keeps its caller in a sleep that even SIGKILL does
    /// not end (fs/fuse/dev.c, request_wait_answer). Killing the process at the other end does not help if it has
    /// passed the descriptor on. The kernel's own way out is a separate file system, fusectl.
    pub fn of(mount: impl AsFd) -> Result<Self> {
        let number = connection(mount.as_fd())?;
        let all = FsContext::open(c"fusectl")?.mount(Attributes {
            read_only: false,
            no_suid: true,
            no_dev: true,
            no_exec: true,
        })?;
        let files = open_beneath(&all, &PathBuf::from(number.to_string()), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        Ok(Self { abort: open_beneath(&files, Path::new("abort"), OFlag::O_WRONLY)?.into(), files })
    }

    /// Breaks the connection: every request, waiting or later, fails with ENOTCONN or ECONNABORTED.
    pub fn abort(&self) -> Result<()> {
        (&self.abort).write_all(b"1").map_err(|cause| Error::from_io("write(fusectl, \"1\")", &cause))
    }

    /// Returns the number of requests without an answer, or `None` once the last mount of the file system is gone. The
    /// file cannot be read twice (fs/fuse/control.c, nonseekable_open).
    pub fn waiting(&self) -> Result<Option<u64>> {
        let file = match open_beneath(&self.files, Path::new("waiting"), OFlag::O_RDONLY) {
            Err(error) if error.errno() == Errno::ENOENT => return Ok(None),
            file => File::from(file?),
        };
        let mut text = String::new();
        let read = file.take(24).read_to_string(&mut text);
        read.map_err(|cause| Error::from_io("read(fusectl, waiting)", &cause))?;
        match text.trim() {
            // The connection has ended meanwhile.
            "" => Ok(None),
            number => number.parse().map(Some).map_err(|_| Error::new("read(fusectl, waiting)", Errno::EIO)),
        }
    }

    /// Returns its descriptors.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.abort.as_fd(), self.files.as_fd()]
    }
}

/// A connection's number: the minor device number of its superblock (fs/fuse/control.c).
///
/// The file system itself need not answer this query (statx(2), AT_STATX_DONT_SYNC).
fn connection(mount: BorrowedFd<'_>) -> Result<u32> {
    Ok(statx_cached(mount, 0)?.stx_dev_minor)
}

/// Attributes of an open file that the kernel has cached, without a request to its file system.
///
/// fstat(2) of a file on a FUSE file system waits for the process that serves it, in a sleep that no signal ends. The
/// kernel has read the attributes when the file was opened; these values are from then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedStat {
    /// Device, as major and minor number.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// Owner.
    pub uid: u32,
    /// Type and mode bits.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Time of the last change of the inode, in seconds and nanoseconds.
    pub changed: (i64, u32),
}

impl CachedStat {
    /// Reads the attributes of `file`.
    pub fn of(file: impl AsFd) -> Result<Self> {
        let found = statx_cached(file.as_fd(), libc::STATX_BASIC_STATS)?;
        Ok(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            uid: found.stx_uid,
            mode: found.stx_mode.into(),
            size: found.stx_size,
            changed: (found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
        })
    }
}

fn statx_cached(file: BorrowedFd<'_>, mask: u32) -> Result<libc::statx> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    statx(file.as_raw_fd(), c"", flags, mask, || format!("statx({}, AT_STATX_DONT_SYNC)", show(file)))
}
