//! Checks, before any mount, that the host's MPI library can replace that of an image.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Incompatibility;
use crate::config::Profile;
use crate::elf::{self, Found, Libraries, Library, Machine, Root, is_glibc};
use coracle::request::inside;
use coracle::sys;

const LIBC: &str = "libc.so.6";
/// Prefix of the names of musl's loaders, which lie in /lib.
const MUSL: &str = "ld-musl-";
/// SONAMEs of MPI libraries by vendor: a program is linked with one of them.
const FAMILY: &[&str] = &[
    "libmpi",
    "libmpich",
    "libmpi_abi",
    "libmpi_cray",
    "libmpi_gnu",
    "libmpi_gnu_91",
    "libmpi_intel",
    "libmpi_nvidia",
];
/// Libraries that programs of an image need directly, so that the host's must not be older.
const RUNTIME: &[&str] = &["libstdc++.so.6", "libgcc_s.so.1", "libgfortran.so.5", "libgomp.so.1"];

/// Maximum number of libraries that a refusal names.
const MAX_NAMED: usize = 8;
/// Maximum number of libraries beside libmpi that are checked; Open MPI has about ten.
const MAX_BESIDE: usize = 64;

/// Result of fitting a profile to an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fit {
    /// Files of the profile, in its order.
    pub shown: Vec<Shown>,
    /// Libraries that the profile's files take from the image, each with the newest version that they require.
    pub from_image: Vec<(String, Option<String>)>,
    /// Notes about functions that programs of the image may miss, which symbol versions cannot show.
    pub doubts: Vec<String>,
}

/// Handling of a file of the profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// SONAME of the file.
    pub soname: String,
    /// Name of the file without links, which shows the version.
    pub version: String,
    /// Files that it covers.
    pub over: Vec<Over>,
    /// True if the image's file is newer and is kept.
    pub stays: bool,
}

/// Library of the image that the host's covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    /// Path at which the loader or a program may find it.
    pub place: PathBuf,
    /// Name of the file without links.
    pub version: String,
}

impl Fit {
    /// True if the host's files cover at least one library of the image.
    pub fn replaces(&self) -> bool {
        self.shown.iter().any(|shown| !shown.over.is_empty())
    }

    /// Checks the result of a process that read untrusted files: true if it is a valid result for `profile`, with valid
    /// names.
    pub fn is_about(&self, profile: &Profile) -> bool {
        let name = |name: &str| !matches!(name, "" | "." | "..") && name.len() < 256 && !name.contains(['/', '\0']);
        let proper = |shown: &Shown| {
            let over = |over: &Over| inside(&over.place).is_ok() && over.place.ends_with(&shown.soname);
            name(&shown.soname) && shown.over.iter().all(over)
        };
        self.shown.len() == profile.files().count() && self.shown.iter().all(proper)
    }
}

/// A file of a profile.
#[derive(Debug)]
pub struct Needs {
    /// Path in the profile.
    pub file: PathBuf,
    /// SONAME of the file.
    pub soname: String,
    /// Name of the file without links.
    pub version: String,
    /// Parsed headers.
    pub library: Library,
}

impl Needs {
    fn of(node: &Root, path: &Path) -> Result<Self, Incompatibility> {
        let broken = |cause| Incompatibility::Broken(path.to_owned(), cause);
        let file = node.open(path).map_err(|cause| broken(cause.into()))?;
        let file = file.ok_or_else(|| Incompatibility::Missing(path.to_owned()))?;
        let library = Library::read(&file).map_err(broken)?;
        if library.machine != Machine::own() {
            let (found, wanted) = (library.machine.to_string(), Machine::own().to_string());
            return Err(Incompatibility::Machine { file: path.to_owned(), found, wanted });
        }
        let soname = library.soname.clone().ok_or_else(|| Incompatibility::Nameless(path.to_owned()))?;
        if is_glibc(&soname) {
            return Err(Incompatibility::Glibc(path.to_owned()));
        }
        Ok(Self { file: path.to_owned(), version: real_name(&file).unwrap_or_else(|| soname.clone()), soname, library })
    }

    /// Libraries that the file needs and that are not among `files`.
    pub fn from_image<'a>(&'a self, files: &'a [Self]) -> impl Iterator<Item = &'a str> {
        let needed = self.library.needed.iter().map(String::as_str);
        needed.filter(|needed| !files.iter().any(|file| file.soname == *needed))
    }
}

/// File name without links, for display only.
fn real_name(file: &std::fs::File) -> Option<String> {
    sys::fd_path(file).ok()?.file_name()?.to_str().map(str::to_owned)
}

