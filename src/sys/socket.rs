//! Sends messages and descriptors over sockets (unix(7), SOCK_SEQPACKET and SCM_RIGHTS).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials,
    recvmsg, sendmsg, setsockopt, socketpair, sockopt,
};

use super::buffer::Buffer;
use super::{Error, Result};

/// The longest packet, in bytes: a request of 32 KiB and 10,000 group ids fit.
const PACKET: usize = 160 * 1024;
/// The most descriptors in one packet.
const DESCRIPTORS: usize = 4;

/// One end of a socket pair that keeps message boundaries.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
    /// Memory for the next message, while no thread receives one.
    buffer: Mutex<Option<Buffer<PACKET>>>,
}

/// Contents of one message.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes, never empty.
    pub data: Vec<u8>,
    /// Its descriptors, close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// Process that sent the message, as this process' PID namespace numbers it; see [`Channel::name_senders`].
    pub sender: Option<u32>,
}

/// Outcome of waiting for a message.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Packet(Packet),
    /// The other side has closed its last descriptor.
    Closed,
}

impl Channel {
    /// Makes a connected pair, both close-on-exec.
    pub fn pair() -> Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| Error::new("socketpair(AF_UNIX, SOCK_SEQPACKET)", errno))?;
        Ok((Self::from_fd(one), Self::from_fd(other)))
    }

    /// Takes over the descriptor that the parent process has left at [`super::CHANNEL`], and makes it close-on-exec.
    /// systemd leaves one at the same number (sd_listen_fds(3)).
    ///
    /// Only once (EBUSY), and before this process opens any file: a later descriptor with that number may have an
    /// owner.
    pub fn of_parent() -> Result<Self> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Err(Error::new(format!("taking descriptor {} twice", super::CHANNEL), Errno::EBUSY));
        }
        // SAFETY: nothing else takes this number, and this is the first time.
        unsafe { Self::inherit(super::CHANNEL) }
    }

    /// Takes over an inherited descriptor, and makes it close-on-exec.
    ///
    /// # Safety
    ///
    /// Nothing else in this process owns the descriptor, or opens one meanwhile.
    pub(super) unsafe fn inherit(fd: RawFd) -> Result<Self> {
        let call = || format!("fcntl({fd}, F_SETFD, FD_CLOEXEC)");
        // SAFETY: nothing else owns it, by the contract of this function; one that is not open is refused by the kernel
        // on the next line, and forgotten.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let closed = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC));
        if let Err(errno) = closed {
            std::mem::forget(fd);
            return Err(Error::new(call(), errno));
        }
        Ok(Self::from_fd(fd))
    }

    /// Lets the kernel name the sender of each message that arrives at this end from now on (SO_PASSCRED, unix(7)).
    ///
    /// The option is the socket's: it holds for every process that inherits this end. An earlier message has no sender.
    pub fn name_senders(&self) -> Result<()> {
        setsockopt(&self.fd, sockopt::PassCred, &true).map_err(|errno| Error::new("setsockopt(SO_PASSCRED)", errno))
    }

    /// Takes the socket that the parent process has left at standard input.
    pub fn of_standard_input() -> Result<Self> {
        let fd = std::io::stdin().as_fd().try_clone_to_owned();
        fd.map(Self::from_fd).map_err(|cause| Error::from_io("fcntl(0, F_DUPFD_CLOEXEC)", &cause))
    }

    /// Converts the socket to a standard stream of a child process.
    pub fn into_stdio(self) -> std::process::Stdio {
        self.fd.into()
    }

    pub(super) fn from_fd(fd: OwnedFd) -> Self {
        Self { fd, buffer: Mutex::default() }
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Sends one message, waiting until `deadline` for space. EPIPE if the other side is gone; never a SIGPIPE.
    pub fn send(&self, data: &[u8], fds: &[BorrowedFd<'_>], deadline: Instant) -> Result<()> {
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        let slice = [IoSlice::new(data)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            match sendmsg::<UnixAddr>(self.fd.as_raw_fd(), &slice, control, flags, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => wait(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLOUT)], deadline)?,
                Err(errno) => {
                    return Err(Error::new(format!("sendmsg({} bytes, {} fds)", data.len(), raw.len()), errno));
                }
            }
        }
    }

    /// Waits until `deadline` for one message. ETIMEDOUT if none came.
    ///
    /// All tasks of a node share one end. poll(2) wakes them all for each message, and one of them gets it. So no task
    /// may wait in recvmsg itself.
    pub fn receive(&self, deadline: Instant) -> Result<Received> {
        let kept = self.buffer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut buffer = kept.map_or_else(Buffer::new, Ok)?;
        let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS], UnixCredentials);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let (length, flags, fds, sender) = loop {
            wait(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], deadline)?;
            let mut slice = [IoSliceMut::new(buffer.bytes())];
            match recvmsg::<UnixAddr>(self.fd.as_raw_fd(), &mut slice, Some(&mut control), flags) {
                Ok(message) => {
                    let (mut fds, mut sender) = (Vec::new(), None);
                    for item in message.cmsgs().map_err(|errno| Error::new("recvmsg() control", errno))? {
                        match item {
                            ControlMessageOwned::ScmRights(raw) => {
                                // SAFETY: the kernel made these for this message, and nothing else owns them.
                                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                            }
                            // 0 is a process of another namespace, or a message from before the option was set.
                            ControlMessageOwned::ScmCredentials(of) => {
                                sender = u32::try_from(of.pid()).ok().filter(|pid| *pid > 0);
                            }
                            _ => {}
                        }
                    }
                    break (message.bytes, message.flags, fds, sender);
                }
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                // A peer that closes with unread messages resets the connection (unix(7)).
                Err(Errno::ECONNRESET) => return Ok(Received::Closed),
                Err(errno) => return Err(Error::new("recvmsg()", errno)),
            }
        };
        if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(Error::new("recvmsg()", Errno::EMSGSIZE));
        }
        if length == 0 {
            return Ok(Received::Closed);
        }
        let data = buffer.bytes().get(..length).unwrap_or_default().to_vec();
        *self.buffer.lock().unwrap_or_else(PoisonError::into_inner) = Some(buffer);
        Ok(Received::Packet(Packet { data, fds, sender }))
    }

    /// Like [`Self::receive`], while a process holds the other end of `line`; ECANCELED when none does.
    pub fn receive_for(&self, line: &Self, deadline: Instant) -> Result<Received> {
        let mut poll =
            [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN), PollFd::new(line.fd.as_fd(), PollFlags::empty())];
        wait(&mut poll, deadline)?;
        match poll[0].any() {
            Some(true) => self.receive(deadline),
            _ => Err(Error::new("poll()", Errno::ECANCELED)),
        }
    }
}

