//! Executes a plan: one function for each of its steps, in their order.
//!
//! Rules of the kernel determine the order. A mount can only be cloned in its own namespace, so all sources are cloned
//! first, detached. Before Linux 6.15, a detached mount can only be attached to one that is attached itself, so the
//! image is attached in the new namespace first, and all other mounts to it. After that, root looks up nothing by name:
//! every target is a descriptor.
#![forbid(unsafe_code)]

pub mod accounts;
mod disk;
pub mod fuse;
pub mod fuse_owner;
mod kept;
pub mod kernel;
mod root;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::plan::{Mount, Plan};
use crate::view::{Origin, Source, TIME_ZONE};
use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Identity, Lookup, MountNamespace, MountPropagation};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag};

use crate::children::opener::{Account, Opener};

pub use disk::{Disk, Mounted, Rights, step_owners};
pub use root::SOURCE;

/// Refuses an image for which a system call failed. It is damaged only if the error number says so. All other errors
/// concern this process or the node (descriptors, memory, a missing driver), whatever the image contains.
pub fn damaged(name: &str, error: &sys::Error) -> Refusal {
    match error.errno() {
        // Only a directory has permissions of its own.
        Errno::EACCES | Errno::EPERM => {
            return Refusal::new(Kind::ImageUnreadable, name, format!("a part of it is not for you: {error}"));
        }
        // EUCLEAN is also EFSCORRUPTED (linux/errno.h); squashfs returns EINVAL and EIO for nearly every error.
        Errno::EINVAL | Errno::EIO | Errno::EUCLEAN | Errno::EBADMSG | Errno::EOVERFLOW | Errno::ERANGE => {}
        // A tree that contradicts its own directories.
        Errno::ELOOP | Errno::ENOTDIR | Errno::EISDIR | Errno::ENOENT | Errno::ENAMETOOLONG | Errno::ESTALE => {}
        _ => return Refusal::system(name, error),
    }
    Refusal::new(Kind::ImageFormat, name, format!("the kernel cannot read it: {error}"))
        .hint("it is damaged, or compressed in a way that this node's kernel does not know")
}

/// Refuses an image in which the lookup of `target` failed; see [`damaged`].
pub fn unusable(name: &str, image: BorrowedFd<'_>, target: &Path, error: &sys::Error) -> Refusal {
    if error.errno() != Errno::EACCES {
        return damaged(name, error);
    }
    let refuse = |cause: String| Refusal::new(Kind::ImageUnreadable, name, cause);
    match nix::sys::stat::fstat(image).map(|top| Mode::from_bits_truncate(top.st_mode)) {
        Ok(mode) if !mode.contains(Mode::S_IXOTH) => {
            refuse(format!("its top directory has mode {:04o} and is not yours: permission denied", mode.bits()))
                .hint("its owner can make it again from a tree after chmod 755 of the tree's top")
        }
        _ => refuse(format!("a directory above {} in it is closed to you: permission denied", target.display())),
    }
}

/// Refuses a bind for which a system call failed, unless this process or the node lacks a resource.
fn unbound(shown: &str, error: &sys::Error) -> Refusal {
    match error.errno() {
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOSYS => Refusal::system(shown, error),
        _ => Refusal::new(Kind::Bind, shown, error.to_string()),
    }
}

/// Open sources of a plan.
#[derive(Debug, Default)]
pub struct Sources {
    /// Source of each [`crate::plan::ResolvedMount`]; nothing for a file system that is made here.
    pub mounts: Vec<Option<OwnedFd>>,
    /// Directory that the overlay writes into.
    pub upper: Option<OwnedFd>,
}

/// Mounts that were attached to a container's root, each with its mount point, in this order.
#[derive(Debug, Default)]
pub struct Attached(Vec<(PathBuf, OwnedFd)>);

impl Attached {
    /// Mount that contains `place`, and the path in it; nothing if that is the image. Of two mounts at the same mount
    /// point, the later one counts.
    pub fn above<'a>(&self, place: &'a Path) -> Option<(BorrowedFd<'_>, &'a Path)> {
        self.0.iter().rev().find_map(|(top, tree)| Some((tree.as_fd(), place.strip_prefix(top).ok()?)))
    }
}

