//! Opens the sources of a plan on the node: as the user, except for device nodes and files of a driver.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::devices::{PTS, STORES, Sources as Trusted, What};
use crate::plan::Shape;
use crate::view::{MountRequest, Origin, Source, TIME_ZONE};
use coracle::report::{Kind, Refusal};
use coracle::sys;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;

use crate::children::opener::{OpenedSource, Opener};
use crate::container::context::Authority;

/// Shape of a source, and its open descriptor; no descriptor for a source that is made.
pub type Opened = (Shape, Option<OwnedFd>);

/// Source of a request.
pub enum Way {
    /// The user has opened it.
    AsUser(OpenedSource),
    /// Root opens it, or it is made.
    AsRoot,
}

/// Opens the sources of all requests that are opened as the user, for one question to the opener.
pub fn open_all(opener: &Opener, requests: &[MountRequest], authority: Authority) -> Result<Vec<Way>, Refusal> {
    let paths: Vec<&Path> = requests.iter().filter_map(|request| as_user(request, authority)).collect();
    let mut opened = opener.open_sources(&paths)?.into_iter();
    let way = |request| match as_user(request, authority) {
        Some(path) => {
            let unknown = || Refusal::new(Kind::Internal, path.display().to_string(), "was not opened");
            opened.next().ok_or_else(unknown).map(Way::AsUser)
        }
        None => Ok(Way::AsRoot),
    };
    requests.iter().map(way).collect()
}

/// Path of a source that is opened as the user; nothing for others.
fn as_user(request: &MountRequest, authority: Authority) -> Option<&Path> {
    match &request.source {
        Source::Node(_) if request.origin == Origin::Device => None,
        // In their user namespace, unprivileged users see no owners.
        Source::Node(_) if request.origin == Origin::Driver && authority == Authority::Root => None,
        Source::Node(path) => Some(path),
        Source::TimeZone => Some(Path::new(TIME_ZONE)),
        _ => None,
    }
}

impl Way {
    /// Source of `request`; nothing for an optional source that the node lacks.
    pub fn take(self, request: &MountRequest) -> Result<Option<Opened>, Refusal> {
        match (self, &request.source) {
            // A directory is no time zone.
            (Self::AsUser(Ok((_, Shape::Directory))), Source::TimeZone) => Ok(None),
            (Self::AsUser(Ok((fd, shape))), _) => Ok(Some((shape, Some(fd)))),
            // /etc/hosts, a home that this node does not mount, a site's /scratch: the job may run without it.
            (Self::AsUser(Err(_)), _) if request.presence.optional() => Ok(None),
            (Self::AsUser(Err(errno)), Source::Node(path)) => Err(missing(request, path, errno)),
            (Self::AsUser(Err(errno)), _) => Err(missing(request, Path::new(TIME_ZONE), errno)),
            (Self::AsRoot, Source::Node(path)) if request.origin == Origin::Device => Ok(open_device(path)),
            (Self::AsRoot, Source::Node(path)) => open_trusted(path, request),
            (Self::AsRoot, Source::Passwd | Source::Group) => Ok(Some((Shape::File, None))),
            (Self::AsRoot, _) => Ok(Some((Shape::Directory, None))),
        }
    }
}

/// Opens a directory that is attached to an existing container.
pub fn open_late(opener: &Opener, path: &Path) -> Result<OwnedFd, Refusal> {
    let refuse = |cause: String| Refusal::new(Kind::System, path.display().to_string(), cause);
    match opener.open_source(path)? {
        Ok((fd, Shape::Directory)) => Ok(fd),
        Ok((_, Shape::File)) => Err(refuse("not a directory".into())),
        Err(errno) => Err(refuse(unusable(errno))),
    }
}

/// Opens a file of a driver, if only root can have written it. Root has also written the list of these files. The
/// user's permissions are not checked here: the files' modes apply when the user opens them.
fn open_trusted(path: &Path, request: &MountRequest) -> Result<Option<Opened>, Refusal> {
    let trusted = Trusted::node().map_err(|error| Refusal::system("/", &error))?;
    match trusted.place(path) {
        Ok((_, What::Directory, place)) => Ok(Some((Shape::Directory, Some(place)))),
        Ok((_, _, place)) => Ok(Some((Shape::File, Some(place)))),
        Err(_) if request.presence.optional() => Ok(None),
        Err(unfit) => Err(Refusal::new(Kind::System, path.display().to_string(), unfit.to_string())),
    }
}

/// Opens a device node, or a directory of /dev; nothing if the node does not have it. Its owner and mode limit the
/// user's access to it, not its visibility.
fn open_device(path: &Path) -> Option<Opened> {
    // Some nodes have a link to the directory of their shared memory.
    let usual = [PTS].iter().chain(STORES).any(|directory| path == Path::new(directory));
    let flags = if usual { OFlag::O_DIRECTORY } else { OFlag::O_NOFOLLOW };
    let found = sys::open_untrusted(path, OFlag::O_PATH | flags).ok()?;
    let kind = SFlag::from_bits_truncate(nix::sys::stat::fstat(&found).ok()?.st_mode) & SFlag::S_IFMT;
    let shape = match kind {
        SFlag::S_IFDIR => Shape::Directory,
        SFlag::S_IFCHR | SFlag::S_IFBLK => Shape::File,
        _ => return None,
    };
    Some((shape, Some(found)))
}

/// Opens the directory that an overlay writes into.
pub fn open_upper(opener: &Opener, path: &Path) -> Result<OwnedFd, Refusal> {
    let refuse = |cause: String| Refusal::new(Kind::Bind, path.display().to_string(), cause);
    match opener.open_source(path)? {
        Ok((fd, Shape::Directory)) => Ok(fd),
        Ok((_, Shape::File)) => Err(refuse("not a directory, so nothing can be kept in it".into())),
        Err(errno @ Errno::ENOENT) => Err(refuse(unusable(errno)).hint("make it before: mkdir, on a disk of the node")),
        Err(errno) => Err(refuse(unusable(errno))),
    }
}

fn unusable(errno: Errno) -> String {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => "does not exist on this node".to_owned(),
        Errno::EACCES => "you may not use it on this node: permission denied".to_owned(),
        other => format!("cannot be opened on this node: {}", other.desc()),
    }
}

fn missing(request: &MountRequest, path: &Path, errno: Errno) -> Refusal {
    let cause = unusable(errno);
    let path = path.display().to_string();
    match request.origin {
        Origin::Workdir => {
            Refusal::new(Kind::Workdir, path, cause).hint("start the job in another directory, or give --chdir")
        }
        Origin::Site(index) => Refusal::new(Kind::Bind, path, format!("{cause} (binds[{index}] of coracle.yaml)")),
        Origin::User => Refusal::new(Kind::Bind, path, cause),
        _ => Refusal::new(Kind::System, path, cause),
    }
}
