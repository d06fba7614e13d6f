//! Checks the bounds of users' binds (`bind_allow`), and sources that containers must not show (`bind_deny`).
//!
//! A source is inside a directory if the same inode is found beneath the directory's descriptor; paths are only hints.
//! A source is denied if it lies in a denied directory. It is also denied if it contains a denied directory, or part of
//! one, since binds are recursive. One inode is often reachable by several paths, because a part of a file system is
//! mounted twice. So the check compares the directories on a path, and also the parts of file systems that it would
//! show, as listed in the kernel's mount table. An undecidable case is refused.
#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::config::{Absolute, Allowed};
use crate::policy::{Rules, Value};
use coracle::report::{Kind, Refusal};
use coracle::sys::{self, CachedStat};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::children::opener::Opener;

/// Limit on the directories on a path.
const MAX_DEPTH: usize = 128;

/// Opens a path beneath a directory as the user, following no link.
type Open<'a> = dyn Fn(BorrowedFd<'_>, &Path) -> Result<Result<OwnedFd, Errno>, Refusal> + 'a;

/// Bounds of one step.
pub struct Bounds<'a> {
    open: Box<Open<'a>>,
    rules: &'a Rules,
    found: OnceCell<Found>,
}

/// Directories of the node that the rules name.
struct Found {
    mounts: Mounts,
    root: OwnedFd,
    allow: Option<(Vec<Directory>, String)>,
    deny: Option<(Vec<Directory>, String)>,
}

/// Reason why a case is undecidable.
struct Unknown(String);

type Decided<T> = Result<T, Unknown>;

/// Device and number of an inode.
type Key = (u64, u64);

/// A directory that a rule names.
struct Directory {
    /// Path in the rule.
    named: PathBuf,
    fd: OwnedFd,
    key: Key,
    /// Real path.
    path: PathBuf,
    /// Its parent directories, from the root on, and itself.
    chain: Vec<Key>,
    /// Parts of file systems that it shows.
    areas: Vec<Area>,
}

/// A part of a file system, and its path on the node.
struct Area {
    device: String,
    /// Path from the root of the file system.
    place: PathBuf,
    /// Path from the root of the node.
    path: PathBuf,
}

impl Area {
    /// True if one contains the other, so that both show the same files.
    fn overlaps(&self, other: &Self) -> bool {
        self.device == other.device && (self.place.starts_with(&other.place) || other.place.starts_with(&self.place))
    }
}

impl<'a> Bounds<'a> {
    /// Creates the bounds; directories are looked up on first use.
    pub fn new(opener: &'a Opener, rules: &'a Rules) -> Self {
        Self::with(Box::new(|directory, path| opener.open_beneath(directory, path)), rules)
    }

    fn with(open: Box<Open<'a>>, rules: &'a Rules) -> Self {
        Self { open, rules, found: OnceCell::new() }
    }

    /// Checks that the user may bind `source`; `shown` is the user's name for it.
    pub fn allow(&self, source: BorrowedFd<'_>, shown: &str) -> Result<(), Refusal> {
        if self.rules.bind_allow.is_silent() {
            return Ok(());
        }
        let found = self.found(shown)?;
        let Some((directories, rule)) = &found.allow else { return Ok(()) };
        let inside = self.is_inside(found, source, directories).map_err(|unknown| undecided(shown, rule, unknown))?;
        if inside {
            return Ok(());
        }
        let names: Vec<String> = directories.iter().map(|directory| directory.named.display().to_string()).collect();
        let refusal = Refusal::new(Kind::Policy, shown, format!("in no directory that you may bind from ({rule})"));
        Err(if names.is_empty() { refusal } else { refusal.hint(format!("allowed are {}", names.join(", "))) })
    }

    /// Checks that a container may show `source`.
    pub fn deny(&self, source: BorrowedFd<'_>, shown: &str) -> Result<(), Refusal> {
        if self.rules.bind_deny.is_silent() {
            return Ok(());
        }
        let found = self.found(shown)?;
        let Some((directories, rule)) = &found.deny else { return Ok(()) };
        match self.shows(found, source, directories).map_err(|unknown| undecided(shown, rule, unknown))? {
            None => Ok(()),
            Some(directory) => {
                let named = directory.named.display();
                let cause = format!("containers do not show {named}, and this is in it or has it inside ({rule})");
                Err(Refusal::new(Kind::Policy, shown, cause))
            }
        }
    }