/// Builds the container's namespace and returns to the caller's own.
///
/// `name` is the image as the user typed it, `image` a detached mount of the plan's image, and `sources` the files that
/// were opened for the plan.
pub fn build(
    name: &str,
    plan: &Plan,
    image: OwnedFd,
    sources: &Sources,
    account: &Account,
    identity: &Identity,
    opener: &Opener,
) -> Result<(MountNamespace, Attached), Refusal> {
    let system = |error: sys::Error| Refusal::system("building the container", &error);
    let rights = Rights::of(&plan.image, identity);
    let files = Files::of(name, plan, image.as_fd(), account, rights)?;
    let trees = plan.mounts.iter().map(|mount| copy(mount, &sources.mounts)).collect::<Result<Vec<_>, _>>()?;

    let copies = copies(plan, &sources.mounts, identity);
    let upper =
        sources.upper.as_ref().map(|directory| sys::clone_tree(directory, false)).transpose().map_err(system)?;

    let home = MountNamespace::current().map_err(system)?;
    sys::unshare_mount_namespace().map_err(system)?;
    let mut attached = Attached::default();
    let built = (|| {
        let namespace = MountNamespace::current().map_err(system)?;
        sys::make_private().map_err(system)?;
        let stage = root::Stage::attach().map_err(system)?;
        let root = stage.root(name, plan, image, upper.as_ref(), &copies, identity)?;
        for (mount, tree) in plan.mounts.iter().zip(trees) {
            let tree = match (&mount.source, tree) {
                (_, Some(tree)) => tree,
                (Source::Late(_), None) => continue,
                (Source::Group, None) => stage.file("group", &files.group, mount.attributes).map_err(system)?,
                (Source::Made(entries), None) if mount.origin == Origin::Kernel => {
                    root::devices(entries, mount.attributes).map_err(system)?
                }
                (Source::Made(entries), None) => {
                    stage.directory(name_of(&mount.place), entries, mount.attributes).map_err(system)?
                }
                (Source::Memory(size), None) => {
                    root::memory(size.0, mount.attributes, Some(identity)).map_err(system)?
                }
                (_, None) => stage.file("passwd", &files.passwd, mount.attributes).map_err(system)?,
            };
            attach(root.as_fd(), mount, &tree, rights, &attached, opener)?;
            attached.0.push((mount.place.clone(), tree));
        }
        root::enter(root.as_fd(), &namespace)?;
        Ok(namespace)
    })();
    // The root of this process is the image now; nothing may be looked up before it is the node's again.
    sys::enter_mount_namespace(&home).map_err(system)?;
    built.map(|namespace| (namespace, attached))
}

/// Attaches to a container the late mounts of its plan, whose sources may not exist earlier; `open` opens them as the
/// user. No task is in the container yet.
pub fn complete(
    namespace: &MountNamespace,
    plan: &Plan,
    attached: &Attached,
    identity: &Identity,
    opener: &Opener,
    open: impl Fn(&Path) -> Result<OwnedFd, Refusal>,
) -> Result<(), Refusal> {
    let system = |error: sys::Error| Refusal::system("completing the container", &error);
    let late = plan.mounts.iter().filter_map(|mount| match &mount.source {
        Source::Late(path) => Some((mount, path)),
        _ => None,
    });
    let mut trees = Vec::new();
    for (mount, path) in late {
        trees.push((mount, detached(&open(path)?, path, mount)?));
    }
    if trees.is_empty() {
        return Ok(());
    }
    let home = MountNamespace::current().map_err(system)?;
    sys::enter_mount_namespace(namespace).map_err(system)?;
    let completed = (|| {
        // The root of this process is the container's now (mount_namespaces(7), setns(2)).
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let root = sys::open_untrusted(Path::new("/"), flags).map_err(system)?;
        let rights = Rights::of(&plan.image, identity);
        trees.iter().try_for_each(|(mount, tree)| attach(root.as_fd(), mount, tree, rights, attached, opener))
    })();
    sys::enter_mount_namespace(&home).map_err(system)?;
    completed
}

/// Name for a directory that is made.
fn name_of(place: &Path) -> &str {
    place.file_name().and_then(|name| name.to_str()).unwrap_or("made")
}

/// Detached clone of a mount's source; nothing for generated files.
fn copy(mount: &Mount, sources: &[Option<OwnedFd>]) -> Result<Option<OwnedFd>, Refusal> {
    let path = match &mount.source {
        Source::Node(path) => path,
        Source::TimeZone => Path::new(TIME_ZONE),
        _ => return Ok(None),
    };
    let source = sources.get(mount.index).and_then(Option::as_ref);
    let source =
        source.ok_or_else(|| Refusal::new(Kind::Internal, path.display().to_string(), "planned but not opened"))?;
    detached(source, path, mount).map(Some)
}

/// Detached clone of `source`, the node's `path`.
fn detached(source: &OwnedFd, path: &Path, mount: &Mount) -> Result<OwnedFd, Refusal> {
    let failed = |error: sys::Error| unbound(&path.display().to_string(), &error);
    let tree = sys::clone_tree(source, true).map_err(failed)?;
    sys::set_attributes(&tree, mount.attributes, MountPropagation::Slave).map_err(failed)?;
    Ok(tree)
}

