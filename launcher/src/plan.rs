//! The steps that make a container, as plain data.
//!
//! A plan prints one line a step. That text is what tests compare and what an admin reads; the launcher's
//! `apply` does what it says, in this order, and nothing else.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::image::Image;
use crate::view::{Origin, Presence, Source, TIME_ZONE, Want};
use coracle::report::{Kind, Refusal, clean};
use coracle::request::{Access, PRIVATE, Settings, Writable};
use coracle::sys::Attributes;

/// Folder or not: a folder can only be mounted on a folder, anything else on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A directory.
    Folder,
    /// Anything else.
    File,
}

impl fmt::Display for Shape {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Folder => "folder",
            Self::File => "file",
        })
    }
}

/// State of the image at the place where something should appear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The place itself, with the image's symbolic links followed.
    pub place: PathBuf,
    /// Shape of what is there; nothing, if the image ends before.
    pub found: Option<Shape>,
    /// The first symbolic link on the way, if there was one.
    pub link: Option<PathBuf>,
}

/// Why a place in the image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// A symbolic link that climbs above the image's root.
    Escape(PathBuf),
    /// More links than anybody means to have.
    TooManyLinks,
    /// A file where a folder should be.
    NotAFolder(PathBuf),
    /// A name of more than 255 bytes.
    NameTooLong,
}

/// A want, with what it is on the node and where it would go in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Mount that should be visible.
    pub want: Want,
    /// Shape of the source.
    pub shape: Shape,
    /// Place at which it would go.
    pub sight: Result<Sight, Obstacle>,
}

/// Every step, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Image that is mounted as the root.
    pub image: Image,
    /// Owners that its files show.
    pub owners: Owners,
    /// Mount points that the image lacks; with any of them, an overlay of two read-only layers is the root.
    pub layer: BTreeMap<PathBuf, Shape>,
    /// Files that the root has as copies, each with the index of its sighting: what is mounted could not be replaced by
    /// those who write into the image.
    pub copies: BTreeMap<PathBuf, usize>,
    /// Target of writes into the image; without it the root is read-only.
    pub upper: Option<Upper>,
    /// Mounts in it, parents before children.
    pub mounts: Vec<Mount>,
}

/// Owners that the files of an image show in the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owners {
    /// Those that the image says.
    #[default]
    Image,
    /// The user where the image says root, root where it says the user.
    RootIsUser,
    /// The user, whoever the image says.
    AllAreUsers,
}

impl Owners {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::RootIsUser => "root-as-user",
            Self::AllAreUsers => "all-as-user",
        }
    }

    /// The same in a sentence.
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
    /// Into memory, at most so many bytes.
    Memory(u64),
    /// Into this folder of the node.
    Folder(PathBuf),
}

impl Upper {
    /// Size that was asked for, within the site's limit.
    pub fn of(settings: &Settings, config: &Config) -> Option<Self> {
        let limit = config.writable_limit.0;
        match (&settings.overlay, settings.writable) {
            (Some(folder), _) => Some(Self::Folder(folder.clone())),
            (None, Some(Writable::Memory(size))) => Some(Self::Memory(size.map_or(limit, |size| size.min(limit)).0)),
            (None, _) => None,
        }
    }
}

/// One mount into the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The index of its sighting.
    pub index: usize,
    /// Origin of the mount.
    pub source: Source,
    /// Who wants it.
    pub origin: Origin,
    /// Place of the mount.
    pub place: PathBuf,
    /// The flags of it and all below it.
    pub attributes: Attributes,
    /// It goes into a tree of the node, where the user may change names while we look: it is found with the
    /// user's rights and follows no link.
    pub nested: bool,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The image's /proc, /sys or /dev is no plain folder.
    Kernel(PathBuf),
    /// Two of the user's binds want the same place.
    SamePlace(PathBuf),
    /// A folder on a file, or a file on a folder.
    Shape {
        /// The place.
        place: PathBuf,
        /// Shape that should go there.
        wanted: Shape,
        /// Shape that the image has there.
        found: Shape,
    },
    /// A symbolic link of the image leads into a tree of the node.
    LeadsOut {
        /// Path at which it should appear.
        target: PathBuf,
        /// The image's link.
        link: PathBuf,
        /// Path that it leads to.
        place: PathBuf,
    },
    /// The place cannot be used.
    Obstacle(PathBuf, Obstacle),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let bind = |path: &Path, cause: String| Self::new(Kind::Bind, path.display().to_string(), cause);
        match error {
            Error::Kernel(path) => Self::new(
                Kind::ImageFormat,
                path.display().to_string(),
                "in the image this must be a plain folder, or missing",
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
            Error::Obstacle(target, Obstacle::NotAFolder(place)) => {
                bind(&target, format!("{} is a file in the image", place.display()))
            }
        }
    }
}

