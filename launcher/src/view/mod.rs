//! Mounts that a container should have, before anybody has looked at the image or the node.
#![forbid(unsafe_code)]

mod devices;
mod entries;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::{Config, Profile};
use crate::devices::{Devices, Driver, STORES};
use crate::mpi::{self, Fit, Shown};
use coracle::request::{Access, BindSource, PRIVATE, Settings, Size};
use coracle::sys::Attributes;
use coracle::wire::EPILOG;

use entries::Entries;

/// Mount that the container should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountRequest {
    /// Origin of the mount.
    pub source: Source,
    /// Path at which it should appear.
    pub target: PathBuf,
    /// Access that the mount gives.
    pub access: Access,
    /// Handling of a source that the node does not have, or a place that the image has.
    pub presence: Presence,
    /// Reason for the mount.
    pub origin: Origin,
}

/// Origin of something visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder or file of the node, opened as the user.
    Node(PathBuf),
    /// A directory of the node that need not exist before the container does: it is attached afterwards.
    Late(PathBuf),
    /// The node's file at [`TIME_ZONE`], over whatever file or link an image has there.
    TimeZone,
    /// The image's /etc/passwd with the user's line.
    Passwd,
    /// The image's /etc/group with the lines of the user's groups.
    Group,
    /// An empty folder in memory, of at most this size.
    Memory(Size),
    /// A folder that is made for this container.
    Made(Vec<Entry>),
}

/// One entry of a folder that is made, by its path in it. Folders come before what is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder.
    Folder(PathBuf),
    /// A file with this content; without any, something is mounted on it.
    File(PathBuf, String),
    /// A symbolic link and where it leads.
    Link(PathBuf, PathBuf),
    /// A character device, and the numbers of its driver and of itself, for everybody.
    Device(PathBuf, u32, u32),
}

/// Handling of a source that the node does not have, or a place that the image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The container is refused without it.
    Required,
    /// It is left out where the node does not have it.
    IfThere,
    /// Required, but the image's own folder of that name is just as good.
    UnlessInImage,
    /// It is left out where the node does not have it, or the image does.
    IfMissing,
}

impl Presence {
    /// True if a container can do without it.
    pub fn optional(self) -> bool {
        matches!(self, Self::IfThere | Self::IfMissing)
    }
}

/// Reason for a mount. Of two requests for the same mount point, the later in this list gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// /proc, /sys, /dev: real folders in every image, or missing.
    Kernel,
    /// A node in /dev.
    Device,
    /// The host's MPI in place of the image's: where that is, the image says.
    Mpi,
    /// A file of a GPU's driver.
    Driver,
    /// Every container has it.
    System,
    /// The user's home.
    Home,
    /// The working directory of the job.
    Workdir,
    /// A directory that a variable of the job's environment names.
    Variable,
    /// The batch script, the PMIx server, munge, the client's configuration and plugins.
    Slurm,
    /// A file of Coracle's own inside.
    Private,
    /// `binds` of coracle.yaml, by index.
    Site(usize),
    /// `--container-bind`
    User,
}

impl Origin {
    /// The word for it in records.
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

/// Slurm's facts about the step that decide what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings<'a> {
    /// True if the tasks are root's, of the node and not of a user namespace.
    pub root: bool,
    /// The working directory.
    pub directory: &'a Path,
    /// The user's home, if the node knows the user.
    pub home: Option<&'a Path>,
    /// The folder of a batch script.
    pub script_folder: Option<&'a Path>,
    /// The folder of the PMIx server.
    pub pmix: Option<&'a Path>,
    /// Single files that the job refers to: a task prolog, the X server's cookie.
    pub files: &'a [PathBuf],
    /// Directories that variables of the job's environment name.
    pub named: &'a [PathBuf],
    /// Needs of the commands of Slurm inside, if they are to work there.
    pub client: Option<&'a Client>,
    /// The program of ours that runs inside, for those commands and for entry points.
    pub helper: &'a Path,
    /// The host's MPI that stands in for the image's, and how it fits.
    pub mpi: Option<(&'a Profile, &'a Fit)>,
    /// Contents of /dev; nothing, if that is the node's own.
    pub devices: Option<&'a Devices>,
    /// Files of a GPU's driver that programs need.
    pub driver: Option<&'a Driver>,
}

/// Needs of the commands of Slurm inside, and the way in which they are started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Client {
    /// Mounts, all of them read-only, in no particular order.
    pub binds: Vec<ClientBind>,
    /// Symbolic links that are made, below [`PRIVATE`].
    pub links: Vec<ClientLink>,
    /// The text of [`LAUNCH`].
    pub launch: String,
    /// The text of [`coracle::wire::EPILOG`].
    pub epilog: String,
}

/// A folder or file of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientBind {
    /// Path on the node, without symbolic links.
    pub source: PathBuf,
    /// Path inside.
    pub target: PathBuf,
    /// It is left out when the image has something at `target`.
    pub unless_in_image: bool,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLink {
    /// Path inside.
    pub place: PathBuf,
    /// Target of the link.
    pub target: PathBuf,
}

/// The file of the local time zone (localtime(5)), a link as a rule.
pub const TIME_ZONE: &str = "/etc/localtime";

