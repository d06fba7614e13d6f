//! Keeps downloaded blobs: `blobs/ALGORITHM/DIGITS`, in a directory of the user.
//!
//! The name of an incomplete download ends in `.part`, and its writer locks it (flock(2)). When that process has ended,
//! the next one continues. A blob gets its name after its digest was checked. The digest is checked again before use.
#![forbid(unsafe_code)]

use std::fs::{DirBuilder, File, FileTimes, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use coracle::report::{Kind, Refusal};
use nix::fcntl::OFlag;

use coracle_orders::place;

use super::manifest::Part;
use crate::output::unwritable;
use crate::sources::digest::{Digest, Sum};

/// Time for which an unused blob is kept.
const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const HINT: &str = "CORACLE_CACHEDIR names the directory in which downloads are kept";

/// Blobs of the user.
#[derive(Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// Outcome of a request for a blob.
pub enum Claim {
    /// The blob is there.
    Whole(PathBuf),
    /// The blob must be downloaded, and no other process does so.
    Partial(Box<Partial>),
}

/// Blob during its download.
pub struct Partial {
    file: File,
    path: PathBuf,
    whole: PathBuf,
    sum: Sum,
    fresh: Sum,
    length: u64,
}

impl Cache {
    /// Opens the cache in the user's cache directory.
    pub fn open() -> Result<Self, Refusal> {
        let directory = place::cache().ok_or_else(|| {
            Refusal::new(Kind::Usage, "HOME", "not set, so there is no place for what is downloaded").hint(HINT)
        })?;
        Self::at(directory.join("blobs"))
    }

    fn at(directory: PathBuf) -> Result<Self, Refusal> {
        let cache = Self { directory };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&cache.directory);
        made.map_err(|error| cache.refuse(&error))?;
        let found = cache.directory.symlink_metadata().map_err(|error| cache.refuse(&error))?;
        let refuse = |cause: &str| Err(Refusal::new(Kind::System, cache.typed(), cause).hint(HINT));
        if !found.is_dir() {
            return refuse("no directory");
        }
        if found.uid() != nix::unistd::geteuid().as_raw() {
            return refuse("belongs to somebody else, who could change what is downloaded");
        }
        if found.mode() & 0o022 != 0 {
            return refuse("others may write there, and change what is downloaded");
        }
        Ok(cache)
    }

    fn typed(&self) -> String {
        self.directory.display().to_string()
    }

    /// Refusal of a cache that cannot be written.
    pub fn refuse(&self, error: &io::Error) -> Refusal {
        unwritable(&self.typed(), error).hint(HINT)
    }

    /// Path of a complete blob.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.algorithm()).join(digest.digits())
    }

    /// Claims a blob; `waiting` is called when another process is downloading it.
    pub fn claim(&self, part: &Part, mut waiting: impl FnMut()) -> Result<Claim, Refusal> {
        let refuse = |error: io::Error| self.refuse(&error);
        let directory = self.directory.join(part.digest.algorithm());
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(refuse)?;
        let whole = self.path(&part.digest);
        let path = directory.join(format!("{}.part", part.digest.digits()));
        loop {
            if self.is_whole(&whole, part)? {
                return Ok(Claim::Whole(whole));
            }
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
            let file = options.open(&path).map_err(refuse)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    waiting();
                    file.lock().map_err(refuse)?;
                }
                Err(TryLockError::Error(error)) => return Err(refuse(error)),
            }
            // The process that had the lock may have completed or removed the blob.
            let same = path.symlink_metadata().is_ok_and(|found| is_same(&file, &found));
            if !same {
                continue;
            }
            if self.is_whole(&whole, part)? {
                std::fs::remove_file(&path).map_err(refuse)?;
                return Ok(Claim::Whole(whole));
            }
            let mut partial =
                Partial { file, path, whole, sum: part.digest.sum(), fresh: part.digest.sum(), length: 0 };
            partial.take_up(part.size).map_err(refuse)?;
            return Ok(Claim::Partial(Box::new(partial)));
        }
    }

    /// True if a blob is there and has its digest. A damaged blob is removed.
    fn is_whole(&self, path: &Path, part: &Part) -> Result<bool, Refusal> {
        let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.refuse(&error)),
        };
        let mut sum = part.digest.sum();
        let good = file.metadata().is_ok_and(|found| found.is_file() && found.len() == part.size)
            && feed(&file, &mut sum).is_ok()
            && sum.finish() == part.digest;
        if good {
            // A recent time protects the blob from the next clean-up.
            let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        } else {
            std::fs::remove_file(path).map_err(|error| self.refuse(&error))?;
        }
        Ok(good)
    }

    /// Removes blobs that were not used for a month.
    pub fn clean(&self) {
        let Some(before) = SystemTime::now().checked_sub(KEPT) else { return };
        for directory in ["sha256", "sha512"] {
            let Ok(entries) = self.directory.join(directory).read_dir() else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                let found = path.symlink_metadata();
                let old = found.is_ok_and(|found| found.modified().is_ok_and(|time| time < before));
                if old && File::open(&path).is_ok_and(|file| file.try_lock().is_ok()) {
                    let _ = std::fs::remove_file(&path);
                }
            }
        }
    }
}

