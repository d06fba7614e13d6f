//! Makes one detached mount from an image that policy allows.
//!
//! A squashfs needs a loop device. An EROFS is mounted from its file if the kernel can (Linux 6.12). A directory is a
//! clone of its mount. Several file systems of one image are merged into one read-only overlay.
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

/// An image that can be mounted. Each file system on a loop device has one superblock, however often it is mounted.
#[derive(Debug)]
pub struct Disk {
    layers: Vec<Source>,
    /// Owner map, made for the first mount; nothing if the node cannot make one.
    map: OnceCell<Option<OwnerMap>>,
}

/// A new detached mount of an image: read-only, nosuid, nodev.
#[derive(Debug)]
pub struct Mounted {
    /// The mount.
    pub tree: OwnedFd,
    /// Watches of the mount. Each must receive the result of the mount's use.
    pub watches: Vec<Watch>,
    /// Owners that its files show.
    pub owners: Owners,
}

/// Source of a file system, or of a directory tree, for the kernel.
#[derive(Debug)]
enum Source {
    Loop(LoopDevice, Filesystem),
    /// A squashfs at this byte offset of the file, which a process of the user reads; one process for each mount.
    Fuse(Program, u64),
    /// An EROFS file.
    File(OwnedFd),
    Directory(OwnedFd),
}

/// Credentials for root's lookups in an image.
#[derive(Debug, Clone, Copy)]
pub enum Rights<'a> {
    /// Root's: the image is a file system of its own.
    Root,
    /// The user's: the image is a directory of the node, on a file system that may grant access to users and not to
    /// root.
    User(&'a Identity),
}

impl<'a> Rights<'a> {
    /// Credentials for lookups in `image`.
    pub fn of(image: &Image, identity: &'a Identity) -> Self {
        if image.is_directory() { Self::User(identity) } else { Self::Root }
    }

    /// Runs `work` with these credentials.
    pub fn during<T>(self, work: impl FnOnce() -> sys::Result<T>) -> sys::Result<T> {
        match self {
            Self::Root => work(),
            Self::User(identity) => sys::with_fs_identity(identity, work)?,
        }
    }
}

impl Disk {
    /// Prepares the image that `opener` has opened for mounting, for the step of the slurmstepd `daemon`.
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

    /// True if a process of the user reads it while it is mounted.
    pub fn is_served(&self) -> bool {
        self.layers.iter().any(|layer| matches!(layer, Source::Fuse(..)))
    }

    /// Makes a new mount of it.
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
            // The node may not permit a second user namespace.
            Err(_) if asked == Owners::RootIsUser => {
                let (trees, watches) = mount(Owners::Image)?;
                (trees, watches, Owners::Image)
            }
            // A file whose owner is not mapped there may be the user's own.
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

    /// Mounts each of its file systems. `owners` is the setting of squashfuse_ll.
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
    /// Only if the top directory is root's: in an image of the user's own tree, users would lose access to files that
    /// only they may read. If a kernel can map the first file system but not one above it, the owners of the upper one
    /// are not mapped.
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

    /// Merges several trees into one, each above those before it.
    ///
    /// The kernel accepts only layers that are attached in the caller's namespace (clone_private_mount), so the merge
    /// happens in a namespace of its own. The overlay has clones of its layers and outlives that namespace.
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
                // FUSE does not know the mode of its root before it asks for it (fs/fuse/dir.c, fuse_permission), and
                // an overlay copies the known mode when it is made.
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
            Self::Directory(directory) => sys::clone_tree(directory, false).and_then(|tree| {
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
            // A mount that came into a user namespace together with it cannot be omitted (mount_namespaces(7)).
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

    /// Top directory of the tree in its mount.
    fn top(&self, name: &str, tree: &OwnedFd) -> Result<OwnedFd, Refusal> {
        match self {
            // A file of `apptainer overlay create` has the directories upper and work of an overlay.
            Self::Loop(_, Filesystem::Ext3) => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
                sys::open_beneath(tree, Path::new("upper"), flags).map_err(|error| match error.errno() {
                    Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => {
                        Refusal::new(Kind::ImageFormat, name, format!("its ext3 has no directory upper: {error}"))
                    }
                    _ => damaged(name, &error),
                })
            }
            _ => tree.try_clone().map_err(|cause| Refusal::system(name, &sys::Error::from_io("dup()", &cause))),
        }
    }
}

/// Puts one file system of the image on a loop device.
///
/// The kernel reads the file with the credentials of the process that attaches it, and root has no access to a user's
/// FUSE file system (fuse(4), allow_other): there, the opener attaches it. Everywhere else, root attaches it, so that
/// the checked file is the one that is mounted, even if the opener is compromised.
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

/// Mounts the block device `source`. `journal` is true if the file system may have a journal, which is not replayed.
fn mount_filesystem(filesystem: &'static std::ffi::CStr, source: &str, journal: bool) -> sys::Result<OwnedFd> {
    let context = FsContext::open(filesystem)?;
    context.string(c"source", source)?;
    context.flag(c"ro")?;
    if journal {
        context.flag(c"noload")?;
        // The superblock may request a panic on errors.
        context.string(c"errors", "remount-ro")?;
    }
    context.mount(ONLY_READ)
}

/// True if the kernel mounts this EROFS from its file; otherwise it needs a loop device.
///
/// On a loop device, an EROFS that changes after its check can name any block device of the node as an extra device,
/// and Linux before 6.4 may open that device as root (erofs_init_device; later kernels search all extra devices in the
/// file itself). On those kernels, only images that the site alone can change are put on a loop device.
fn from_file(name: &str, file: BorrowedFd<'_>, grant: &Grant, identity: &Identity) -> Result<bool, Refusal> {
    match mount_erofs_file(file, identity) {
        // An older kernel, or a file system whose files it cannot read directly: tmpfs, overlay.
        Err(error) if error.errno() == Errno::ENOTBLK && (grant.trusted || kernel::version() >= (6, 4)) => Ok(false),
        Err(error) if error.errno() == Errno::ENOTBLK => Err(Refusal::system(name, &error)
            .hint("before Linux 6.4 an erofs runs only from the site's image_paths; use a squashfs")),
        // The mount for use reports any other error.
        _ => Ok(true),
    }
}

/// Owners that a squashfs shows in a step whose image `reader` reads, if it shows `here` in the user's own namespace.
pub fn step_owners(here: Owners, reader: Reader) -> Owners {
    match (here, reader) {
        (Owners::RootIsUser | Owners::AllAreUsers, Reader::Kernel) if kernel::version() >= kernel::SQUASHFS_MAPPED => {
            Owners::RootIsUser
        }
        (Owners::AllAreUsers, Reader::Fuse | Reader::Own) => Owners::AllAreUsers,
        _ => Owners::Image,
    }
}

/// Owner of a mount's top directory; nothing if it cannot be read, in which case the image is refused later.
fn owner(tree: Option<&OwnedFd>) -> Option<u32> {
    nix::sys::stat::fstat(tree?).ok().map(|top| top.st_uid)
}

/// Mounts with the user's credentials: the kernel opens the file again by that path, and any device that the superblock
/// names.
fn mount_erofs_file(file: BorrowedFd<'_>, identity: &Identity) -> sys::Result<OwnedFd> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    sys::with_fs_identity(identity, || mount_filesystem(c"erofs", &source, false))?
}
