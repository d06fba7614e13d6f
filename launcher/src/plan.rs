//! Holds the operations that build a container, as plain data.
//!
//! A plan prints one line for each operation. Tests compare that text, and administrators read it. The launcher's
//! `apply` performs these operations, in this order, and no others.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::image::Image;
use crate::view::{MountRequest, Origin, Presence, Source, TIME_ZONE};
use coracle::report::{Kind, Refusal, clean};
use coracle::request::{Access, PRIVATE, Settings, Writable};
use coracle::sys::Attributes;

/// Directory or other file: a directory can only be mounted on a directory, any other file only on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A directory.
    Directory,
    /// Any other file.
    File,
}

impl fmt::Display for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Directory => "directory",
            Self::File => "file",
        })
    }
}

/// Mount point of a [`MountRequest`] in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Path in the image, with its symbolic links resolved.
    pub place: PathBuf,
    /// Shape of the image's file at this path, if there is one.
    pub found: Option<Shape>,
    /// First symbolic link on the path, if there is one.
    pub link: Option<PathBuf>,
}

/// Reason why a path in the image cannot be a mount point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// Symbolic link that leads above the image's root.
    Escape(PathBuf),
    /// Too many symbolic links.
    TooManyLinks,
    /// File in place of a directory.
    NotADirectory(PathBuf),
    /// Name of more than 255 bytes.
    NameTooLong,
}

/// [`MountRequest`] with the shape of its source and its target in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedMount {
    /// The request.
    pub request: MountRequest,
    /// Shape of the source.
    pub shape: Shape,
    /// Target in the image, or the reason why there is none.
    pub target: Result<Target, Obstacle>,
}

/// All operations, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Image that becomes the root.
    pub image: Image,
    /// Owners that the image's files show.
    pub owners: Owners,
    /// Mount points that the image lacks; with any of them, an overlay of two read-only layers is the root.
    pub layer: BTreeMap<PathBuf, Shape>,
    /// Files that the root has as copies, each with the index of its [`ResolvedMount`]: a user who writes into the
    /// image could not replace a mount.
    pub copies: BTreeMap<PathBuf, usize>,
    /// Symbolic links in a layer below the image, each with its target: a file of the image takes precedence.
    pub links: BTreeMap<PathBuf, PathBuf>,
    /// Target of writes into the image; without one the root is read-only.
    pub upper: Option<Upper>,
    /// Mounts in the container, parents before children.
    pub mounts: Vec<Mount>,
}

/// Owners that the files of an image show in the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owners {
    /// Owners as in the image.
    #[default]
    Image,
    /// The user for files of root, root for files of the user.
    RootIsUser,
    /// The user, for every owner in the image.
    AllAreUsers,
}

impl Owners {
    /// The keyword.
    pub fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::RootIsUser => "root-as-user",
            Self::AllAreUsers => "all-as-user",
        }
    }

    /// The owners in words, for a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Image => "files are shown as those of their owners in the image",
            Self::RootIsUser => "files of root are shown as the user's",
            Self::AllAreUsers => "all files are shown as the user's",
        }
    }
}

/// Target of writes into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upper {
    /// Memory, up to this number of bytes.
    Memory(u64),
    /// Directory of the node.
    Directory(PathBuf),
}

impl Upper {
    /// Target that the settings request; a size in memory is capped at the site's limit.
    pub fn of(settings: &Settings, config: &Config) -> Option<Self> {
        let limit = config.writable_limit.0;
        match (&settings.overlay, settings.writable) {
            (Some(directory), _) => Some(Self::Directory(directory.clone())),
            (None, Some(Writable::Memory(size))) => Some(Self::Memory(size.map_or(limit, |size| size.min(limit)).0)),
            (None, _) => None,
        }
    }
}

/// One mount into the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Index of its [`ResolvedMount`].
    pub index: usize,
    /// Origin of the mount.
    pub source: Source,
    /// Reason for the mount.
    pub origin: Origin,
    /// Mount point.
    pub place: PathBuf,
    /// Flags of the mount and of all mounts below it.
    pub attributes: Attributes,
    /// True if the mount point lies in a tree of the node, where the user may rename files during the lookup: it is
    /// looked up as the user, without following links.
    pub nested: bool,
}

