//! Requests the mounts of a container, before the image and the node are examined.
#![forbid(unsafe_code)]

mod devices;
mod entries;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::config::{Config, Profile};
use crate::devices::{Devices, Driver, STORES};
use crate::mpi::{self, Fit, Shown};
use coracle::request::{Access, BindSource, PRIVATE, Settings, Size};
use coracle::sys::Attributes;
use coracle::wire::EPILOG;
use serde::{Deserialize, Serialize};

pub use entries::Entries;

/// Mount that the container should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRequest {
    /// Origin of the mount.
    pub source: Source,
    /// Mount point.
    pub target: PathBuf,
    /// Access that the mount gives.
    pub access: Access,
    /// Handling of a missing source, or of a path that the image has.
    pub presence: Presence,
    /// Reason for the mount.
    pub origin: Origin,
}

/// Source of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory or file of the node, opened as the user.
    Node(PathBuf),
    /// A directory of the node that may be created after the container: it is attached then.
    Late(PathBuf),
    /// The node's file at [`TIME_ZONE`], over the file or link of the image.
    TimeZone,
    /// The image's /etc/passwd with the user's entry.
    Passwd,
    /// The image's /etc/group with the entries of the user's groups.
    Group,
    /// An empty directory in memory, of at most this size.
    Memory(Size),
    /// A directory that is made for this container.
    Made(Vec<Entry>),
    /// Symbolic links, by name and with their target, that the image's directory at the mount point shows unless it has
    /// such a file. Nothing is mounted.
    Links(BTreeMap<String, PathBuf>),
}

/// Entry of a made directory, by its path in it. Parents precede children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory(PathBuf),
    /// A file with this content; with empty content, the mount point of another mount.
    File(PathBuf, String),
    /// A symbolic link with its target.
    Link(PathBuf, PathBuf),
    /// A character device with its major and minor number, accessible to all users.
    Device(PathBuf, u32, u32),
}

/// Handling of a missing source, or of a path that the image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The container is refused if the source is missing.
    Required,
    /// Left out if the node does not have it.
    IfThere,
    /// Required, but a directory of this name in the image is sufficient.
    UnlessInImage,
    /// Left out if the node does not have it, or if the image does.
    IfMissing,
}

impl Presence {
    /// True if the mount can be left out.
    pub fn optional(self) -> bool {
        matches!(self, Self::IfThere | Self::IfMissing)
    }
}

/// Reason for a mount. Of two requests for the same mount point, the later one in this list wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// /proc, /sys, /dev: real directories in every image, or missing.
    Kernel,
    /// A device node in /dev.
    Device,
    /// The host's MPI in place of the image's, at the paths in the image.
    Mpi,
    /// A file of a GPU's driver.
    Driver,
    /// A mount of every container.
    System,
    /// The user's home.
    Home,
    /// The working directory of the job.
    Workdir,
    /// A directory that a variable of the job's environment names.
    Variable,
    /// The batch script, the PMIx server, munge, the client's configuration and plugins.
    Slurm,
    /// A file of Coracle in the container.
    Private,
    /// `binds` of coracle.yaml, by index.
    Site(usize),
    /// `--container-bind`
    User,
}

impl Origin {
    /// Word for the reason in records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Device => "device",
            Self::System => "system",
            Self::Home => "home",
            Self::Workdir => "workdir",
            Self::Variable => "variable",
            Self::Slurm => "slurm",
            Self::Private => "coracle",
            Self::Mpi => "mpi",
            Self::Driver => "driver",
            Self::Site(_) => "site",
            Self::User => "user",
        }
    }
}

/// Slurm's facts about the step that select its mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings<'a> {
    /// True if the tasks run as root in the first user namespace.
    pub root: bool,
    /// The working directory.
    pub directory: &'a Path,
    /// Home of the user, if the node knows the user.
    pub home: Option<&'a Path>,
    /// Directory of a batch script.
    pub script_folder: Option<&'a Path>,
    /// Directory of the PMIx server.
    pub pmix: Option<&'a Path>,
    /// Single files that the job refers to: a task prolog, the X server's cookie.
    pub files: &'a [PathBuf],
    /// Directories that variables of the job's environment name.
    pub named: &'a [PathBuf],
    /// Mounts and links for Slurm's commands, if they are to work in the container.
    pub client: Option<&'a Client>,
    /// Coracle's program that runs in the container, for these commands and for entry points.
    pub helper: &'a Path,
    /// The host's MPI that replaces the image's, with its fit.
    pub mpi: Option<(&'a Profile, &'a Fit)>,
    /// Content of /dev; `None` for the node's own /dev.
    pub devices: Option<&'a Devices>,
    /// Files of a GPU's driver that programs need.
    pub driver: Option<&'a Driver>,
}