pub(super) fn wait(poll: &mut [PollFd<'_>], deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // One millisecond more than what is left, so that poll does not return early and spin.
        let timeout = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(poll, timeout) {
            Ok(0) if Instant::now() >= deadline => return Err(Error::new("poll()", Errno::ETIMEDOUT)),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Error::new("poll()", errno)),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_message_keeps_its_bytes_and_its_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        one.send(b"hello", &[file.as_fd()], soon()).unwrap();
        let Received::Packet(packet) = other.receive(soon()).unwrap() else { panic!("closed") };
        assert_eq!((packet.data.as_slice(), packet.fds.len()), (&b"hello"[..], 1));
        let (sent, came) = (nix::sys::stat::fstat(&file).unwrap(), nix::sys::stat::fstat(&packet.fds[0]).unwrap());
        assert_eq!((sent.st_dev, sent.st_ino), (came.st_dev, came.st_ino));
    }

    #[test]
    fn who_has_sent_a_message_is_told_from_when_it_is_asked() {
        let (one, other) = Channel::pair().unwrap();
        let sender = || match other.receive(soon()).unwrap() {
            Received::Packet(packet) => packet.sender,
            Received::Closed => panic!("closed"),
        };
        one.send(b"before", &[], soon()).unwrap();
        other.name_senders().unwrap();
        let file = tempfile::tempfile().unwrap();
        one.send(b"behind", &[file.as_fd(); DESCRIPTORS], soon()).unwrap();
        assert_eq!((sender(), sender()), (None, Some(std::process::id())));
        // The message has its sender, not the process that made the pair.
        let mut child = std::process::Command::new("sh");
        child.args(["-c", "printf child >&0"]);
        let mut child = child.stdin(one.into_fd()).spawn().unwrap();
        assert_eq!(sender(), Some(child.id()));
        child.wait().unwrap();
    }

    #[test]
    fn waiting_for_somebody_ends_when_he_is_gone() {
        let (one, other) = Channel::pair().unwrap();
        let (line, caller) = Channel::pair().unwrap();
        caller.send(b"unread", &[], soon()).unwrap();
        one.send(b"hello", &[], soon()).unwrap();
        assert!(matches!(other.receive_for(&line, soon()).unwrap(), Received::Packet(_)));
        let past = Instant::now();
        assert_eq!(other.receive_for(&line, past).unwrap_err().errno(), Errno::ETIMEDOUT);
        drop(caller);
        assert_eq!(other.receive_for(&line, soon()).unwrap_err().errno(), Errno::ECANCELED);
    }

    #[test]
    fn two_readers_of_one_message_and_a_full_socket_keep_their_deadlines() {
        let (one, other) = Channel::pair().unwrap();
        one.send(b"x", &[], soon()).unwrap();
        let brief = || Instant::now() + Duration::from_millis(50);
        let ends = std::thread::scope(|scope| {
            let readers = [scope.spawn(|| other.receive(brief())), scope.spawn(|| other.receive(brief()))];
            readers.map(|reader| reader.join().unwrap().map_err(|error| error.errno()))
        });
        assert_eq!(ends.iter().filter(|end| matches!(end, Err(Errno::ETIMEDOUT))).count(), 1, "{ends:?}");
        let full = (0..100_000).find_map(|_| one.send(&[0; 1000], &[], brief()).err());
        assert_eq!(full.map(|error| error.errno()), Some(Errno::ETIMEDOUT));
    }

    #[test]
    fn a_closed_peer_is_told_apart_from_a_silent_one() {
        let (one, other) = Channel::pair().unwrap();
        let silent = other.receive(Instant::now()).unwrap_err();
        assert_eq!(silent.errno(), Errno::ETIMEDOUT);
        drop(one);
        assert!(matches!(other.receive(soon()), Ok(Received::Closed)));
        assert_eq!(other.send(b"x", &[], soon()).unwrap_err().errno(), Errno::EPIPE);
    }
}
