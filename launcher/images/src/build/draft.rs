//! Makes a file that gets its name only when it is complete.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal};
use coracle::sys;
use coracle_launcher::image::{Container, START};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;

use crate::output::unwritable;
use crate::sources::digest::{Digest, Sum};
use crate::sources::looks_like_definition;

/// Mode before the umask. A SIF may be executed, as in Apptainer.
const MODE: Mode = Mode::from_bits_truncate(0o755);
/// Number of names that are tried for a file that needs one while it is made.
const TRIES: u32 = 100;
/// Extensions of other formats, and of definition files.
const OTHERS: [&str; 12] =
    ["sqsh", "sqfs", "squashfs", "sqs", "erofs", "tar", "tgz", "tbz2", "txz", "gz", "zst", "def"];
/// Hint for a user who named the source first.
pub const ORDER: &str = "the image to make comes first: coracle build IMAGE.sif SOURCE";

/// File without a name; on file systems that have no such files, one with a hidden name.
///
/// Dropped before it is published, it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    /// Descriptor for reading and writing.
    pub file: File,
    typed: String,
    /// Place of the output. `None` for a file without a name that the parent process has open.
    place: Option<Place>,
}

/// Place of the future file.
#[derive(Debug)]
struct Place {
    directory: File,
    name: OsString,
    replace: bool,
    /// Hidden name while the file is made, if it needs one.
    named: Option<OsString>,
}

impl Draft {
    /// Makes a draft of `output`, which must not exist unless it may be replaced.
    pub fn of(output: &Path, replace: bool) -> Result<Self, Refusal> {
        let typed = output.display().to_string();
        let refuse = |cause: &str| Refusal::new(Kind::Usage, &typed, cause);
        let name = output.file_name().ok_or_else(|| refuse("not the name of a file"))?.to_owned();
        let directory = output.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = File::open(directory).map_err(|error| unwritable(&directory.display().to_string(), &error))?;
        match output.symlink_metadata() {
            Ok(found) if found.is_dir() => return Err(refuse("a directory of that name is there")),
            // A device, FIFO or socket belongs to another program, and is no image.
            Ok(found) if !found.is_file() && !found.is_symlink() => {
                return Err(refuse("something that is no file has that name"));
            }
            Ok(_) => check_replaced(output, &typed, replace)?,
            Err(_) => {}
        }
        let (file, named) = create(&directory).map_err(|errno| unwritable(&typed, &errno.into()))?;
        Ok(Self { file, typed, place: Some(Place { directory, name, replace, named }) })
    }

    /// Takes the file that the parent process has open as `descriptor`; messages call it `typed`.
    pub fn inherited(descriptor: i32, typed: &str) -> Result<Self, Refusal> {
        let path = format!("/proc/self/fd/{descriptor}");
        let file = File::options().read(true).write(true).open(path).map_err(|error| unwritable(typed, &error))?;
        Ok(Self { file, typed: typed.to_owned(), place: None })
    }

    /// Path under which this process and its children can open the file.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Future name of the file, as the user typed it.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// Writes the file to disk and gives it its name.
    pub fn publish(&mut self) -> Result<(), Refusal> {
        self.file.sync_all().map_err(|error| unwritable(&self.typed, &error))?;
        let Some(place) = &mut self.place else { return Ok(()) };
        place.link(&self.file).map_err(|errno| match errno {
            Errno::EEXIST => taken(&self.typed),
            errno => unwritable(&self.typed, &errno.into()),
        })
    }
}

impl Place {
    fn link(&mut self, file: &File) -> Result<(), Errno> {
        if self.named.is_none() && self.replace {
            // linkat(2) replaces nothing, so a rename follows.
            self.named = Some(free_name(|name| self.link_as(file, name))?);
        }
        let Some(named) = &self.named else {
            return self.link_as(file, &self.name);
        };
        if self.replace {
            nix::fcntl::renameat(&self.directory, named.as_os_str(), &self.directory, self.name.as_os_str())?;
        } else {
            // Unlike a rename, this fails if another process has made a file of that name by now.
            let same = AtFlags::empty();
            nix::unistd::linkat(&self.directory, named.as_os_str(), &self.directory, self.name.as_os_str(), same)?;
            nix::unistd::unlinkat(&self.directory, named.as_os_str(), UnlinkatFlags::NoRemoveDir)?;
        }
        self.named = None;
        Ok(())
    }

