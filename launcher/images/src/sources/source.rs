//! Parses the source of an image, as the user typed it.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use coracle::report::{Kind, Refusal, clean};
use coracle::sys;
use coracle_launcher::image::{Container, START};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::sources::archive::is_compressed;
use crate::sources::oci::{self, Form};

/// Source of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory of files.
    Directory(PathBuf),
    /// Tar file of a directory, compressed or not.
    Tar(PathBuf),
    /// SIF or squashfs.
    Image(PathBuf),
    /// Definition file.
    Definition(PathBuf),
    /// Archive of `docker save`.
    DockerArchive(PathBuf),
    /// OCI image layout: its directory, and the name of an image in it.
    Layout(PathBuf, Option<String>),
    /// OCI image layout in a tar file, likewise.
    LayoutArchive(PathBuf, Option<String>),
    /// Image in a registry, without `docker://`.
    Registry(String),
}

/// Offset of the magic of a tar file (POSIX, pax, "ustar Interchange Format").
const USTAR_AT: usize = 257;
const USTAR: &[u8] = b"ustar";

impl Source {
    /// Determines the kind of `typed`; for a file, from its contents.
    pub fn of(typed: &OsStr) -> Result<Self, Refusal> {
        let with = |prefix: &str| typed.as_bytes().strip_prefix(prefix.as_bytes()).map(OsStr::from_bytes);
        if let Some(rest) = with("docker://") {
            let text = rest.to_str().ok_or_else(|| usage(typed, "not the name of an image"))?;
            return Ok(Self::Registry(text.to_owned()));
        }
        // Apptainer also accepts them with two slashes.
        let with_path = |prefix: &str| with(&format!("{prefix}//")).or_else(|| with(prefix));
        if let Some(rest) = with_path("docker-archive:") {
            return Ok(Self::DockerArchive(rest.into()));
        }
        if let Some(rest) = with_path("oci-archive:") {
            let (path, tag) = tagged(rest);
            return Ok(Self::LayoutArchive(path, tag));
        }
        if let Some(rest) = with_path("oci:") {
            let (path, tag) = tagged(rest);
            return Ok(Self::Layout(path, tag));
        }
        Self::by_contents(Path::new(typed))
    }

    fn by_contents(path: &Path) -> Result<Self, Refusal> {
        let refuse = |kind, cause: &str| Refusal::new(kind, path.display().to_string(), cause);
        let file = sys::open_untrusted(path, OFlag::O_RDONLY).map(File::from).map_err(|error| match error.errno() {
            Errno::ENOENT | Errno::ENOTDIR => {
                let refusal = refuse(Kind::ImageMissing, "no such file or directory");
                match path.to_str().and_then(|typed| typed.split_once(':')) {
                    Some((scheme, _)) if !scheme.contains('/') => refusal.hint(
                        "known beside files and directories: docker://IMAGE, docker-archive:FILE, oci:DIRECTORY, oci-archive:FILE",
                    ),
                    _ => refusal,
                }
            }
            Errno::EACCES | Errno::EPERM => refuse(Kind::ImageUnreadable, "you may not read it"),
            _ => refuse(Kind::of_reading(&error), &error.to_string()),
        })?;
        let kind = file.metadata().map_err(|error| refuse(Kind::of_reading(&error), &error.to_string()))?;
        if kind.is_dir() {
            return match oci::of_directory(path) {
                None => Ok(Self::Directory(path.to_owned())),
                Some(Form::Layout) => {
                    let typed = path.display();
                    eprintln!("{}", clean(&format!("coracle: {typed}: it is an OCI layout, and taken as oci:{typed}")));
                    Ok(Self::Layout(path.to_owned(), None))
                }
                Some(Form::Docker) => Err(refuse(Kind::ImageType, "it holds what docker save writes, unpacked")
                    .hint("give the tar file itself: docker-archive:FILE")),
            };
        }
        if !kind.is_file() {
            return Err(refuse(Kind::ImageType, "neither a file nor a directory"));
        }
        let mut start = Vec::new();
        file.take(START as u64)
            .read_to_end(&mut start)
            .map_err(|error| refuse(Kind::of_reading(&error), &error.to_string()))?;
        if Container::of(&start).is_some() {
            Ok(Self::Image(path.to_owned()))
        } else if is_compressed(&start) || start.get(USTAR_AT..).is_some_and(|rest| rest.starts_with(USTAR)) {
            Ok(Self::Tar(path.to_owned()))
        } else if looks_like_definition(&start) {
            Ok(Self::Definition(path.to_owned()))
        } else {
            Err(refuse(Kind::ImageType, "neither a tar file, nor an image, nor a definition file")
                .hint("a definition file begins with Bootstrap: and where its files come from"))
        }
    }
}