    fn found(&self, shown: &str) -> Result<&Found, Refusal> {
        if let Some(found) = self.found.get() {
            return Ok(found);
        }
        let undecided = |rule: &str| {
            let rule = rule.to_owned();
            move |unknown| undecided(shown, &rule, unknown)
        };
        let mounts = Mounts::read().map_err(undecided("bind_deny"))?;
        let root = sys::open_untrusted(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)
            .map_err(|error| Refusal::system("/", &error))?;
        let allow = match self.rules.bind_allow.said().map_err(|missing| missing.refuse(shown))? {
            Some(Value { value: Allowed::Only(list), rule }) => {
                Some((directories(list, &mounts).map_err(undecided(rule))?, rule.clone()))
            }
            Some(Value { value: Allowed::Any, .. }) | None => None,
        };
        let deny = match self.rules.bind_deny.said().map_err(|missing| missing.refuse(shown))? {
            Some(Value { value, rule }) => {
                Some((directories(&value.0, &mounts).map_err(undecided(rule))?, rule.clone()))
            }
            None => None,
        };
        Ok(self.found.get_or_init(|| Found { mounts, root, allow, deny }))
    }

    /// True if the same inode is found beneath one of `directories`.
    fn is_inside(&self, found: &Found, source: BorrowedFd<'_>, directories: &[Directory]) -> Decided<bool> {
        let key = key_of(source)?;
        let area = found.mounts.area(source)?;
        for directory in directories {
            let by_path = area.path.strip_prefix(&directory.path).ok().map(Path::to_owned);
            let by_place = directory.areas.iter().filter(|shown| shown.device == area.device).filter_map(|shown| {
                let above = shown.path.strip_prefix(&directory.path).ok()?;
                Some(above.join(area.place.strip_prefix(&shown.place).ok()?))
            });
            for hint in by_path.into_iter().chain(by_place) {
                if hint.as_os_str().is_empty() {
                    if key == directory.key {
                        return Ok(true);
                    }
                    continue;
                }
                let there = (self.open)(directory.fd.as_fd(), &hint);
                if let Ok(there) = there.map_err(|refusal| Unknown(refusal.cause))?
                    && key_of(there.as_fd())? == key
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// First of `directories` that would be visible, even in part.
    fn shows<'f>(
        &self,
        found: &Found,
        source: BorrowedFd<'_>,
        directories: &'f [Directory],
    ) -> Decided<Option<&'f Directory>> {
        if directories.is_empty() {
            return Ok(None);
        }
        let key = key_of(source)?;
        let areas = found.mounts.areas(source)?;
        let open = |path: &Path| {
            let there = (self.open)(found.root.as_fd(), path);
            there.map_err(|refusal| Unknown(refusal.cause))?.map_err(|errno| Unknown(errno.desc().to_owned()))
        };
        let chain = chain(&areas, key, open)?;
        Ok(directories.iter().find(|directory| {
            chain.contains(&directory.key)
                || directory.chain.contains(&key)
                || areas.iter().any(|area| directory.areas.iter().any(|denied| area.overlaps(denied)))
        }))
    }
}

fn undecided(shown: &str, rule: &str, unknown: Unknown) -> Refusal {
    Refusal::new(Kind::Policy, shown, format!("whether the rule {rule} allows it cannot be decided: {}", unknown.0))
}

/// Opens the directories of a rule; one that the node lacks cannot be bound.
fn directories(list: &[Absolute], mounts: &Mounts) -> Decided<Vec<Directory>> {
    let mut found = Vec::new();
    for Absolute(named) in list {
        let failed = |error: sys::Error| Unknown(format!("{}: {}", named.display(), error.errno().desc()));
        let fd = match sys::open_untrusted(named, OFlag::O_PATH) {
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => continue,
            opened => opened.map_err(failed)?,
        };
        let key = key_of(fd.as_fd())?;
        let areas = mounts.areas(fd.as_fd())?;
        let open = |path: &Path| sys::open_untrusted(&Path::new("/").join(path), OFlag::O_PATH).map_err(failed);
        let chain = chain(&areas, key, open)?;
        let path = areas.first().map(|area| area.path.clone()).unwrap_or_default();
        found.push(Directory { named: named.clone(), fd, key, path, chain, areas });
    }
    Ok(found)
}

/// Inodes of the parent directories of the first of these areas, and of itself, which must be `key`.
fn chain(areas: &[Area], key: Key, open: impl Fn(&Path) -> Decided<OwnedFd>) -> Decided<Vec<Key>> {
    let path = areas.first().map(|area| area.path.as_path()).unwrap_or(Path::new("/"));
    let mut above: Vec<&Path> = path.ancestors().filter_map(|above| above.strip_prefix("/").ok()).collect();
    if above.len() > MAX_DEPTH {
        return Err(Unknown(format!("more than {MAX_DEPTH} directories deep")));
    }
    above.reverse();
    let here = |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    let chain: Vec<Key> =
        above.into_iter().map(|path| open(&here(path)).and_then(|fd| key_of(fd.as_fd()))).collect::<Decided<_>>()?;
    match chain.last() {
        Some(last) if *last == key => Ok(chain),
        _ => Err(Unknown("it is not where its path leads to".into())),
    }
}

fn key_of(fd: BorrowedFd<'_>) -> Decided<Key> {
    // A user's process that does not answer may serve the file system of the source.
    let stat =
        CachedStat::of(fd).map_err(|error| Unknown(format!("it cannot be looked at: {}", error.errno().desc())))?;
    Ok((nix::sys::stat::makedev(stat.device.0.into(), stat.device.1.into()), stat.inode))
}

/// Mounts of the node (proc_pid_mountinfo(5)).
struct Mounts(Vec<Mount>);

struct Mount {
    id: u64,
    device: String,
    /// Mounted part of the file system.
    root: PathBuf,
    /// Mount point.
    point: PathBuf,
}

impl Mounts {
    fn read() -> Decided<Self> {
        let mut bytes = Vec::new();
        File::open("/proc/thread-self/mountinfo")
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|cause| Unknown(format!("/proc/thread-self/mountinfo: {cause}")))?;
        let mounts = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(mount);
        mounts
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(|| Unknown("/proc/thread-self/mountinfo makes no sense".into()))
    }