/// Mounts and links for Slurm's commands in the container, and the way they are started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Client {
    /// Mounts, all of them read-only, in no particular order.
    pub binds: Vec<ClientBind>,
    /// Symbolic links to create, below [`PRIVATE`].
    pub links: Vec<ClientLink>,
    /// Content of [`LAUNCH`].
    pub launch: String,
    /// Content of [`coracle::wire::EPILOG`].
    pub epilog: String,
}

/// Directory or file of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientBind {
    /// Path on the node, without symbolic links.
    pub source: PathBuf,
    /// Path inside.
    pub target: PathBuf,
    /// True if the mount is left out when the image has a file at `target`.
    pub unless_in_image: bool,
}

/// Symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientLink {
    /// Path inside.
    pub place: PathBuf,
    /// Target of the link.
    pub target: PathBuf,
}

/// File of the local time zone (localtime(5)), usually a link.
pub const TIME_ZONE: &str = "/etc/localtime";

/// Directory in which a container shows the node's directories of programs and libraries.
pub const HOST: &str = "/run/coracle/host";
/// File in which `coracle-inside` reads [`Client::launch`].
pub const LAUNCH: &str = "/run/coracle/slurm/launch";
/// Name under which the program at [`HELPER`] runs an entry point.
pub const ENTRYPOINT: &str = "/run/coracle/entrypoint";
/// Path of Coracle's program in the container.
pub const HELPER: &str = "/run/coracle/inside";
/// Directory in every usual `PATH`; each command appears there, too, unless the image has one of that name.
const PROGRAMS: &str = "/usr/bin";
/// Directory of Slurm's commands in the container.
pub const COMMANDS: &str = "/run/coracle/slurm/bin";

/// Directory of the host's MPI libraries in the container, under their SONAMEs.
pub const MPI_LIBRARIES: &str = "/run/coracle/mpi/lib";

/// Directory of the libraries of a GPU's driver in the container.
pub const GPU_LIBRARIES: &str = "/run/coracle/gpu/lib";
/// Directory of the programs of a GPU's driver.
pub const GPU_PROGRAMS: &str = "/run/coracle/gpu/bin";
/// File of the variables that a GPU's driver sets: `NAME=VALUE` lines.
pub const GPU_ENVIRONMENT: &str = "/run/coracle/gpu/environment";

/// Directories of the operating system: containers show the image's, not the node's.
const OWN: &[&str] = &["/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"];
/// Directories that are the image's if one of them is the job's working directory; directories below are the node's.
const TOPS: &[&str] = &["/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/var"];

