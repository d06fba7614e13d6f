//! Which MPI and PMIx libraries a tree has, and what they can do.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::pmi::Pmi;
use crate::elf::{Error, Found, Libraries, Texts};
use coracle::sys;

/// Makers of a library. Those behind MPICH share its ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Open MPI.
    OpenMpi,
    /// MPICH, and what has no name of its own in its files.
    Mpich,
    /// Intel MPI.
    Intel,
    /// MVAPICH.
    Mvapich,
}

/// An MPI library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mpi {
    /// Makers of the library.
    pub family: Family,
    /// Its release, as far as it is known.
    pub version: Option<String>,
    /// Path without links.
    pub path: PathBuf,
    /// By what it can find its peers, best first.
    pub speaks: Vec<Pmi>,
    /// True if that is all it can.
    pub certain: bool,
}

impl fmt::Display for Mpi {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::OpenMpi => "Open MPI",
            Family::Mpich => "MPICH",
            Family::Intel => "Intel MPI",
            Family::Mvapich => "MVAPICH",
        };
        match &self.version {
            Some(version) => write!(out, "{family} {version}"),
            None => write!(out, "{family} ({})", name(&self.path)),
        }
    }
}

/// The stems of names that MPI libraries for C have.
const STEMS: [&str; 3] = ["libmpi.so.", "libmpich.so.", "libmpi_cray.so."];

/// True if a library of this name is one of MPI for C.
pub fn is_mpi(soname: &str) -> bool {
    STEMS.iter().any(|stem| soname.starts_with(stem))
}

/// Directories of Open MPI's components, from the folder of its library: its own makers', and Debian's.
const COMPONENTS: [&str; 4] = ["openmpi", "openmpi3", "openmpi/lib/openmpi3", "openmpi/lib/openmpi"];
/// The interfaces that components of Open MPI 4 and older are for, by the start of their names.
const OPEN_MPI: [(&str, Pmi); 4] = [
    ("mca_pmix_pmix", Pmi::Pmix),
    ("mca_pmix_ext", Pmi::Pmix),
    ("mca_pmix_s2.", Pmi::Pmi2),
    ("mca_pmix_s1.", Pmi::Pmi2),
];

/// The releases, by the second number of the library's file: libmpi.so.40.30.4 is of Open MPI 4.1 (its VERSION),
/// libmpich.so.12.2.2 of MPICH 4.0 (its maint/version.m4).
const RELEASES: [(Family, u32, &str); 11] = [
    (Family::OpenMpi, 10, "3.1"),
    (Family::OpenMpi, 20, "4.0"),
    (Family::OpenMpi, 30, "4.1"),
    (Family::OpenMpi, 40, "5.0"),
    (Family::OpenMpi, 50, "6.0"),
    (Family::Mpich, 1, "3"),
    (Family::Mpich, 2, "4.0"),
    (Family::Mpich, 3, "4.1"),
    (Family::Mpich, 4, "4.2"),
    (Family::Mpich, 5, "4.3"),
    (Family::Mpich, 6, "5.0"),
];

/// The second number behind `.so.` of a file's name.
fn revision(path: &Path) -> Option<u32> {
    name(path).rsplit_once(".so.")?.1.split('.').nth(1)?.parse().ok()
}

impl Mpi {
    /// Facts about `found` without reading all of it.
    pub fn of(libraries: &Libraries, found: &Found) -> Self {
        let path = real_path(found);
        let needs = |start: &str| found.library.needed.iter().any(|name| name.starts_with(start));
        let open = ["libopen-pal.", "libopen-rte.", "libopen_mpi."].iter().any(|start| needs(start));
        let pmix = needs("libpmix.");
        let revision = revision(&path);
        let open = open || name(&path).starts_with("libmpi.so.40.");
        let (family, mut speaks, certain) = match open {
            true if pmix || revision.is_some_and(|revision| revision >= 40) => (Family::OpenMpi, vec![Pmi::Pmix], true),
            true => {
                let found = components(libraries, &path);
                let certain = !found.is_empty();
                (Family::OpenMpi, found, certain)
            }
            // Intel's is 12.0, too, and takes whatever library I_MPI_PMI_LIBRARY names.
            false => (Family::Mpich, vec![Pmi::Pmi2], revision.is_some_and(|revision| revision > 0)),
        };
        if family == Family::Mpich && pmix {
            speaks.insert(0, Pmi::Pmix);
        }
        let known = RELEASES.iter().find(|(of, number, _)| *of == family && Some(*number) == revision);
        let version = known.map(|(_, _, release)| (*release).to_owned());
        Self { family, version, path, speaks, certain }
    }

