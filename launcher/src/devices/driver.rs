//! Finds the files of a GPU's driver that programs need besides device nodes.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::cdi;
use super::glibc::PREFIX;
use super::known::BIN;
use super::source::{Sources, Unfit, What};
use super::{Error, Vendor};
use crate::config::{DriverFrom, Gpu, LibraryName, ProgramName};
use crate::elf::{self, Libraries, Machine, Root, is_glibc};
use coracle::request::inside;

/// Files and variables of a driver for the granted device nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Driver {
    /// Libraries, for a directory that the loader searches first.
    pub libraries: Vec<Library>,
    /// Programs of the node, for a directory of programs, under their file names. A link is kept as a link if its name
    /// differs from that of its target, which has been checked.
    pub programs: Vec<PathBuf>,
    /// Files that appear at a certain path, if the image allows it.
    pub files: Vec<Placed>,
    /// Variables with their values.
    pub env: Vec<(String, String)>,
    /// Further device nodes of the granted devices, below /dev.
    pub nodes: Vec<PathBuf>,
    /// Newest glibc version that the libraries require, such as `GLIBC_2.27`.
    pub glibc: Option<String>,
    /// Sources of these lists, for display.
    pub found_in: Vec<String>,
    /// Files that were left out, with the reason, for display.
    pub notes: Vec<String>,
}

/// Library of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// File, without links.
    pub source: PathBuf,
    /// Name in the container: the SONAME, or the file name if there is none.
    pub name: String,
    /// Further names of the library.
    pub links: Vec<String>,
}

/// File of the node that appears at a certain path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// File, socket or directory, without links.
    pub source: PathBuf,
    /// Path inside.
    pub target: PathBuf,
}

/// Finds the driver's files for `granted`, the device nodes below /dev that a step has. `vendors` are the vendors of
/// the GPUs among them. `None` if coracle.yaml disables the search.
pub fn find(gpu: &Gpu, vendors: &[Vendor], granted: &[PathBuf]) -> Result<Option<Driver>, Error> {
    let sources = Sources::node().map_err(Error::System)?;
    let edits = match gpu.driver {
        DriverFrom::None => return Ok(None),
        DriverFrom::Libraries => None,
        DriverFrom::Auto | DriverFrom::Cdi => cdi::choose(&cdi::read(gpu.cdi())?, granted)?,
    };
    let (making, vendors) = match edits.map(|edits| edits.make(&sources)) {
        Some(Ok(making)) => (making, &[][..]),
        Some(Err(stale)) if gpu.driver == DriverFrom::Cdi => return Err(Error::Stale(stale.found_in)),
        Some(Err(stale)) => {
            let why =
                |file: &String| format!("{file}: most of its libraries are not on this node: was the driver updated?");
            let notes = stale.found_in.iter().map(why).collect();
            (Making { sources: &sources, driver: Driver { nodes: stale.nodes, notes, ..Driver::default() } }, vendors)
        }
        None if gpu.driver == DriverFrom::Cdi => {
            let gpus = granted.iter().filter(|node| Vendor::of(Path::new("/"), node).is_some());
            return Err(Error::NoDevice(gpus.cloned().collect()));
        }
        None => (Making::new(&sources), vendors),
    };
    let listed = gpu.libraries.iter().any(|library| matches!(library, LibraryName::Listed(_)));
    let loader = match listed || vendors.iter().any(|vendor| !vendor.libraries().is_empty()) {
        true => {
            let node = Root::node().map_err(Error::System)?;
            Some(Libraries::new(node, Machine::own()).map_err(Error::Loader)?)
        }
        false => None,
    };
    Ok(Some(add_known(making, loader.as_ref(), gpu, vendors).done()))
}

/// Adds the built-in files of `vendors` and those that coracle.yaml names.
pub(super) fn add_known<'a>(
    mut making: Making<'a>,
    loader: Option<&Libraries>,
    gpu: &Gpu,
    vendors: &[Vendor],
) -> Making<'a> {
    let known = vendors.iter().flat_map(|vendor| vendor.libraries()).map(|name| (*name, false));
    let named = gpu.libraries.iter().filter_map(|library| match library {
        LibraryName::Listed(name) => Some((name.as_str(), true)),
        LibraryName::File(_) => None,
    });
    if let Some(loader) = loader {
        let all = loader.names(&[]);
        for (name, must) in known.chain(named) {
            making.listed(loader, &all, name, must);
        }
        if !making.driver.libraries.is_empty() {
            making.driver.found_in.push("the loader's list".into());
        }
    }
    for library in &gpu.libraries {
        if let LibraryName::File(path) = library {
            making.library(path, None);
        }
    }
    for name in vendors.iter().flat_map(|vendor| vendor.programs()) {
        making.program_called(name, false);
    }
    for program in &gpu.programs {
        match program {
            ProgramName::Listed(name) => making.program_called(name, true),
            ProgramName::File(path) => making.program(path),
        }
    }
    for path in vendors.iter().flat_map(|vendor| vendor.files()).map(Path::new) {
        if making.sources.find(path).is_ok() {
            making.file(path, path.to_owned());
        }
    }
    for path in gpu.files() {
        making.file(path, path.to_owned());
    }
    making
}

/// Driver under construction.
#[derive(Debug)]
pub(super) struct Making<'a> {
    pub(super) sources: &'a Sources,
    pub(super) driver: Driver,
}

