//! Makes the root of a container: the image, or an overlay of a few empty mount points over it.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::plan::{Plan, Shape, Upper};
use crate::view::{Entries, Entry};
use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Attributes, FsContext, Identity, Lookup, MountNamespace, MountPropagation};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknodat};

use super::{Rights, kept};

/// A small file system in memory, attached in the new namespace, in which the container is assembled. It disappears
/// with the node's tree when the container's root is entered.
pub struct Stage {
    tmpfs: OwnedFd,
}

/// Attributes of all mounts that show the image.
pub const ONLY_READ: Attributes = Attributes { read_only: true, no_suid: true, no_dev: true, no_exec: false };
pub(super) const READ_AND_WRITE: Attributes = Attributes { read_only: false, ..ONLY_READ };
/// Source of the file systems that are made for a container, in mount tables. [`crate::step::join`] recognizes a
/// container by that of `/dev`.
pub const SOURCE: &str = "coracle";
/// Mount point of the [`Stage`]: a directory that every node has and that nothing here needs. Not "/": the umount after
/// pivot_root would remove only the mount that is stacked there, and the node's root would stay on top of the
/// container's.
const PLACE: &str = "/sys";
/// Memory limit of mount points and account files.
const SIZE: &str = "8m";

impl Stage {
    /// Creates and attaches it.
    pub fn attach() -> sys::Result<Self> {
        let context = FsContext::open(c"tmpfs")?;
        context.string(c"source", SOURCE)?;
        context.string(c"mode", "0755")?;
        context.string(c"size", SIZE)?;
        let tmpfs = context.mount(Attributes { read_only: false, no_suid: true, no_dev: true, no_exec: true })?;
        sys::move_mount(&tmpfs, place()?)?;
        for directory in ["image", "layer", "below", "upper", "root"] {
            make_directory(tmpfs.as_fd(), Path::new(directory), Mode::from_bits_truncate(0o755))?;
        }
        Ok(Self { tmpfs })
    }

    /// Attaches the image, and the layers for the plan's mount points and writes, as the future root.
    ///
    /// `directory` is open on the plan's upper directory, if it has one; `copies` are files by path, with their content.
    pub fn root(
        &self,
        name: &str,
        plan: &Plan,
        image: OwnedFd,
        directory: Option<&OwnedFd>,
        copies: &[(PathBuf, Vec<u8>)],
        identity: &Identity,
    ) -> Result<OwnedFd, Refusal> {
        let rights = Rights::of(&plan.image, identity);
        let system = |error: sys::Error| Refusal::system("the container's root", &error);
        if plan.layer.is_empty() && plan.links.is_empty() && plan.upper.is_none() {
            sys::move_mount(&image, self.at("root").map_err(system)?).map_err(system)?;
            return Ok(image);
        }
        sys::move_mount(&image, self.at("image").map_err(system)?).map_err(system)?;
        let layer = self.at("layer").map_err(system)?;
        // The topmost directory that overlay merges gives the root its mode.
        let refuse = |path: &Path, error: &sys::Error| match error.errno() {
            Errno::EIO | Errno::EUCLEAN | Errno::EACCES => super::damaged(name, error),
            _ => Refusal::new(Kind::Bind, path.display().to_string(), error.to_string()),
        };
        for (path, shape) in &plan.layer {
            add(layer.as_fd(), image.as_fd(), path, *shape, rights).map_err(|error| refuse(path, &error))?;
        }
        for (path, content) in copies {
            let added = add(layer.as_fd(), image.as_fd(), path, Shape::File, rights);
            added.and_then(|()| fill_file(layer.as_fd(), path, content)).map_err(|error| refuse(path, &error))?;
        }
        let below = self.at("below").map_err(system)?;
        // The image's directories, which cover those of the links, have other modes and owners.
        let mut links = Entries::below(Path::new("/"));
        plan.links.iter().for_each(|(path, target)| links.add(path, |path| Entry::Link(path, target.clone())));
        fill(below.as_fd(), &links.into_made()).map_err(system)?;
        let layers = [
            (layer.as_fd(), !plan.layer.is_empty() || !copies.is_empty()),
            (image.as_fd(), true),
            (below.as_fd(), !plan.links.is_empty()),
        ];
        let lower: Vec<BorrowedFd<'_>> = layers.into_iter().filter(|(_, used)| *used).map(|(fd, _)| fd).collect();
        // An overlay reads its layers with the credentials of its mounter.
        let root = match (&plan.upper, directory) {
            (None, _) => {
                rights.during(|| overlay(&lower)).map_err(|error| overlay_refused("the container's root", &error))?
            }
            (Some(Upper::Memory(size)), _) => self.writable(&lower, *size, identity, rights)?,
            (Some(Upper::Directory(path)), Some(directory)) => {
                // An upper layer must be attached in this namespace.
                sys::move_mount(directory, self.at("upper").map_err(system)?).map_err(system)?;
                kept::mount(&lower, path, directory, identity)?
            }
            (Some(Upper::Directory(path)), None) => {
                return Err(Refusal::new(Kind::Internal, path.display().to_string(), "planned but not opened"));
            }
        };
        sys::move_mount(&root, self.at("root").map_err(system)?).map_err(system)?;
        Ok(root)
    }