impl Plan {
    /// Puts everything in order, or says what contradicts what.
    pub fn build(image: Image, upper: Option<Upper>, sightings: &[Sighting]) -> Result<Self, Error> {
        let mut chosen: BTreeMap<PathBuf, (usize, &Sighting, Sight)> = BTreeMap::new();
        for (index, sighting) in sightings.iter().enumerate() {
            let Some(sight) = usable(sighting)? else { continue };
            match chosen.get(&sight.place).map(|(_, other, _)| other.want.origin) {
                Some(Origin::User) if sighting.want.origin == Origin::User => {
                    return Err(Error::SamePlace(sight.place));
                }
                Some(other) if other > sighting.want.origin => {}
                _ => {
                    chosen.insert(sight.place.clone(), (index, sighting, sight));
                }
            }
        }
        let mut layer = BTreeMap::new();
        let mut copies = BTreeMap::new();
        let mut mounts = Vec::new();
        for (place, (index, sighting, sight)) in &chosen {
            let above = place.ancestors().skip(1).find_map(|above| chosen.get(above));
            let nested = above.is_some();
            let in_ours = above.is_some_and(|(_, above, _)| matches!(above.want.source, Source::Made(_)));
            // Through the folder above it, it is there already. A bind of the site's is one for what its mode says.
            if matches!(sighting.want.origin, Origin::Slurm | Origin::Mpi | Origin::Driver)
                && sighting.want.presence.optional()
                && above.is_some_and(|(_, above, sight)| shows(above, &sight.place, sighting, place))
            {
                continue;
            }
            // Whoever has put something above a library of the image's has put his own in its place.
            let replaces = matches!(sighting.want.origin, Origin::Mpi | Origin::Driver);
            if nested && !in_ours && replaces && sighting.want.presence.optional() {
                continue;
            }
            // A tree of the node's has a time zone, or none, and its files are not covered.
            let time_zone = sighting.want.source == Source::TimeZone;
            if nested && time_zone {
                continue;
            }
            match &sight.link {
                // Our own folder, which has no links, and nobody else's.
                Some(_) if in_ours => {}
                // An image cannot choose where in the user's folders something is mounted.
                Some(_) if nested && sighting.want.presence.optional() => continue,
                Some(link) if nested => {
                    let (target, link) = (sighting.want.target.clone(), link.clone());
                    return Err(Error::LeadsOut { target, link, place: place.clone() });
                }
                _ => {}
            }
            match sight.found {
                _ if nested => {}
                None if time_zone && upper.is_some() => {}
                None => {
                    layer.insert(place.clone(), sighting.shape);
                }
                // What an image has in the way of something that may be missing stays.
                Some(found) if found != sighting.shape && sighting.want.presence.optional() => continue,
                Some(found) if found != sighting.shape => {
                    return Err(Error::Shape { place: place.clone(), wanted: sighting.shape, found });
                }
                Some(_) => {}
            }
            if time_zone && upper.is_some() {
                copies.insert(place.clone(), *index);
                continue;
            }
            mounts.push(Mount {
                index: *index,
                source: sighting.want.source.clone(),
                origin: sighting.want.origin,
                place: place.clone(),
                attributes: sighting.want.attributes(),
                nested,
            });
        }
        // A map of paths has every folder before what is below it.
        Ok(Self { image, owners: Owners::default(), layer, copies, upper, mounts })
    }
}

/// True if `above`, which goes to `folder`, shows at `place` the very file or folder that `below` would. What Slurm's
/// commands need is named by where it really is, and appears where the node has it.
fn shows(above: &Sighting, folder: &Path, below: &Sighting, place: &Path) -> bool {
    match (&above.want.source, &below.want.source) {
        (Source::Node(top), Source::Node(path)) => {
            let same = |there: &Path| there == path || below.want.origin == Origin::Slurm && there == below.want.target;
            place.strip_prefix(folder).is_ok_and(|rest| same(&top.join(rest)))
                && (above.want.access == below.want.access || below.want.access == Access::ReadOnly)
        }
        _ => false,
    }
}

/// Place of a want; nothing, if it is not needed after all.
fn usable(sighting: &Sighting) -> Result<Option<Sight>, Error> {
    let want = &sighting.want;
    let sight = match &sighting.sight {
        Ok(sight) => sight.clone(),
        Err(_) if want.origin == Origin::Kernel => return Err(Error::Kernel(want.target.clone())),
        Err(_) if want.presence.optional() => return Ok(None),
        Err(obstacle) => return Err(Error::Obstacle(want.target.clone(), obstacle.clone())),
    };
    if want.origin == Origin::Kernel && (sight.link.is_some() || sight.found == Some(Shape::File)) {
        return Err(Error::Kernel(want.target.clone()));
    }
    // What the typed path may not be, a link of the image may not make of it.
    let ours = matches!(want.origin, Origin::Private | Origin::Driver) && sight.place.starts_with(PRIVATE);
    if !matches!(want.origin, Origin::Kernel | Origin::Device)
        && !ours
        && coracle::request::inside(&sight.place).is_err()
    {
        return match (want.presence, sight.link) {
            (Presence::IfThere | Presence::IfMissing, _) => Ok(None),
            (_, link) => {
                let (target, link) = (want.target.clone(), link.unwrap_or_else(|| want.target.clone()));
                Err(Error::LeadsOut { target, link, place: sight.place })
            }
        };
    }
    let images_own = match want.presence {
        Presence::UnlessInImage => sight.found == Some(Shape::Folder),
        Presence::IfMissing => sight.found.is_some(),
        Presence::Required | Presence::IfThere => false,
    };
    Ok((!images_own).then_some(sight))
}

impl fmt::Display for Plan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owners = Some(self.owners).filter(|owners| *owners != Owners::Image).map(Owners::word);
        let words = ["ro", "nosuid", "nodev"].into_iter().chain(owners).collect::<Vec<_>>();
        writeln!(out, "image  {} {}", self.image, words.join(","))?;
        match &self.upper {
            None => {}
            Some(Upper::Memory(size)) => writeln!(out, "upper  (memory) size={size}")?,
            Some(Upper::Folder(path)) => writeln!(out, "upper  {}", shown(path))?,
        }
        for (path, shape) in &self.layer {
            writeln!(out, "layer  {shape:<6} {}", shown(path))?;
        }
        for path in self.copies.keys() {
            writeln!(out, "copy   {TIME_ZONE} -> {}", shown(path))?;
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

/// A path in one line, whatever is in it.
fn shown(path: &Path) -> String {
    clean(&path.display().to_string())
}
