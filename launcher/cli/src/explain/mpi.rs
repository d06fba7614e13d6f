//! Runs `coracle explain --mpi`: compares the MPI of an image with what this node offers.
#![forbid(unsafe_code)]

use std::fmt::{self, Write};
use std::fs::File;
use std::path::Path;
use std::time::Instant;

use coracle::report::{Refusal, clean};
use coracle::sys::{Identity, MountNamespace};
use coracle_launcher::env::Pair;
use coracle_launcher::mpi::{self, Mpi, Pmi, Verdict};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use serde::{Deserialize, Serialize};

use coracle_launcher::children::in_container;
use coracle_launcher::container::image_mpi::{WHAT, directories, late, own_libraries};
use coracle_launcher::slurm::Offer;

/// Devices of the interconnect, by the start of their names in /dev, and their purpose.
const DEVICES: [(&str, &str); 5] = [
    ("infiniband", "InfiniBand and RoCE"),
    ("hfi1", "Omni-Path"),
    ("cxi", "Slingshot"),
    ("xpmem", "XPMEM"),
    ("knem", "KNEM"),
];
/// Setting that lets processes of one user read each other's memory (Documentation/admin-guide/LSM/Yama.rst).
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// Findings of `coracle explain --mpi`; printed as text, or as a part of its document (docs/json.md).
#[derive(Debug, Serialize)]
pub struct Report {
    node: Node,
    image: Image,
}

/// MPI support of the node.
#[derive(Debug, Default, Serialize)]
struct Node {
    /// Types of srun's `--mpi`.
    types: Vec<String>,
    /// MpiDefault of slurm.conf.
    default: Option<String>,
    /// Release of PMIx of Slurm's servers.
    pmix: Option<String>,
    /// Fast networks with devices on this node.
    networks: Vec<&'static str>,
    /// Value of ptrace_scope; above 0, ranks cannot copy from each other's memory.
    ptrace_scope: u32,
    /// Limit of locked memory in bytes; `None` if there is none.
    locked_memory: Option<u64>,
}

/// MPI libraries of the image, as the child found them.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Image {
    /// Reason why the libraries are not known.
    error: Option<String>,
    libraries: Vec<Found>,
    pmix: Vec<FoundPmix>,
}

/// An MPI library of the image.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    name: String,
    path: String,
    /// Outcome with each MPI type of Slurm on this node.
    types: Vec<Outcome>,
    /// True if no MPI type of Slurm here serves the library.
    unserved: bool,
}

/// Outcome of a library with a type of `--mpi`.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    r#type: String,
    /// `starts`, `alone`, `fails` or `unknown`.
    verdict: String,
    text: String,
}

/// A PMIx library of the image.
#[derive(Debug, Serialize, Deserialize)]
struct FoundPmix {
    release: Option<String>,
    path: String,
    /// True if it has the module psec/munge.
    munge: bool,
}

/// Examines the node, and the image in `namespace` whose tasks have this `environment`.
pub fn explain(
    offer: &Offer,
    environment: &[Pair],
    namespace: &MountNamespace,
    identity: &Identity,
    deadline: Instant,
) -> Result<Report, Refusal> {
    let child =
        in_container::Question { what: WHAT, namespace, identity, step: None, deadline, kept: &[], executes: false };
    let reply = child.ask(late, || Ok((image(offer, environment), Vec::new())))?;
    Ok(Report { node: node(offer), image: reply.found })
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(out)?;
        let mut text = String::new();
        self.image.write(&mut text)?;
        // The image chose the names, and it may have taken over the child process that read them.
        text.lines().try_for_each(|line| writeln!(out, "{}", clean(line)))
    }
}

/// Examines the node.
fn node(offer: &Offer) -> Node {
    let networks = DEVICES.iter().filter(|(start, _)| has_device(start)).map(|(_, what)| *what).collect();
    let scope = std::fs::read_to_string(YAMA).ok().and_then(|text| text.trim().parse().ok());
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(RLIM_INFINITY, |(soft, _)| soft);
    Node {
        types: offer.types.clone(),
        default: offer.default.clone(),
        pmix: offer.libpmix.as_deref().and_then(release),
        networks,
        ptrace_scope: scope.unwrap_or(0),
        locked_memory: (limit != RLIM_INFINITY).then_some(limit),
    }
}

