//! Images that the kernel does not read itself: squashfuse_ll does, as the user, and the kernel asks it (fuse(4)).
//!
//! Root makes the mount and gives the other end of it to squashfuse_ll, which gets nothing else but the image. It is
//! nobody's child, and ends by itself when the last namespace with the mount does: reading its end then says ENODEV.
//! Nobody has to end it, whatever becomes of this process, of slurmstepd or of the tasks.
//!
//! Until the container is built, root looks into a filesystem that its user can stop at will, and waits there in a
//! way that no signal ends. So a second process watches the time, and breaks the connection.
//!
//! In a user namespace of the user's own, all of this is the user's: there the second process only kills squashfuse_ll
//! in time, which ends the connection unless the user himself wants it to hang.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle::config::{self, Config, Squashfuse};
use coracle::policy::Reader;
use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Channel, Child, FuseAbort, FuseDevice, Identity, Received};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag};
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Its name, in process lists and mount tables.
const NAME: &str = "squashfuse_ll";
/// Where it is looked for when coracle.yaml does not say: where packages put it, and where a site may.
const PLACES: [&str; 2] = ["/usr/bin/squashfuse_ll", "/usr/libexec/coracle/squashfuse_ll"];
/// How long a process that has closed its files may take to be a dead one, in tries of a millisecond.
const LAST_BREATH: u32 = 50;

/// The squashfuse_ll of this node.
#[derive(Debug)]
pub struct Program {
    path: CString,
    /// Whether the connection can be broken from here: the kernel shows the means to root alone (fusectl).
    breakable: bool,
    /// slurmstepd of the step that it is for.
    daemon: Option<u32>,
}

impl Program {
    /// Finds it, and makes sure that nobody but root can have written it. Who runs it with his own rights only would
    /// see no owners in his user namespace, and has nothing to lose.
    pub fn find(config: &Config, reader: Reader) -> Result<Self, Refusal> {
        let places: Vec<PathBuf> = match &config.squashfuse {
            Some(Squashfuse(path)) => vec![path.clone()],
            None => PLACES.iter().map(PathBuf::from).collect(),
        };
        for place in &places {
            if reader == Reader::Own {
                if place.is_file() {
                    return Self::at(place, reader);
                }
                continue;
            }
            match config::open_trusted(place) {
                Ok(_) => return Self::at(place, reader),
                Err(config::Error::Read(_, cause)) if cause.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let first = places.first().map(|place| place.display().to_string()).unwrap_or_default();
        let who = match reader {
            Reader::Own => "whoever is not root",
            Reader::Fuse | Reader::Kernel => "user_images: fuse",
        };
        Err(Refusal::new(Kind::System, first, format!("not found on this node, and {who} needs it"))
            .hint("install the package squashfuse, or say in coracle.yaml where it is: squashfuse: PATH"))
    }

    fn at(place: &Path, reader: Reader) -> Result<Self, Refusal> {
        let wrong = |_| Refusal::new(Kind::Config, place.display().to_string(), "a path with a NUL");
        let path = CString::new(place.as_os_str().as_bytes()).map_err(wrong)?;
        Ok(Self { path, breakable: reader != Reader::Own, daemon: None })
    }

    /// The same for a step whose slurmstepd that is, and is in the control groups of its job by the time of the mount.
    pub fn of_step(self, daemon: Option<u32>) -> Self {
        Self { daemon, ..self }
    }

    /// Starts it for the image that the user calls `name`, and answers the mount, which belongs to no namespace yet.
    ///
    /// When `deadline` comes before [`Watch::finish`], the mount is broken and the process killed.
    pub fn mount(
        &self,
        name: &str,
        image: &File,
        offset: u64,
        identity: &Identity,
        deadline: Instant,
    ) -> Result<(OwnedFd, Watch), Refusal> {
        let system = |error: sys::Error| {
            let refusal = Refusal::system(name, &error);
            match error.errno() {
                Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => {
                    refusal.hint("the kernel of this node has no FUSE: modprobe fuse")
                }
                Errno::EACCES => refusal.hint("the site's admin decides who may use /dev/fuse; usually everybody may"),
                _ => refusal,
            }
        };
        let device = FuseDevice::open().map_err(system)?;
        let tree = device.mount(identity, NAME).map_err(system)?;
        let held = tree.try_clone().map_err(|cause| system(sys::Error::from_io("dup(the image's mount)", &cause)))?;
        let mut abort = self.breakable.then(|| FuseAbort::of(&tree)).transpose().map_err(system)?;
        let (ours, theirs) = Channel::pair().map_err(system)?;
        let child = sys::fork(|| {
            let serve = || match self.serve(&device, image, offset, identity) {
                Ok(never) => match never {},
                Err(_) => 127,
            };
            // The mount itself must not stay open here, nor its other end but in the process that serves it.
            let kept: Vec<_> = [theirs.as_fd()].into_iter().chain(abort.as_ref().map(AsFd::as_fd)).collect();
            let server = sys::close_others(&[&kept[..], &[device.as_fd(), image.as_fd()]].concat())
                .and_then(|()| sys::fork(serve))
                .map(Child::release);
            match server.and_then(|pid| sys::close_others(&kept).map(|()| pid)) {
                Ok(pid) => watch(&theirs, abort.as_mut(), pid, deadline),
                Err(_) => GONE,
            }
        })
        .map_err(system)?;
        Ok((tree, Watch { child, channel: ours, _tree: held }))
    }

    /// Becomes squashfuse_ll. It has the user's rights and no more, an empty environment, and of our descriptors only
    /// the image and its end of the mount.
    fn serve(
        &self,
        device: &FuseDevice,
        image: &File,
        offset: u64,
        identity: &Identity,
    ) -> sys::Result<std::convert::Infallible> {
        let failed = |call: &str, errno| sys::Error::new(call.to_owned(), errno);
        sys::close_others(&[device.as_fd(), image.as_fd()])?;
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|cause| sys::Error::from_io("open(\"/dev/null\")", &cause))?;
        nix::unistd::dup2_stdin(&null)
            .and_then(|()| nix::unistd::dup2_stdout(&null))
            .and_then(|()| nix::unistd::dup2_stderr(&null))
            .map_err(|errno| failed("dup2(/dev/null)", errno))?;
        nix::unistd::setsid().map_err(|errno| failed("setsid()", errno))?;
        nix::unistd::chdir("/").map_err(|errno| failed("chdir(\"/\")", errno))?;
        // What the step is sent is for its tasks, which may still want to read the image while they end. libfuse
        // leaves the choice to ignore a signal alone.
        sys::ignore_signals()?;
        sys::limit(&[(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_FSIZE, 0)])?;
        // From its first moment as the user's process: he may trace it, and let it do whatever it can.
        if let Some(daemon) = self.daemon {
            sys::Cgroups::of(daemon)?.enter_job()?;
        }
        sys::drop_capabilities()?;
        sys::become_user(identity)?;
        sys::set_no_new_privileges()?;
        for fd in [device.as_fd(), image.as_fd()] {
            nix::fcntl::fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))
                .map_err(|errno| failed("fcntl(F_SETFD)", errno))?;
        }
        let text = |text: String| CString::new(text).map_err(|_| failed("execve()", Errno::EINVAL));
        let arguments = [
            text(NAME.to_owned())?,
            text("-f".to_owned())?,
            text(format!("-ooffset={offset}"))?,
            // The user's path may lead elsewhere by now; this is the file that was judged.
            text(format!("/proc/self/fd/{}", image.as_raw_fd()))?,
            // libfuse takes this for a mount that has been made (mount.fuse3(8)).
            text(format!("/dev/fd/{}", device.as_fd().as_raw_fd()))?,
        ];
        let nothing: [&CStr; 0] = [];
        nix::unistd::execve(&self.path, &arguments, &nothing)
            .map_err(|errno| failed(&format!("execve({:?})", self.path), errno))
    }
}

