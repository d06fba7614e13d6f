//! State of the pipeline before the container: its mounts are resolved in the image, allowed, and their sources open.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::plan::{Obstacle, Plan, ResolvedMount, Shape, Target, Upper};
use crate::view::{MountRequest, Origin, Presence, Source, Surroundings};
use coracle::report::Refusal;
use coracle::request::inside;
use coracle::sys::{self, CachedStat, Identity};

use crate::apply::{self, Sources, fuse_owner};
use crate::children::opener::Opener;
use crate::container::attach::MountedImage;
use crate::container::bounds::Bounds;
use crate::container::context::{Authority, Context};
use crate::container::host_fit::ComparedImage;
use crate::container::resolve::Resolved;
use crate::container::sources;
use crate::container::targets::{self, Last};

/// Container that can be built: its plan, and the open sources of the mounts.
pub struct PlannedContainer<'a> {
    image: MountedImage<'a>,
    plan: Plan,
    sources: Sources,
}

impl<'a> ComparedImage<'a> {
    /// Plans a container in these surroundings, and opens its sources.
    pub fn plan(self, resolved: &Resolved<'_>, around: &Surroundings<'_>) -> Result<PlannedContainer<'a>, Refusal> {
        let image = self.into_mounted();
        let (plan, sources) = draft(resolved, &image, around)?;
        resolved.clock.lap("plan");
        Ok(PlannedContainer { image, plan, sources })
    }
}

impl<'a> PlannedContainer<'a> {
    pub(super) fn into_parts(self) -> (MountedImage<'a>, Plan, Sources) {
        (self.image, self.plan, self.sources)
    }

    /// Plan of the same image in other surroundings, to show it.
    pub fn preview(&self, resolved: &Resolved<'_>, around: &Surroundings<'_>) -> Result<Plan, Refusal> {
        draft(resolved, &self.image, around).map(|(plan, _)| plan)
    }
}

fn draft(
    resolved: &Resolved<'_>,
    mounted: &MountedImage<'_>,
    around: &Surroundings<'_>,
) -> Result<(Plan, Sources), Refusal> {
    let Resolved { context, opener, .. } = *resolved;
    let bounds = resolved.binding_rules().map(|rules| Bounds::new(opener, rules));
    let (mut mounts, mut sources) = (Vec::new(), Sources::default());
    let requests = context.mount_requests(around);
    let opened = sources::open_all(opener, &requests, context.authority)?;
    for (request, opened) in requests.into_iter().zip(opened) {
        let Some((shape, source)) = opened.take(&request)? else { continue };
        let target = resolve_target(context, mounted, &request)?;
        if request.origin == Origin::Variable
            && !may_show(&context.identity, shape, source.as_ref(), &request, (&mounts, &sources))
        {
            continue;
        }
        let images_own = request.presence == Presence::UnlessInImage
            && target.as_ref().is_ok_and(|target| target.found == Some(Shape::Directory));
        if let (Some(bounds), Some(source), false) = (&bounds, &source, images_own)
            && !is_allowed(context, bounds, &request, source)?
        {
            continue;
        }
        mounts.push(ResolvedMount { request, shape, target });
        sources.mounts.push(source);
    }
    let upper = Upper::of(&context.settings, &context.config);
    if let Some(Upper::Directory(path)) = &upper {
        sources.upper = Some(open_upper(opener, context.authority, bounds.as_ref(), path)?);
    }
    let plan = Plan::build(mounted.attached().opened().image.clone(), upper, &mounts)?;
    Ok((Plan { owners: mounted.owners(), ..plan }, sources))
}

/// Resolves the mount point of a request in the image.
fn resolve_target(
    context: &Context,
    mounted: &MountedImage<'_>,
    request: &MountRequest,
) -> Result<Result<Target, Obstacle>, Refusal> {
    let image = mounted.tree();
    match request.origin {
        // In Coracle's own /dev, and in the node's /proc, whatever the image contains there.
        Origin::Device => Ok(Ok(Target { place: request.target.clone(), found: None, link: None })),
        Origin::Kernel if request.target.parent() == Some(Path::new("/proc")) => {
            Ok(Ok(Target { place: request.target.clone(), found: None, link: None }))
        }
        _ => mounted
            .rights(context)
            .during(|| targets::resolve(image, &request.target, last_of(request)))
            .map_err(|error| apply::unusable(mounted.name(), image, &request.target, &error)),
    }
}

/// Opens the directory that an overlay writes into, if it may be used.
fn open_upper(
    opener: &Opener,
    authority: Authority,
    bounds: Option<&Bounds<'_>>,
    path: &Path,
) -> Result<OwnedFd, Refusal> {
    let directory = sources::open_upper(opener, path)?;
    let shown = path.display().to_string();
    if authority == Authority::Root {
        fuse_owner::refuse_overlay(&shown, directory.as_fd())?;
    }
    bounds.map_or(Ok(()), |bounds| check_bounds(bounds, directory.as_fd(), &shown))?;
    Ok(directory)
}

/// Checks that the user may bind `source`, and that a container may show it.
fn check_bounds(bounds: &Bounds<'_>, source: BorrowedFd<'_>, shown: &str) -> Result<(), Refusal> {
    bounds.allow(source, shown).and_then(|()| bounds.deny(source, shown))
}