impl Partial {
    /// Length of the part that is there.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Continues a partial download.
    fn take_up(&mut self, size: u64) -> io::Result<()> {
        if self.file.metadata()?.len() > size {
            return self.restart();
        }
        self.length = feed(&self.file, &mut self.sum)?;
        Ok(())
    }

    /// Discards the part and starts again.
    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        (self.length, self.sum) = (0, self.fresh.clone());
        Ok(())
    }

    /// Appends bytes.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.sum.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// True if the bytes have this digest.
    pub fn is(&self, digest: &Digest) -> bool {
        self.sum.clone().finish() == *digest
    }

    /// Gives the blob its name.
    pub fn publish(self) -> io::Result<PathBuf> {
        std::fs::rename(&self.path, &self.whole)?;
        Ok(self.whole)
    }

    /// Removes the partial blob.
    pub fn discard(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

fn is_same(file: &File, found: &std::fs::Metadata) -> bool {
    file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
}

/// Reads a file to its end into a sum. Returns its length.
fn feed(mut file: &File, sum: &mut Sum) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(length),
            count => {
                sum.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(bytes: &[u8]) -> Part {
        Part { digest: Digest::sha256(bytes), size: bytes.len() as u64 }
    }

    fn partial(cache: &Cache, part: &Part) -> Box<Partial> {
        match cache.claim(part, || panic!("nobody has it")).unwrap() {
            Claim::Partial(partial) => partial,
            Claim::Whole(path) => panic!("{path:?}"),
        }
    }

    #[test]
    fn a_blob_goes_on_where_it_ended_and_has_its_name_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().join("blobs")).unwrap();
        let part = part(b"hello");
        let mut first = partial(&cache, &part);
        first.append(b"hel").unwrap();
        drop(first);
        let mut second = partial(&cache, &part);
        assert!(second.length() == 3 && !second.is(&part.digest));
        second.append(b"lo").unwrap();
        assert!(second.is(&part.digest));
        let path = second.publish().unwrap();
        assert!(matches!(cache.claim(&part, || {}), Ok(Claim::Whole(whole)) if whole == path));
        assert_eq!(directory.path().join("blobs/sha256").read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_blob_that_was_changed_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().join("blobs")).unwrap();
        let part = part(b"hello");
        let mut first = partial(&cache, &part);
        first.append(b"hello").unwrap();
        let path = first.publish().unwrap();
        std::fs::write(&path, b"jello").unwrap();
        let mut second = partial(&cache, &part);
        assert!(second.length() == 0 && !path.exists());
        // A part that is longer than the blob cannot be continued, either.
        second.append(b"hello, world").unwrap();
        drop(second);
        assert_eq!(partial(&cache, &part).length(), 0);
    }

    #[test]
    fn of_two_who_want_it_the_second_gets_what_the_first_has_finished() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().join("blobs")).unwrap();
        let part = part(b"hello");
        let mut first = partial(&cache, &part);
        let (told, waits) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| matches!(cache.claim(&part, || told.send(()).unwrap()), Ok(Claim::Whole(_))));
            waits.recv().unwrap();
            first.append(b"hello").unwrap();
            first.publish().unwrap();
            assert!(second.join().unwrap());
        });
        assert_eq!(directory.path().join("blobs/sha256").read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_was_not_used_for_long_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path().join("blobs")).unwrap();
        let long_ago = SystemTime::now() - KEPT - Duration::from_secs(60);
        let (old, new, busy) = (part(b"old"), part(b"new"), part(b"busy"));
        for (part, bytes) in [(&old, b"old"), (&new, b"new")] {
            let mut partial = partial(&cache, part);
            partial.append(bytes).unwrap();
            partial.publish().unwrap();
        }
        let busy = partial(&cache, &busy);
        let path = |part: &Part| directory.path().join("blobs/sha256").join(part.digest.digits());
        for path in [path(&old), busy.path.clone()] {
            File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(long_ago)).unwrap();
        }
        cache.clean();
        assert!(!path(&old).exists() && path(&new).exists() && busy.path.exists());
    }

    #[test]
    fn a_cache_that_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("blobs");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Cache::at(path).unwrap_err().cause.contains("others may write"));
    }
}
