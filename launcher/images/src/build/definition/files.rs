//! Copies the files of %files into the image, from this host or from another stage.
//!
//! Source and target are each looked up within their own root. Root owns the copies.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use coracle::report::{Kind, Refusal};
use coracle::sys::{self, Lookup};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::parse::{Transfer, at};
use crate::build::root::Root;

/// Limit of the depth of directories: links of this host are followed, and may form circles.
const DEPTH: usize = 128;

/// Source of files.
#[derive(Debug)]
pub struct Origin<'a> {
    /// Root for the look-up of paths.
    pub root: &'a Root,
    /// Base of relative paths.
    pub base: PathBuf,
    /// True for another stage: its links are copied as links, and files keep all their permissions.
    pub stage: bool,
}

/// Copies the files of a line of `file` into `target`.
pub fn copy(file: &str, transfer: &Transfer, origin: &Origin<'_>, target: &mut Root) -> Result<(), Refusal> {
    let mut copy = Copy { place: at(file, transfer.line), origin, target };
    let pattern = origin.base.join(&transfer.from);
    let found = copy.matches(&pattern)?;
    if found.is_empty() {
        return Err(copy.refuse(format!("{}: there is no such file", transfer.from)));
    }
    for from in found {
        let to = match &transfer.to {
            Some(to) => Path::new("/").join(to),
            None if transfer.from.starts_with('/') => from.clone(),
            None => {
                // Relative to the directory of the build; the same path in the image, as in Apptainer.
                Path::new("/").join(from.strip_prefix(&origin.base).unwrap_or(&from))
            }
        };
        let into = transfer.to.as_deref().is_some_and(|to| to.ends_with('/'));
        let to = match from.file_name().filter(|_| into || copy.is_directory(&to)) {
            Some(name) if transfer.to.is_some() => to.join(name),
            _ => to,
        };
        copy.tree(&from, &to, 0)?;
    }
    Ok(())
}

struct Copy<'a> {
    place: String,
    origin: &'a Origin<'a>,
    target: &'a mut Root,
}

impl Copy<'_> {
    fn refuse(&self, cause: impl Into<String>) -> Refusal {
        Refusal::new(Kind::Build, &self.place, cause)
    }

    fn unreadable(&self, path: &Path, error: &sys::Error) -> Refusal {
        self.refuse(format!("{}: {}", path.display(), error.errno().desc().to_lowercase()))
    }

    fn is_directory(&self, path: &Path) -> bool {
        matches!(self.target.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY), Ok(Some(_)))
    }

    /// Files that match a pattern, sorted: `*`, `?` and `[…]` in names, as in a shell.
    fn matches(&self, pattern: &Path) -> Result<Vec<PathBuf>, Refusal> {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let mut found = vec![PathBuf::from("/")];
        for part in pattern.components() {
            let name = match part {
                Component::Normal(name) => name,
                Component::ParentDir => OsStr::new(".."),
                _ => continue,
            };
            let text = name.to_string_lossy();
            if !text.contains(['*', '?', '[']) {
                found.iter_mut().for_each(|path| path.push(name));
                continue;
            }
            let pattern = glob::Pattern::new(&text).map_err(|error| self.refuse(format!("{text}: {}", error.msg)))?;
            let mut next = Vec::new();
            for path in found {
                let names = self.origin.root.names(&path)?;
                let fits =
                    |name: &&std::ffi::OsString| name.to_str().is_some_and(|name| pattern.matches_with(name, options));
                next.extend(names.iter().filter(fits).map(|name| path.join(name)));
            }
            found = next;
        }
        // A file that exists but cannot be read is refused later, by name.
        found.retain(|path| {
            match sys::open_in_root(self.origin.root.directory(), path, OFlag::O_PATH, Lookup::Links) {
                Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ENOTDIR) => {
                    self.origin.root.status(path).ok().flatten().is_some()
                }
                _ => true,
            }
        });
        Ok(found)
    }

    fn tree(&mut self, from: &Path, to: &Path, depth: usize) -> Result<(), Refusal> {
        if depth > DEPTH {
            return Err(self.refuse(format!("{}: directories more than {DEPTH} deep", from.display())));
        }
        // A link that was named itself is followed to any place.
        if self.origin.stage
            && depth > 0
            && let Some(link) = self.link(from)?
        {
            self.make_way(to)?;
            return self.target.provide_link(to, &link);
        }
        let open = |flags| sys::open_in_root(self.origin.root.directory(), from, flags, Lookup::Links).map(File::from);
        let found = open(OFlag::O_PATH).map_err(|error| self.unreadable(from, &error))?;
        let metadata = found.metadata().map_err(|error| self.refuse(format!("{}: {error}", from.display())))?;
        let mode = if self.origin.stage { metadata.mode() & 0o7777 } else { metadata.mode() & 0o777 };
        if metadata.is_dir() {
            let directory = self.target.make_directory(to, 0o755)?;
            // Without these bits, no file could be put into the directory.
            let permissions = std::fs::Permissions::from_mode(mode | 0o700);
            let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
            std::fs::set_permissions(path, permissions)
                .map_err(|error| self.refuse(format!("{}: {error}", to.display())))?;
            self.target.ledger.remove(relative(to));
            for name in self.origin.root.names(from)? {
                self.tree(&from.join(&name), &to.join(&name), depth + 1)?;
            }
            return Ok(());
        }
        if !metadata.is_file() {
            return Err(self.refuse(format!("{}: neither a file nor a directory", from.display())));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let mut source = open(flags).map_err(|error| self.unreadable(from, &error))?;
        self.make_way(to)?;
        self.target.write_from(to, mode, &mut source)
    }

    fn link(&self, path: &Path) -> Result<Option<PathBuf>, Refusal> {
        let Some((directory, name)) = self.origin.root.parent(path)? else { return Ok(None) };
        match nix::fcntl::readlinkat(&directory, name) {
            Ok(target) => Ok(Some(target.into())),
            Err(Errno::EINVAL) => Ok(None),
            Err(errno) => Err(self.refuse(format!("{}: {}", path.display(), errno.desc()))),
        }
    }

    /// Removes a file or link at the target, and its entry in the ledger.
    fn make_way(&mut self, to: &Path) -> Result<(), Refusal> {
        let kind = self.target.status(to)?.map(|found| found.st_mode & nix::libc::S_IFMT);
        if kind == Some(nix::libc::S_IFDIR) {
            return Err(self.refuse(format!("{}: a directory of the image", to.display())));
        }
        self.target.remove(to)?;
        self.target.ledger.forget(relative(to));
        Ok(())
    }
}

/// Path as in the ledger.
fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
