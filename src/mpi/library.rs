//! Which MPI and PMIx libraries a tree has, and what they can do.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};

use super::pmi::Pmi;
use crate::elf::{Error, Found, Libraries, Texts};
use crate::sys;

/// Whose library it is. Those behind MPICH share its ABI.
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
    /// Whose it is.
    pub family: Family,
    /// Its release, as far as it is known.
    pub version: Option<String>,
    /// Where it is, without links.
    pub path: PathBuf,
    /// By what it can find its peers, best first.
    pub speaks: Vec<Pmi>,
    /// Whether that is all it can.
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
pub const STEMS: [&str; 3] = ["libmpi.so.", "libmpich.so.", "libmpi_cray.so."];

/// Where Open MPI has its components, from the folder of its library: its own makers', and Debian's.
const COMPONENTS: [&str; 4] = ["openmpi", "openmpi3", "openmpi/lib/openmpi3", "openmpi/lib/openmpi"];
/// The interfaces that components of Open MPI 4 and older are for, by the start of their names.
const OPEN_MPI: [(&str, Pmi); 4] = [
    ("mca_pmix_pmix", Pmi::Pmix),
    ("mca_pmix_ext", Pmi::Pmix),
    ("mca_pmix_s2.", Pmi::Pmi2),
    ("mca_pmix_s1.", Pmi::Pmi2),
];

impl Mpi {
    /// What is known of `found` without reading all of it.
    pub fn of(libraries: &Libraries, found: &Found) -> Self {
        let path = real_path(found);
        let needs = |start: &str| found.library.needed.iter().any(|name| name.starts_with(start));
        let open = ["libopen-pal.", "libopen-rte.", "libopen_mpi."].iter().any(|start| needs(start));
        let pmix = needs("libpmix.");
        // libmpi.so.40.30.4: the revisions follow the releases (Open MPI, VERSION), 30 is 4.1, 40 is 5.0.
        let revision = name(&path).rsplit_once(".so.").and_then(|(_, numbers)| numbers.split('.').nth(1)?.parse().ok());
        let (family, mut speaks, certain) = match open || revision.is_some() && name(&path).starts_with("libmpi.so.40.")
        {
            true if pmix || revision.is_some_and(|revision: u32| revision >= 40) => {
                (Family::OpenMpi, vec![Pmi::Pmix], true)
            }
            true => {
                let found = components(libraries, &path);
                let certain = !found.is_empty();
                (Family::OpenMpi, found, certain)
            }
            false => (Family::Mpich, vec![Pmi::Pmi2], true),
        };
        if family == Family::Mpich && pmix {
            speaks.insert(0, Pmi::Pmix);
        }
        let version = match (family, revision) {
            (Family::OpenMpi, Some(40)) => Some("5.0"),
            (Family::OpenMpi, Some(30)) => Some("4.1"),
            (Family::OpenMpi, Some(20)) => Some("4.0"),
            (Family::OpenMpi, Some(10)) => Some("3.1"),
            _ => None,
        };
        Self { family, version: version.map(str::to_owned), path, speaks, certain }
    }

