//! From an image that may run to one detached mount of it.
//!
//! A squashfs needs a loop device. An erofs is mounted from its file where the kernel can (Linux 6.12). A directory is a
//! copy of its mount. Several filesystems of one image become one: an overlay of them all, read-only.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use crate::config::Config;
use crate::image::{self, Filesystem, Image, Layer};
use crate::plan::Owners;
use crate::policy::{Grant, Reader};
use coracle::report::{Kind, Refusal};
use coracle::sys::{self, FsContext, Identity, LoopDevice, LoopError, MountNamespace, MountPropagation, OwnerMap};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::damaged;
use super::root::{self, ONLY_READ};
use crate::apply::fuse::{Program, Slurmstepd, Watch};
use crate::apply::kernel;
use crate::children::opener::{Opened, Opener};

/// An image that can be mounted. One superblock for each filesystem on a loop device, however often it is mounted.
#[derive(Debug)]
pub struct Disk {
    layers: Vec<Source>,
    /// The map of owners, made for the first mount; nothing, if the node makes none.
    map: OnceCell<Option<OwnerMap>>,
}

/// A new mount of an image, detached: read-only, no set-user-id, no devices.
#[derive(Debug)]
pub struct Mounted {
    /// The mount.
    pub tree: OwnedFd,
    /// Whoever uses the mount tells each of them what came of it.
    pub watches: Vec<Watch>,
    /// Owners that its files show.
    pub owners: Owners,
}

/// Origin of a filesystem, or of a tree, for the kernel.
#[derive(Debug)]
enum Source {
    Loop(LoopDevice, Filesystem),
    /// A squashfs, from this byte of the file on, that a process of the user's reads; one for each mount.
    Fuse(Program, u64),
    /// An erofs file.
    File(OwnedFd),
    Directory(OwnedFd),
}

/// Rights that count when root looks something up in an image.
#[derive(Debug, Clone, Copy)]
pub enum Rights<'a> {
    /// Root's: the image is a filesystem of its own.
    Root,
    /// The user's: the image is a directory of the node, on a file system that may know users and not root.
    User(&'a Identity),
}

impl<'a> Rights<'a> {
    /// Those that `image` wants.
    pub fn of(image: &Image, identity: &'a Identity) -> Self {
        if image.is_directory() { Self::User(identity) } else { Self::Root }
    }

    /// Does `work` with them.
    pub fn during<T>(self, work: impl FnOnce() -> sys::Result<T>) -> sys::Result<T> {
        match self {
            Self::Root => work(),
            Self::User(identity) => sys::with_fs_identity(identity, work)?,
        }
    }
}

impl Disk {
    /// Gets the image that `opener` has opened ready for mounting, for the step of the slurmstepd `daemon`.
    pub fn attach(
        opener: &Opener,
        opened: &Opened,
        grant: &Grant,
        identity: &Identity,
        config: &Config,
        name: &str,
        daemon: Option<Slurmstepd>,
    ) -> Result<Self, Refusal> {
        let file = || {
            let copy = opened.file.as_fd().try_clone_to_owned();
            copy.map_err(|cause| Refusal::system(name, &sys::Error::from_io("dup()", &cause)))
        };
        if opened.image.is_directory() {
            return Ok(Self::of(vec![Source::Directory(file()?)]));
        }
        let mut layers = Vec::new();
        for layer in &opened.image.layers {
            layers.push(match layer.filesystem {
                Filesystem::Squashfs(_) if grant.reader != Reader::Kernel => {
                    Source::Fuse(Program::find(config, grant.reader)?.of_step(daemon), layer.offset)
                }
                _ if grant.reader != Reader::Kernel => return Err(only_squashfs(name, grant.reader)),
                Filesystem::Erofs if from_file(name, opened.file.as_fd(), grant, identity)? => Source::File(file()?),
                filesystem => Source::Loop(attach_loop(opener, opened, layer, name)?, filesystem),
            });
        }
        Ok(Self::of(layers))
    }

    fn of(layers: Vec<Source>) -> Self {
        Self { layers, map: OnceCell::new() }
    }

