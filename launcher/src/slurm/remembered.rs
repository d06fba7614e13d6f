//! Keeps what was found out about the node's Slurm, for the next step on the node.
//!
//! A result is kept together with the state of every file that it was read from, in a file of root. It is used as long
//! as all these files have that state. The file is a cache: without it, or if it cannot be read, everything is looked up
//! again.
#![forbid(unsafe_code)]

use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::node::Node;
use super::seen::{Aspect, Seen};
use crate::config;

/// Directory of the results, which only root can read.
const DIRECTORY: &str = "/run/coracle/node";
/// Limit on the length of a result, in bytes.
const MAX_LEN: u64 = 1 << 20;
/// Limit on the number of results: one for each Slurm, configuration and kind of step on this node.
const MAX_FILES: usize = 32;

/// A result, and everything that it depends on.
#[derive(Debug, Serialize, Deserialize)]
struct Entry<T> {
    /// Inputs of the look-up.
    key: String,
    seen: Seen,
    found: T,
}

/// Directory of results; another one in tests.
pub struct Memory<'a> {
    directory: &'a Path,
    root: &'a Path,
}

impl Memory<'static> {
    /// The node's.
    pub fn node() -> Self {
        Self { directory: Path::new(DIRECTORY), root: Path::new("/") }
    }
}

impl Memory<'_> {
    /// Result of `look` for the inputs `key`, from an earlier process if everything is as it was.
    pub fn recall<T: Serialize + DeserializeOwned, E>(
        &self,
        key: &impl Debug,
        look: impl FnOnce(&Node<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let key = format!("{key:?}");
        let path = self.path(&key);
        if let Some(found) = read(&path, &key) {
            return Ok(found);
        }
        let node = Node::recording(self.root);
        let found = look(&node)?;
        let mut seen = node.into_seen();
        // A launcher that replaces this one may look for more.
        seen.add(Path::new("/proc/self/exe"), Aspect::Content);
        let entry = Entry { key, seen, found };
        if entry.seen.is_settled() {
            // A full or missing file system costs the next step time, and nothing else.
            let _ = self.write(&path, &entry);
        }
        Ok(entry.found)
    }

    fn path(&self, key: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.directory.join(format!("{:016x}", hasher.finish()))
    }

    fn write<T: Serialize>(&self, path: &Path, entry: &Entry<T>) -> io::Result<()> {
        let text = serde_json::to_vec(entry).map_err(io::Error::other)?;
        if text.len() as u64 > MAX_LEN {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        config::make_private_directory(self.directory)?;
        config::trust_directory(self.directory).map_err(|_| io::ErrorKind::PermissionDenied)?;
        let files: Vec<_> = fs::read_dir(self.directory)?.filter_map(Result::ok).collect();
        if files.len() >= MAX_FILES {
            // Another launcher may do the same.
            files.iter().for_each(|file| drop(fs::remove_file(file.path())));
        }
        let new = path.with_extension(std::process::id().to_string());
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
        let written = file.write_all(&text).and_then(|()| fs::rename(&new, path));
        written.inspect_err(|_| drop(fs::remove_file(&new)))
    }
}

fn read<T: DeserializeOwned>(path: &Path, key: &str) -> Option<T> {
    let text = config::read_trusted(path, MAX_LEN).ok()?;
    let entry: Entry<T> = serde_json::from_str(&text).ok()?;
    (entry.key == key && entry.seen.is_current()).then_some(entry.found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that only root can write, and a node whose file was written long ago.
    struct Place {
        directory: tempfile::TempDir,
        looks: Cell<u32>,
    }

    impl Place {
        fn new() -> Option<Self> {
            if !nix::unistd::geteuid().is_root() {
                return None;
            }
            let directory = tempfile::tempdir_in("/run").unwrap();
            let place = Self { directory, looks: Cell::new(0) };
            fs::create_dir(place.at("root")).unwrap();
            fs::write(place.at("root/file"), "old").unwrap();
            Some(place)
        }

        fn at(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        fn recall(&self, key: &str) -> String {
            let (directory, root) = (self.at("memory"), self.at("root"));
            let memory = Memory { directory: &directory, root: &root };
            let text = memory.recall(&key, |node| {
                self.looks.set(self.looks.get() + 1);
                Ok::<_, Infallible>(node.text(Path::new("/file")).unwrap_or_default())
            });
            text.unwrap()
        }

        /// Result of another look-up, and the number of files that were read for it.
        fn looks(&self, key: &str) -> (String, u32) {
            let before = self.looks.get();
            (self.recall(key), self.looks.get() - before)
        }

        fn settle(&self) {
            std::thread::sleep(std::time::Duration::from_millis(3200));
        }
    }

    #[test]
    fn a_result_is_used_until_its_files_change() {
        let Some(place) = Place::new() else { return };
        assert_eq!(place.looks("key"), ("old".into(), 1));
        assert_eq!(place.looks("key"), ("old".into(), 1), "the file has just been written");
        place.settle();
        assert_eq!(place.looks("key"), ("old".into(), 1));
        assert_eq!(place.looks("key"), ("old".into(), 0));
        assert_eq!(place.looks("other"), ("old".into(), 1), "another question");
        fs::write(place.at("root/file"), "new").unwrap();
        assert_eq!(place.looks("key"), ("new".into(), 1));
    }

    #[test]
    fn a_result_that_others_could_have_written_is_not_used() {
        let Some(place) = Place::new() else { return };
        place.settle();
        place.recall("key");
        assert_eq!(place.looks("key").1, 0);
        let file = fs::read_dir(place.at("memory")).unwrap().next().unwrap().unwrap().path();
        let planted = fs::read_to_string(&file).unwrap().replace("old", "bad");
        let user = Some(65534);
        let owned = |path: &Path| std::os::unix::fs::chown(path, user, user).unwrap();
        // A file of a user, one that they can write, a link to one, and one in a directory of theirs.
        fs::write(&file, &planted).unwrap();
        owned(&file);
        assert_eq!(place.looks("key"), ("old".into(), 1));
        fs::write(&file, &planted).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        assert_eq!(place.looks("key"), ("old".into(), 1));
        fs::rename(&file, place.at("planted")).unwrap();
        std::os::unix::fs::symlink(place.at("planted"), &file).unwrap();
        assert_eq!(place.looks("key"), ("old".into(), 1));
        owned(&place.at("memory"));
        assert_eq!(place.looks("key"), ("old".into(), 1));
        assert_eq!(place.looks("key"), ("old".into(), 1), "nothing is kept there");
    }

    #[test]
    fn a_damaged_result_or_none_costs_a_look_up() {
        let Some(place) = Place::new() else { return };
        place.settle();
        for damage in ["", "{", "{\"key\":1}", "null"] {
            place.recall("key");
            let file = fs::read_dir(place.at("memory")).unwrap().next().unwrap().unwrap().path();
            fs::write(&file, damage).unwrap();
            assert_eq!(place.looks("key"), ("old".into(), 1), "{damage}");
            assert_eq!(place.looks("key"), ("old".into(), 0), "{damage}");
        }
        (0..2 * MAX_FILES).for_each(|number| drop(place.recall(&number.to_string())));
        assert!(fs::read_dir(place.at("memory")).unwrap().count() <= MAX_FILES);
        fs::remove_dir_all(place.at("memory")).unwrap();
        fs::write(place.at("memory"), "in its place").unwrap();
        assert_eq!(place.looks("key"), ("old".into(), 1));
    }
}
