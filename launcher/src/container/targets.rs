//! Resolves the targets of mounts in an image.
//!
//! Only the image is read, and it is mounted read-only, so nothing changes meanwhile. A path with links is followed one
//! name at a time, because the plan needs their target even if it does not exist.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use crate::plan::{Obstacle, Shape, Target};
use coracle::sys::{self, Lookup};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::SFlag;

/// Limit of the kernel on links in a path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Treatment of a link that is the last component of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// The link is followed.
    Followed,
    /// The link itself is the target, and counts as a file.
    Itself,
}

/// Resolves `target`, an absolute path, in the tree that `root` is open on. The outer error means that the image cannot
/// be read.
pub fn resolve(root: BorrowedFd<'_>, target: &Path, last: Last) -> sys::Result<Result<Target, Obstacle>> {
    if let Some(found) = at_once(root, target, last)? {
        return Ok(Ok(found));
    }
    let mut todo: VecDeque<OsString> = names(target);
    let mut place = PathBuf::from("/");
    // Directories from the root to `place`; a missing one has no descriptor.
    let mut directories: Vec<OwnedFd> = Vec::new();
    let (mut found, mut missing) = (Some(Shape::Directory), false);
    let (mut first_link, mut links) = (None, 0);

    while let Some(name) = todo.pop_front() {
        if found == Some(Shape::File) {
            return Ok(Err(Obstacle::NotADirectory(place)));
        }
        if name == ".." {
            if !place.pop() {
                return Ok(Err(Obstacle::Escape(first_link.unwrap_or(place))));
            }
            // A `..` after a missing name cannot be resolved.
            if missing {
                return Ok(Err(Obstacle::NotADirectory(place)));
            }
            directories.pop();
            found = Some(Shape::Directory);
            continue;
        }
        let here = directories.last().map_or(root, AsFd::as_fd);
        place.push(&name);
        if missing {
            continue;
        }
        let next = match sys::open_in_root(here, Path::new(&name), OFlag::O_PATH, Lookup::LastIsALink) {
            Ok(next) => next,
            Err(error) if error.errno() == Errno::ENOENT => {
                (found, missing) = (None, true);
                continue;
            }
            Err(error) if error.errno() == Errno::ENAMETOOLONG => return Ok(Err(Obstacle::NameTooLong)),
            Err(error) => return Err(error),
        };
        let mode = nix::sys::stat::fstat(&next).map_err(|errno| sys::Error::new("fstat()", errno))?;
        match SFlag::from_bits_truncate(mode.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFDIR => {
                directories.push(next);
                found = Some(Shape::Directory);
            }
            SFlag::S_IFLNK if todo.is_empty() && last == Last::Itself => found = Some(Shape::File),
            SFlag::S_IFLNK => {
                links += 1;
                if links > MAX_LINKS {
                    return Ok(Err(Obstacle::TooManyLinks));
                }
                first_link.get_or_insert_with(|| place.clone());
                place.pop();
                let to = PathBuf::from(sys::read_link_at(&next)?);
                if to.is_absolute() {
                    place = PathBuf::from("/");
                    directories.clear();
                }
                for name in names(&to).into_iter().rev() {
                    todo.push_front(name);
                }
            }
            _ => found = Some(Shape::File),
        }
    }
    Ok(Ok(Target { place, found, link: first_link }))
}

/// Resolves a target without links by one call; nothing if it has one or does not exist.
fn at_once(root: BorrowedFd<'_>, target: &Path, last: Last) -> sys::Result<Option<Target>> {
    let plain = |component| matches!(component, Component::RootDir | Component::Normal(_));
    if last == Last::Itself || !target.components().all(plain) {
        return Ok(None);
    }
    let Ok(found) = sys::open_in_root(root, target, OFlag::O_PATH, Lookup::NoLinks) else { return Ok(None) };
    let mode = nix::sys::stat::fstat(&found).map_err(|errno| sys::Error::new("fstat()", errno))?;
    let directory = SFlag::from_bits_truncate(mode.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
    let found = Some(if directory { Shape::Directory } else { Shape::File });
    Ok(Some(Target { place: target.components().collect(), found, link: None }))
}

/// Names of a path, with `..` and without `.` and `/`.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsStr::new("..").to_owned()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("usr/lib")).unwrap();
        fs::write(tree.path().join("usr/file"), "").unwrap();
        for (to, link) in [
            ("usr/lib", "lib"),
            ("/usr/lib", "abs"),
            ("../usr/lib", "up"),
            ("../../etc", "usr/out"),
            ("loop", "loop"),
            ("usr/file/../lib", "odd"),
            ("../run/systemd/stub", "usr/dangling"),
        ] {
            symlink(to, tree.path().join(link)).unwrap();
        }
        tree
    }

    fn seen(path: &str) -> Result<(String, Option<Shape>, bool), Obstacle> {
        seen_with(path, Last::Followed)
    }

    fn seen_with(path: &str, last: Last) -> Result<(String, Option<Shape>, bool), Obstacle> {
        let tree = tree();
        let root = fs::File::open(tree.path()).unwrap();
        resolve(root.as_fd(), Path::new(path), last)
            .unwrap()
            .map(|target| (target.place.display().to_string(), target.found, target.link.is_some()))
    }

    #[test]
    fn the_last_component_may_be_meant_itself() {
        let seen = |path| seen_with(path, Last::Itself);
        let ok = |place: &str, found, link| Ok((place.to_owned(), found, link));
        assert_eq!(seen("/lib"), ok("/lib", Some(Shape::File), false));
        assert_eq!(seen("/usr/out"), ok("/usr/out", Some(Shape::File), false));
        assert_eq!(seen("/usr/dangling"), ok("/usr/dangling", Some(Shape::File), false));
        assert_eq!(seen("/abs/file"), ok("/usr/lib/file", None, true));
        assert_eq!(seen("/usr/lib"), ok("/usr/lib", Some(Shape::Directory), false));
        assert_eq!(seen("/usr/file/x"), Err(Obstacle::NotADirectory("/usr/file".into())));
    }

    #[test]
    fn links_are_followed_inside_the_tree_only() {
        let ok = |place: &str, found, link| Ok((place.to_owned(), found, link));
        assert_eq!(seen("/usr/lib"), ok("/usr/lib", Some(Shape::Directory), false));
        assert_eq!(seen("/usr/file"), ok("/usr/file", Some(Shape::File), false));
        assert_eq!(seen("/lib"), ok("/usr/lib", Some(Shape::Directory), true));
        assert_eq!(seen("/abs/x/y"), ok("/usr/lib/x/y", None, true));
        assert_eq!(seen("/usr/dangling"), ok("/run/systemd/stub", None, true));
        assert_eq!(seen("/new/deep"), ok("/new/deep", None, false));
        assert_eq!(seen("/usr/file/x"), Err(Obstacle::NotADirectory("/usr/file".into())));
        assert_eq!(seen("/odd"), Err(Obstacle::NotADirectory("/usr/file".into())));
        assert_eq!(seen(&format!("/{}", "a".repeat(300))), Err(Obstacle::NameTooLong));
        assert_eq!(seen("/loop"), Err(Obstacle::TooManyLinks));
        assert_eq!(seen("/usr/out"), Err(Obstacle::Escape("/usr/out".into())));
        assert_eq!(seen("/up"), Err(Obstacle::Escape("/up".into())));
    }
}