    /// Part of a file system that `fd` shows, without the mounts below it.
    fn area(&self, fd: BorrowedFd<'_>) -> Decided<Area> {
        let unknown = || Unknown("where it is mounted is not known".into());
        let info =
            std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", fd.as_raw_fd())).map_err(|_| unknown())?;
        let id = info
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok())
            .ok_or_else(unknown)?;
        let mount = self.0.iter().find(|mount| mount.id == id).ok_or_else(unknown)?;
        let path = sys::fd_path(fd).map_err(|_| unknown())?;
        let below = path.strip_prefix(&mount.point).map_err(|_| unknown())?;
        Ok(Area { device: mount.device.clone(), place: mount.root.join(below), path })
    }

    /// Parts of file systems that `fd` and the mounts below it show, that of `fd` first.
    fn areas(&self, fd: BorrowedFd<'_>) -> Decided<Vec<Area>> {
        let own = self.area(fd)?;
        let below = self.0.iter().filter(|mount| mount.point != own.path && mount.point.starts_with(&own.path));
        let below: Vec<Area> = below
            .map(|mount| Area { device: mount.device.clone(), place: mount.root.clone(), path: mount.point.clone() })
            .collect();
        Ok(std::iter::once(own).chain(below).collect())
    }
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = String::from_utf8(fields.nth(1)?.to_vec()).ok()?;
    let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
    Some(Mount { id, device, root, point })
}

/// Decodes a field, in which space, tab, newline and backslash are three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), field);
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match octal.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[3..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests;