impl<'a> Making<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self { sources, driver: Driver::default() }
    }

    pub(super) fn done(self) -> Driver {
        self.driver
    }

    pub(super) fn leave_out(&mut self, path: &Path, why: impl std::fmt::Display) {
        let note = format!("{}: {why}", path.display());
        if !self.driver.notes.contains(&note) {
            self.driver.notes.push(note);
        }
    }

    /// Adds all libraries of the loader's list that have the prefix `name`.
    fn listed(&mut self, loader: &Libraries, all: &BTreeSet<String>, name: &str, must: bool) {
        let rest = |known: &str| known.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let mut some = false;
        for known in all.iter().filter(|known| rest(known)) {
            if let Ok(Some(found)) = loader.find(known) {
                some = true;
                self.library(&found.path, Some(known));
            }
        }
        if must && !some {
            self.leave_out(Path::new(name), "not in the loader's list of this node");
        }
    }

    /// Adds the library at `path`, with `name` as a further name.
    pub(super) fn library(&mut self, path: &Path, name: Option<&str>) {
        let (source, library) = match self.sources.library(path) {
            Ok(found) => found,
            Err(unfit) => return self.leave_out(path, unfit),
        };
        let file = |path: &Path| path.file_name().and_then(OsStr::to_str).map(str::to_owned);
        let own = library.soname.clone().or_else(|| file(path)).unwrap_or_default();
        if !is_name(&own) {
            return self.leave_out(path, "its name is none that a library can have");
        }
        if is_glibc(&own) {
            return self.leave_out(path, "a part of glibc, which is always the image's own");
        }
        let place = match self.driver.libraries.iter().position(|known| known.source == source) {
            Some(place) => place,
            None if self.is_taken(&own) => return self.leave_out(path, format!("a second {own}")),
            None => {
                let wanted = library.wanted.iter().flat_map(|wanted| &wanted.versions).map(String::as_str);
                let newest = elf::newest(wanted.chain(self.driver.glibc.as_deref()), PREFIX).map(str::to_owned);
                self.driver.glibc = newest;
                self.driver.libraries.push(Library { source: source.clone(), name: own, links: Vec::new() });
                self.driver.libraries.len() - 1
            }
        };
        for link in [file(&source), file(path), name.map(str::to_owned)].into_iter().flatten() {
            self.link(place, &link);
        }
    }

    /// Adds `link` as a further name of a library.
    pub(super) fn link(&mut self, place: usize, link: &str) {
        if is_name(link) && !is_glibc(link) && !self.is_taken(link) {
            self.driver.libraries.get_mut(place).into_iter().for_each(|library| library.links.push(link.to_owned()));
        }
    }

    /// Index of the library with the name `name`.
    pub(super) fn called(&self, name: &str) -> Option<usize> {
        let is = |library: &Library| library.name == name || library.links.iter().any(|link| link == name);
        self.driver.libraries.iter().position(is)
    }

    fn is_taken(&self, name: &str) -> bool {
        self.called(name).is_some()
    }

    fn program_called(&mut self, name: &str, must: bool) {
        let places = BIN.iter().map(|directory| Path::new(directory).join(name));
        let found = places.clone().find(|path| !matches!(self.sources.find(path), Err(Unfit::Missing)));
        match found {
            Some(path) => self.program(&path),
            None if must => self.leave_out(Path::new(name), "not among the programs of this node"),
            None => {}
        }
    }

    /// Adds the program at `path`.
    pub(super) fn program(&mut self, path: &Path) {
        match self.sources.find(path) {
            Ok((source, What::File)) => {
                // A link to a program of another name keeps the link's name.
                let same = source.file_name() == path.file_name();
                let source = if same { source } else { path.to_owned() };
                let known = |other: &&PathBuf| other.file_name() == source.file_name();
                match self.driver.programs.iter().find(known) {
                    None => self.driver.programs.push(source),
                    Some(other) if *other == source => {}
                    Some(_) => self.leave_out(path, "a second program of that name"),
                }
            }
            Ok(_) => self.leave_out(path, "no program"),
            Err(unfit) => self.leave_out(path, unfit),
        }
    }

    /// Normalized `target`, if the file at `path` may appear there.
    pub(super) fn proper(&mut self, path: &Path, target: &Path) -> Option<PathBuf> {
        let target = match (inside(path), inside(target)) {
            (Ok(_), Ok(target)) => return Some(target),
            (Ok(_), Err(_)) => target,
            (Err(_), _) => path,
        };
        let target = target.display().to_string();
        self.leave_out(path, format!("{target:?} is no place for a driver's files"));
        None
    }

    /// Adds the file at `path`, to appear at `target`.
    pub(super) fn file(&mut self, path: &Path, target: PathBuf) {
        match self.sources.find(path) {
            Ok((source, _)) if !self.driver.files.iter().any(|other| other.target == target) => {
                self.driver.files.push(Placed { source, target });
            }
            Ok(_) => {}
            Err(unfit) => self.leave_out(path, unfit),
        }
    }
}

/// True if a library can have this name in a directory of its own.
pub(super) fn is_name(name: &str) -> bool {
    let plain = !name.starts_with('.') && !name.contains(['/', '\0', ':']) && name.len() < 256;
    plain && (name.ends_with(".so") || name.contains(".so."))
}
