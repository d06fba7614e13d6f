//! Finds the MPI and PMIx libraries of a tree, and determines their process management interfaces.
#![forbid(unsafe_code)]

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::pmi::Pmi;
use crate::elf::{Error, Found, Libraries, Texts};
use coracle::sys;

/// Vendor of a library. Those after MPICH share its ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Open MPI.
    OpenMpi,
    /// MPICH, and libraries that do not name another vendor.
    Mpich,
    /// Intel MPI.
    Intel,
    /// MVAPICH.
    Mvapich,
}

/// MPI library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mpi {
    /// Vendor of the library.
    pub family: Family,
    /// Release, as far as it is known.
    pub version: Option<String>,
    /// Path without links.
    pub path: PathBuf,
    /// Process management interfaces, the preferred one first.
    pub speaks: Vec<Pmi>,
    /// True if `speaks` is complete.
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

/// Stems of the names of MPI libraries for C.
const STEMS: [&str; 3] = ["libmpi.so.", "libmpich.so.", "libmpi_cray.so."];

/// True if this is a name of an MPI library for C.
pub fn is_mpi(soname: &str) -> bool {
    STEMS.iter().any(|stem| soname.starts_with(stem))
}

/// Directories of Open MPI's components, relative to its library: upstream's, and Debian's.
const COMPONENTS: [&str; 4] = ["openmpi", "openmpi3", "openmpi/lib/openmpi3", "openmpi/lib/openmpi"];
/// Interfaces of components of Open MPI 4 and older, by prefix of the component's name.
const OPEN_MPI: [(&str, Pmi); 4] = [
    ("mca_pmix_pmix", Pmi::Pmix),
    ("mca_pmix_ext", Pmi::Pmix),
    ("mca_pmix_s2.", Pmi::Pmi2),
    ("mca_pmix_s1.", Pmi::Pmi2),
];

/// Releases by the second number in the library's file name: libmpi.so.40.30.4 is from Open MPI 4.1 (its VERSION),
/// libmpich.so.12.2.2 from MPICH 4.0 (its maint/version.m4).
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

/// Second number after `.so.` in a file name.
fn revision(path: &Path) -> Option<u32> {
    name(path).rsplit_once(".so.")?.1.split('.').nth(1)?.parse().ok()
}

impl Mpi {
    /// Properties of `found`, without reading the whole file.
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
            // Intel's number is 12.0, too, and it loads any library that I_MPI_PMI_LIBRARY names.
            false => (Family::Mpich, vec![Pmi::Pmi2], revision.is_some_and(|revision| revision > 0)),
        };
        if family == Family::Mpich && pmix {
            speaks.insert(0, Pmi::Pmix);
        }
        let known = RELEASES.iter().find(|(of, number, _)| *of == family && Some(*number) == revision);
        let version = known.map(|(_, _, release)| (*release).to_owned());
        Self { family, version, path, speaks, certain }
    }

    /// Properties of `found`, including those from its strings: this reads the whole file, which may have 40 MB.
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
        // Other libraries linked into the file have versions, too.
        let start = mpi.version.as_ref().map(|release| format!("{release}.")).unwrap_or_default();
        if let Some(version) = texts.version(&start) {
            mpi.version = Some(version.to_owned());
        }
        Ok(mpi)
    }

    /// First number of the release.
    pub fn major(&self) -> Option<u32> {
        self.version.as_deref()?.split('.').next()?.parse().ok()
    }
}

/// Interfaces of Open MPI's components; empty if the components are not in a usual directory.
fn components(libraries: &Libraries, library: &Path) -> Vec<Pmi> {
    let directory = library.parent().unwrap_or(Path::new("/"));
    let names: Vec<String> = COMPONENTS.iter().flat_map(|name| libraries.root().names(&directory.join(name))).collect();
    let mut speaks = Vec::new();
    for (start, pmi) in OPEN_MPI {
        if !speaks.contains(&pmi) && names.iter().any(|name| name.starts_with(start)) {
            speaks.push(pmi);
        }
    }
    speaks
}

/// MPI libraries that the loader of a tree finds, each once.
pub fn all(libraries: &Libraries, directories: &[PathBuf]) -> Result<Vec<Mpi>, Error> {
    let mut found: Vec<Mpi> = Vec::new();
    let known = libraries.names(directories);
    for soname in known.iter().filter(|name| is_mpi(name)) {
        for library in libraries.everywhere(soname, directories)? {
            if !found.iter().any(|mpi| mpi.path == real_path(&library)) {
                found.push(Mpi::closely(libraries, &library)?);
            }
        }
    }
    Ok(found)
}

/// PMIx library, which MPI libraries use to find the other ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pmix {
    /// Path without links.
    pub path: PathBuf,
    /// True if it has the module psec/munge.
    pub munge: bool,
    /// True if it is older than release 5: such a library has gds/ds12 and gds/ds21, and no gds/shmem.
    pub old: bool,
}

/// SONAME of PMIx, unchanged since PMIx 2.
const PMIX: &str = "libpmix.so.2";
/// Second number of the file in release 5.0.0 (its VERSION); 4.2.9 has 9.
const PMIX_5: u32 = 10;
/// Directories of PMIx's components, relative to its library: upstream's, and Debian's, to which links lead from two
/// directories.
const PMIX_COMPONENTS: [&str; 3] = ["pmix", "pmix2/lib/pmix", "../../pmix2/lib/pmix"];

/// SONAME of Open MPI's library since release 3.
const OPEN_MPI_4: &str = "libmpi.so.40";

/// PMIx libraries that the loader of a tree finds, and those in Open MPI's components, each once.
pub fn pmix(libraries: &Libraries, directories: &[PathBuf]) -> Result<Vec<Pmix>, Error> {
    let mut found = Vec::new();
    for library in libraries.everywhere(PMIX, directories)? {
        found.push(pmix_of(libraries, &library));
    }
    for library in libraries.everywhere(OPEN_MPI_4, directories)? {
        let path = real_path(&library);
        let directory = path.parent().unwrap_or(Path::new("/"));
        for directory in COMPONENTS.iter().map(|name| directory.join(name)) {
            // In Open MPI 2 to 4, the bundled PMIx is linked into the component; `ext` uses the system's.
            let own = |file: &String| file.starts_with("mca_pmix_pmix") && file.ends_with(".so");
            for file in libraries.root().names(&directory).into_iter().filter(own) {
                let component = libraries.open(directory.join(file))?;
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
    let directory = path.parent().unwrap_or(Path::new("/"));
    let part = || PMIX_COMPONENTS.iter().flat_map(|name| libraries.root().names(&directory.join(name)));
    let munge = library.library.needed.iter().any(|name| name.starts_with("libmunge."))
        || part().any(|name| name.trim_start_matches("pmix_") == "mca_psec_munge.so");
    let old = revision(&path).is_some_and(|revision| revision < PMIX_5);
    Pmix { path, munge, old }
}

/// Release of a PMIx library, from its strings.
pub fn pmix_release(file: &File) -> Result<Option<String>, Error> {
    let texts = Texts::read(file)?;
    Ok(texts.word_behind("OpenPMIx ").or_else(|| texts.version("")).map(str::to_owned))
}

/// Modules, by variable, that a server may name in its clients' environment and that these clients lack. Releases
/// before 5 report each of them in each task, and some end the task. All clients have `native` and `hash`. If no
/// library was found, there may be one in an unusual place: munge is what images lack, and a server that offers both
/// accepts `native` from any client.
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
