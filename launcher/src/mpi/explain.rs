//! `coracle explain --mpi`: which MPI an image has, what this node offers it, and what comes of both.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use coracle::env::Pair;
use coracle::mpi::{self, Mpi, Pmi, Verdict};
use coracle::report::{Refusal, clean};
use coracle::sys::{self, Identity, MountNamespace};
use coracle::wire::Answer;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::{MAX_LEN, WHAT, folders, late, own_libraries};
use crate::inside;
use crate::slurm_client::Offer;

/// The interconnect's devices, by the start of their names in /dev, and what they are for.
const DEVICES: [(&str, &str); 5] = [
    ("infiniband", "InfiniBand and RoCE"),
    ("hfi1", "Omni-Path"),
    ("cxi", "Slingshot"),
    ("xpmem", "XPMEM"),
    ("knem", "KNEM"),
];
/// Whether processes of one user may read each other's memory (Documentation/admin-guide/LSM/Yama.rst).
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// The text, for the image whose tasks have this `environment` in `namespace`.
pub fn explain(
    offer: &Offer,
    environment: &[Pair],
    namespace: &MountNamespace,
    identity: &Identity,
    deadline: Instant,
) -> Result<String, Refusal> {
    let mut text = node(offer);
    let packet = inside::ask(WHAT, namespace, identity, None, deadline, late, |answer, placed| {
        let found = placed.map(|()| image(offer, environment));
        let reply = match &found {
            Ok(_) => Answer::Enter { notes: Vec::new(), workdir: None, entrypoint: false, steps: None },
            Err(refusal) => Answer::Refused(refusal.clone()),
        };
        let found = sys::memory_file(found.unwrap_or_default().as_bytes())?;
        answer.send(&reply.to_bytes(), &[found.as_fd()], deadline)
    })?;
    if let Answer::Refused(refusal) = Answer::from_bytes(&packet.data)? {
        return Err(refusal);
    }
    let found = packet.fds.first().ok_or_else(|| inside::dead(WHAT))?;
    let found = sys::read_whole(found, MAX_LEN).map_err(|error| Refusal::system(WHAT, &error))?;
    // Names of the image's have been cleaned one by one; this is for a child that somebody has taken over.
    String::from_utf8_lossy(&found).lines().for_each(|line| {
        let _ = writeln!(text, "{}", clean(line));
    });
    Ok(text)
}

/// What the node has.
fn node(offer: &Offer) -> String {
    let mut text = String::new();
    let release = offer.libpmix.as_deref().and_then(release);
    let types = offer.types.iter().map(|word| match (word.as_str(), &release) {
        ("pmix", Some(release)) => format!("pmix (PMIx {release})"),
        _ => word.clone(),
    });
    let types: Vec<String> = types.collect();
    let default = offer.default.as_deref().unwrap_or("none");
    let _ = match types.is_empty() {
        true => writeln!(text, "node    no MPI plugins of Slurm were found"),
        false => writeln!(text, "node    srun --mpi={}; {default} if not said", types.join("|")),
    };
    let devices: Vec<&str> = DEVICES.iter().filter(|(start, _)| has_device(start)).map(|(_, what)| *what).collect();
    let devices = if devices.is_empty() { "none".to_owned() } else { devices.join(", ") };
    let _ = writeln!(text, "node    devices of a fast network: {devices}");
    let yama = std::fs::read_to_string(YAMA).unwrap_or_default();
    let _ = match yama.trim() {
        "" | "0" => writeln!(text, "node    ranks may copy from each other's memory (CMA)"),
        scope => writeln!(text, "node    ranks cannot copy from each other's memory (CMA): {YAMA} is {scope}"),
    };
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_MEMLOCK) {
        let soft = if soft == RLIM_INFINITY { "unlimited".to_owned() } else { format!("{} KiB", soft / 1024) };
        let _ = writeln!(text, "node    locked memory here: {soft}; a step has what slurm.conf propagates");
    }
    text
}

fn has_device(start: &str) -> bool {
    let entries = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with(start))
}

/// The release of the PMIx library at `path`.
fn release(path: &Path) -> Option<String> {
    mpi::pmix_release(&File::open(path).ok()?).ok()?
}

/// In the child: what the image has.
fn image(offer: &Offer, environment: &[Pair]) -> String {
    let Some(libraries) = own_libraries() else { return "image   its libraries cannot be read\n".into() };
    let folders = [folders(environment), mpi::folders_of_libraries(libraries.root())].concat();
    let mut text = String::new();
    match mpi::all(&libraries, &folders) {
        Ok(found) if found.is_empty() => {
            text.push_str("image   no MPI library where the loader looks, or below /opt and /usr/local\n");
        }
        Ok(found) => found.iter().for_each(|mpi| verdicts(&mut text, offer, mpi)),
        Err(error) => {
            let _ = writeln!(text, "image   an MPI library {error}");
        }
    }
    let pmix = mpi::pmix(&libraries, &folders).unwrap_or_default();
    for found in &pmix {
        let release = release(&found.path).unwrap_or_else(|| "of unknown release".into());
        let munge = if found.munge { "" } else { ", without psec/munge: its tasks are not asked for it" };
        let _ = writeln!(text, "image   PMIx {release} ({}){munge}", name(&found.path));
    }
    text
}

/// A name that an image has chosen, in one line.
fn name(path: &Path) -> String {
    clean(&path.display().to_string())
}

fn verdicts(text: &mut String, offer: &Offer, mpi: &Mpi) {
    let _ = writeln!(text, "image   {} ({})", clean(&mpi.to_string()), name(&mpi.path));
    let offered = |pmi: &Pmi| offer.types.is_empty() || offer.types.iter().any(|word| word == pmi.word());
    for pmi in Pmi::ALL.iter().filter(|pmi| offered(pmi)) {
        let verdict = mpi::judge(mpi, *pmi);
        let mark = match verdict {
            Verdict::Starts => "yes",
            Verdict::Alone | Verdict::Fails => "no ",
            Verdict::Unknown => "?  ",
        };
        let _ = writeln!(text, "  {mark}   srun --mpi={:<5} {}", pmi.word(), verdict.words());
    }
    if !mpi.speaks.iter().any(offered) && mpi.certain {
        let _ = writeln!(text, "  no    Slurm has nothing here that it speaks: --container-mpi brings the host's");
    }
}