/// True if the directory of a variable belongs to the user, is not part of a kernel file system, and is above no mount
/// from elsewhere. A mount inside a tree of the node needs its mount point in that tree.
fn may_show(
    identity: &Identity,
    shape: Shape,
    source: Option<&OwnedFd>,
    request: &MountRequest,
    (mounts, sources): (&[ResolvedMount], &Sources),
) -> bool {
    let Some(source) = source.filter(|_| shape == Shape::Directory) else { return false };
    let own = CachedStat::of(source).is_ok_and(|stat| stat.uid == identity.uid);
    let plain = sys::fd_path(source).is_ok_and(|path| inside(&path).is_ok());
    let mut below = mounts.iter().zip(&sources.mounts).filter(|(other, _)| {
        other.request.target != request.target && other.request.target.starts_with(&request.target)
    });
    let in_place = |other: &ResolvedMount, fd: &Option<OwnedFd>| {
        fd.as_ref().is_some_and(|fd| sys::fd_path(fd).is_ok_and(|path| path == other.request.target))
    };
    own && plain && below.all(|(other, fd)| in_place(other, fd))
}

/// True if a source is within the bounds of the site's rules; false if the container omits it.
///
/// The site's own binds and files for Slurm are not checked. The file of the X server's cookie, and directories that
/// variables name, are chosen by the user but not requested, so they are omitted instead of refused.
fn is_allowed(
    context: &Context,
    bounds: &Bounds<'_>,
    request: &MountRequest,
    source: &OwnedFd,
) -> Result<bool, Refusal> {
    let Source::Node(path) = &request.source else { return Ok(true) };
    let (source, shown) = (source.as_fd(), path.display().to_string());
    match request.origin {
        Origin::User => check_bounds(bounds, source, &shown),
        Origin::Workdir => {
            bounds.deny(source, &shown).map_err(|refusal| refusal.hint("start the job in another directory"))
        }
        Origin::Home => {
            bounds.deny(source, &shown).map_err(|refusal| refusal.hint("--no-container-home leaves it out"))
        }
        Origin::Variable => return Ok(check_bounds(bounds, source, &shown).is_ok()),
        Origin::Slurm if context.is_cookie(path) => return Ok(check_bounds(bounds, source, &shown).is_ok()),
        _ => Ok(()),
    }
    .map(|()| true)
}

/// A link in the image that names its time zone stays a link: the mount does not cover the zone that it leads to.
fn last_of(request: &MountRequest) -> Last {
    if request.source == Source::TimeZone { Last::Itself } else { Last::Followed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle::request::Access;
    use nix::unistd::getuid;

    fn request(source: &Path, target: &Path) -> MountRequest {
        MountRequest {
            source: Source::Node(source.into()),
            target: target.into(),
            access: Access::ReadWrite,
            presence: Presence::IfThere,
            origin: Origin::Variable,
        }
    }

    fn open(path: &Path) -> OwnedFd {
        std::fs::File::open(path).unwrap().into()
    }

    #[test]
    fn a_variables_directory_is_the_users_and_above_no_other_mount() {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        let (own, below, elsewhere) = (top.join("own"), top.join("own/below"), top.join("elsewhere"));
        [&below, &elsewhere].into_iter().for_each(|directory| std::fs::create_dir_all(directory).unwrap());
        let (user, fd) = (Identity { uid: getuid().as_raw(), gid: 0, groups: Vec::new() }, open(&own));
        let shows = |user: &Identity, shape, fd: Option<&OwnedFd>, other: Option<(&Path, &Path)>| {
            let mounts = other.map(|(source, target)| ResolvedMount {
                request: request(source, target),
                shape: Shape::Directory,
                target: Ok(Target { place: target.into(), found: None, link: None }),
            });
            let sources = Sources { mounts: other.iter().map(|(source, _)| Some(open(source))).collect(), upper: None };
            let mounts: Vec<_> = mounts.into_iter().collect();
            may_show(user, shape, fd, &request(&own, &own), (&mounts, &sources))
        };
        assert!(shows(&user, Shape::Directory, Some(&fd), None));
        assert!(!shows(&user, Shape::File, Some(&fd), None));
        assert!(!shows(&user, Shape::Directory, None, None));
        let other = Identity { uid: user.uid + 1, ..user.clone() };
        assert!(!shows(&other, Shape::Directory, Some(&fd), None));
        // A mount below needs its mount point in this directory: only the directory's own tree has it for sure.
        assert!(shows(&user, Shape::Directory, Some(&fd), Some((&below, &below))));
        assert!(!shows(&user, Shape::Directory, Some(&fd), Some((&elsewhere, &below))));
        assert!(shows(&user, Shape::Directory, Some(&fd), Some((&below, &elsewhere))));
    }

    #[test]
    fn only_the_time_zone_is_mounted_over_a_link() {
        let zone = MountRequest { source: Source::TimeZone, ..request(Path::new("/a"), Path::new("/a")) };
        assert_eq!(last_of(&zone), Last::Itself);
        assert_eq!(last_of(&request(Path::new("/a"), Path::new("/a"))), Last::Followed);
    }
}