    /// The same, and what its texts say: all of the file is read, which may be 40 MB.
    pub fn closely(libraries: &Libraries, found: &Found) -> Result<Self, Error> {
        let mut mpi = Self::of(libraries, found);
        let texts = Texts::read(&found.file)?;
        if mpi.family == Family::Mpich {
            if texts.all().any(|text| text.contains("Intel(R) MPI Library")) {
                (mpi.family, mpi.certain) = (Family::Intel, false);
            } else {
                mpi.certain = true;
            }
            if texts.all().any(|text| text.contains("MVAPICH")) {
                mpi.family = Family::Mvapich;
            }
        }
        // Other libraries that are part of the file have versions, too.
        let start = mpi.version.as_ref().map(|release| format!("{release}.")).unwrap_or_default();
        if let Some(version) = texts.version(&start) {
            mpi.version = Some(version.to_owned());
        }
        Ok(mpi)
    }

    /// The first number of its release.
    pub fn major(&self) -> Option<u32> {
        self.version.as_deref()?.split('.').next()?.parse().ok()
    }
}

/// The interfaces of Open MPI's components; nothing, if they are not where they usually are.
fn components(libraries: &Libraries, library: &Path) -> Vec<Pmi> {
    let folder = library.parent().unwrap_or(Path::new("/"));
    let names: Vec<String> = COMPONENTS.iter().flat_map(|name| libraries.root().names(&folder.join(name))).collect();
    let mut speaks = Vec::new();
    for (start, pmi) in OPEN_MPI {
        if !speaks.contains(&pmi) && names.iter().any(|name| name.starts_with(start)) {
            speaks.push(pmi);
        }
    }
    speaks
}

/// The MPI libraries that the loader of a tree finds, each once.
pub fn all(libraries: &Libraries, folders: &[PathBuf]) -> Result<Vec<Mpi>, Error> {
    let mut found: Vec<Mpi> = Vec::new();
    let known = libraries.names(folders);
    for soname in known.iter().filter(|name| is_mpi(name)) {
        for library in libraries.everywhere(soname, folders)? {
            if !found.iter().any(|mpi| mpi.path == real_path(&library)) {
                found.push(Mpi::closely(libraries, &library)?);
            }
        }
    }
    Ok(found)
}

/// A PMIx library, which MPI libraries use to find their peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pmix {
    /// Path without links.
    pub path: PathBuf,
    /// True if it has psec/munge.
    pub munge: bool,
    /// True if it is older than release 5: it then has gds/ds12 and gds/ds21, and no gds/shmem of any kind.
    pub old: bool,
}

/// The name under which programs need it; it is the same since PMIx 2.
const PMIX: &str = "libpmix.so.2";
/// The second number of its file in release 5.0.0 (its VERSION); 4.2.9 has 9.
const PMIX_5: u32 = 10;
/// Directories of its components, from its own folder: its makers', and Debian's, which is reached by links from two.
const PMIX_COMPONENTS: [&str; 3] = ["pmix", "pmix2/lib/pmix", "../../pmix2/lib/pmix"];

/// Open MPI's library since release 3.
const OPEN_MPI_4: &str = "libmpi.so.40";