    /// True if a process of the user's reads it while it is mounted.
    pub fn is_served(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, Source::Fuse(..)))
    }

    /// Mounts it once more.
    pub fn mount(
        &self,
        name: &str,
        opened: &Opened,
        identity: &Identity,
        deadline: Instant,
    ) -> Result<Mounted, Refusal> {
        let asked = match self.layers.first() {
            Some(Source::Fuse(program, _)) => program.owners(identity),
            _ => Owners::Image,
        };
        let mount = |owners| self.mount_layers(name, opened, (identity, owners), deadline);
        let (mut trees, watches, owners) = match mount(asked) {
            // The node may make no second user namespace.
            Err(_) if asked == Owners::RootIsUser => {
                let (trees, watches) = mount(Owners::Image)?;
                (trees, watches, Owners::Image)
            }
            // What is nobody's there may be the user's own.
            Ok((trees, watches)) if asked == Owners::RootIsUser && owner(trees.first()) != Some(identity.uid) => {
                drop(trees);
                watches.into_iter().try_for_each(|watch| watch.finish(name, Ok(())))?;
                let (trees, watches) = mount(Owners::Image)?;
                (trees, watches, Owners::Image)
            }
            mounted => {
                let (trees, watches) = mounted?;
                let owners = if self.is_served() { asked } else { self.show_owners(&trees, identity) };
                (trees, watches, owners)
            }
        };
        let merged = match (trees.len(), trees.pop()) {
            (1, Some(tree)) => return Ok(Mounted { tree, watches, owners }),
            (_, Some(top)) => {
                trees.push(top);
                self.merge(name, &trees)
            }
            (_, None) => Err(Refusal::new(Kind::Internal, name, "an image without a filesystem")),
        };
        match merged {
            Ok(tree) => Ok(Mounted { tree, watches, owners }),
            Err(refusal) => {
                Err(watches.into_iter().fold(refusal, |refusal, watch| match watch.finish::<()>(name, Err(refusal)) {
                    Err(refusal) => refusal,
                    Ok(()) => Refusal::new(Kind::Internal, name, "was mounted and was not"),
                }))
            }
        }
    }

    /// A mount of each of its file systems. Owners are what squashfuse_ll is asked to show.
    fn mount_layers(
        &self,
        name: &str,
        opened: &Opened,
        (identity, owners): (&Identity, Owners),
        deadline: Instant,
    ) -> Result<(Vec<OwnedFd>, Vec<Watch>), Refusal> {
        let (mut trees, mut watches) = (Vec::new(), Vec::new());
        for layer in &self.layers {
            let (tree, watch) = layer.mount(name, opened, (identity, owners), deadline)?;
            trees.push(tree);
            watches.extend(watch);
        }
        Ok((trees, watches))
    }

    /// Shows root's files as the user's in the file systems of an image file, as far as the kernel can.
    ///
    /// Only if the top directory is root's: in an image of the user's own tree they would lose what only they may read. A
    /// kernel that can map the first file system and not one above it shows those of that one as they are.
    fn show_owners(&self, trees: &[OwnedFd], identity: &Identity) -> Owners {
        let of_a_file = matches!(self.layers.first(), Some(Source::Loop(..) | Source::File(_)));
        if !of_a_file
            || identity.uid == 0
            || owner(trees.first()) != Some(0)
            || kernel::version() < kernel::OVERLAYS_MAPPED
        {
            return Owners::Image;
        }
        let map = self.map.get_or_init(|| OwnerMap::swap_root_and(identity).ok());
        let Some(map) = map else { return Owners::Image };
        let shown = trees.iter().take_while(|tree| map.show_in(tree).is_ok()).count();
        if shown == 0 { Owners::Image } else { Owners::RootIsUser }
    }

    /// Makes one tree of several, each above those before it.
    ///
    /// The kernel takes as layers only what is attached in the caller's namespace (clone_private_mount), so this happens
    /// in one of its own. The overlay has copies of its layers and outlives it.
    fn merge(&self, name: &str, trees: &[OwnedFd]) -> Result<OwnedFd, Refusal> {
        let system = |error: sys::Error| Refusal::system(name, &error);
        let home = MountNamespace::current().map_err(system)?;
        sys::unshare_mount_namespace().map_err(system)?;
        let merged = (|| {
            sys::make_private().map_err(system)?;
            let place = root::place().map_err(system)?;
            let mut tops = Vec::new();
            for (layer, tree) in self.layers.iter().zip(trees) {
                sys::move_mount(tree, &place).map_err(system)?;
                let top = layer.top(name, tree)?;
                // FUSE does not know the mode of its root before it asks for it (fs/fuse/dir.c, fuse_permission), and an
                // overlay takes over what is known when it is made.
                nix::sys::stat::fstat(&top).map_err(|errno| damaged(name, &sys::Error::new("fstat()", errno)))?;
                tops.insert(0, top);
            }
            let tops: Vec<BorrowedFd<'_>> = tops.iter().map(AsFd::as_fd).collect();
            root::overlay(&tops).map_err(|error| root::overlay_refused(name, &error))
        })();
        sys::enter_mount_namespace(&home).map_err(system)?;
        merged
    }
}