impl fmt::Display for Node {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types = self.types.iter().map(|word| match (word.as_str(), &self.pmix) {
            ("pmix", Some(release)) => format!("pmix (PMIx {release})"),
            _ => word.clone(),
        });
        let types: Vec<String> = types.collect();
        match types.is_empty() {
            true => writeln!(out, "node    no MPI plugins of Slurm were found")?,
            false => {
                let default = self.default.as_deref().unwrap_or("none");
                writeln!(out, "node    srun --mpi={}; {default} if not said", types.join("|"))?;
            }
        }
        let networks = if self.networks.is_empty() { "none".to_owned() } else { self.networks.join(", ") };
        writeln!(out, "node    devices of a fast network: {networks}")?;
        match self.ptrace_scope {
            0 => writeln!(out, "node    ranks may copy from each other's memory (CMA)")?,
            scope => writeln!(out, "node    ranks cannot copy from each other's memory (CMA): {YAMA} is {scope}")?,
        }
        let locked = self.locked_memory.map_or("unlimited".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
        writeln!(out, "node    locked memory here: {locked}; a step has what slurm.conf propagates")
    }
}

fn has_device(start: &str) -> bool {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with(start))
}

/// Release of the PMIx library at `path`.
fn release(path: &Path) -> Option<String> {
    mpi::pmix_release(&File::open(path).ok()?).ok()?
}

/// Examines the image; runs in the child process.
fn image(offer: &Offer, environment: &[Pair]) -> Image {
    let failed = |error: String| Image { error: Some(error), ..Image::default() };
    let Some(libraries) = own_libraries() else { return failed("its libraries cannot be read".into()) };
    let directories = [directories(environment), mpi::directories_of_libraries(libraries.root())].concat();
    let mut image = match mpi::all(&libraries, &directories) {
        Ok(found) => Image { libraries: found.iter().map(|mpi| judged(offer, mpi)).collect(), ..Image::default() },
        Err(error) => failed(format!("an MPI library {error}")),
    };
    image.pmix = mpi::pmix(&libraries, &directories)
        .unwrap_or_default()
        .iter()
        .map(|found| FoundPmix { release: release(&found.path), path: name(&found.path), munge: found.munge })
        .collect();
    image
}

/// Name that an image chose, in one line.
fn name(path: &Path) -> String {
    clean(&path.display().to_string())
}

fn judged(offer: &Offer, mpi: &Mpi) -> Found {
    let offered = |pmi: &Pmi| offer.types.is_empty() || offer.types.iter().any(|word| word == pmi.word());
    let outcome = |pmi: &Pmi| {
        let verdict = mpi::judge(mpi, *pmi);
        Outcome { r#type: pmi.word().into(), verdict: word(verdict).into(), text: verdict.words().into() }
    };
    Found {
        name: clean(&mpi.to_string()),
        path: name(&mpi.path),
        types: Pmi::ALL.iter().filter(|pmi| offered(pmi)).map(outcome).collect(),
        unserved: !mpi.speaks.iter().any(offered) && mpi.certain,
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Starts => "starts",
        Verdict::Alone => "alone",
        Verdict::Fails => "fails",
        Verdict::Unknown => "unknown",
    }
}

impl Image {
    fn write(&self, out: &mut String) -> fmt::Result {
        match &self.error {
            Some(error) => writeln!(out, "image   {error}")?,
            None if self.libraries.is_empty() => {
                writeln!(out, "image   no MPI library where the loader looks, or below /opt and /usr/local")?;
            }
            None => {}
        }
        for Found { name, path, types, unserved } in &self.libraries {
            writeln!(out, "image   {name} ({path})")?;
            for Outcome { r#type, verdict, text } in types {
                let mark = match verdict.as_str() {
                    "starts" => "yes",
                    "alone" | "fails" => "no ",
                    _ => "?  ",
                };
                writeln!(out, "  {mark}   srun --mpi={:<5} {text}", r#type)?;
            }
            if *unserved {
                writeln!(out, "  no    Slurm has nothing here that it speaks: --container-mpi brings the host's")?;
            }
        }
        for FoundPmix { release, path, munge } in &self.pmix {
            let release = release.as_deref().unwrap_or("of unknown release");
            let munge = if *munge { "" } else { ", without psec/munge: its tasks are not asked for it" };
            writeln!(out, "image   PMIx {release} ({path}){munge}")?;
        }
        Ok(())
    }
}