/// Reason why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// /proc, /sys or /dev of the image is a symbolic link, or no directory.
    Kernel(PathBuf),
    /// Two binds of the user have the same mount point.
    SamePlace(PathBuf),
    /// A directory on a file, or a file on a directory.
    Shape {
        /// The mount point.
        place: PathBuf,
        /// Shape of the source.
        wanted: Shape,
        /// Shape of the image's file at this path.
        found: Shape,
    },
    /// A symbolic link of the image leads into a tree of the node.
    LeadsOut {
        /// Requested mount point.
        target: PathBuf,
        /// Symbolic link of the image.
        link: PathBuf,
        /// Path to which the link leads.
        place: PathBuf,
    },
    /// The path cannot be a mount point.
    Obstacle(PathBuf, Obstacle),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let bind = |path: &Path, cause: String| Self::new(Kind::Bind, path.display().to_string(), cause);
        match error {
            Error::Kernel(path) => Self::new(
                Kind::ImageFormat,
                path.display().to_string(),
                "in the image this must be a plain directory, or missing",
            ),
            Error::SamePlace(path) => bind(&path, "two binds for the same place in the container".into()),
            Error::Shape { place, wanted, found } => {
                bind(&place, format!("the image has a {found} there, a {wanted} cannot be bound over it"))
            }
            Error::LeadsOut { target, link, place } => {
                let (link, place) = (link.display(), place.display());
                bind(&target, format!("the symbolic link {link} of the image leads out of it, to {place}"))
            }
            Error::Obstacle(target, Obstacle::Escape(link)) => {
                bind(&target, format!("the symbolic link {} of the image leads out of it", link.display()))
            }
            Error::Obstacle(target, Obstacle::TooManyLinks) => {
                bind(&target, "too many levels of symbolic links in the image".into())
            }
            Error::Obstacle(target, Obstacle::NameTooLong) => bind(&target, "a name of more than 255 bytes".into()),
            Error::Obstacle(target, Obstacle::NotADirectory(place)) => {
                bind(&target, format!("{} is a file in the image", place.display()))
            }
        }
    }
}

impl Plan {
    /// Orders the mounts, or reports a conflict.
    pub fn build(image: Image, upper: Option<Upper>, candidates: &[ResolvedMount]) -> Result<Self, Error> {
        let mut chosen: BTreeMap<PathBuf, (usize, &ResolvedMount, Target)> = BTreeMap::new();
        for (index, candidate) in candidates.iter().enumerate() {
            if matches!(candidate.request.source, Source::Links(_)) {
                continue;
            }
            let Some(target) = usable(candidate)? else { continue };
            match chosen.get(&target.place).map(|(_, other, _)| other.request.origin) {
                Some(Origin::User) if candidate.request.origin == Origin::User => {
                    return Err(Error::SamePlace(target.place));
                }
                Some(other) if other > candidate.request.origin => {}
                _ => {
                    chosen.insert(target.place.clone(), (index, candidate, target));
                }
            }
        }
        let mut layer = BTreeMap::new();
        let mut copies = BTreeMap::new();
        let mut mounts = Vec::new();
        for (place, (index, candidate, target)) in &chosen {
            let above = place.ancestors().skip(1).find_map(|above| chosen.get(above));
            let nested = above.is_some();
            let in_ours = above.is_some_and(|(_, above, _)| matches!(above.request.source, Source::Made(_)));
            // The directory mounted above shows it already. A bind of the site is not skipped, because its mode
            // matters.
            if matches!(candidate.request.origin, Origin::Slurm | Origin::Mpi | Origin::Driver)
                && candidate.request.presence.optional()
                && above.is_some_and(|(_, above, target)| shows(above, &target.place, candidate, place))
            {
                continue;
            }
            // A mount above a library of the image replaces that library already.
            let replaces = matches!(candidate.request.origin, Origin::Mpi | Origin::Driver);
            if nested && !in_ours && replaces && candidate.request.presence.optional() {
                continue;
            }
            // A tree of the node has its own time zone or none, and its files are not covered.
            let time_zone = candidate.request.source == Source::TimeZone;
            if nested && time_zone {
                continue;
            }
            match &target.link {
                // The launcher's own directory, which has no links and which no other process changes.
                Some(_) if in_ours => {}
                // An image must not choose the mount point in the user's directories.
                Some(_) if nested && candidate.request.presence.optional() => continue,
                Some(link) if nested => {
                    let (target, link) = (candidate.request.target.clone(), link.clone());
                    return Err(Error::LeadsOut { target, link, place: place.clone() });
                }
                _ => {}
            }
            match target.found {
                _ if nested => {}
                None if time_zone && upper.is_some() => {}
                None => {
                    layer.insert(place.clone(), candidate.shape);
                }
                // If an optional mount does not match the shape of the image's file, that file stays.
                Some(found) if found != candidate.shape && candidate.request.presence.optional() => continue,
                Some(found) if found != candidate.shape => {
                    return Err(Error::Shape { place: place.clone(), wanted: candidate.shape, found });
                }
                Some(_) => {}
            }
            if time_zone && upper.is_some() {
                copies.insert(place.clone(), *index);
                continue;
            }
            mounts.push(Mount {
                index: *index,
                source: candidate.request.source.clone(),
                origin: candidate.request.origin,
                place: place.clone(),
                attributes: candidate.request.attributes(),
                nested,
            });
        }
        let mut links = BTreeMap::new();
        for candidate in candidates {
            let Source::Links(names) = &candidate.request.source else { continue };
            let Some(Target { place, .. }) = usable(candidate)? else { continue };
            // A tree of the node has its own files.
            if place.ancestors().any(|above| chosen.contains_key(above)) {
                continue;
            }
            let places = names.iter().map(|(name, to)| (place.join(name), to.clone()));
            // A mount point has this name, or is below it.
            let taken = |place: &PathBuf| {
                chosen.range(place.clone()..).next().is_some_and(|(mounted, _)| mounted.starts_with(place))
            };
            links.extend(places.filter(|(place, _)| !taken(place)));
        }
        // A map of paths has every directory before its content.
        Ok(Self { image, owners: Owners::default(), layer, copies, links, upper, mounts })
    }
}

