//! Mounts images that the kernel does not read itself: squashfuse_ll reads them as the user and serves the kernel
//! (fuse(4)).
//!
//! Root makes the mount and passes its FUSE device to squashfuse_ll, together with the image and nothing else.
//! squashfuse_ll ends by itself when the last namespace with the mount ends: reading the device then returns ENODEV. It
//! is a process of the user in the node's own namespace, so its program is a copy that the user may not read: the
//! kernel lets only root inspect or trace such a process (execve(2), PR_SET_DUMPABLE(2const)).
//!
//! A user can still stop it, and a process that waits for its answer then cannot even be killed. So its parent process,
//! which belongs to root, guards it: see `guard`.
//!
//! In the user's own user namespace, all of these processes are the user's. There, the guard only kills squashfuse_ll
//! while the container is built, which ends the connection unless the user makes it hang.
#![forbid(unsafe_code)]

mod guard;
mod program;

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::children::ask;
use crate::plan::Owners;
use coracle::report::{Kind, Refusal};
use coracle::request::step_name;
use coracle::sys::{self, Channel, Child, Forked, FuseControl, FuseDevice, Identity, Ids, Preamble};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag};
use nix::sys::resource::Resource;
use nix::sys::wait::WaitStatus;

use guard::{BuildEnd, Guard, Verdict};
use program::Executable;
pub use program::Program;

/// Name in process lists and mount tables.
const NAME: &str = "squashfuse_ll";
/// Time after the deadline for the guard to report the state of the mount.
const LAST_WORD: Duration = Duration::from_secs(5);

/// The slurmstepd of a step. It is in the control groups of its job by the time of the mount.
#[derive(Debug, Clone, Copy)]
pub struct Slurmstepd {
    /// Its process id.
    pub pid: u32,
    /// Id of the step in its job.
    pub step: u32,
}

impl Program {
    /// Starts it for the image that the user calls `name`, whose files are to show these owners. Returns the mount,
    /// which belongs to no namespace yet.
    ///
    /// If `deadline` comes before [`Watch::finish`], the mount is broken and the process killed.
    pub fn mount(
        &self,
        name: &str,
        image: &File,
        offset: u64,
        (identity, owners): (&Identity, Owners),
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
        let executable = self.executable().map_err(system)?;
        let made = match owners {
            Owners::RootIsUser => FuseDevice::open_as_root(NAME),
            _ => FuseDevice::open().and_then(|device| device.mount(identity, NAME).map(|tree| (device, tree))),
        };
        let (device, tree) = made.map_err(system)?;
        let shown = (owners == Owners::AllAreUsers).then_some(identity);
        let held = tree.try_clone().map_err(|cause| system(sys::Error::from_io("dup(the image's mount)", &cause)))?;
        let control = self.is_roots().then(|| FuseControl::of(&tree)).transpose().map_err(system)?;
        // One that has ended by now counts as gone.
        let daemon = self.daemon.and_then(|daemon| sys::process_handle(daemon.pid).ok());
        let (ours, theirs) = Channel::pair().map_err(system)?;
        let guard = |forked: &Forked| {
            let serve =
                |forked: &Forked| match self.serve(forked, &executable, &device, (image, offset), identity, shown) {
                    Ok(never) => match never {},
                    Err(_) => 127,
                };
            // The mount itself must not stay open here, and its FUSE device only in the process that serves it.
            let mut kept = vec![theirs.as_fd()];
            kept.extend(control.iter().flat_map(FuseControl::descriptors));
            kept.extend(daemon.as_ref().map(AsFd::as_fd));
            let its: Vec<BorrowedFd<'_>> = [device.as_fd(), image.as_fd()].into_iter().chain(executable.fd()).collect();
            let all = [&kept[..], &its].concat();
            let server = sys::close_others(forked, &all).and_then(|()| sys::fork_alone(serve));
            let Ok(server) = server else { return 1 };
            if sys::close_others(forked, &kept).is_err() || detach().is_err() {
                return 1;
            }
            Guard::new(server, control.as_ref(), daemon.as_ref(), self.daemon, identity.uid).stand(&theirs, deadline);
            0
        };
        // The guard is reparented to init: a process that executes another program must have no child that it does not
        // know, and slurmstepd never is the parent.
        let between = sys::fork(|| u8::from(sys::fork_alone(guard).map(Child::release).is_err())).map_err(system)?;
        match between.wait().map_err(system)? {
            WaitStatus::Exited(_, 0) => Ok((tree, Watch { channel: ours, deadline, _tree: held })),
            _ => Err(system(sys::Error::new("fork()", Errno::EAGAIN))),
        }
    }