    /// An overlay that writes into memory. Its top directory is the user's, so they can make new ones there.
    fn writable(
        &self,
        lower: &[BorrowedFd<'_>],
        size: u64,
        identity: &Identity,
        rights: Rights<'_>,
    ) -> Result<OwnedFd, Refusal> {
        let made = (|| {
            let memory = memory(size, READ_AND_WRITE, None)?;
            sys::move_mount(&memory, self.at("upper")?)?;
            let [upper, work] = ["upper", "work"].map(|name| {
                make_directory(memory.as_fd(), Path::new(name), Mode::from_bits_truncate(0o755))?;
                sys::open_beneath(&memory, Path::new(name), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            });
            let (upper, work) = (upper?, work?);
            nix::unistd::fchown(&upper, Some(identity.uid.into()), Some(identity.gid.into()))
                .map_err(|errno| sys::Error::new("fchown(upper)", errno))?;
            rights.during(|| {
                let context = overlay_context(lower)?;
                write_into(&context, &upper, &work)?;
                context.mount(READ_AND_WRITE)
            })
        })();
        made.map_err(|error| overlay_refused("--container-writable", &error))
    }

    /// A detached mount of a directory with these entries.
    pub fn directory(&self, name: &str, entries: &[Entry], attributes: Attributes) -> sys::Result<OwnedFd> {
        make_directory(self.tmpfs.as_fd(), Path::new(name), Mode::from_bits_truncate(0o755))?;
        let top = self.at(name)?;
        fill(top.as_fd(), entries)?;
        let tree = sys::clone_tree(&top, false)?;
        sys::set_attributes(&tree, attributes, MountPropagation::Private)?;
        Ok(tree)
    }

    /// A detached mount of a file with this content.
    pub fn file(&self, name: &str, content: &str, attributes: Attributes) -> sys::Result<OwnedFd> {
        let file = write(self.tmpfs.as_fd(), Path::new(name), content)?;
        let tree = sys::clone_tree(&file, false)?;
        sys::set_attributes(&tree, attributes, MountPropagation::Private)?;
        Ok(tree)
    }

    fn at(&self, name: &str) -> sys::Result<OwnedFd> {
        sys::open_beneath(&self.tmpfs, Path::new(name), OFlag::O_PATH | OFlag::O_DIRECTORY)
    }
}

/// Memory limit of a /dev, in bytes: it contains names without content.
const DEVICES: u64 = 1 << 20;

/// A detached /dev with these entries, on a file system of its own: on the others, devices do not open.
pub fn devices(entries: &[Entry], attributes: Attributes) -> sys::Result<OwnedFd> {
    let tmpfs = memory(DEVICES, Attributes { read_only: false, ..attributes }, None)?;
    fill(tmpfs.as_fd(), entries)?;
    sys::set_attributes(&tmpfs, attributes, MountPropagation::Private)?;
    Ok(tmpfs)
}

fn fill(top: BorrowedFd<'_>, entries: &[Entry]) -> sys::Result<()> {
    for entry in entries {
        match entry {
            // A directory above two mount points is listed twice.
            Entry::Directory(path) => match make_directory(top, path, Mode::from_bits_truncate(0o755)) {
                Err(error) if error.errno() != Errno::EEXIST => return Err(error),
                _ => {}
            },
            Entry::File(path, content) => drop(write(top, path, content)?),
            Entry::Link(path, target) => nix::unistd::symlinkat(target, top, path)
                .map_err(|errno| sys::Error::new(format!("symlinkat({target:?}, {path:?})"), errno))?,
            Entry::Device(path, major, minor) => {
                let mode = Mode::from_bits_truncate(0o666);
                let number = makedev((*major).into(), (*minor).into());
                let failed = |errno| sys::Error::new(format!("mknodat({path:?}, c {major}:{minor})"), errno);
                mknodat(top, path, SFlag::S_IFCHR, mode, number).map_err(failed)?;
                // The umask has removed some mode bits.
                fchmodat(top, path, mode, FchmodatFlags::FollowSymlink).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Creates a file with this content.
fn write(at: BorrowedFd<'_>, path: &Path, content: &str) -> sys::Result<File> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let call = format!("openat(stage, {path:?}, O_CREAT)");
    let fd = nix::fcntl::openat(at, path, flags, Mode::from_bits_truncate(0o644))
        .map_err(|errno| sys::Error::new(call.clone(), errno))?;
    let mut file = File::from(fd);
    file.write_all(content.as_bytes()).map_err(|cause| sys::Error::from_io(call, &cause))?;
    Ok(file)
}

/// An empty, detached file system in memory; it belongs to root unless `owner` is set.
pub fn memory(size: u64, attributes: Attributes, owner: Option<&Identity>) -> sys::Result<OwnedFd> {
    let context = FsContext::open(c"tmpfs")?;
    context.string(c"source", SOURCE)?;
    context.string(c"mode", "0755")?;
    context.string(c"size", &size.to_string())?;
    if let Some(owner) = owner {
        context.string(c"uid", &owner.uid.to_string())?;
        context.string(c"gid", &owner.gid.to_string())?;
    }
    context.mount(attributes)
}

pub(super) fn by_descriptor(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

pub(super) fn write_into(context: &FsContext, upper: &OwnedFd, work: &OwnedFd) -> sys::Result<()> {
    // Otherwise, overlay keeps its data about files in trusted.* attributes, which need privileges in the first user
    // namespace.
    if !sys::in_first_user_namespace()? {
        context.flag(c"userxattr")?;
    }
    context.string(c"upperdir", &by_descriptor(upper))?;
    context.string(c"workdir", &by_descriptor(work))
}

/// Mount point for mounts that only need to be attached somewhere.
pub fn place() -> sys::Result<OwnedFd> {
    sys::open_untrusted(Path::new(PLACE), OFlag::O_PATH | OFlag::O_DIRECTORY)
}

/// Mounts an overlay of read-only layers, the topmost first. It has no upper layer, so it cannot be written.
///
/// Layers by descriptor and `lowerdir+` exist since Linux 6.5 and later; a path through /proc/self/fd to an attached
/// mount works since 5.14. The option may have 255 bytes (fsconfig(2)), enough for a dozen layers.
pub fn overlay(layers: &[BorrowedFd<'_>]) -> sys::Result<OwnedFd> {
    overlay_context(layers)?.mount(ONLY_READ)
}

pub(super) fn overlay_context(layers: &[BorrowedFd<'_>]) -> sys::Result<FsContext> {
    let context = FsContext::open(c"overlay")?;
    context.string(c"source", SOURCE)?;
    let paths: Vec<String> = layers.iter().map(by_descriptor).collect();
    context.string(c"lowerdir", &paths.join(":"))?;
    Ok(context)
}

/// Refusal of `name`, for which the kernel made no overlay.
pub fn overlay_refused(name: &str, error: &sys::Error) -> Refusal {
    let refusal = Refusal::system(name, error);
    match error.errno() {
        Errno::ENODEV => refusal.hint("the kernel of this node has no overlay: modprobe overlay"),
        _ => refusal,
    }
}

/// Creates `path` in the layer, with its parent directories.
///
/// A directory that overlay merges shows the mode and owner of the upper one. So a directory that the image has, too,
/// gets those of the image's.
fn add(layer: BorrowedFd<'_>, image: BorrowedFd<'_>, path: &Path, shape: Shape, rights: Rights<'_>) -> sys::Result<()> {
    let mut so_far = PathBuf::new();
    let relative = path.strip_prefix("/").unwrap_or(path);
    for name in relative.parent().unwrap_or(Path::new("")) {
        so_far.push(name);
        directory_like_the_images(layer, image, &so_far, rights)?;
    }
    match shape {
        Shape::Directory => directory_like_the_images(layer, image, relative, rights),
        Shape::File => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
            nix::fcntl::openat(layer, relative, flags, Mode::from_bits_truncate(0o644))
                .map(drop)
                .map_err(|errno| sys::Error::new(format!("openat(layer, {relative:?}, O_CREAT)"), errno))
        }
    }
}

/// Writes `content` into the empty file at `path`, and gives the file to the owner of its directory, who may replace
/// other files there.
fn fill_file(layer: BorrowedFd<'_>, path: &Path, content: &[u8]) -> sys::Result<()> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let wrong = |call: &str, errno| sys::Error::new(format!("{call}(layer, {relative:?})"), errno);
    let file = sys::open_beneath(layer, relative, OFlag::O_WRONLY)?;
    let above = relative.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let above = sys::open_beneath(layer, above, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let stat = nix::sys::stat::fstat(&above).map_err(|errno| wrong("fstat", errno))?;
    let mut file = File::from(file);
    file.write_all(content).map_err(|cause| sys::Error::from_io(format!("write(layer, {relative:?})"), &cause))?;
    match nix::unistd::fchown(&file, Some(stat.st_uid.into()), Some(stat.st_gid.into())) {
        // As below: an owner without an id in this user namespace.
        Err(Errno::EINVAL) => Ok(()),
        owned => owned.map_err(|errno| wrong("fchown", errno)),
    }
}

fn directory_like_the_images(
    layer: BorrowedFd<'_>,
    image: BorrowedFd<'_>,
    path: &Path,
    rights: Rights<'_>,
) -> sys::Result<()> {
    let plain = Mode::from_bits_truncate(0o755);
    let wrong = |call: &str, errno| sys::Error::new(format!("{call}(layer, {path:?})"), errno);
    match make_directory(layer, path, plain) {
        Err(error) if error.errno() == Errno::EEXIST => return Ok(()),
        made => made?,
    }
    let found = rights.during(|| sys::open_in_root(image, path, OFlag::O_PATH, Lookup::NoLinks));
    let original = match found {
        Ok(original) => original,
        Err(error) if error.errno() == Errno::ENOENT => return Ok(()),
        Err(error) => return Err(error),
    };
    let stat = nix::sys::stat::fstat(&original).map_err(|errno| wrong("fstat", errno))?;
    let made = sys::open_beneath(layer, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    match nix::unistd::fchown(&made, Some(stat.st_uid.into()), Some(stat.st_gid.into())) {
        // An owner without an id in this user namespace: no process in the container has that owner's ids.
        Err(Errno::EINVAL) => {}
        owned => owned.map_err(|errno| wrong("fchown", errno))?,
    }
    // After chown, which clears set-user-ID bits.
    nix::sys::stat::fchmod(&made, Mode::from_bits_truncate(stat.st_mode & 0o7777))
        .map_err(|errno| wrong("fchmod", errno))
}

pub(super) fn make_directory(at: BorrowedFd<'_>, path: &Path, mode: Mode) -> sys::Result<()> {
    nix::sys::stat::mkdirat(at, path, mode).map_err(|errno| sys::Error::new(format!("mkdirat({path:?})"), errno))
}

/// Makes `root` the root of this namespace, detaches everything else, and verifies that a process which enters
/// `namespace` starts in `root`.
pub fn enter(root: BorrowedFd<'_>, namespace: &MountNamespace) -> Result<(), Refusal> {
    let system = |error: sys::Error| Refusal::system("entering the container's root", &error);
    replace(root).map_err(system)?;
    sys::enter_mount_namespace(namespace).map_err(system)?;
    let top = sys::open_untrusted(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(system)?;
    let key = |fd: BorrowedFd<'_>| nix::sys::stat::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    match (key(root), key(top.as_fd())) {
        (Ok(wanted), Ok(found)) if wanted == found => Ok(()),
        _ => Err(Refusal::new(Kind::Internal, "the container's root", "is not where the tasks would start")),
    }
}

/// Replaces the root of this namespace. A node that runs from the initial ramfs has no root to pivot away from
/// (pivot_root(2)); there, the container's root is stacked on top of it. A process that enters the namespace starts at
/// the top of that stack (setns(2) resets the root), and cannot remove a mount without CAP_SYS_ADMIN.
fn replace(root: BorrowedFd<'_>) -> sys::Result<()> {
    match sys::pivot_to(root) {
        Ok(()) => sys::detach_old_root(),
        Err(error) if error.errno() == Errno::EINVAL => {
            let top = sys::open_untrusted(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
            sys::move_mount(root, &top)
        }
        Err(error) => Err(error),
    }
}
