//! Determines the changes that an image's MPI needs, in a child process with the user's ids in the container.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::elf::{Error, Libraries, Library, Machine, Root};
use crate::env::{Change, Pair};
use crate::mpi::{self, Mpi, Pmi, Pmix};
use coracle::report::{Kind, Refusal};
use coracle::sys::{Identity, MountNamespace};
use serde::{Deserialize, Serialize};

use crate::children::ask::{self, OsText};
use crate::children::in_container::{self, Step};
use crate::container::environment::value;

/// Object of messages.
pub const WHAT: &str = "the image's MPI";
/// Time limit for a question: the child process reads a few headers.
const PATIENCE: Duration = Duration::from_secs(2);

/// A step that may use MPI.
pub struct Question<'a> {
    /// Interface that Slurm gives it, if it is known.
    pub pmi: Option<Pmi>,
    /// Number of its tasks on all nodes, if the user should get a note about them.
    pub tasks: Option<u32>,
    /// First word of its command.
    pub command: Option<&'a OsStr>,
    /// Environment of its tasks.
    pub environment: &'a [Pair],
    /// Working directory of its tasks.
    pub directory: &'a Path,
}

/// Results about the image's MPI.
#[derive(Debug, Default)]
pub struct Answers {
    /// Interface that the step was assumed to have.
    pub pmi: Option<Pmi>,
    /// Changes to Slurm's variables for a task.
    pub changes: Vec<Change>,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// Interface that Slurm gives a step with this environment. The directory of a PMIx server shows PMIx; otherwise,
/// srun's variables name the interface.
pub fn pmi(server: Option<&Path>, environment: &[Pair]) -> Option<Pmi> {
    if server.is_some() {
        return Some(Pmi::Pmix);
    }
    match value(environment, mpi::TYPE) {
        Some(word) => Pmi::of_option(word.to_str()?),
        None => Some(Pmi::None),
    }
}

/// Answer of the child process.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    /// Bytes of [`Change`]s.
    changes: OsText,
    notes: Vec<String>,
}

/// Answers `question` in `namespace`, as far as the image permits: a start does not depend on it.
pub fn look(question: &Question<'_>, namespace: &MountNamespace, identity: &Identity, step: Step<'_>) -> Answers {
    try_look(question, namespace, identity, step, Instant::now() + PATIENCE).unwrap_or_else(|_| Answers {
        pmi: question.pmi,
        changes: without(question.pmi, &[]),
        notes: Vec::new(),
    })
}

fn try_look(
    question: &Question<'_>,
    namespace: &MountNamespace,
    identity: &Identity,
    step: Step<'_>,
    deadline: Instant,
) -> Result<Answers, Refusal> {
    let child = in_container::Question {
        what: WHAT,
        namespace,
        identity,
        step: Some(step),
        deadline,
        kept: &[],
        executes: false,
    };
    let reply = child.ask(late, || {
        let Answers { changes, notes, .. } = answers(question);
        let changes = OsText(OsString::from_vec(Change::to_bytes(&changes)));
        Ok((Found { changes, notes }, Vec::new()))
    })?;
    let changes = Change::from_bytes(reply.found.changes.0.as_bytes()).filter(|_| reply.fds.is_empty());
    let changes = changes.ok_or_else(|| ask::garbled(WHAT))?;
    Ok(Answers { pmi: question.pmi, changes, notes: reply.found.notes })
}

/// Refusal of a question that took too long.
pub fn late() -> Refusal {
    Refusal::new(Kind::Timeout, WHAT, "could not be looked at in time")
}

/// Results, in the child process. An unreadable library counts as missing: the tasks report the error.
fn answers(question: &Question<'_>) -> Answers {
    let mut found = Answers::default();
    let Some(libraries) = own_libraries() else { return found };
    let directories = directories(question.environment);
    if question.pmi == Some(Pmi::Pmix) {
        found.changes = without(question.pmi, &mpi::pmix(&libraries, &directories).unwrap_or_default());
    }
    let (Some(pmi), Some(tasks), Some(command)) = (question.pmi, question.tasks, question.command) else {
        return found;
    };
    if let Ok(Some(mpi)) = of_program(&libraries, question, command, &directories) {
        found.notes.extend(mpi::warning(&command.to_string_lossy(), &mpi, pmi, tasks));
    }
    found
}

/// Changes that remove modules which clients with these libraries do not have from the PMIx server's variables.
fn without(pmi: Option<Pmi>, there: &[Pmix]) -> Vec<Change> {
    let change = |(variable, modules): (&str, &str)| Change::Without(variable.into(), modules.into());
    let missing = if pmi == Some(Pmi::Pmix) { mpi::missing(there) } else { Vec::new() };
    missing.into_iter().map(change).collect()
}

/// Libraries of the tree that is this process's root.
pub fn own_libraries() -> Option<Libraries> {
    Libraries::new(Root::node().ok()?, Machine::own()).ok()
}

/// MPI library that `command` itself needs.
fn of_program(
    libraries: &Libraries,
    question: &Question<'_>,
    command: &OsStr,
    directories: &[PathBuf],
) -> Result<Option<Mpi>, Error> {
    let Some((path, program)) = program(libraries, question, command) else { return Ok(None) };
    let origin = path.parent().unwrap_or(Path::new("/"));
    let run_path = |list: &Option<String>| -> Vec<PathBuf> {
        let directories = list.as_deref().unwrap_or_default().split(':').filter(|directory| !directory.is_empty());
        let origin = origin.to_string_lossy();
        directories
            .map(|directory| directory.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin).into())
            .collect()
    };
    let old = if program.run_path.is_none() { run_path(&program.old_run_path) } else { Vec::new() };
    let directories = [old, directories.to_vec(), run_path(&program.run_path)].concat();
    for soname in program.needed.iter().filter(|name| mpi::is_mpi(name)) {
        let Some(found) = libraries.everywhere(soname, &directories)?.into_iter().next() else { continue };
        return Ok(Some(Mpi::of(libraries, &found)));
    }
    Ok(None)
}

/// Program that a task runs, found like slurmstepd does (slurmd/slurmstepd/task.c); nothing for a script.
fn program(libraries: &Libraries, question: &Question<'_>, command: &OsStr) -> Option<(PathBuf, Library)> {
    let candidates: Vec<PathBuf> = if command.as_bytes().contains(&b'/') {
        vec![question.directory.join(command)]
    } else {
        let path = value(question.environment, "PATH")?;
        std::env::split_paths(&path).map(|directory| question.directory.join(directory).join(command)).collect()
    };
    let found = |path: PathBuf| libraries.root().open(&path).ok()?.map(|file| (path, file));
    let (path, file) = candidates.into_iter().find_map(found)?;
    Library::read(&file).ok().map(|program| (path, program))
}

/// Directories of LD_LIBRARY_PATH.
pub fn directories(environment: &[Pair]) -> Vec<PathBuf> {
    let list = value(environment, "LD_LIBRARY_PATH");
    list.map(|list| std::env::split_paths(&list).filter(|directory| directory.is_absolute()).collect())
        .unwrap_or_default()
}