/// Limit on the length of a file that is copied, in bytes: time zone files have about 4,000.
const MAX_COPY: usize = 64 << 10;

/// The plan's copies with their content, read with the user's credentials. An unreadable file is omitted, like one that
/// the node lacks.
fn copies(plan: &Plan, sources: &[Option<OwnedFd>], identity: &Identity) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |index: usize| {
        let source = sources.get(index)?.as_ref()?;
        let kind = nix::sys::stat::fstat(source).ok()?.st_mode;
        if SFlag::from_bits_truncate(kind) & SFlag::S_IFMT != SFlag::S_IFREG {
            return None;
        }
        let file = sys::with_fs_identity(identity, || sys::open_again(source, OFlag::O_RDONLY)).ok()?.ok()?;
        sys::read_whole(&file, MAX_COPY).ok()
    };
    plan.copies.iter().filter_map(|(place, index)| Some((place.clone(), read(*index)?))).collect()
}

/// Mounts `tree` at its mount point.
fn attach(
    root: BorrowedFd<'_>,
    mount: &Mount,
    tree: &OwnedFd,
    rights: Rights<'_>,
    attached: &Attached,
    opener: &Opener,
) -> Result<(), Refusal> {
    let shown = mount.place.display().to_string();
    let failed = |error: sys::Error| unbound(&shown, &error);
    // A mount covers a link like a file, if the link itself is opened.
    let lookup = if mount.source == Source::TimeZone { Lookup::LastIsALink } else { Lookup::NoLinks };
    let target = match attached.above(&mount.place).filter(|_| mount.nested) {
        Some((above, below)) => nested(above, below, opener, &shown)?,
        None => rights.during(|| sys::open_in_root(root, &mount.place, OFlag::O_PATH, lookup)).map_err(failed)?,
    };
    sys::move_mount(tree, &target).map_err(|error| match error.errno() {
        // The kernel's error for a directory on a file or the reverse.
        Errno::ENOTDIR | Errno::EINVAL if mount.nested => Refusal::new(
            Kind::Bind,
            shown.clone(),
            format!("a directory cannot be bound over a file, nor a file over a directory: {error}"),
        ),
        _ => failed(error),
    })
}

/// Opens a target in a tree of the node that is mounted already. The user may have changed the tree since, and a
/// process of theirs may serve its file system and not answer. So the user's child process opens it, which can be
/// abandoned; it holds nothing of the image meanwhile.
fn nested(above: BorrowedFd<'_>, below: &Path, opener: &Opener, shown: &str) -> Result<OwnedFd, Refusal> {
    if below.as_os_str().is_empty() {
        let copy = above.try_clone_to_owned();
        return copy.map_err(|cause| Refusal::system(shown, &sys::Error::from_io("dup()", &cause)));
    }
    opener.open_beneath_as(above, below, shown)?.map_err(|errno| {
        let cause = match errno {
            Errno::ENOENT => "does not exist in the directory of the node that is bound above it".to_owned(),
            Errno::ELOOP => "leads through a symbolic link in a directory of the node".to_owned(),
            errno => format!("cannot be opened in the directory of the node that is bound above it: {}", errno.desc()),
        };
        Refusal::new(Kind::Bind, shown, cause).hint("create it there first, or bind to another place")
    })
}

/// Account files of the image, with the user's entries.
struct Files {
    passwd: String,
    group: String,
}

/// Limit on the length of an account file of an image that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

impl Files {
    fn of(
        name: &str,
        plan: &Plan,
        image: BorrowedFd<'_>,
        account: &Account,
        rights: Rights<'_>,
    ) -> Result<Self, Refusal> {
        let read = |wanted: &Source| match plan.mounts.iter().find(|mount| mount.source == *wanted) {
            Some(mount) if !plan.layer.contains_key(&mount.place) && !mount.nested => {
                read_file(name, image, &mount.place, rights)
            }
            _ => Ok(String::new()),
        };
        let passwd = std::slice::from_ref(&account.passwd);
        Ok(Self {
            passwd: accounts::merge(&read(&Source::Passwd)?, passwd, accounts::PASSWD_ROOT),
            group: accounts::merge(&read(&Source::Group)?, &account.groups, accounts::GROUP_ROOT),
        })
    }
}

