//! Reads files of an image from a directory, or from a tar file without unpacking it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal};
use coracle::sys;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::output::unwritable;
use crate::sources::archive::{self, Layer, Reader, Skip, malformed};

/// Limit of the entries of an image's archive: an image has as many as layers, and a few.
pub(super) const ENTRIES: usize = 100_000;
/// Limit of the links that are followed to a file: old archives of docker have one.
const LINKS: usize = 8;
/// Size of the parts in which a compressed archive is unpacked: it may have as many bytes as a layer of its size.
const PART: usize = 1 << 20;

/// Place of the files.
#[derive(Debug)]
pub enum Place {
    /// Directory of the files.
    Directory(PathBuf),
    /// Tar file of the files.
    Archive(Archive),
}

/// Tar file, and the places of its files.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    entries: BTreeMap<PathBuf, Member>,
}

#[derive(Debug, Clone)]
enum Member {
    File { at: u64, size: u64 },
    Link(PathBuf),
}

impl Place {
    /// Opens the archive at `path`. If it is compressed, its contents go to the directory `scratch`.
    pub fn archive(path: &Path, scratch: &Path) -> Result<Self, Refusal> {
        let named = path.display().to_string();
        let mut file = open(path, &named)?;
        let mut start = [0; 6];
        let filled = fill(&mut file, &mut start).map_err(|error| unreadable(&named, &error))?;
        let compressed = archive::is_compressed(&start[..filled]);
        let plain = if compressed { unpack(path, &mut file, scratch)? } else { path.to_owned() };
        if compressed {
            file = open(&plain, &named)?;
        }
        file.rewind().map_err(|error| unreadable(&named, &error))?;
        let entries = list(file).map_err(|error| unreadable(&named, &error))?;
        Ok(Self::Archive(Archive { path: plain, entries }))
    }

    /// Place of the file `name`: file, offset and length.
    pub fn find(&self, what: &str, name: &Path) -> Result<Layer, Refusal> {
        let missing = || {
            let name: String = name.display().to_string().chars().take(200).collect();
            Refusal::new(Kind::ImageFormat, what, format!("{name:?} is not in it"))
        };
        let normal = inside(Path::new(""), name).ok_or_else(missing)?;
        match self {
            Self::Directory(directory) => {
                let path = directory.join(normal);
                let size = match open(&path, what) {
                    Ok(file) => file.metadata().map_err(|error| unreadable(what, &error))?.len(),
                    Err(refusal) if refusal.kind == Kind::ImageMissing => return Err(missing()),
                    Err(refusal) => return Err(refusal),
                };
                Ok(Layer { file: path, offset: 0, size, diff_id: None })
            }
            Self::Archive(archive) => {
                let mut at = normal;
                for _ in 0..LINKS {
                    match archive.entries.get(&at) {
                        Some(Member::File { at, size }) => {
                            return Ok(Layer { file: archive.path.clone(), offset: *at, size: *size, diff_id: None });
                        }
                        Some(Member::Link(target)) => at.clone_from(target),
                        None => return Err(missing()),
                    }
                }
                Err(missing())
            }
        }
    }

    /// Contents of the file `name`, at most `limit` bytes.
    pub fn read(&self, what: &str, name: &Path, limit: u64) -> Result<Vec<u8>, Refusal> {
        let found = self.find(what, name)?;
        let cause = format!("{} is longer than {limit} bytes", name.display());
        let long = Refusal::new(Kind::ImageFormat, what, cause);
        if found.size > limit {
            return Err(long);
        }
        let mut file = open(&found.file, what)?;
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(found.offset))
            .and_then(|_| file.take(found.size).read_to_end(&mut bytes))
            .map_err(|error| unreadable(what, &error))?;
        if bytes.len() as u64 == found.size {
            return Ok(bytes);
        }
        Err(unreadable(what, &io::ErrorKind::UnexpectedEof.into()))
    }
}

