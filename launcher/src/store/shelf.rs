//! Reads and changes a user's directory in the store.
#![forbid(unsafe_code)]

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{LinkatFlags, UnlinkatFlags};

use super::{Error, Record};
use coracle::request::StoredName;
use coracle::sys;

const RECORDS: &str = ".records";
const LOCK: &str = ".lock";
/// Name of an unfinished record, or of a copy on file systems without nameless files. The process that holds the lock
/// works on them; the next one to hold it may remove them.
const UNFINISHED: &str = ".unfinished";
/// Permissions of the service on stored files: no process writes to them.
const READ: u16 = 4;
const READ_AND_ENTER: u16 = 5;
const ALL: u16 = 7;

/// A user's directory in the store.
#[derive(Debug)]
pub struct Shelf {
    directory: OwnedFd,
}

/// Image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Name of the image.
    pub name: StoredName,
    /// Length in bytes.
    pub size: u64,
}

/// User of a shelf, with their limits.
#[derive(Debug, Clone, Copy)]
pub struct Tenant {
    /// The user's id.
    pub uid: u32,
    /// Primary group of the user, for file systems without access control lists.
    pub gid: u32,
    /// Maximum number of images.
    pub max_images: u32,
    /// Maximum number of bytes of all images.
    pub max_bytes: u64,
}

/// Lock that permits changes to a shelf; released when dropped, or when its process ends.
#[derive(Debug)]
pub struct Locked<'a> {
    shelf: &'a Shelf,
    tenant: Tenant,
    _lock: Flock<File>,
}

/// Copy that has no name yet, or a temporary one.
#[derive(Debug)]
pub struct Draft {
    /// Descriptor, readable and, until the draft is sealed, writable.
    pub file: File,
    /// fs-verity root digest of the sealed draft, if the file system supports it.
    pub verity: Option<String>,
    named: bool,
}

fn is_directory_name(user: &str) -> bool {
    !user.is_empty() && !user.starts_with('.') && !user.contains(['/', '\0'])
}

fn call(what: &str, name: &str, errno: Errno) -> Error {
    sys::Error::new(format!("{what}({name:?})"), errno).into()
}

impl Shelf {
    /// Path of a user's directory.
    pub fn path(store: &Path, user: &str) -> Option<PathBuf> {
        is_directory_name(user).then(|| store.join(user))
    }

    /// Opens the directory of `user`, if there is one.
    pub fn open(store: &Path, user: &str) -> Result<Option<Self>, Error> {
        let Some(path) = Self::path(store, user) else { return Ok(None) };
        match sys::open_untrusted(&path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW) {
            Ok(directory) => Ok(Some(Self { directory })),
            Err(error) if error.errno() == Errno::ENOENT => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory of `user` for changes by this process, and creates it if it is missing.
    pub fn open_or_make(store: &Path, user: &str, tenant: &Tenant) -> Result<Self, Error> {
        let path = Self::path(store, user)
            .ok_or_else(|| Error::Storage(format!("no directory can have the name of the user {user:?}")))?;
        match nix::unistd::mkdir(&path, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(call("mkdir", &path.to_string_lossy(), errno)),
        }
        let shelf = Self::open(store, user)?.ok_or(Error::Missing)?;
        let owner = File::from(shelf.directory.try_clone()?).metadata()?.uid();
        if owner != nix::unistd::geteuid().as_raw() {
            return Err(Error::Storage(format!("{} belongs to user {owner}, not to the store", path.display())));
        }
        tenant.share(&shelf.directory, ALL, READ_AND_ENTER)?;
        Ok(shelf)
    }

    /// Images in the order of their names.
    pub fn images(&self) -> Result<Vec<Kept>, Error> {
        let mut images = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/self/fd/{}", self.directory.as_raw_fd()))? {
            let entry = entry?;
            let Ok(name) = StoredName::parse(&entry.file_name()) else { continue };
            match nix::sys::stat::fstatat(&self.directory, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(found) => images.push(Kept { name, size: found.st_size.unsigned_abs() }),
                // Removed in the meantime.
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(call("fstatat", name.as_str(), errno)),
            }
        }
        images.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(images)
    }

    /// Opens an image for reading.
    pub fn image(&self, name: &StoredName) -> Result<File, Error> {
        match self.read(Path::new(name.as_str())) {
            Err(error) if error.errno() == Errno::ENOENT => Err(Error::Missing),
            found => Ok(found?),
        }
    }

    /// Record of `image`, which is open under `name`.
    pub fn record(&self, name: &StoredName, image: &File) -> Result<Record, Error> {
        let image = image.metadata()?;
        let record = self.read(&Self::record_path(name)).map_err(|error| Error::Record(error.to_string()))?;
        Record::read(&record, &image, image.uid())
    }

    /// Path of an image's record, relative to the shelf.
    pub fn record_path(name: &StoredName) -> PathBuf {
        Path::new(RECORDS).join(name.as_str())
    }

    fn read(&self, path: &Path) -> sys::Result<File> {
        sys::open_beneath(&self.directory, path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).map(File::from)
    }

    /// Locks this shelf for changes; `None` while another process holds the lock.
    pub fn lock(&self, tenant: Tenant) -> Result<Option<Locked<'_>>, Error> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&self.directory, LOCK, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|errno| call("openat", LOCK, errno))?;
        match Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Locked { shelf: self, tenant, _lock: lock })),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(call("flock", LOCK, errno)),
        }
    }
}