/// True if `above`, mounted at `directory`, shows at `place` the same file or directory as `below` would. Files of
/// Slurm's commands are named by their real path, and appear at the node's path.
fn shows(above: &ResolvedMount, directory: &Path, below: &ResolvedMount, place: &Path) -> bool {
    match (&above.request.source, &below.request.source) {
        (Source::Node(top), Source::Node(path)) => {
            let same =
                |there: &Path| there == path || below.request.origin == Origin::Slurm && there == below.request.target;
            place.strip_prefix(directory).is_ok_and(|rest| same(&top.join(rest)))
                && (above.request.access == below.request.access || below.request.access == Access::ReadOnly)
        }
        _ => false,
    }
}

/// Target of a request; `None` if the mount is not needed.
fn usable(candidate: &ResolvedMount) -> Result<Option<Target>, Error> {
    let request = &candidate.request;
    let target = match &candidate.target {
        Ok(target) => target.clone(),
        Err(_) if request.origin == Origin::Kernel => return Err(Error::Kernel(request.target.clone())),
        Err(_) if request.presence.optional() => return Ok(None),
        Err(obstacle) => return Err(Error::Obstacle(request.target.clone(), obstacle.clone())),
    };
    if request.origin == Origin::Kernel && (target.link.is_some() || target.found == Some(Shape::File)) {
        return Err(Error::Kernel(request.target.clone()));
    }
    // A link of the image must not lead to a path that the user may not request.
    let ours = matches!(request.origin, Origin::Private | Origin::Driver) && target.place.starts_with(PRIVATE);
    if !matches!(request.origin, Origin::Kernel | Origin::Device)
        && !ours
        && coracle::request::inside(&target.place).is_err()
    {
        return match (request.presence, target.link) {
            (Presence::IfThere | Presence::IfMissing, _) => Ok(None),
            (_, link) => {
                let link = link.unwrap_or_else(|| request.target.clone());
                Err(Error::LeadsOut { target: request.target.clone(), link, place: target.place })
            }
        };
    }
    let images_own = match request.presence {
        Presence::UnlessInImage => target.found == Some(Shape::Directory),
        Presence::IfMissing => target.found.is_some(),
        Presence::Required | Presence::IfThere => false,
    };
    Ok((!images_own).then_some(target))
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owners = Some(self.owners).filter(|owners| *owners != Owners::Image).map(Owners::word);
        let words = ["ro", "nosuid", "nodev"].into_iter().chain(owners).collect::<Vec<_>>();
        writeln!(out, "image  {} {}", self.image, words.join(","))?;
        match &self.upper {
            None => {}
            Some(Upper::Memory(size)) => writeln!(out, "upper  (memory) size={size}")?,
            Some(Upper::Directory(path)) => writeln!(out, "upper  {}", shown(path))?,
        }
        for (path, shape) in &self.layer {
            writeln!(out, "layer  {shape:<6} {}", shown(path))?;
        }
        for path in self.copies.keys() {
            writeln!(out, "copy   {TIME_ZONE} -> {}", shown(path))?;
        }
        for (place, target) in &self.links {
            writeln!(out, "link   {} -> {}", shown(place), shown(target))?;
        }
        for mount in &self.mounts {
            let source = match &mount.source {
                Source::Node(path) | Source::Late(path) => shown(path),
                Source::TimeZone => TIME_ZONE.to_owned(),
                Source::Passwd => "(passwd)".to_owned(),
                Source::Group => "(group)".to_owned(),
                Source::Memory(size) => format!("(memory size={})", size.0),
                Source::Made(_) if mount.origin == Origin::Kernel => "(devices)".to_owned(),
                Source::Made(_) => "(coracle)".to_owned(),
                Source::Links(_) => "(links)".to_owned(),
            };
            let flags = mount.attributes;
            let mut words = vec![if flags.read_only { "ro" } else { "rw" }];
            words.extend(flags.no_suid.then_some("nosuid"));
            words.extend(flags.no_dev.then_some("nodev"));
            words.extend(flags.no_exec.then_some("noexec"));
            words.extend(mount.nested.then_some("nested"));
            writeln!(out, "mount  {source} -> {} {}", shown(&mount.place), words.join(","))?;
        }
        writeln!(out, "enter  no_new_privs, no capabilities")
    }
}

/// Path in one line, whatever characters it contains.
fn shown(path: &Path) -> String {
    clean(&path.display().to_string())
}
