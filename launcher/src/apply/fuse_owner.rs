//! Finds the user whose process serves the file system of a file (fuse(4)), and refuses such files.
//!
//! A squashfs waits for its block device uninterruptibly, and a process that waits for a user's FUSE file system waits
//! for as long as that user likes. So no image of a step may lie on one. The answer comes from the mount table alone:
//! the file system itself is not accessed, since it may not answer.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::os::fd::{AsRawFd, BorrowedFd};

use coracle::report::{Kind, Refusal};
use coracle::sys;

/// Limit on overlays in overlays: the kernel's own limit is 2 (FILESYSTEM_MAX_STACK_DEPTH).
const MAX_DEPTH: u32 = 4;

/// Refuses the image `name`, open as `file`, on a file system that a process of a user serves.
pub fn refuse_image(name: &str, file: BorrowedFd<'_>) -> Result<(), Refusal> {
    let hint = "copy it to another file system, or into the store: coracle cp FILE";
    refuse(Kind::ImageType, name, file, "which nothing of a job may depend on", hint)
}

/// Refuses the directory `name`, open as `file`, for a kept overlay on such a file system, because root accesses it.
pub fn refuse_overlay(name: &str, file: BorrowedFd<'_>) -> Result<(), Refusal> {
    refuse(Kind::Bind, name, file, "which cannot keep an overlay", "use a directory on a disk of the node")
}

fn refuse(kind: Kind, name: &str, file: BorrowedFd<'_>, why: &str, hint: &str) -> Result<(), Refusal> {
    match serves(name, file)? {
        Served::Not => Ok(()),
        Served::By(serves, uid) => {
            let cause = format!("on a file system that a process of user {uid} serves ({serves}), {why}");
            Err(Refusal::new(kind, name, cause).hint(hint))
        }
        Served::Elsewhere => Err(Refusal::new(kind, name, ELSEWHERE)),
    }
}

const ELSEWHERE: &str = "on a file system that is not mounted on this node";

/// Server of the file system of a file.
enum Served {
    /// No process of a user.
    Not,
    /// A user's process: type of the file system, and user id.
    By(String, String),
    /// Unknown: the mount is not in the node's mount table.
    Elsewhere,
}

