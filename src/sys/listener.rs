//! Listens on a socket of a service, and accepts its callers (unix(7)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt, listen, socket, sockopt,
};

use super::socket::wait;
use super::{Channel, Error, Result};

/// A listening socket that keeps message boundaries.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

fn packet_socket() -> Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| Error::new("socket(AF_UNIX, SOCK_SEQPACKET)", errno))
}

fn address(path: &Path) -> Result<UnixAddr> {
    UnixAddr::new(path).map_err(|errno| Error::new(format!("sockaddr_un({path:?})"), errno))
}

impl Listener {
    /// Listens at `path`, which must not exist.
    pub fn bind(path: &Path) -> Result<Self> {
        let fd = packet_socket()?;
        bind(fd.as_raw_fd(), &address(path)?).map_err(|errno| Error::new(format!("bind({path:?})"), errno))?;
        listen(&fd, Backlog::MAXCONN).map_err(|errno| Error::new(format!("listen({path:?})"), errno))?;
        Ok(Self { fd })
    }

    /// Returns the socket that systemd listens on for this process (sd_listen_fds(3)), if it passed one.
    pub fn passed() -> Result<Option<Self>> {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
        if number("LISTEN_PID") != Some(std::process::id()) || number("LISTEN_FDS") != Some(1) {
            return Ok(None);
        }
        let fd = Channel::of_parent()?.into_fd();
        let kind = getsockopt(&fd, sockopt::SockType).map_err(|errno| Error::new("getsockopt(SO_TYPE)", errno))?;
        let listens =
            getsockopt(&fd, sockopt::AcceptConn).map_err(|errno| Error::new("getsockopt(SO_ACCEPTCONN)", errno))?;
        if kind != SockType::SeqPacket || !listens {
            return Err(Error::new("the passed socket is no listening SOCK_SEQPACKET", Errno::EINVAL));
        }
        Ok(Some(Self { fd }))
    }

    /// Waits until `deadline` for a caller. ETIMEDOUT if none called.
    pub fn accept(&self, deadline: Instant) -> Result<Channel> {
        loop {
            wait(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], deadline)?;
            match accept4(self.fd.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                // SAFETY: the kernel made this descriptor for this call, and nothing else owns it.
                Ok(fd) => return Ok(Channel::from_fd(unsafe { OwnedFd::from_raw_fd(fd) })),
                // The caller has gone, or another process with the same socket has accepted it.
                Err(Errno::EINTR | Errno::EAGAIN | Errno::ECONNABORTED) => {}
                Err(errno) => return Err(Error::new("accept4()", errno)),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Channel {
    /// Connects to the service that listens at `path`.
    pub fn connect(path: &Path) -> Result<Self> {
        let fd = packet_socket()?;
        connect(fd.as_raw_fd(), &address(path)?).map_err(|errno| Error::new(format!("connect({path:?})"), errno))?;
        Ok(Self::from_fd(fd))
    }

    /// Returns the user and group id of the process on the other side at the time of its call (SO_PEERCRED, unix(7)).
    pub fn peer(&self) -> Result<(u32, u32)> {
        let credentials = getsockopt(self, sockopt::PeerCredentials);
        let credentials = credentials.map_err(|errno| Error::new("getsockopt(SO_PEERCRED)", errno))?;
        Ok((credentials.uid(), credentials.gid()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Received;
    use std::time::Duration;

    #[test]
    fn who_calls_is_known_and_can_be_answered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let listener = Listener::bind(&path).unwrap();
        let past = Instant::now();
        assert_eq!(listener.accept(past).unwrap_err().errno(), Errno::ETIMEDOUT);
        let soon = Instant::now() + Duration::from_secs(10);
        let caller = Channel::connect(&path).unwrap();
        let called = listener.accept(soon).unwrap();
        let us = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        assert_eq!(called.peer().unwrap(), us);
        called.send(b"word", &[], soon).unwrap();
        let Received::Packet(packet) = caller.receive(soon).unwrap() else { panic!("closed") };
        assert_eq!(packet.data, b"word");
        assert_eq!(Listener::bind(&path).unwrap_err().errno(), Errno::EADDRINUSE);
    }

    #[test]
    fn nobody_there_is_an_error_that_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let error = Channel::connect(&directory.path().join("none")).unwrap_err();
        assert_eq!(error.errno(), Errno::ENOENT);
    }
}