impl Source {
    fn mount(
        &self,
        name: &str,
        opened: &Opened,
        (identity, owners): (&Identity, Owners),
        deadline: Instant,
    ) -> Result<(OwnedFd, Option<Watch>), Refusal> {
        let mounted = match self {
            Self::Fuse(program, offset) => {
                let (tree, watch) = program.mount(name, &opened.file, *offset, (identity, owners), deadline)?;
                return Ok((tree, Some(watch)));
            }
            Self::Loop(device, Filesystem::Squashfs(_)) => mount_filesystem(c"squashfs", &device.source(), false),
            Self::Loop(device, Filesystem::Erofs) => mount_filesystem(c"erofs", &device.source(), false),
            Self::Loop(device, Filesystem::Ext3) => mount_filesystem(c"ext4", &device.source(), true),
            Self::File(file) => mount_erofs_file(file.as_fd(), identity),
            Self::Directory(folder) => sys::clone_tree(folder, false).and_then(|tree| {
                sys::set_attributes(&tree, ONLY_READ, MountPropagation::Private)?;
                Ok(tree)
            }),
        };
        mounted.map(|tree| (tree, None)).map_err(|error| self.refuse(name, &error))
    }

    fn refuse(&self, name: &str, error: &sys::Error) -> Refusal {
        let module = match self {
            Self::Loop(_, Filesystem::Squashfs(_)) | Self::Fuse(..) => "squashfs",
            Self::Loop(_, Filesystem::Ext3) => "ext4",
            Self::Loop(_, Filesystem::Erofs) | Self::File(_) => "erofs",
            // What came into a user namespace with it cannot be left out (mount_namespaces(7)).
            Self::Directory(_) if error.errno() == Errno::EINVAL => {
                return Refusal::new(Kind::ImageType, name, "a directory below which other file systems are mounted")
                    .hint("only root can leave them out: run it in a job");
            }
            Self::Directory(_) => return Refusal::system(name, error),
        };
        match error.errno() {
            Errno::ENODEV => no_module(name, error, module),
            Errno::EPERM | Errno::EACCES => Refusal::system(name, error),
            _ => damaged(name, error),
        }
    }

    /// Start of the tree in its mount.
    fn top(&self, name: &str, tree: &OwnedFd) -> Result<OwnedFd, Refusal> {
        match self {
            // What `apptainer overlay create` makes has the folders upper and work of an overlay.
            Self::Loop(_, Filesystem::Ext3) => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
                sys::open_beneath(tree, Path::new("upper"), flags).map_err(|error| match error.errno() {
                    Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => {
                        Refusal::new(Kind::ImageFormat, name, format!("its ext3 has no folder upper: {error}"))
                    }
                    _ => damaged(name, &error),
                })
            }
            _ => tree.try_clone().map_err(|cause| Refusal::system(name, &sys::Error::from_io("dup()", &cause))),
        }
    }
}

