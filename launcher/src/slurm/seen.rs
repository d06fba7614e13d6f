//! Records the state of files, to find out later if any of them has changed.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use coracle::sys::FileState;
use serde::{Deserialize, Serialize};

/// Age of a change from which on a further one has another time: the clocks of file systems tick every 10 ms or, over
/// NFS version 3, every second.
const SETTLED: Duration = Duration::from_secs(3);

/// Aspect of a path on which a result depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aspect {
    /// File that the path leads to, with links followed.
    Place,
    /// File of this name itself, which may be a link.
    Name,
    /// Content of the file or directory that the path leads to.
    Content,
}

/// State of a file: device number and mount, inode, and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    device: (u32, u32, u64),
    inode: u64,
    mode: u32,
    /// Size, time of modification and time of change in nanoseconds: of a directory only if its content matters.
    change: Option<(u64, i128, i128)>,
}

/// Paths with the state that they had when they were looked up first.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(Vec<(PathBuf, Aspect, Option<State>)>);

impl Seen {
    /// Adds the present state of `path`, before it is looked up.
    pub fn add(&mut self, path: &Path, aspect: Aspect) {
        if !self.0.iter().any(|(known, about, _)| (known.as_path(), *about) == (path, aspect)) {
            self.0.push((path.to_owned(), aspect, State::of(path, aspect)));
        }
    }

    /// True if all paths have the state that they had.
    pub fn is_current(&self) -> bool {
        self.0.iter().all(|(path, aspect, state)| State::of(path, *aspect) == *state)
    }

    /// True if a further change of any of the files would show: none has just changed.
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let limit = now.saturating_sub(SETTLED).as_nanos().cast_signed();
        let changes = self.0.iter().filter_map(|(_, _, state)| state.as_ref()?.change);
        // Anybody can set the time of modification, also to one that is still to come.
        changes.into_iter().all(|(_, _, changed)| changed < limit)
    }
}

impl State {
    /// State of the file at `path`; nothing if it cannot be looked up.
    fn of(path: &Path, aspect: Aspect) -> Option<Self> {
        // A look-up alone asks no file server, here as in the look-ups themselves. A step makes a hundred of them.
        let found = FileState::of(path, aspect != Aspect::Name, aspect == Aspect::Content).ok()?;
        let matters = !found.is_directory() || aspect == Aspect::Content;
        let change = matters.then_some((found.size, found.modified, found.changed));
        Some(Self { device: found.device, inode: found.inode, mode: found.mode, change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn of(paths: &[(&Path, Aspect)]) -> Seen {
        let mut seen = Seen::default();
        paths.iter().for_each(|(path, aspect)| seen.add(path, *aspect));
        seen
    }

    #[test]
    fn each_change_that_matters_shows() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::create_dir_all(at("one/bin")).unwrap();
        fs::create_dir_all(at("two/bin")).unwrap();
        fs::write(at("file"), "text").unwrap();
        symlink("one", at("current")).unwrap();
        let all = [
            (&*at("current/bin"), Aspect::Place),
            (&*at("one/bin"), Aspect::Name),
            (&*at("current"), Aspect::Name),
            (&*at("file"), Aspect::Content),
            (&*at("one"), Aspect::Content),
            (&*at("none"), Aspect::Place),
        ];
        let seen = of(&all);
        assert!(seen.is_current());
        let kept = serde_json::to_string(&seen).unwrap();
        assert!(serde_json::from_str::<Seen>(&kept).unwrap() == seen);
        let changes: [(&str, &dyn Fn()); 6] = [
            ("a link that leads elsewhere", &|| {
                fs::remove_file(at("current")).unwrap();
                symlink("two", at("current")).unwrap();
            }),
            ("another content of the same length", &|| fs::write(at("file"), "test").unwrap()),
            ("another mode", &|| {
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(at("file"), fs::Permissions::from_mode(0o600)).unwrap();
            }),
            ("a new entry of a directory", &|| fs::write(at("one/new"), "").unwrap()),
            ("a file that was missing", &|| fs::write(at("none"), "").unwrap()),
            ("a directory that has another name", &|| fs::rename(at("one/bin"), at("one/sbin")).unwrap()),
        ];
        for (name, change) in changes {
            let before = of(&all);
            std::thread::sleep(Duration::from_millis(20));
            change();
            assert!(!before.is_current(), "{name}");
        }
    }

    #[test]
    fn a_file_that_has_just_changed_is_not_settled() {
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("file");
        fs::write(&file, "text").unwrap();
        assert!(!of(&[(&file, Aspect::Content)]).is_settled());
        assert!(
            of(&[(Path::new("/proc/version"), Aspect::Name), (&top.path().join("none"), Aspect::Content)]).is_settled()
                || !Path::new("/proc/version").exists()
        );
        // A time of modification that is still to come says nothing.
        std::thread::sleep(SETTLED + Duration::from_millis(200));
        fs::File::open(&file).unwrap().set_modified(SystemTime::now() + Duration::from_secs(1000)).unwrap();
        assert!(!of(&[(&file, Aspect::Content)]).is_settled());
        std::thread::sleep(SETTLED + Duration::from_millis(200));
        assert!(of(&[(&file, Aspect::Content)]).is_settled());
        fs::write(top.path().join("new"), "").unwrap();
        // Only the identity of a directory that is passed through matters.
        assert!(of(&[(top.path(), Aspect::Place)]).is_settled());
        assert!(!of(&[(top.path(), Aspect::Content)]).is_settled());
    }
}