/// Path of `name`, seen from the directory `from`. `None` if it leads out.
pub(super) fn inside(from: &Path, name: &Path) -> Option<PathBuf> {
    use std::path::Component;
    let mut path = from.to_owned();
    for part in name.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

fn open(path: &Path, what: &str) -> Result<File, Refusal> {
    let refuse = |kind, cause: &str| Refusal::new(kind, what, cause);
    let file: File = sys::open_untrusted(path, OFlag::O_RDONLY)
        .map_err(|error| match error.errno() {
            Errno::ENOENT | Errno::ENOTDIR => refuse(Kind::ImageMissing, "no such file or directory"),
            Errno::EACCES | Errno::EPERM => refuse(Kind::ImageUnreadable, "you may not read it"),
            _ => refuse(Kind::of_reading(&error), &error.to_string()),
        })?
        .into();
    let kind = file.metadata().map_err(|error| unreadable(what, &error))?;
    if kind.is_file() {
        return Ok(file);
    }
    let refusal = refuse(Kind::ImageType, "is no file");
    let layout = kind.is_dir() && path.join("oci-layout").is_file();
    Err(if layout { refusal.hint(format!("it is an OCI layout: oci:{}", path.display())) } else { refusal })
}

fn unreadable(what: &str, error: &io::Error) -> Refusal {
    if error.raw_os_error().is_some() {
        return Refusal::new(Kind::of_reading(error), what, error.to_string());
    }
    let cause = match error.kind() {
        io::ErrorKind::UnexpectedEof => "ends too early".to_owned(),
        _ => error.to_string(),
    };
    Refusal::new(Kind::ImageFormat, what, cause)
}

fn fill(file: &mut File, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = Vec::new();
    file.by_ref().take(out.len() as u64).read_to_end(&mut filled)?;
    out[..filled.len()].copy_from_slice(&filled);
    Ok(filled.len())
}

/// Unpacks a compressed archive: it allows no reading from its middle.
fn unpack(path: &Path, file: &mut File, scratch: &Path) -> Result<PathBuf, Refusal> {
    let named = path.display().to_string();
    file.rewind().map_err(|error| unreadable(&named, &error))?;
    let size = file.metadata().map_err(|error| unreadable(&named, &error))?.len();
    let directory = nix::unistd::mkdtemp(&scratch.join("archive-XXXXXX"))
        .map_err(|errno| unwritable(&scratch.display().to_string(), &errno.into()))?;
    let plain = directory.join("tar");
    let full = |error: io::Error| {
        unwritable("workshop", &error).hint("CORACLE_TMPDIR names the directory in which images are made")
    };
    let mut out = File::create_new(&plain).map_err(full)?;
    let disk = File::open(&directory).map_err(full)?;
    let mut reader = archive::reader(BufReader::new(file)).map_err(|error| unreadable(&named, &error))?;
    let mut budget = archive::Budget::new();
    let (mut part, mut left) = (vec![0; PART], archive::unpacked(size));
    loop {
        let count = reader.read(&mut part).map_err(|error| unreadable(&named, &error))?;
        if count == 0 {
            return Ok(plain);
        }
        left = left.checked_sub(count as u64).ok_or_else(|| unreadable(&named, &archive::bomb()))?;
        budget.file(count as u64, &disk)?;
        io::Write::write_all(&mut out, &part[..count]).map_err(full)?;
    }
}

fn list(file: File) -> io::Result<BTreeMap<PathBuf, Member>> {
    let mut entries = BTreeMap::new();
    let length = file.metadata()?.len();
    let mut tar = Reader::new(Seeking(BufReader::new(file)));
    let mut count = 0;
    while let Some(entry) = tar.next_entry()? {
        use std::os::unix::ffi::OsStrExt;
        count += 1;
        if count > ENTRIES {
            return Err(malformed(format!("has more than {ENTRIES} entries")));
        }
        let path = Path::new(std::ffi::OsStr::from_bytes(&entry.path));
        // A path that leads out cannot be requested.
        let Some(path) = inside(Path::new(""), path) else { continue };
        let target = |target: &[u8]| Path::new(std::ffi::OsStr::from_bytes(target)).to_owned();
        let member = match &entry.kind {
            archive::Kind::File if entry.pieces.is_none() => {
                if entry.at.checked_add(entry.stored).is_none_or(|end| end > length) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Some(Member::File { at: entry.at, size: entry.stored })
            }
            archive::Kind::Symlink(link) => {
                inside(path.parent().unwrap_or(Path::new("")), &target(link)).map(Member::Link)
            }
            archive::Kind::Link(link) => inside(Path::new(""), &target(link)).map(Member::Link),
            _ => None,
        };
        let Some(member) = member else { continue };
        if entries.insert(path.clone(), member).is_some() {
            return Err(malformed(format!("has {:?} twice", path.display().to_string())));
        }
    }
    Ok(entries)
}

/// Reader that skips by seeking.
pub(super) struct Seeking(pub BufReader<File>);

impl Read for Seeking {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Skip for Seeking {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let count = i64::try_from(count).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        self.0.seek_relative(count)
    }
}