    /// Becomes squashfuse_ll, which shows all files as those of the user `shown`. It has only the user's privileges, an
    /// empty environment, and of the launcher's descriptors only the image and the FUSE device.
    fn serve(
        &self,
        forked: &Forked,
        executable: &Executable<'_>,
        device: &FuseDevice,
        (image, offset): (&File, u64),
        identity: &Identity,
        shown: Option<&Identity>,
    ) -> sys::Result<std::convert::Infallible> {
        let failed = |call: &str, errno| sys::Error::new(call.to_owned(), errno);
        let its: Vec<BorrowedFd<'_>> = [device.as_fd(), image.as_fd()].into_iter().chain(executable.fd()).collect();
        detach()?;
        // Signals to the step are meant for its tasks, which may still read the image while they end. libfuse does not
        // change the disposition of an ignored signal.
        sys::ignore_signals()?;
        // Before it becomes a process of the user: the step is charged for it, and it ends with the step, even if it is
        // stopped.
        if let Some(daemon) = self.daemon {
            sys::Cgroups::of(daemon.pid)?.enter_step(&step_name(daemon.step))?;
        }
        let preamble = Preamble {
            kept: Some(&its),
            executes: true,
            ids: Ids::Of(identity),
            limits: &[(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_FSIZE, 0)],
            // The guard ends before it in the user's own user namespace; tasks still read the image then.
            outlives_parent: true,
            // A program of the site, whose system calls are not known.
            filter: None,
        };
        preamble.enter(forked)?;
        for fd in [device.as_fd(), image.as_fd()] {
            nix::fcntl::fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))
                .map_err(|errno| failed("fcntl(F_SETFD)", errno))?;
        }
        let text = |text: String| CString::new(text).map_err(|_| failed("execve()", Errno::EINVAL));
        let owner = shown.map(|user| format!(",uid={},gid={}", user.uid, user.gid)).unwrap_or_default();
        let arguments = [
            text(NAME.to_owned())?,
            text("-f".to_owned())?,
            text(format!("-ooffset={offset}{owner}"))?,
            // The user's path may lead elsewhere by now; this is the file that was checked.
            text(format!("/proc/self/fd/{}", image.as_raw_fd()))?,
            // libfuse takes this path for a mount that exists already (mount.fuse3(8)).
            text(format!("/dev/fd/{}", device.as_fd().as_raw_fd()))?,
        ];
        executable.exec(&arguments)
    }
}

/// Leaves the session and the working directory of the process that started this one, and its streams: a pipe ends when
/// the last process that holds it does.
fn detach() -> sys::Result<()> {
    let failed = |call: &str, errno| sys::Error::new(call.to_owned(), errno);
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|cause| sys::Error::from_io("open(\"/dev/null\")", &cause))?;
    nix::unistd::dup2_stdin(&null)
        .and_then(|()| nix::unistd::dup2_stdout(&null))
        .and_then(|()| nix::unistd::dup2_stderr(&null))
        .map_err(|errno| failed("dup2(/dev/null)", errno))?;
    nix::unistd::setsid().map_err(|errno| failed("setsid()", errno))?;
    nix::unistd::chdir("/").map_err(|errno| failed("chdir(\"/\")", errno))
}

/// Channel to the guard, for the time in which root depends on the user's process.
#[derive(Debug)]
pub struct Watch {
    channel: Channel,
    /// Time at which the guard breaks the mount of a container that is not built.
    deadline: Instant,
    /// The mount, which must exist until the reason of an error in its use is known.
    _tree: OwnedFd,
}

impl Watch {
    /// Ends the watch. `result` is the result of the work on the mount of the image `name`. If the mount was broken
    /// meanwhile, that is the reason of any error, and nothing may run in it.
    pub fn finish<T>(self, name: &str, result: Result<T, Refusal>) -> Result<T, Refusal> {
        let end = if result.is_ok() { BuildEnd::Built } else { BuildEnd::Failed };
        // A guard that has already sent its verdict does not receive.
        let _ = ask::send(&self.channel, &end, &[], self.deadline + LAST_WORD);
        let verdict = ask::decode(self.channel.receive(self.deadline + LAST_WORD)).map(|reply| reply.found).ok();
        match (verdict, result) {
            (Some(Verdict::Fine), result) => result,
            (Some(Verdict::Late), _) => {
                Err(Refusal::new(Kind::Timeout, name, format!("{NAME}, which reads it as you, did not answer in time")))
            }
            (Some(Verdict::Gone), _) => {
                Err(Refusal::new(Kind::ImageFormat, name, format!("{NAME}, which reads it as you, has ended"))
                    .hint("is it damaged, or compressed in a way that this squashfuse_ll does not know? try: squashfuse_ll -f IMAGE DIRECTORY"))
            }
            (None, _) => Err(Refusal::new(Kind::Internal, name, format!("the process that guards {NAME} has died"))),
        }
    }
}
