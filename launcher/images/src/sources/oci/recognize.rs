//! Recognizes archives and layouts of images that were named without their prefix.
//!
//! `docker save` writes a tar file, too: taken for a root file system, it would be an image with blobs and no programs.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Component, Path};

use coracle::sys;
use nix::fcntl::OFlag;

use super::MAX_JSON;
use super::docker::Manifest;
use super::place::{ENTRIES, Seeking, inside};
use crate::sources::archive::{Kind, Reader, Skip, is_compressed, reader, unpacked};

/// Directories of a root file system: an archive with one of them is a root file system.
const SYSTEM: [&str; 16] = [
    "bin", "boot", "dev", "etc", "home", "lib", "lib64", "opt", "proc", "root", "run", "sbin", "sys", "tmp", "usr",
    "var",
];

/// Format of an image in an archive or a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Format of `docker save`, with manifest.json.
    Docker,
    /// An OCI image layout.
    Layout,
}

impl Form {
    /// Source prefix of an archive in this format.
    pub fn archive_prefix(self) -> &'static str {
        match self {
            Self::Docker => "docker-archive:",
            Self::Layout => "oci-archive:",
        }
    }
}

/// Format of the image in the tar file `path`, compressed or not. `None` if it is a root file system or damaged.
pub fn of_archive(path: &Path) -> Option<Form> {
    let mut file = File::from(sys::open_untrusted(path, OFlag::O_RDONLY).ok()?);
    let found = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut start = [0; 6];
    let compressed = file.read_exact(&mut start).is_ok() && is_compressed(&start);
    file.rewind().ok()?;
    let form = if compressed {
        let mut plain = reader(BufReader::new(file)).ok()?.take(unpacked(found.len()));
        scan(Reader::new(&mut plain))
    } else {
        scan(Reader::new(Seeking(BufReader::new(file))))
    };
    form.ok().flatten()
}

fn scan<R: Skip>(mut tar: Reader<R>) -> io::Result<Option<Form>> {
    use std::os::unix::ffi::OsStrExt;
    let (mut docker, mut layout, mut index) = (false, false, false);
    let mut count = 0;
    while let Some(entry) = tar.next_entry()? {
        count += 1;
        let Some(path) = inside(Path::new(""), Path::new(std::ffi::OsStr::from_bytes(&entry.path))) else {
            return Ok(None);
        };
        if count > ENTRIES || is_of_system(&path) {
            return Ok(None);
        }
        if entry.kind != Kind::File {
            continue;
        }
        match path.to_str() {
            Some("manifest.json") if entry.stored <= MAX_JSON => {
                let mut bytes = Vec::new();
                tar.read_to_end(&mut bytes)?;
                docker = is_docker(&bytes);
            }
            Some("oci-layout") => layout = true,
            Some("index.json") => index = true,
            _ => {}
        }
    }
    Ok(form(docker, layout && index))
}

/// Format of the image in the directory `path`. `None` if it is a root file system.
pub fn of_directory(path: &Path) -> Option<Form> {
    let names: Vec<_> = path.read_dir().ok()?.map_while(Result::ok).map(|entry| entry.file_name()).collect();
    if names.iter().any(|name| is_of_system(Path::new(name))) {
        return None;
    }
    let is_file = |name: &str| path.join(name).is_file();
    let docker = || {
        let file = File::open(path.join("manifest.json")).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_JSON).read_to_end(&mut bytes).ok()?;
        Some(is_docker(&bytes))
    };
    let layout = is_file("oci-layout") && is_file("index.json");
    form(!layout && is_file("manifest.json") && docker().unwrap_or(false), layout)
}

fn form(docker: bool, layout: bool) -> Option<Form> {
    // Docker writes both since version 25; names of images are in manifest.json.
    if docker { Some(Form::Docker) } else { layout.then_some(Form::Layout) }
}

fn is_of_system(path: &Path) -> bool {
    matches!(path.components().next(), Some(Component::Normal(first)) if SYSTEM.iter().any(|name| first == *name))
}

fn is_docker(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Vec<Manifest>>(bytes).is_ok_and(|manifests| !manifests.is_empty())
}