/// Headers of the files of `profile` on this node, its libraries first.
pub fn needs(profile: &Profile, node: &Root) -> Result<Vec<Needs>, Incompatibility> {
    let files: Vec<Needs> = profile.files().map(|path| Needs::of(node, path)).collect::<Result<_, _>>()?;
    for file in &files {
        for wanted in &file.library.wanted {
            let Some(other) = files.iter().find(|other| other.soname == wanted.library) else { continue };
            if let Some(version) = lacking(&other.library, &wanted.versions) {
                let library = other.version.clone();
                return Err(Incompatibility::Contradiction {
                    file: file.version.clone(),
                    library,
                    version: version.to_owned(),
                });
            }
        }
    }
    Ok(files)
}

/// First of `versions` that `library` does not define. Like the loader, this accepts a library without versions for
/// all.
fn lacking<'a>(library: &Library, versions: &'a [String]) -> Option<&'a str> {
    let strict = !library.defined.is_empty();
    versions.iter().rfind(|version| strict && !library.defined.contains(version)).map(String::as_str)
}

/// Text before the number of a version: `GLIBC_` of `GLIBC_2.34`.
fn kind(version: &str) -> &str {
    version.rfind('_').map_or(version, |at| &version[..=at])
}

/// Fits the files of a profile to `image`, whose libraries may also lie in `directories`.
pub fn fit(profile: &Profile, node: &Root, image: &Libraries, directories: &[PathBuf]) -> Result<Fit, Incompatibility> {
    let files = needs(profile, node)?;
    has_glibc(image)?;
    let libraries = profile.libraries.0.len();
    same_family(files.get(..libraries).unwrap_or(&files), &image.names(directories))?;
    let from_image = wanted_of_image(&files, image)?;
    let (mut shown, mut doubts) = (Vec::new(), Vec::new());
    for (index, file) in files.iter().enumerate() {
        let found = image.everywhere(&file.soname, directories).map_err(|cause| unreadable(&file.soname, cause))?;
        let newer = found.iter().try_for_each(|found| no_older(file, found));
        if let Err(incompatibility) = newer {
            // Of two releases of a dependency, the newer one serves both, if it has all that the host's files require.
            let own = found.first().filter(|_| index >= libraries && !RUNTIME.contains(&file.soname.as_str()));
            let serves = own.is_some_and(|own| files.iter().all(|other| serves(&own.library, other)));
            if !serves {
                return Err(incompatibility);
            }
            let (soname, version) = (file.soname.clone(), file.version.clone());
            shown.push(Shown { soname, version, over: Vec::new(), stays: true });
            continue;
        }
        doubts.extend(found.iter().filter(|_| index < libraries).filter_map(|found| newer_file(file, found)));
        // An entry of the list whose path has another file name was not written by ldconfig.
        let named = found.into_iter().filter(|found| found.path.ends_with(&file.soname));
        let over = named.filter(|found| inside(&found.path).is_ok()).map(|found| {
            let version = real_name(&found.file).unwrap_or_else(|| file.soname.clone());
            Over { place: found.path, version }
        });
        shown.push(Shown {
            soname: file.soname.clone(),
            version: file.version.clone(),
            over: over.collect(),
            stays: false,
        });
    }
    doubts.extend(mixed(&files, image, directories));
    doubts.dedup();
    Ok(Fit { shown, from_image, doubts })
}

/// True if `library` has all versions that `other` requires of a library with its name.
fn serves(library: &Library, other: &Needs) -> bool {
    let of_it = |wanted: &&elf::Wanted| library.soname.as_ref() == Some(&wanted.library);
    other.library.wanted.iter().filter(of_it).all(|wanted| lacking(library, &wanted.versions).is_none())
}

/// Note on an MPI library of the image that is newer than the host's: under the same SONAME functions are only added,
/// and the numbers after it count these additions (libtool).
fn newer_file(file: &Needs, found: &Found) -> Option<String> {
    let numbers = |name: &str| -> Option<Vec<u32>> {
        name.rsplit_once(".so.")?.1.split('.').take(2).map(|number| number.parse().ok()).collect()
    };
    let image = real_name(&found.file)?;
    let newer = numbers(&image)? > numbers(&file.version)?;
    newer.then(|| format!("the image's {image} is newer than the host's {}: it may have functions more", file.version))
}

/// Libraries of the image beside the covered ones (libmpi_mpifh.so.40) that load parts of the image's MPI.
fn mixed(files: &[Needs], image: &Libraries, directories: &[PathBuf]) -> Vec<String> {
    let ours = |name: &str| files.iter().any(|file| file.soname == name);
    let beside = image.names(directories).into_iter().filter(|name| name.starts_with("libmpi_") && !ours(name));
    let brings = |name: &String| {
        let library = image.everywhere(name, directories).ok()?.into_iter().next()?.library;
        let part = |needed: &&String| ["libopen-", "libopen_mpi."].iter().any(|start| needed.starts_with(start));
        let covered = library.needed.iter().any(|needed| ours(needed));
        let own = library.needed.iter().filter(part).find(|needed| !ours(needed))?;
        // One name for each library: a name with more numbers is the same file.
        (covered && library.soname.as_ref() == Some(name))
            .then(|| format!("the image's {name} needs its {own}, and the profile has neither"))
    };
    beside.take(MAX_BESIDE).filter_map(|name| brings(&name)).collect()
}