/// Directory in which a container shows the node's folders of programs and libraries.
pub const HOST: &str = "/run/coracle/host";
/// File in which `coracle-inside` reads [`Client::launch`].
pub const LAUNCH: &str = "/run/coracle/slurm/launch";
/// The name under which it runs an entry point.
pub const ENTRYPOINT: &str = "/run/coracle/entrypoint";
/// Path of our program inside.
pub const HELPER: &str = "/run/coracle/inside";
/// Directory of every usual `PATH`, in which each command appears again unless the image has one of that name there.
const PROGRAMS: &str = "/usr/bin";
/// Directory of Slurm's commands inside.
pub const COMMANDS: &str = "/run/coracle/slurm/bin";

/// Directory of the host's MPI libraries inside, under their SONAMEs.
pub const MPI_LIBRARIES: &str = "/run/coracle/mpi/lib";

/// Directory of the libraries of a GPU's driver inside.
pub const GPU_LIBRARIES: &str = "/run/coracle/gpu/lib";
/// Directory of its programs.
pub const GPU_PROGRAMS: &str = "/run/coracle/gpu/bin";
/// File of the variables that it wants to be set: `NAME=VALUE` lines.
pub const GPU_ENVIRONMENT: &str = "/run/coracle/gpu/environment";

/// Folders that belong to the operating system: there the image's own is meant, not the node's.
const OWN: &[&str] = &["/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"];
/// Folders that are the image's when the job stands right in them, and the node's below.
const TOPS: &[&str] = &["/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/var"];

/// Files of the kernel that uid 0 may write by their modes, without any capability: a program that becomes the handler of
/// core dumps runs with all rights (proc_sys_kernel(5), core_pattern). runc shows the same ones read-only.
const SETTINGS: &[&str] = &["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];

impl MountRequest {
    fn node(path: impl Into<PathBuf>, access: Access, presence: Presence, origin: Origin) -> Self {
        let path = path.into();
        Self { source: Source::Node(path.clone()), target: path, access, presence, origin }
    }

    /// The flags of its mounts. Device nodes work in /dev and where they were put there, and nowhere else.
    pub fn attributes(&self) -> Attributes {
        let device = self.origin == Origin::Device;
        // Memory that is shared is run, too: compilers at work put code there.
        let dev = self.origin == Origin::Kernel && self.target == Path::new("/dev");
        let stores = device && STORES.iter().any(|folder| self.target == Path::new(folder));
        Attributes {
            read_only: self.access == Access::ReadOnly,
            no_suid: true,
            no_dev: !(device && !stores || dev),
            no_exec: match self.origin {
                // What is mounted below the node's own is not ours to judge.
                Origin::Kernel => !(dev && matches!(self.source, Source::Node(_))),
                _ => device && !stores,
            },
        }
    }

    /// True when `path` is already visible through this one, at the same place as on the node.
    fn shows(&self, path: &Path) -> bool {
        matches!(&self.source, Source::Node(source) if *source == self.target && path.starts_with(source))
    }
}

/// Returns the mounts that a container should have, in no particular order.
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
    // What the user or the site has put at a place, or above it, stands for what would be there.
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
    // A service account's home may be /bin: the image's is meant there.
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
    if let Some(folder) = around.script_folder {
        add(folder, ReadOnly, Required, Origin::Slurm);
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
    // Last, since what is to be seen below one of them has been opened by then. None of them is worth a directory of the
    // image's, nor a home that is not wanted.
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

/// True if the image's own is meant by this directory.
fn is_image_directory(path: &Path) -> bool {
    OWN.iter().any(|top| path.starts_with(top)) || TOPS.iter().any(|top| path == Path::new(top))
}

/// The host's MPI libraries over those of the image, and the folders that they open by path.
fn mpi_requests<'a>(profile: &'a Profile, fit: &'a Fit) -> impl Iterator<Item = MountRequest> + 'a {
    let request = |source: &Path, target: &Path, presence| {
        let (source, target) = (Source::Node(source.to_owned()), target.to_owned());
        MountRequest { source, target, access: Access::ReadOnly, presence, origin: Origin::Mpi }
    };
    let places = |shown: &'a Shown| shown.over.iter().map(|over| over.place.as_path());
    let covered: BTreeSet<&Path> = fit.shown.iter().flat_map(places).filter_map(Path::parent).collect();
    let over = profile.files().zip(&fit.shown).filter(|(_, shown)| !shown.stays).flat_map(move |(file, shown)| {
        // Whoever has found the library there without LD_LIBRARY_PATH looks there for what it needs.
        let beside = covered.iter().map(|folder| folder.join(&shown.soname)).filter(|_| shown.over.is_empty());
        let targets: Vec<PathBuf> = places(shown).map(Path::to_owned).chain(beside).collect();
        targets.into_iter().map(move |target| request(file, &target, Presence::IfThere))
    });
    let folders = profile.folders.iter();
    over.chain(folders.map(move |folder| request(&folder.source.0, folder.target(), Presence::Required)))
}

/// The folder that is Coracle's own inside, and what is mounted below it and for it.
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
        // What opens a library by the name of its file (dlopen(3)) finds it, too.
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
        for link in &client.links {
            entries.add(&link.place, |path| Entry::Link(path, link.target.clone()));
            // A login shell sets PATH anew, and every PATH has this directory. The image's own command stays.
            if let Ok(name) = link.place.strip_prefix(COMMANDS) {
                requests.push(node(around.helper, &Path::new(PROGRAMS).join(name), Presence::IfMissing));
            }
        }
        for bind in &client.binds {
            entries.add(&bind.target, Entry::Folder);
            let presence = match (bind.target.starts_with(PRIVATE), bind.unless_in_image) {
                (true, _) => Presence::Required,
                (false, true) => Presence::IfMissing,
                // What an image has in the way of Slurm's own folders breaks its commands, and not the job.
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
