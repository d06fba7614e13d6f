//! Opens the image that a command shows or signs.
#![forbid(unsafe_code)]

use std::fs::{File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::Path;

use coracle::report::{Kind, Refusal};
use coracle::sys;
use coracle_launcher::image::sif::{self, Descriptor, Header};
use coracle_launcher::image::{Container, START, erofs, squashfs};
use nix::errno::Errno;
use nix::fcntl::OFlag;

/// Open file that starts like an image.
#[derive(Debug)]
pub struct Subject {
    /// Name as the user typed it.
    pub typed: String,
    /// Descriptor of the file.
    pub file: File,
    /// Metadata at the time of opening.
    pub found: Metadata,
    /// Form of the file.
    pub form: Form,
}

/// Forms of image files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Singularity Image Format.
    Sif,
    /// Squashfs without a SIF.
    Squashfs,
    /// EROFS without a SIF.
    Erofs,
}

impl Form {
    /// Name of the form.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sif => "sif",
            Self::Squashfs => "squashfs",
            Self::Erofs => "erofs",
        }
    }
}

impl Subject {
    /// Opens `path`; `flags` select reading, or reading and writing.
    pub fn open(path: &Path, flags: OFlag) -> Result<Self, Refusal> {
        let typed = path.display().to_string();
        let refuse = |kind, cause: &str| Refusal::new(kind, &typed, cause);
        let file = sys::open_untrusted(path, flags | OFlag::O_CLOEXEC).map_err(|error| match error.errno() {
            Errno::ENOENT | Errno::ENOTDIR => refuse(Kind::ImageMissing, "no such file"),
            Errno::EACCES | Errno::EPERM if flags.contains(OFlag::O_RDWR) => {
                refuse(Kind::ImageUnreadable, "you may not write it")
            }
            Errno::EACCES | Errno::EPERM => refuse(Kind::ImageUnreadable, "you may not read it"),
            Errno::EISDIR => refuse(Kind::ImageType, "a directory, where a file is wanted"),
            Errno::EROFS => refuse(Kind::System, "nobody can write there: the file system is read-only"),
            _ => refuse(Kind::of_reading(&error), &error.to_string()),
        })?;
        let file = File::from(file);
        let unreadable = |error: std::io::Error| refuse(Kind::of_reading(&error), &error.to_string());
        let found = file.metadata().map_err(unreadable)?;
        if found.is_dir() {
            return Err(refuse(Kind::ImageType, "a directory, where a file is wanted"));
        }
        if !found.is_file() {
            return Err(refuse(Kind::ImageType, "no regular file"));
        }
        let mut start = [0; START];
        let have = usize::try_from(found.len()).unwrap_or(START).min(START);
        file.read_exact_at(&mut start[..have], 0).map_err(unreadable)?;
        let form = match Container::of(&start[..have]) {
            Some(Container::Sif) => Form::Sif,
            Some(_) if start.starts_with(squashfs::MAGIC) => Form::Squashfs,
            Some(_) if start[erofs::SUPERBLOCK_AT..].starts_with(erofs::MAGIC) => Form::Erofs,
            _ => return Err(coracle_launcher::image::Error::Unknown.refuse(&typed)),
        };
        Ok(Self { typed, file, found, form })
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.found.len()
    }

    /// Header and objects of a SIF. `to` is the purpose, for the refusal of other files.
    pub fn objects(&self, to: &str) -> Result<(Header, Vec<Descriptor>), Refusal> {
        if self.form != Form::Sif {
            let cause = format!("no SIF but {}, which {to}", self.form.word());
            return Err(Refusal::new(Kind::ImageFormat, &self.typed, cause)
                .hint(format!("coracle build NEW.sif {} makes a SIF of it", self.typed)));
        }
        sif::objects(&self.file, self.length()).map_err(|error| error.refuse(&self.typed))
    }
}