fn unreadable(library: &str, cause: elf::Error) -> Incompatibility {
    Incompatibility::Image(library.to_owned(), cause)
}

fn has_glibc(image: &Libraries) -> Result<(), Incompatibility> {
    let libc = image.find(LIBC).map_err(|cause| unreadable(LIBC, cause))?;
    // Alpine's gcompat has a libc.so.6 that is not glibc.
    if libc.is_some_and(|libc| libc.library.newest("GLIBC_").is_some()) {
        return Ok(());
    }
    let names = image.root().names(Path::new("/lib"));
    match names.into_iter().find(|name| name.starts_with(MUSL)) {
        Some(name) => Err(Incompatibility::Musl { loader: format!("/lib/{name}") }),
        None => Err(Incompatibility::NoGlibc { machine: Machine::own().to_string() }),
    }
}

/// Checks that the image's MPI libraries, if it has any, have SONAMEs of the profile.
fn same_family(files: &[Needs], image: &BTreeSet<String>) -> Result<(), Incompatibility> {
    for file in files.iter().filter(|file| !image.contains(&file.soname)) {
        let main = FAMILY.contains(&stem(&file.soname));
        let same = |name: &str| match main {
            true => FAMILY.contains(&stem(name)),
            false => stem(name) == stem(&file.soname),
        };
        // Programs do not ask for names with more than the major number.
        let major = |name: &str| name.rsplit(".so.").next().is_some_and(|rest| !rest.contains('.'));
        let there = image.iter().filter(|name| same(name) && major(name)).take(MAX_NAMED);
        let there: Vec<String> = there.cloned().collect();
        if !there.is_empty() {
            return Err(Incompatibility::Family { host: file.soname.clone(), image: there });
        }
    }
    Ok(())
}

/// `libmpi` of `libmpi.so.40`.
fn stem(soname: &str) -> &str {
    soname.split(".so").next().unwrap_or(soname)
}

/// Checks that the image has the libraries that the files need and the profile lacks, with all versions.
fn wanted_of_image(files: &[Needs], image: &Libraries) -> Result<Vec<(String, Option<String>)>, Incompatibility> {
    let mut seen: Vec<(String, Option<String>, Library)> = Vec::new();
    for file in files {
        for needed in file.from_image(files) {
            let known = seen.iter().position(|(name, ..)| name == needed);
            let at = match known {
                Some(at) => at,
                None => {
                    let found = image.find(needed).map_err(|cause| unreadable(needed, cause))?;
                    let lacks = || Incompatibility::Lacks { file: file.version.clone(), library: needed.to_owned() };
                    let Found { library, .. } = found.ok_or_else(lacks)?;
                    seen.push((needed.to_owned(), None, library));
                    seen.len() - 1
                }
            };
            let (_, newest, library) = &mut seen[at];
            let wanted = file.library.wanted.iter().filter(|wanted| wanted.library == needed);
            let versions: Vec<&String> = wanted.flat_map(|wanted| &wanted.versions).collect();
            let strict = !library.defined.is_empty();
            let missing = versions.iter().filter(|version| strict && !library.defined.contains(version));
            // Of several versions, the highest tells most.
            let missing: Vec<&str> = missing.map(|version| version.as_str()).collect();
            if let Some(first) = missing.first() {
                let needed = elf::newest(missing.iter().copied(), kind(first)).unwrap_or(first).to_owned();
                let has = library.newest(kind(&needed)).map(str::to_owned);
                let name = seen[at].0.clone();
                return Err(Incompatibility::Older { file: file.version.clone(), library: name, needed, newest: has });
            }
            for version in versions {
                let higher = newest.iter().map(String::as_str).chain([version.as_str()]);
                *newest = elf::newest(higher, kind(version)).map(str::to_owned).or(newest.take());
            }
        }
    }
    Ok(seen.into_iter().map(|(name, newest, _)| (name, newest)).collect())
}

/// Checks that the host's library has all versions that programs of the image may require of the image's one.
fn no_older(file: &Needs, found: &Found) -> Result<(), Incompatibility> {
    let missing: Vec<&str> =
        found.library.defined.iter().filter(|one| !file.library.defined.contains(one)).map(String::as_str).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let version = elf::newest(missing.iter().copied(), kind(first)).unwrap_or(first);
    Err(Incompatibility::Newer {
        file: file.version.clone(),
        image: real_name(&found.file).unwrap_or_else(|| file.soname.clone()),
        version: version.to_owned(),
        newest: file.library.newest(kind(version)).map(str::to_owned),
    })
}