/// Files of the kernel that uid 0 may write by their modes, without any capability: the kernel runs the handler of core
/// dumps with full privileges (proc_sys_kernel(5), core_pattern). runc makes the same files read-only.
const SETTINGS: &[&str] = &["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];

impl MountRequest {
    fn node(path: impl Into<PathBuf>, access: Access, presence: Presence, origin: Origin) -> Self {
        let path = path.into();
        Self { source: Source::Node(path.clone()), target: path, access, presence, origin }
    }

    /// Flags of the mount. Device nodes work only on /dev and on the mounts of devices in it.
    pub fn attributes(&self) -> Attributes {
        let device = self.origin == Origin::Device;
        // Shared memory needs exec: just-in-time compilers put code there.
        let dev = self.origin == Origin::Kernel && self.target == Path::new("/dev");
        let stores = device && STORES.iter().any(|directory| self.target == Path::new(directory));
        Attributes {
            read_only: self.access == Access::ReadOnly,
            no_suid: true,
            no_dev: !(device && !stores || dev),
            no_exec: match self.origin {
                // The flag would also change the mounts below the node's own /dev.
                Origin::Kernel => !(dev && matches!(self.source, Source::Node(_))),
                _ => device && !stores,
            },
        }
    }

    /// True if `path` is visible through this mount at the same path as on the node.
    fn shows(&self, path: &Path) -> bool {
        matches!(&self.source, Source::Node(source) if *source == self.target && path.starts_with(source))
    }
}

/// Requests the mounts of a container, in no particular order.
pub fn mount_requests(settings: &Settings, config: &Config, around: &Surroundings<'_>) -> Vec<MountRequest> {
    use Access::{ReadOnly, ReadWrite};
    use Presence::{IfThere, Required, UnlessInImage};

    let mut requests = Vec::new();
    for (index, bind) in config.binds.iter().enumerate() {
        requests.push(MountRequest {
            source: Source::Node(bind.source.0.clone()),
            target: bind.target().to_owned(),
            access: bind.access(),
            presence: if bind.required { Required } else { IfThere },
            origin: Origin::Site(index),
        });
    }
    let limit = config.writable_limit.0;
    for bind in &settings.binds.list {
        let source = match &bind.source {
            BindSource::Node(path) => Source::Node(path.clone()),
            BindSource::Memory(size) => Source::Memory(size.map_or(limit, |size| size.min(limit))),
        };
        let (target, access) = (bind.target.clone(), bind.access);
        requests.push(MountRequest { source, target, access, presence: Required, origin: Origin::User });
    }
    // A mount of the user or the site at a path, or above it, replaces the default one.
    let taken = |requests: &[MountRequest], path: &Path| {
        requests.iter().any(|request| request.origin >= Origin::Site(0) && path.starts_with(&request.target))
    };

    requests.push(MountRequest::node("/proc", ReadWrite, Required, Origin::Kernel));
    requests.push(MountRequest::node("/sys", if around.root { ReadOnly } else { ReadWrite }, Required, Origin::Kernel));
    for path in SETTINGS.iter().filter(|_| around.root) {
        requests.push(MountRequest::node(*path, ReadOnly, IfThere, Origin::Kernel));
    }
    match around.devices {
        Some(devices) => requests.extend(devices::own_dev(devices)),
        None => requests.push(MountRequest::node("/dev", ReadWrite, Required, Origin::Kernel)),
    }
    let mut system = Vec::new();
    for path in ["/tmp", "/var/tmp"] {
        system.push(MountRequest::node(path, ReadWrite, Required, Origin::System));
    }
    for path in ["/etc/hosts", "/etc/resolv.conf"] {
        system.push(MountRequest::node(path, ReadOnly, IfThere, Origin::System));
    }
    let (source, target, origin) = (Source::TimeZone, TIME_ZONE.into(), Origin::System);
    system.push(MountRequest { source, target, access: ReadOnly, presence: IfThere, origin });
    for (source, path) in [(Source::Passwd, "/etc/passwd"), (Source::Group, "/etc/group")] {
        let target = PathBuf::from(path);
        system.push(MountRequest { source, target, access: ReadOnly, presence: Required, origin: Origin::System });
    }
    system.retain(|request| !taken(&requests, &request.target));
    requests.append(&mut system);

    let mut add_request = |request: MountRequest| {
        let shown = taken(&requests, &request.target) || requests.iter().any(|other| other.shows(&request.target));
        if !shown && coracle::request::inside(&request.target).is_ok() {
            requests.push(request);
        }
    };
    // A service account's home may be /bin: then the image's is used.
    let home = around.home.filter(|home| !OWN.iter().any(|top| home.starts_with(top)));
    if let Some(home) = home.filter(|_| settings.home.unwrap_or(true)) {
        add_request(MountRequest::node(home, ReadWrite, IfThere, Origin::Home));
    }
    if let Some(server) = around.pmix {
        add_request(MountRequest {
            source: Source::Late(server.into()),
            ..MountRequest::node(server, ReadWrite, Required, Origin::Slurm)
        });
    }
    let mut add =
        |path: &Path, access, presence, origin| add_request(MountRequest::node(path, access, presence, origin));
    add(Path::new(mpi::MUNGE), ReadWrite, IfThere, Origin::Slurm);
    if let Some(directory) = around.script_folder {
        add(directory, ReadOnly, Required, Origin::Slurm);
    }
    let images_own = is_image_directory(around.directory);
    let presence = match settings.workdir {
        Some(_) => IfThere,
        None if images_own => UnlessInImage,
        None => Required,
    };
    add(around.directory, ReadWrite, presence, Origin::Workdir);
    for file in around.files {
        add(file, ReadOnly, IfThere, Origin::Slurm);
    }
    // These come last, when the mounts above them are known. None of them justifies a new directory in the image, or a
    // home that the user declined.
    let unwanted = |path: &Path| settings.home == Some(false) && home.is_some_and(|home| path.starts_with(home));
    for directory in around.named.iter().filter(|path| !is_image_directory(path) && !unwanted(path)) {
        add(directory, ReadWrite, Presence::IfMissing, Origin::Variable);
    }
    let helper = around.client.is_some() || settings.entrypoint == Some(true);
    if helper || around.mpi.is_some() || around.driver.is_some() {
        requests.extend(private(around, helper));
    }
    if let Some((profile, fit)) = around.mpi {
        requests.extend(mpi_requests(profile, fit));
    }
    requests
}

/// True if this path means the image's directory.
fn is_image_directory(path: &Path) -> bool {
    OWN.iter().any(|top| path.starts_with(top)) || TOPS.iter().any(|top| path == Path::new(top))
}

/// Mounts of the host's MPI libraries over those of the image, and of the directories that they open by path.
fn mpi_requests<'a>(profile: &'a Profile, fit: &'a Fit) -> impl Iterator<Item = MountRequest> + 'a {
    let request = |source: &Path, target: &Path, presence| {
        let (source, target) = (Source::Node(source.to_owned()), target.to_owned());
        MountRequest { source, target, access: Access::ReadOnly, presence, origin: Origin::Mpi }
    };
    let places = |shown: &'a Shown| shown.over.iter().map(|over| over.place.as_path());
    let covered: BTreeSet<&Path> = fit.shown.iter().flat_map(places).filter_map(Path::parent).collect();
    let over = profile.files().zip(&fit.shown).filter(|(_, shown)| !shown.stays).flat_map(move |(file, shown)| {
        // A program that finds the library there without LD_LIBRARY_PATH searches there for its dependencies.
        let beside = covered.iter().map(|directory| directory.join(&shown.soname)).filter(|_| shown.over.is_empty());
        let targets: Vec<PathBuf> = places(shown).map(Path::to_owned).chain(beside).collect();
        targets.into_iter().map(move |target| request(file, &target, Presence::IfThere))
    });
    let directories = profile.folders.iter();
    over.chain(directories.map(move |directory| request(&directory.source.0, directory.target(), Presence::Required)))
}

/// Mounts of Coracle's own directory in the container, and of the files below it and for it.
fn private(around: &Surroundings<'_>, helper: bool) -> Vec<MountRequest> {
    let node = |source: &Path, target: &Path, presence| {
        let origin = if target.starts_with(PRIVATE) { Origin::Private } else { Origin::Slurm };
        let (source, target) = (Source::Node(source.to_owned()), target.to_owned());
        MountRequest { source, target, access: Access::ReadOnly, presence, origin }
    };
    let (mut requests, mut entries) = (Vec::new(), Entries::below(PRIVATE.as_ref()));
    if helper {
        requests.push(node(around.helper, Path::new(HELPER), Presence::Required));
        entries.add(HELPER.as_ref(), |path| Entry::File(path, String::new()));
        entries.add(ENTRYPOINT.as_ref(), |path| Entry::Link(path, HELPER.into()));
    }
    let mpi = around.mpi.into_iter().flat_map(|(profile, fit)| profile.files().zip(&fit.shown));
    for (file, shown) in mpi.filter(|(_, shown)| !shown.stays) {
        let place = Path::new(MPI_LIBRARIES).join(&shown.soname);
        entries.add(&place, |path| Entry::File(path, String::new()));
        requests.push(node(file, &place, Presence::Required));
        // A program that opens a library by its file name (dlopen(3)) finds it, too.
        if let Some(name) = file.file_name().filter(|name| *name != shown.soname.as_str()) {
            let link = Path::new(MPI_LIBRARIES).join(name);
            entries.add(&link, |path| Entry::Link(path, shown.soname.clone().into()));
        }
    }
    if let Some(driver) = around.driver {
        requests.extend(devices::driver_files(driver, &mut entries));
    }
    if let Some(client) = around.client {
        entries.add(LAUNCH.as_ref(), |path| Entry::File(path, client.launch.clone()));
        entries.add(EPILOG.as_ref(), |path| Entry::File(path, client.epilog.clone()));
        let mut commands = BTreeMap::new();
        for link in &client.links {
            entries.add(&link.place, |path| Entry::Link(path, link.target.clone()));
            // A login shell resets PATH, and every PATH has this directory. A command of the image is kept.
            if let Some(name) = link.place.strip_prefix(COMMANDS).ok().and_then(Path::to_str) {
                commands.insert(name.to_owned(), link.target.clone());
            }
        }
        requests.push(MountRequest {
            source: Source::Links(commands),
            target: PROGRAMS.into(),
            access: Access::ReadOnly,
            presence: Presence::IfThere,
            origin: Origin::Slurm,
        });
        for bind in &client.binds {
            entries.add(&bind.target, Entry::Directory);
            let presence = match (bind.target.starts_with(PRIVATE), bind.unless_in_image) {
                (true, _) => Presence::Required,
                (false, true) => Presence::IfMissing,
                // A file of the image in place of Slurm's directories breaks Slurm's commands, but not the job.
                (false, false) => Presence::IfThere,
            };
            requests.push(node(&bind.source, &bind.target, presence));
        }
    }
    let (source, target) = (Source::Made(entries.into_made()), PRIVATE.into());
    let presence = Presence::Required;
    requests.push(MountRequest { source, target, access: Access::ReadOnly, presence, origin: Origin::Private });
    requests
}

#[cfg(test)]
mod tests;