fn serves(name: &str, file: BorrowedFd<'_>) -> Result<Served, Refusal> {
    // The name of a mount point may be invalid UTF-8: any user can make one.
    let read = |path: String| {
        std::fs::read(&path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|cause| Refusal::system(name, &sys::Error::from_io(format!("read({path:?})"), &cause)))
    };
    let id = mount_id(&read(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?).map(str::to_owned);
    let table = read("/proc/self/mountinfo".into())?;
    let mounts: Vec<Mount<'_>> = table.lines().filter_map(Mount::parse).collect();
    Ok(match mounts.iter().find(|mount| Some(mount.id) == id.as_deref()) {
        Some(mount) => match served_by(mount, &mounts, MAX_DEPTH) {
            None => Served::Not,
            Some((kind, uid)) => Served::By(kind.to_owned(), uid),
        },
        None => Served::Elsewhere,
    })
}

/// Id of the mount of an open file: a line of /proc/PID/fdinfo/FD (proc_pid_fdinfo(5)).
fn mount_id(info: &str) -> Option<&str> {
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")).map(str::trim)
}

/// A line of the mount table (proc_pid_mountinfo(5)).
struct Mount<'a> {
    id: &'a str,
    place: Cow<'a, str>,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let (mut before, mut after) = (before.split(' '), after.split(' '));
        let (id, place) = (before.next()?, before.nth(3)?);
        let (kind, options) = (after.next()?, after.nth(1)?);
        Some(Self { id, place: unescaped(place), kind, options })
    }

    /// Values of an option, as the kernel prints them.
    fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let name = name.to_owned();
        self.options.split(',').filter_map(move |option| option.strip_prefix(name.as_str())?.strip_prefix('='))
    }

    /// True if `path` is at or below the mount point.
    fn holds(&self, path: &str) -> bool {
        let rest = path.strip_prefix(self.place.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Type and user of the FUSE file system that `mount` is, or that an overlay shows. A file system of root counts as no
/// user's, and virtiofs, which the host of a virtual machine serves, has no such option.
fn served_by<'a>(mount: &Mount<'a>, mounts: &[Mount<'a>], depth: u32) -> Option<(&'a str, String)> {
    if mount.kind == "fuse" || mount.kind == "fuseblk" || mount.kind.starts_with("fuse.") {
        let uid = mount.values("user_id").next().unwrap_or("unknown");
        return (uid != "0").then(|| (mount.kind, uid.to_owned()));
    }
    if mount.kind != "overlay" || depth == 0 {
        return None;
    }
    let layers = ["lowerdir", "lowerdir+", "datadir+", "upperdir"];
    let mut layers = layers.iter().flat_map(|name| mount.values(name).flat_map(paths));
    layers.find_map(|path| {
        // The last of those with the longest mount point is the topmost one.
        let below = mounts.iter().filter(|other| other.holds(&path)).max_by_key(|other| other.place.len())?;
        if below.id == mount.id { None } else { served_by(below, mounts, depth - 1) }
    })
}

/// Paths in `lowerdir`: separated by colons, with a backslash before a colon in a name.
fn paths(value: &str) -> Vec<String> {
    let (mut paths, mut escaped) = (vec![String::new()], false);
    for character in unescaped(value).chars() {
        match (character, std::mem::take(&mut escaped)) {
            ('\\', false) => escaped = true,
            (':', false) => paths.push(String::new()),
            (character, _) => {
                if let Some(path) = paths.last_mut() {
                    path.push(character);
                }
            }
        }
    }
    paths.retain(|path| path.starts_with('/'));
    paths
}

/// A field with the kernel's octal escapes for blanks, commas and backslashes decoded.
fn unescaped(field: &str) -> Cow<'_, str> {
    if !field.contains('\\') {
        return field.into();
    }
    let (mut bytes, mut rest) = (Vec::new(), field.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => (bytes.push(byte), rest = &after[3..]),
            None => (bytes.push(*first), rest = after),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        30 22 0:40 / /home/alice/my\\040disk rw,nosuid,nodev shared:3 - fuse.sshfs host: rw,user_id=2001,group_id=2001\n\
        31 22 0:40 /sub /mnt/bound rw - fuse.sshfs host: rw,user_id=2001,group_id=2001\n\
        32 22 0:41 / /cvmfs rw shared:4 - fuse cvmfs2 rw,user_id=0,group_id=0,allow_other\n\
        33 22 0:42 / /host rw - virtiofs share rw\n\
        34 22 0:43 / /over rw - overlay none rw,lowerdir=/usr:/home/alice/my\\040disk/x,upperdir=/u,workdir=/w\n\
        35 22 0:44 / /over2 rw - overlay none rw,lowerdir+=/over/sub,lowerdir+=/usr\n\
        36 22 0:45 / /fine rw - overlay none rw,lowerdir=/cvmfs/a:/usr:/home/alice/my\n\
        37 22 0:46 / /odd rw - fuse odd rw\n";

    fn owner(id: &str) -> Option<String> {
        let mounts: Vec<Mount<'_>> = TABLE.lines().filter_map(Mount::parse).collect();
        let mount = mounts.iter().find(|mount| mount.id == id).unwrap();
        served_by(mount, &mounts, MAX_DEPTH).map(|(_, uid)| uid)
    }

    #[test]
    fn a_users_file_system_is_told_from_roots() {
        for id in ["30", "31"] {
            assert_eq!(owner(id).as_deref(), Some("2001"), "{id}");
        }
        for id in ["22", "32", "33"] {
            assert_eq!(owner(id), None, "{id}");
        }
        assert_eq!(owner("37").as_deref(), Some("unknown"));
    }

    #[test]
    fn an_overlay_is_its_layers() {
        for id in ["34", "35"] {
            assert_eq!(owner(id).as_deref(), Some("2001"), "{id}");
        }
        assert_eq!(owner("36"), None);
    }

    #[test]
    fn paths_of_layers_are_what_they_were() {
        assert_eq!(paths("/a\\134:b:/c\\054d::/e"), ["/a:b", "/c,d", "/e"]);
        assert_eq!(paths("l/ABC:l/DEF"), [""; 0]);
        assert_eq!(mount_id("pos:\t0\nflags:\t0100000\nmnt_id:\t28\nino:\t5\n"), Some("28"));
    }

    #[test]
    fn a_file_of_this_machine_is_on_no_users_file_system() {
        use std::os::fd::AsFd;
        let file = tempfile::tempfile().unwrap();
        refuse_image("image", file.as_fd()).unwrap();
        refuse_overlay("directory", file.as_fd()).unwrap();
    }
}