    fn link_as(&self, file: &File, name: &OsStr) -> Result<(), Errno> {
        let own = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        nix::unistd::linkat(nix::fcntl::AT_FDCWD, &own, &self.directory, name, follow)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(named) = &self.named {
            let _ = nix::unistd::unlinkat(&self.directory, named.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Refuses a name of another format than SIF.
pub fn check_name(output: &Path) -> Result<(), Refusal> {
    let extension = output.extension().map(|word| word.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    if !OTHERS.contains(&extension.as_str()) {
        return Ok(());
    }
    let is_definition = extension == "def" || is_definition(output);
    let cause = format!("what is made is a SIF, and .{extension} is the name of something else");
    let hint = if is_definition { ORDER } else { "name it IMAGE.sif" };
    Err(Refusal::new(Kind::Usage, output.display().to_string(), cause).hint(hint))
}

/// True if the regular file `path` begins as a definition file does.
pub fn is_definition(path: &Path) -> bool {
    beginning(path).is_ok_and(|start| looks_like_definition(&start))
}

/// Refuses to replace an existing file, unless it is an image or an empty file and may be replaced.
fn check_replaced(output: &Path, typed: &str, replace: bool) -> Result<(), Refusal> {
    let refuse = |cause: &str| Refusal::new(Kind::Usage, typed, cause);
    let start = match beginning(output) {
        Ok(start) => start,
        // A link without a target.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(_) => return Err(refuse("is there already, and cannot be read to see if it is an image")),
    };
    if start.is_empty() || Container::of(&start).is_some() {
        return if replace { Ok(()) } else { Err(taken(typed)) };
    }
    let refusal = refuse("is there already, and is no image, which alone --force replaces");
    Err(refusal.hint(if looks_like_definition(&start) { ORDER } else { "give another name, or remove it first" }))
}

/// First bytes of a regular file, or of the target of a link.
fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::from(sys::open_untrusted(path, OFlag::O_RDONLY).map_err(|error| io::Error::from(error.errno()))?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut start = Vec::new();
    file.take(START as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// SHA-256 of a part of the draft.
pub fn digest(draft: &Draft, at: u64, size: u64) -> Result<Digest, Refusal> {
    let mut sum = Sum::sha256();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < size {
        let part = usize::try_from(size - done).unwrap_or(usize::MAX).min(buffer.len());
        draft.file.read_exact_at(&mut buffer[..part], at + done).map_err(|error| unwritable(&draft.typed, &error))?;
        sum.update(&buffer[..part]);
        done += part as u64;
    }
    Ok(sum.finish())
}

fn taken(typed: &str) -> Refusal {
    Refusal::new(Kind::Usage, typed, "is there already").hint("--force replaces it")
}

fn create(directory: &File) -> Result<(File, Option<OsString>), Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    match nix::fcntl::openat(directory, ".", flags | OFlag::O_TMPFILE, MODE) {
        Ok(file) => Ok((file.into(), None)),
        // NFS and some other file systems have no files without names.
        Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT) => {
            let mut made = None;
            let named = free_name(|name| {
                let file = nix::fcntl::openat(directory, name, flags | OFlag::O_CREAT | OFlag::O_EXCL, MODE)?;
                made = Some(File::from(file));
                Ok(())
            })?;
            made.map(|file| (file, Some(named))).ok_or(Errno::EIO)
        }
        Err(errno) => Err(errno),
    }
}

/// Hidden name with which `make` succeeds.
fn free_name(mut make: impl FnMut(&OsStr) -> Result<(), Errno>) -> Result<OsString, Errno> {
    for number in 0..TRIES {
        let free = OsString::from(format!(".unfinished-{}-{number}.sif", std::process::id()));
        match make(&free) {
            Err(Errno::EEXIST) => {}
            made => return made.map(|()| free),
        }
    }
    Err(Errno::EEXIST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            directory.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_draft_has_no_name_before_it_is_published() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("a.sif");
        let mut draft = Draft::of(&output, false).unwrap();
        draft.file.write_all(b"whole").unwrap();
        assert!(names(directory.path()).is_empty());
        draft.publish().unwrap();
        assert_eq!(names(directory.path()), ["a.sif"]);
        assert_eq!(std::fs::read(&output).unwrap(), b"whole");
    }

    #[test]
    fn a_file_that_is_there_is_replaced_only_when_asked_and_only_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("a.sif");
        std::fs::write(&output, "hsqs old").unwrap();
        let refused = Draft::of(&output, false).unwrap_err();
        assert!(refused.cause.contains("already") && refused.kind == Kind::Usage, "{refused}");
        let mut draft = Draft::of(&output, true).unwrap();
        draft.file.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&output).unwrap(), b"hsqs old");
        draft.publish().unwrap();
        assert_eq!((names(directory.path()), std::fs::read(&output).unwrap()), (vec!["a.sif".into()], b"new".to_vec()));
    }

    #[test]
    fn what_is_no_image_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("a");
        for (text, hint) in [("Bootstrap: docker\nFrom: x\n", "comes first"), ("#!/bin/sh\n", "remove it first")] {
            std::fs::write(&output, text).unwrap();
            let link = directory.path().join("link");
            let _ = std::os::unix::fs::symlink(&output, &link);
            for (path, force) in [(&output, false), (&output, true), (&link, true)] {
                let refused = Draft::of(path, force).unwrap_err();
                assert!(refused.cause.contains("is no image"), "{refused}");
                assert!(refused.hint.as_ref().is_some_and(|said| said.contains(hint)), "{refused}");
            }
        }
        std::fs::write(&output, "").unwrap();
        assert!(Draft::of(&output, false).unwrap_err().cause.contains("already"));
        Draft::of(&output, true).unwrap();
        for name in ["a.sqsh", "a.SQUASHFS", "a.def", "a.tar.gz"] {
            assert_eq!(check_name(Path::new(name)).unwrap_err().kind, Kind::Usage, "{name}");
        }
        for name in ["a.sif", "a", "a.simg", "a.1.0", "a.img"] {
            check_name(Path::new(name)).unwrap();
        }
    }

    #[test]
    fn of_two_who_make_the_same_file_the_second_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("a.sif");
        let (mut first, mut second) = (Draft::of(&output, false).unwrap(), Draft::of(&output, false).unwrap());
        first.publish().unwrap();
        assert!(second.publish().unwrap_err().cause.contains("already"));
        assert_eq!(names(directory.path()), ["a.sif"]);
    }

    #[test]
    fn a_draft_that_had_to_have_a_name_leaves_none() {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("a.sif");
        for (replace, publish) in [(false, false), (false, true), (true, true)] {
            // Only an image is replaced.
            if replace {
                std::fs::write(&output, "hsqs").unwrap();
            }
            let mut draft = Draft::of(&output, replace).unwrap();
            let Draft { file, place: Some(place), .. } = &mut draft else { panic!() };
            let name = free_name(|name| place.link_as(file, name)).unwrap();
            place.named = Some(name);
            assert!(names(directory.path()).iter().any(|name| name.starts_with(".unfinished-")));
            if publish {
                draft.publish().unwrap();
                assert_eq!(names(directory.path()), ["a.sif"]);
            } else {
                drop(draft);
                assert!(names(directory.path()).is_empty());
            }
        }
    }

    #[test]
    fn what_is_no_place_for_a_file_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Draft::of(path, true).unwrap_err().line();
        assert!(refused(&directory.path().join("none/a.sif")).contains("no such directory"));
        assert!(refused(directory.path()).contains("a directory of that name"));
        assert!(refused(Path::new("..")).contains("not the name of a file"));
    }
}
