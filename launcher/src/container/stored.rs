//! Finds images of the site's store and their records.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::config::Store;
use crate::store::{Error, Record, Shelf};
use coracle::report::{Kind, Refusal};
use coracle::request::StoredName;
use coracle::sys::{self, CachedStat, Identity};
use nix::fcntl::OFlag;

use crate::children::opener::{Opened, Opener};

/// Reads the store's record of the image that was opened; nothing if this file is not in the store.
///
/// Its path is only a hint. The same inode must be found there, and it and its record must belong to the store's
/// account, which alone may write them. An image of the store with a record of another file is refused.
pub fn read_record(opener: &Opener, store: &Store, opened: &Opened, name: &str) -> Result<Option<Record>, Refusal> {
    let Ok(directory) = sys::open_untrusted(store.path(), OFlag::O_PATH | OFlag::O_DIRECTORY) else { return Ok(None) };
    let Some(place) = sys::hint_beneath(&directory, &opened.file).and_then(|path| place(&path)) else {
        return Ok(None);
    };
    let Ok(known) = CachedStat::of(&opened.file) else { return Ok(None) };
    if !opener.is_beneath(directory.as_fd(), &place.image, &known)? {
        return Ok(None);
    }
    // The file is in the store, so no process of the user serves its file system.
    let Ok(file) = opened.file.metadata() else { return Ok(None) };
    if !file.is_file() || opener.owner(&store.owner)? != Some(file.uid()) || file.mode() & 0o022 != 0 {
        return Ok(None);
    }
    let record = match opener.read_beneath(directory.as_fd(), &place.record)? {
        Ok(record) => Record::read(&record, &file, file.uid()),
        Err(errno) => Err(Error::Record(errno.desc().to_owned())),
    };
    let record = record.map_err(|error| error.refuse(name))?;
    check_verity(&opened.file, &record).map_err(|error| error.refuse(name))?;
    Ok(Some(record))
}

/// Checks that the kernel still confirms the bytes that were copied in (fs-verity). A node that mounts the store over
/// the network cannot check it.
fn check_verity(image: &File, record: &Record) -> Result<(), Error> {
    let Some(wanted) = &record.verity else { return Ok(()) };
    match sys::verity::measure(image)? {
        Some(found) if found.to_string() != *wanted => {
            Err(Error::Record(format!("its fs-verity digest is {found}, and {wanted} came in")))
        }
        _ => Ok(()),
    }
}

/// Paths of an image and its record below the store.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    image: PathBuf,
    record: PathBuf,
}

/// Parses `USER/NAME`; nothing for any other path.
fn place(path: &Path) -> Option<Place> {
    let mut parts = path.components();
    let (Some(Component::Normal(user)), Some(Component::Normal(name)), None) =
        (parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let name = StoredName::parse(name).ok()?;
    Some(Place { image: path.to_owned(), record: Path::new(user).join(Shelf::record_path(&name)) })
}

/// Refuses an image that is neither a file nor stored.
pub fn refuse_missing(name: &str, file: Option<&Path>, stored: &Path) -> Refusal {
    let stored = stored.display();
    match file {
        Some(file) => {
            Refusal::new(Kind::ImageMissing, name, "no such file on this node, and no image of yours in the store")
                .hint(format!("looked for {} and {stored}", file.display()))
        }
        None => Refusal::new(Kind::ImageMissing, name, "no image of yours in the store")
            .hint(format!("looked for {stored}; coracle ls lists those that you have")),
    }
}

/// Refuses a stored image of a user whose name the node does not know.
pub fn refuse_unknown_user(identity: &Identity, name: &str) -> Refusal {
    Refusal::new(Kind::ImageMissing, name, format!("this node does not know the name of user {}", identity.uid))
        .hint("give the path of the image's file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_in_a_users_directory_and_nowhere_else() {
        let found = place(Path::new("alice/a.sif")).unwrap();
        assert_eq!(found.record, Path::new("alice/.records/a.sif"));
        for path in ["a.sif", "alice/x/a.sif", "alice/.records/a.sif", "alice/.unfinished", "alice/..", ""] {
            assert_eq!(place(Path::new(path)), None, "{path}");
        }
    }
}