    /// The same, and what its texts say: all of the file is read, which may be 40 MB.
    pub fn closely(libraries: &Libraries, found: &Found) -> Result<Self, Error> {
        let mut mpi = Self::of(libraries, found);
        let texts = Texts::read(&found.file)?;
        if mpi.family == Family::Mpich {
            if texts.all().any(|text| text.contains("Intel(R) MPI Library")) {
                // It takes whatever library I_MPI_PMI_LIBRARY names.
                (mpi.family, mpi.certain) = (Family::Intel, false);
            } else if texts.all().any(|text| text.contains("MVAPICH")) {
                mpi.family = Family::Mvapich;
            }
        }
        if let Some(version) = texts.version(1) {
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
    for soname in STEMS.iter().flat_map(|stem| libraries.names(stem)) {
        for library in libraries.everywhere(&soname, folders)? {
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
    /// Its release, if it says one.
    pub version: Option<String>,
    /// Where it is, without links.
    pub path: PathBuf,
    /// The modules of [`MODULES`] that it has.
    pub modules: Vec<&'static str>,
}

/// What a PMIx server names in its clients' environment and not every client has: the variable and the modules. `native`
/// and `hash` are part of all.
pub const MODULES: [(&str, &[&str]); 2] =
    [("PMIX_SECURITY_MODE", &["munge"]), ("PMIX_GDS_MODULE", &["ds12", "ds21", "shmem", "shmem2", "shmem3"])];

/// The name under which programs need it; it is the same since PMIx 2.
const PMIX: &str = "libpmix.so.2";
/// Where it has its components, from its own folder: its makers', and Debian's.
const PMIX_COMPONENTS: [&str; 2] = ["pmix", "pmix2/lib/pmix"];

/// The PMIx libraries that the loader of a tree finds, and those in Open MPI's components, each once.
pub fn pmix(libraries: &Libraries, folders: &[PathBuf]) -> Result<Vec<Pmix>, Error> {
    let mut found: Vec<Pmix> = Vec::new();
    for library in libraries.everywhere(PMIX, folders)? {
        add(&mut found, libraries, &library)?;
    }
    for soname in libraries.names("libmpi.so.40") {
        for library in libraries.everywhere(&soname, folders)? {
            let path = real_path(&library);
            let folder = path.parent().unwrap_or(Path::new("/"));
            for name in COMPONENTS.iter().map(|name| folder.join(name)) {
                // The PMIx that came with Open MPI 2 to 4 is part of the component itself; `ext` is the system's.
                let own = libraries
                    .root()
                    .names(&name)
                    .into_iter()
                    .filter(|file| file.starts_with("mca_pmix_pmix") && file.ends_with(".so"));
                for file in own {
                    if let Some(component) = libraries.open(name.join(file))? {
                        add(&mut found, libraries, &component)?;
                    }
                }
            }
        }
    }
    Ok(found)
}

fn add(found: &mut Vec<Pmix>, libraries: &Libraries, library: &Found) -> Result<(), Error> {
    if !found.iter().any(|pmix| pmix.path == real_path(library)) {
        found.push(pmix_of(libraries, library)?);
    }
    Ok(())
}

/// What is known of a PMIx library.
pub fn pmix_of(libraries: &Libraries, library: &Found) -> Result<Pmix, Error> {
    let path = real_path(library);
    let texts = Texts::read(&library.file)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Debian's library is reached by links from two folders.
    let folders = PMIX_COMPONENTS.iter().flat_map(|name| [folder.join(name), folder.join("../..").join(name)]);
    let names: Vec<String> = folders.flat_map(|folder| libraries.root().names(&folder)).collect();
    let there = |module: &str| {
        texts.has(module)
            || ["psec", "gds"].iter().any(|kind| {
                let file = format!("mca_{kind}_{module}.so");
                names.iter().any(|name| *name == file || *name == format!("pmix_{file}"))
            })
    };
    let modules = MODULES.iter().flat_map(|(_, modules)| modules.iter().copied()).filter(|module| there(module));
    let modules = modules.collect();
    let version = texts.word_behind("OpenPMIx ").or_else(|| texts.version(1)).map(str::to_owned);
    Ok(Pmix { version, path, modules })
}

/// The modules that a client in this tree must not be asked for, by variable: a PMIx library of release 3.2 to 4.1 ends
/// its task when one of them is missing. Where no library was found, there may be one in a place of its own: munge is
/// what images lack, and a server always takes `native` instead.
pub fn missing(found: &[Pmix]) -> Vec<(&'static str, Vec<&'static str>)> {
    let lacking = |module: &str| match found {
        [] => module == "munge",
        found => found.iter().any(|pmix| !pmix.modules.contains(&module)),
    };
    let lists = MODULES.iter().map(|(variable, modules)| {
        (*variable, modules.iter().copied().filter(|module| lacking(module)).collect::<Vec<_>>())
    });
    lists.filter(|(_, modules)| !modules.is_empty()).collect()
}

/// Where a library is, without links.
fn real_path(found: &Found) -> PathBuf {
    sys::fd_path(&found.file).unwrap_or_else(|_| found.path.clone())
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pmix(modules: &[&'static str]) -> Pmix {
        Pmix { version: None, path: "/usr/lib/libpmix.so.2".into(), modules: modules.to_vec() }
    }

    #[test]
    fn only_what_an_image_has_is_asked_for() {
        assert_eq!(missing(&[]), [("PMIX_SECURITY_MODE", vec!["munge"])]);
        assert_eq!(
            missing(&[pmix(&["munge", "ds12", "ds21"])]),
            [("PMIX_GDS_MODULE", vec!["shmem", "shmem2", "shmem3"])]
        );
        let all = ["munge", "ds12", "ds21", "shmem", "shmem2", "shmem3"];
        assert!(missing(&[pmix(&all)]).is_empty());
        assert_eq!(missing(&[pmix(&all), pmix(&all[1..])]), [("PMIX_SECURITY_MODE", vec!["munge"])]);
    }
}