fn usage(typed: &OsStr, cause: &str) -> Refusal {
    Refusal::new(Kind::Usage, typed.to_string_lossy(), cause)
}

/// Path, and the image name behind its last colon, if there is one.
fn tagged(text: &OsStr) -> (PathBuf, Option<String>) {
    let bytes = text.as_bytes();
    let colon = bytes.iter().rposition(|byte| *byte == b':');
    let tag = colon
        .map(|at| &bytes[at + 1..])
        .filter(|tag| !tag.contains(&b'/'))
        .and_then(|tag| std::str::from_utf8(tag).ok());
    match (colon, tag) {
        (Some(at), Some(tag)) if !tag.is_empty() => (OsStr::from_bytes(&bytes[..at]).into(), Some(tag.to_owned())),
        _ => (text.into(), None),
    }
}

/// True if the first line with content is that of a header.
pub fn looks_like_definition(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let key = lines.next().and_then(|line| line.split_once(':')).map(|(key, _)| key.trim().to_ascii_lowercase());
    key.is_some_and(|key| ["bootstrap", "from", "stage", "include", "mirrorurl", "osversion"].contains(&key.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_known_by_their_prefix_or_by_what_is_in_them() {
        let of = |text: &str| Source::of(OsStr::new(text)).unwrap();
        assert_eq!(of("docker://alpine:3"), Source::Registry("alpine:3".into()));
        assert_eq!(of("docker-archive:/a:b.tar"), Source::DockerArchive("/a:b.tar".into()));
        assert_eq!(of("docker-archive:///a/b.tar"), Source::DockerArchive("/a/b.tar".into()));
        assert_eq!(of("oci-archive://b.tar:tag"), Source::LayoutArchive("b.tar".into(), Some("tag".into())));
        assert_eq!(of("oci://a"), Source::Layout("a".into(), None));
        assert_eq!(of("oci:/a/b"), Source::Layout("/a/b".into(), None));
        assert_eq!(of("oci:/a/b:tag"), Source::Layout("/a/b".into(), Some("tag".into())));
        assert_eq!(of("oci-archive:/a:1/b"), Source::LayoutArchive("/a:1/b".into(), None));
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let mut tar = vec![0; 512];
        tar[USTAR_AT..USTAR_AT + 5].copy_from_slice(USTAR);
        assert_eq!(of(directory.path().to_str().unwrap()), Source::Directory(directory.path().into()));
        for (path, wanted) in [
            (file("a", &tar), Source::Tar as fn(PathBuf) -> Source),
            (file("b", b"\x1f\x8bxyz"), Source::Tar),
            (file("c", b"hsqs"), Source::Image),
            (file("d", b"# hello\n\nBootStrap: docker\nFrom: x"), Source::Definition),
        ] {
            assert_eq!(of(path.to_str().unwrap()), wanted(path.clone()));
        }
        let none = Source::of(file("e", b"hello").as_os_str()).unwrap_err();
        assert_eq!(none.kind, Kind::ImageType);
        assert_eq!(Source::of(OsStr::new("/no/such")).unwrap_err().kind, Kind::ImageMissing);
    }
}