/// Guards the time in which root depends on the user's process.
#[derive(Debug)]
pub struct Watch {
    child: Child,
    channel: Channel,
    /// The mount, which must not end before it is known why its use did.
    _tree: OwnedFd,
}

/// Exit statuses of the process that watches: all was well as far as it knows, the deadline came, the server died.
const FINE: u8 = 0;
const LATE: u8 = 1;
const GONE: u8 = 2;

impl Watch {
    /// Ends the watch: `result` is what came of the work that needed the mount of the image `name`. If the mount was
    /// broken meanwhile, that is the reason of whatever went wrong, and nothing may run in it.
    pub fn finish<T>(self, name: &str, result: Result<T, Refusal>) -> Result<T, Refusal> {
        if result.is_err() {
            // That there is nobody to be asked is an answer, too.
            let _ = self.channel.send(b"?", &[], Instant::now() + Duration::from_secs(1));
        }
        drop(self.channel);
        let status = self.child.wait().map_err(|error| Refusal::system(name, &error))?;
        match (status, result) {
            (WaitStatus::Exited(_, code), result) if code == i32::from(FINE) => result,
            (WaitStatus::Exited(_, code), _) if code == i32::from(LATE) => {
                Err(Refusal::new(Kind::Timeout, name, format!("{NAME}, which reads it as you, did not answer in time")))
            }
            (WaitStatus::Exited(_, code), Err(_)) if code == i32::from(GONE) => {
                Err(Refusal::new(Kind::ImageFormat, name, format!("{NAME}, which reads it as you, has ended"))
                    .hint("is it damaged, or compressed in a way that this squashfuse_ll does not know? try: squashfuse_ll -f IMAGE FOLDER"))
            }
            _ => Err(Refusal::new(Kind::Internal, name, format!("the process that watches {NAME} has died"))),
        }
    }
}

/// Waits until the container is built, or its builder is no more; breaks the mount when that takes too long.
fn watch(channel: &Channel, abort: Option<&mut FuseAbort>, server: Pid, deadline: Instant) -> u8 {
    // Whoever kills everything called coracle must not kill what lets the builder die.
    let _ = nix::sys::prctl::set_name(c"coracle-watch");
    match channel.receive(deadline) {
        Ok(Received::Closed) => FINE,
        Ok(Received::Packet(_)) => {
            let gone = (0..LAST_BREATH).any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                !matches!(waitpid(server, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
            });
            if gone { GONE } else { FINE }
        }
        Err(_) => {
            // One that was stopped would not notice that it is over.
            let _ = nix::sys::signal::kill(server, Signal::SIGKILL);
            if let Some(abort) = abort {
                let _ = abort.abort();
            }
            LATE
        }
    }
}