/// Puts one filesystem of the image on a loop device.
///
/// The kernel looks at the file with the rights of whoever asks for that, and root has none on a file system that
/// a user runs (fuse(4), allow_other): there the opener asks. Everywhere else root does, so that the file that was
/// judged is the one that is mounted, whatever the opener may say.
fn attach_loop(opener: &Opener, opened: &Opened, layer: &Layer, name: &str) -> Result<LoopDevice, Refusal> {
    let size = image::loop_size(layer.offset, layer.size, opened.length);
    let attached = if sys::CachedStat::of(&opened.file).is_ok() {
        LoopDevice::attach(&opened.file, layer.offset, size)
    } else {
        LoopDevice::attach_by(|device| opener.configure_loop(device, layer.offset, size))
    };
    attached.map_err(|error| match error {
        LoopError::NoDriver(error) => no_module(name, &error, "loop"),
        LoopError::NoNode(error) => Refusal::system(name, &error).hint(
            "all loop devices with a node in /dev are in use: udev makes nodes as they are needed, mknod(1) by hand",
        ),
        LoopError::Failed(error) => Refusal::system(name, &error),
    })
}

fn only_squashfs(name: &str, reader: Reader) -> Refusal {
    let cause = match reader {
        Reader::Own => "an erofs, which only root can mount",
        Reader::Fuse | Reader::Kernel => {
            "an erofs, and the site reads users' images with squashfuse (user_images: fuse)"
        }
    };
    Refusal::new(Kind::Policy, name, cause).hint("make a squashfs of it")
}

fn no_module(name: &str, error: &sys::Error, module: &str) -> Refusal {
    Refusal::system(name, error).hint(format!("the kernel of this node has no {module}: modprobe {module}"))
}

/// `source` is a block device. `journal` says that the filesystem may have one, which is not to be replayed.
fn mount_filesystem(filesystem: &'static std::ffi::CStr, source: &str, journal: bool) -> sys::Result<OwnedFd> {
    let context = FsContext::open(filesystem)?;
    context.string(c"source", source)?;
    context.flag(c"ro")?;
    if journal {
        context.flag(c"noload")?;
        // The superblock may ask for a panic.
        context.string(c"errors", "remount-ro")?;
    }
    context.mount(ONLY_READ)
}

/// True if the kernel mounts this erofs from its file; if not, it goes on a loop device.
///
/// On a loop device, an erofs that is changed after it was looked at can name any block device of the node as a part of
/// itself, and Linux before 6.4 may open that as root (erofs_init_device; later kernels look for all parts in the
/// file itself). There that way is only for images that nobody but the site can change.
fn from_file(name: &str, file: BorrowedFd<'_>, grant: &Grant, identity: &Identity) -> Result<bool, Refusal> {
    match mount_erofs_file(file, identity) {
        // An older kernel, or a file system whose files it cannot read so: tmpfs, overlay.
        Err(error) if error.errno() == Errno::ENOTBLK && (grant.trusted || kernel::version() >= (6, 4)) => Ok(false),
        Err(error) if error.errno() == Errno::ENOTBLK => Err(Refusal::system(name, &error)
            .hint("before Linux 6.4 an erofs runs only from the site's image_paths; use a squashfs")),
        // What else is wrong is said when it is mounted to be used.
        _ => Ok(true),
    }
}

/// Owners that a squashfs shows in a step whose image `reader` reads, if it shows `here` in its user's own namespace.
pub fn step_owners(here: Owners, reader: Reader) -> Owners {
    match (here, reader) {
        (Owners::RootIsUser | Owners::AllAreUsers, Reader::Kernel) if kernel::version() >= kernel::SQUASHFS_MAPPED => {
            Owners::RootIsUser
        }
        (Owners::AllAreUsers, Reader::Fuse | Reader::Own) => Owners::AllAreUsers,
        _ => Owners::Image,
    }
}

/// The owner of a mount's top directory; nothing, if it cannot be read, for which the image is refused later.
fn owner(tree: Option<&OwnedFd>) -> Option<u32> {
    nix::sys::stat::fstat(tree?).ok().map(|top| top.st_uid)
}

/// With the user's rights: the kernel opens the file again by that path, and whatever else the superblock may name.
fn mount_erofs_file(file: BorrowedFd<'_>, identity: &Identity) -> sys::Result<OwnedFd> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    sys::with_fs_identity(identity, || mount_filesystem(c"erofs", &source, false))?
}