/// The PMIx libraries that the loader of a tree finds, and those in Open MPI's components, each once.
pub fn pmix(libraries: &Libraries, folders: &[PathBuf]) -> Result<Vec<Pmix>, Error> {
    let mut found = Vec::new();
    for library in libraries.everywhere(PMIX, folders)? {
        found.push(pmix_of(libraries, &library));
    }
    for library in libraries.everywhere(OPEN_MPI_4, folders)? {
        let path = real_path(&library);
        let folder = path.parent().unwrap_or(Path::new("/"));
        for folder in COMPONENTS.iter().map(|name| folder.join(name)) {
            // The PMIx that came with Open MPI 2 to 4 is part of the component itself; `ext` is the system's.
            let own = |file: &String| file.starts_with("mca_pmix_pmix") && file.ends_with(".so");
            for file in libraries.root().names(&folder).into_iter().filter(own) {
                let component = libraries.open(folder.join(file))?;
                found.extend(component.map(|component| Pmix { old: true, ..pmix_of(libraries, &component) }));
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found.dedup_by(|one, other| one.path == other.path);
    Ok(found)
}

fn pmix_of(libraries: &Libraries, library: &Found) -> Pmix {
    let path = real_path(library);
    let folder = path.parent().unwrap_or(Path::new("/"));
    let part = || PMIX_COMPONENTS.iter().flat_map(|name| libraries.root().names(&folder.join(name)));
    let munge = library.library.needed.iter().any(|name| name.starts_with("libmunge."))
        || part().any(|name| name.trim_start_matches("pmix_") == "mca_psec_munge.so");
    let old = revision(&path).is_some_and(|revision| revision < PMIX_5);
    Pmix { path, munge, old }
}

/// The release of a PMIx library, as its texts have it.
pub fn pmix_release(file: &File) -> Result<Option<String>, Error> {
    let texts = Texts::read(file)?;
    Ok(texts.word_behind("OpenPMIx ").or_else(|| texts.version("")).map(str::to_owned))
}

/// The modules that a server may name in its clients' environment and that these clients do not have, by variable.
/// Releases before 5 complain of each, for each task, and some end it. `native` and `hash` are part of all. Where no
/// library was found, there may be one in a place of its own: munge is what images lack, and a server that offers both
/// takes `native` from anybody.
pub fn missing(found: &[Pmix]) -> Vec<(&'static str, &'static str)> {
    let munge = !found.is_empty() && found.iter().all(|pmix| pmix.munge);
    let old = found.iter().any(|pmix| pmix.old);
    let lists = [("PMIX_SECURITY_MODE", "munge", !munge), ("PMIX_GDS_MODULE", "shmem,shmem2,shmem3", old)];
    lists.into_iter().filter(|(_, _, missing)| *missing).map(|(variable, words, _)| (variable, words)).collect()
}

/// Path of a library without links.
fn real_path(found: &Found) -> PathBuf {
    sys::fd_path(&found.file).unwrap_or_else(|_| found.path.clone())
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pmix(munge: bool, old: bool) -> Pmix {
        Pmix { path: "/usr/lib/libpmix.so.2".into(), munge, old }
    }

    #[test]
    fn only_what_an_image_has_is_asked_for() {
        let (munge, shmem) = (("PMIX_SECURITY_MODE", "munge"), ("PMIX_GDS_MODULE", "shmem,shmem2,shmem3"));
        assert_eq!(missing(&[]), [munge]);
        assert_eq!(missing(&[pmix(true, false)]), []);
        assert_eq!(missing(&[pmix(true, true)]), [shmem]);
        assert_eq!(missing(&[pmix(true, false), pmix(false, true)]), [munge, shmem]);
    }

    #[test]
    fn releases_follow_from_the_names_of_files() {
        for (path, number) in [
            ("/usr/lib/libmpi.so.40.30.4", Some(30)),
            ("/lib/libmpich.so.12.2.2", Some(2)),
            ("/lib/libmpi.so.12", None),
        ] {
            assert_eq!(revision(Path::new(path)), number, "{path}");
        }
    }
}