/// Start of a file of an image, with links followed inside it; nothing if it cannot be read.
pub fn file_of(image: BorrowedFd<'_>, path: &Path, limit: u64, rights: Rights<'_>) -> Option<Vec<u8>> {
    let open = |flags| rights.during(|| sys::open_in_root(image, path, flags, Lookup::Links)).ok();
    let mode = nix::sys::stat::fstat(open(OFlag::O_PATH)?).ok()?.st_mode;
    if SFlag::from_bits_truncate(mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return None;
    }
    let mut bytes = Vec::new();
    let file = File::from(open(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Reads a small file of the image. It may be a FIFO, a device or endless; the read waits for none of them.
fn read_file(name: &str, image: BorrowedFd<'_>, path: &Path, rights: Rights<'_>) -> Result<String, Refusal> {
    let broken = |error: &sys::Error| damaged(name, error);
    let refuse = |cause: &str| Refusal::new(Kind::ImageFormat, name, format!("its {} {cause}", path.display()));
    let open = |flags| {
        let opened = rights.during(|| sys::open_in_root(image, path, flags, Lookup::NoLinks));
        opened.map_err(|error| broken(&error))
    };
    let found = open(OFlag::O_PATH)?;
    let mode = nix::sys::stat::fstat(&found).map_err(|errno| broken(&sys::Error::new("fstat()", errno)))?.st_mode;
    if SFlag::from_bits_truncate(mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(refuse("must be a regular file, or missing"));
    }
    let file = open(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
    let mut bytes = Vec::new();
    let read = File::from(file).take(MAX_FILE + 1).read_to_end(&mut bytes);
    read.map_err(|cause| broken(&sys::Error::from_io(format!("read({path:?})"), &cause)))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(refuse(&format!("is longer than {MAX_FILE} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each error number that is known from opening, reading or mounting an image, by its cause.
    const ERRORS: &[(Kind, &[Errno])] = &[
        (
            Kind::ImageFormat,
            &[
                // From squashfs, EROFS and ext4, for data on the disk; EFSCORRUPTED and EFSBADCRC have these numbers,
                // too.
                Errno::EINVAL,
                Errno::EIO,
                Errno::EUCLEAN,
                Errno::EBADMSG,
                Errno::EOVERFLOW,
                Errno::ERANGE,
                // A tree that contradicts its own directories.
                Errno::ELOOP,
                Errno::ENOTDIR,
                Errno::EISDIR,
                Errno::ENOENT,
                Errno::ENAMETOOLONG,
                Errno::ESTALE,
            ],
        ),
        (Kind::ImageUnreadable, &[Errno::EACCES, Errno::EPERM]),
        (
            Kind::System,
            &[
                // From the process: descriptors, memory, limits, signals.
                Errno::EMFILE,
                Errno::ENFILE,
                Errno::ENOMEM,
                Errno::EAGAIN,
                Errno::EINTR,
                Errno::EFBIG,
                Errno::EFAULT,
                Errno::EBADF,
                // From the node: drivers, devices, mounts, space.
                Errno::ENODEV,
                Errno::ENXIO,
                Errno::ENOSYS,
                Errno::EOPNOTSUPP,
                Errno::EBUSY,
                Errno::ENOSPC,
                Errno::EDQUOT,
                Errno::EROFS,
                Errno::EXDEV,
                Errno::EMLINK,
                Errno::E2BIG,
                // From the file system that holds the image.
                Errno::ENOTCONN,
                Errno::ECONNABORTED,
                Errno::ECONNREFUSED,
                Errno::EHOSTDOWN,
                Errno::EHOSTUNREACH,
                Errno::ENETUNREACH,
                Errno::EREMOTEIO,
                Errno::ETIMEDOUT,
                Errno::EKEYREJECTED,
                Errno::ENOKEY,
                Errno::UnknownErrno,
            ],
        ),
    ];

    #[test]
    fn a_bind_is_not_blamed_for_what_the_process_lacks() {
        let kind = |errno| unbound("/mnt", &sys::Error::new("open_tree()", errno)).kind;
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::ENOSYS] {
            assert_eq!(kind(errno), Kind::System, "{errno:?}");
        }
        for errno in [Errno::ENOENT, Errno::ELOOP, Errno::EINVAL, Errno::EACCES, Errno::ENOTDIR] {
            assert_eq!(kind(errno), Kind::Bind, "{errno:?}");
        }
    }

    #[test]
    fn an_image_is_damaged_only_if_the_error_says_so() {
        for (kind, errors) in ERRORS {
            for errno in *errors {
                let refusal = damaged("/a.sif", &sys::Error::new("pread()", *errno));
                assert_eq!(refusal.kind, *kind, "{errno:?}");
                assert_eq!(refusal.object, "/a.sif");
                assert!(refusal.cause.contains(&format!("pread(): {errno:?}: {}", errno.desc())), "{}", refusal.cause);
                let blamed = refusal.hint.is_some_and(|hint| hint.starts_with("it is damaged"));
                assert_eq!(blamed, *kind == Kind::ImageFormat, "{errno:?}");
            }
        }
    }
}