impl Tenant {
    /// Gives the tenant read or search permission on a file or directory of the store.
    fn share(&self, what: impl AsFd, owner: u16, user: u16) -> Result<(), Error> {
        match sys::share_with(&what, owner, self.uid, user) {
            Err(error) if error.errno() == Errno::EOPNOTSUPP => {}
            shared => return Ok(shared?),
        }
        let group = nix::unistd::Gid::from_raw(self.gid);
        nix::unistd::fchown(&what, None, Some(group)).map_err(|errno| {
            Error::Storage(format!(
                "its file system has no access control lists, and its service may not give files to group {group}: {}",
                errno.desc()
            ))
        })?;
        let mode = u32::from(owner) << 6 | u32::from(user) << 3;
        Ok(File::from(what.as_fd().try_clone_to_owned()?).set_permissions(Permissions::from_mode(mode))?)
    }
}

impl Locked<'_> {
    /// Removes files that an interrupted process left behind.
    pub fn tidy(&self) -> Result<(), Error> {
        self.unlink(Path::new(UNFINISHED))?;
        self.unlink(&Path::new(RECORDS).join(UNFINISHED))?;
        let images = self.shelf.images()?;
        let Ok(records) = std::fs::read_dir(format!("/proc/self/fd/{}/{RECORDS}", self.shelf.directory.as_raw_fd()))
        else {
            return Ok(());
        };
        for entry in records {
            let name = entry?.file_name();
            if !images.iter().any(|image| *image.name.as_str() == *name) {
                self.unlink(&Path::new(RECORDS).join(name))?;
            }
        }
        Ok(())
    }

    /// Checks that an image of `size` bytes may be stored under `name`.
    pub fn admits(&self, name: &StoredName, size: u64) -> Result<(), Error> {
        let images = self.shelf.images()?;
        if images.iter().any(|image| image.name == *name) {
            return Err(Error::Taken);
        }
        if images.len() >= self.tenant.max_images as usize {
            return Err(Error::TooMany(self.tenant.max_images));
        }
        let (used, limit) = (images.iter().map(|image| image.size).sum::<u64>(), self.tenant.max_bytes);
        if used.saturating_add(size) > limit {
            return Err(Error::TooLarge { size, used, limit });
        }
        Ok(())
    }

    /// Creates a file that no other process can see.
    pub fn draft(&self) -> Result<Draft, Error> {
        let directory = &self.shelf.directory;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        match nix::fcntl::openat(directory, ".", OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC, mode) {
            Ok(file) => return Ok(Draft { file: file.into(), verity: None, named: false }),
            // Some file systems, such as NFS, need a name, and some kernels do not know nameless files (open(2)).
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::ENOENT) => {}
            Err(errno) => return Err(call("openat", "O_TMPFILE", errno)),
        }
        Ok(Draft { file: self.fresh(Path::new(UNFINISHED))?, verity: None, named: true })
    }

    fn fresh(&self, path: &Path) -> Result<File, Error> {
        self.unlink(path)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&self.shelf.directory, path, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        Ok(file.map_err(|errno| call("openat", &path.to_string_lossy(), errno))?.into())
    }

    /// Makes a draft readable for the tenant and writable for no user. From here on its descriptor is read-only. If the
    /// file system has fs-verity, the kernel holds the file to these bytes.
    pub fn seal(&self, draft: Draft) -> Result<Draft, Error> {
        draft.file.sync_all()?;
        let file = File::open(format!("/proc/self/fd/{}", draft.file.as_raw_fd()))?;
        // fs-verity requires that no process has the file open for writing, and that its owner may write it: so `share`
        // comes later.
        drop(draft.file);
        let verity = sys::verity::enable(&file)?.map(|digest| digest.to_string());
        self.tenant.share(&file, READ, READ)?;
        Ok(Draft { file, verity, named: draft.named })
    }

    /// Gives a sealed draft its name. The record comes first, so that every image has one; [`Locked::tidy`] removes a
    /// record without an image.
    pub fn publish(&self, draft: &Draft, name: &StoredName, record: &Record) -> Result<(), Error> {
        self.admits(name, record.file.size)?;
        self.write_record(name, record)?;
        let directory = &self.shelf.directory;
        let linked = if draft.named {
            nix::unistd::linkat(directory, UNFINISHED, directory, name.as_str(), LinkatFlags::empty())
        } else {
            let path = format!("/proc/self/fd/{}", draft.file.as_raw_fd());
            let follow = LinkatFlags::AT_SYMLINK_FOLLOW;
            nix::unistd::linkat(nix::fcntl::AT_FDCWD, path.as_str(), directory, name.as_str(), follow)
        };
        if let Err(errno) = linked {
            self.unlink(&Shelf::record_path(name))?;
            return Err(if errno == Errno::EEXIST { Error::Taken } else { call("linkat", name.as_str(), errno) });
        }
        self.unlink(Path::new(UNFINISHED))?;
        self.sync()
    }

    fn write_record(&self, name: &StoredName, record: &Record) -> Result<(), Error> {
        let directory = &self.shelf.directory;
        match nix::sys::stat::mkdirat(directory, RECORDS, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(call("mkdirat", RECORDS, errno)),
        }
        let records = sys::open_beneath(directory, Path::new(RECORDS), OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        self.tenant.share(&records, ALL, READ_AND_ENTER)?;
        let unfinished = Path::new(RECORDS).join(UNFINISHED);
        let mut file = self.fresh(&unfinished)?;
        file.write_all(&record.to_json()?)?;
        file.sync_all()?;
        self.tenant.share(&file, READ, READ)?;
        let target = Shelf::record_path(name);
        nix::fcntl::renameat(directory, &unfinished, directory, &target)
            .map_err(|errno| call("renameat", &target.to_string_lossy(), errno))
    }

    /// Removes an image and its record. Processes that have it open or mounted are not affected.
    pub fn remove(&self, name: &StoredName) -> Result<(), Error> {
        match nix::unistd::unlinkat(&self.shelf.directory, name.as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Err(Error::Missing),
            Err(errno) => return Err(call("unlinkat", name.as_str(), errno)),
        }
        self.unlink(&Shelf::record_path(name))?;
        self.sync()
    }

    fn unlink(&self, path: &Path) -> Result<(), Error> {
        match nix::unistd::unlinkat(&self.shelf.directory, path, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(call("unlinkat", &path.to_string_lossy(), errno)),
        }
    }

    fn sync(&self) -> Result<(), Error> {
        match File::from(self.shelf.directory.try_clone()?).sync_all() {
            // Not every file system supports this for directories.
            Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => Ok(()),
            done => Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Seen;
    use coracle::request::Digest;
    use std::io::Write;

    const TENANT: Tenant = Tenant { uid: 2001, gid: 2001, max_images: 2, max_bytes: 100 };

    fn name(text: &str) -> StoredName {
        StoredName::parse(text.as_ref()).unwrap()
    }

    fn put(locked: &Locked<'_>, called: &str, bytes: &[u8]) -> Result<(), Error> {
        let mut draft = locked.draft()?;
        draft.file.write_all(bytes)?;
        let draft = locked.seal(draft)?;
        let record = Record {
            version: 1,
            digest: Digest([1; 32]),
            stored: 0,
            uid: 2001,
            holds: String::new(),
            signers: vec![],
            scanned: None,
            verity: None,
            file: Seen::from(&draft.file.metadata()?),
        };
        locked.publish(&draft, &name(called), &record)
    }

    fn names(shelf: &Shelf) -> Vec<String> {
        shelf.images().unwrap().into_iter().map(|image| format!("{} {}", image.name, image.size)).collect()
    }

    #[test]
    fn images_come_in_one_by_one_up_to_the_limits_and_go_again() {
        let store = tempfile::tempdir().unwrap();
        assert!(Shelf::open(store.path(), "alice").unwrap().is_none());
        let shelf = Shelf::open_or_make(store.path(), "alice", &TENANT).unwrap();
        let locked = shelf.lock(TENANT).unwrap().unwrap();
        assert!(shelf.lock(TENANT).unwrap().is_none());
        put(&locked, "b.sif", &[0; 60]).unwrap();
        let line = |result: Result<(), Error>| result.unwrap_err().refuse("x").line();
        assert!(line(put(&locked, "b.sif", b"x")).contains("you have an image of this name"));
        let found = line(put(&locked, "a.sif", &[0; 41]));
        assert!(
            found.contains("its 41 bytes and the 60 of your other images are more than the 100 allowed"),
            "{found}"
        );
        put(&locked, "a.sif", &[0; 40]).unwrap();
        assert!(line(put(&locked, "c.sif", b"")).contains("you have 2 images in the store"));
        assert_eq!(names(&shelf), ["a.sif 40", "b.sif 60"]);
        let image = shelf.image(&name("a.sif")).unwrap();
        assert_eq!(shelf.record(&name("a.sif"), &image).unwrap().file.size, 40);
        assert_eq!(image.metadata().unwrap().mode() & 0o227, 0);
        locked.remove(&name("a.sif")).unwrap();
        assert!(line(locked.remove(&name("a.sif"))).contains("no image of yours"));
        assert_eq!(names(&shelf), ["b.sif 60"]);
        assert!(!store.path().join("alice/.records/a.sif").exists());
        drop(locked);
        assert!(shelf.lock(TENANT).unwrap().is_some());
    }

    #[test]
    fn a_copy_with_a_name_of_its_own_is_published_and_tidied_too() {
        let store = tempfile::tempdir().unwrap();
        let shelf = Shelf::open_or_make(store.path(), "alice", &TENANT).unwrap();
        let locked = shelf.lock(TENANT).unwrap().unwrap();
        let named = || Draft { file: locked.fresh(Path::new(UNFINISHED)).unwrap(), verity: None, named: true };
        locked.seal(named()).unwrap();
        put(&locked, "other", b"").unwrap();
        let record = shelf.record(&name("other"), &shelf.image(&name("other")).unwrap()).unwrap();
        let draft = locked.seal(named()).unwrap();
        let record = Record { file: Seen::from(&draft.file.metadata().unwrap()), ..record };
        locked.publish(&draft, &name("a.sif"), &record).unwrap();
        assert_eq!(names(&shelf), ["a.sif 0", "other 0"]);
        // Leftovers of an interrupted process: a copy, and a record without its image.
        let _ = named();
        std::fs::write(store.path().join("alice/.records/gone"), "{}").unwrap();
        locked.tidy().unwrap();
        let left = |path: &str| {
            let mut names: Vec<_> = std::fs::read_dir(store.path().join(path)).unwrap().collect();
            names.sort_by_key(|entry| entry.as_ref().unwrap().file_name());
            names.into_iter().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(left("alice"), [".lock", ".records", "a.sif", "other"]);
        assert_eq!(left("alice/.records"), ["a.sif", "other"]);
    }

    #[test]
    fn no_users_name_leads_out_of_the_store() {
        let store = tempfile::tempdir().unwrap();
        for user in ["", ".", "..", "../x", "a/b", ".hidden"] {
            assert!(Shelf::open_or_make(store.path(), user, &TENANT).is_err(), "{user:?}");
            assert!(Shelf::open(store.path(), user).unwrap().is_none(), "{user:?}");
        }
        std::os::unix::fs::symlink("/etc", store.path().join("bob")).unwrap();
        assert!(Shelf::open_or_make(store.path(), "bob", &TENANT).is_err());
    }
}
