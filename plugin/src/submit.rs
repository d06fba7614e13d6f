//! In srun, sbatch and salloc: options become a request in the job's environment.
//!
//! Nothing here is a check that the node relies on. What is wrong for certain is refused now, before the job queues;
//! a file that is missing here may well exist on the node.
#![forbid(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use coracle::image::{self, Container};
use coracle::options::RawOptions;
use coracle::report::{Kind, Refusal};
use coracle::request::{Choice, Error, Request};
use coracle::sys;
use nix::fcntl::OFlag;

use crate::face::{self, Context};

/// Slurm's variable for the value of `--container`. It is set only where it is unset, and inherited: stale inside
/// every job that has it.
pub const CONTAINER: &CStr = c"SLURM_CONTAINER";
/// The request, from here to the nodes. The prefix makes it survive `--export=NONE`.
pub const REQUEST: &CStr = c"SLURM_CORACLE_REQUEST";
/// The request that the steps of a job inherit, set for tasks by the node.
pub const STEPS: &CStr = c"SLURM_CORACLE_STEPS";

/// What this command has been told.
#[derive(Default)]
pub struct State {
    /// The options, as given.
    pub options: RawOptions,
    inherited: Option<OsString>,
    /// What the components of a heterogeneous job before this one asked for.
    before: Option<Option<String>>,
}

/// Before any option is parsed: takes what was inherited out of the way, so that what is there afterwards is what
/// this very command was given.
pub fn init(state: &mut State) {
    state.inherited = sys::get_env(STEPS);
    for name in [CONTAINER, REQUEST, STEPS] {
        sys::unset_env(name);
    }
}

/// After all options are parsed, once for each component of a heterogeneous job.
pub fn post_opt(state: &mut State, context: Context) -> Result<(), Refusal> {
    let fresh = sys::get_env(CONTAINER);
    if context == Context::Allocator
        && fresh.as_deref().is_some_and(|image| image != "none")
        && face::option_is_set(c"export-file")
    {
        // The job's whole environment comes from that file: the request would be lost, and the job run on the node.
        return Err(Refusal::new(Kind::Usage, "--export-file", "cannot be used together with --container")
            .hint("put what is in the file into the script, or use --export"));
    }
    // Slurm sets it only where it is unset: the next component must find it so.
    sys::unset_env(CONTAINER);
    let request = choose(state, context, fresh.as_deref())?;
    let form = request.as_ref().map(Request::to_env);
    if let Some(before) = &state.before
        && *before != form
    {
        return Err(Refusal::new(
            Kind::Usage,
            "--container",
            "the components of a heterogeneous job must have the same image and options",
        ));
    }
    if let Some(request) = &request {
        first_look(request)?;
    }
    if let Some(form) = &form {
        // salloc runs its command here: an srun in it is a step of the job like any other.
        let names = if context == Context::Allocator { &[REQUEST, STEPS][..] } else { &[REQUEST] };
        if !names.iter().all(|name| sys::set_env(name, OsStr::new(form))) {
            return Err(Refusal::new(Kind::System, "--container", "no memory for the environment"));
        }
    }
    state.before = Some(form);
    Ok(())
}

/// The request of this command, if it has one: the command line, else, for a step of a job, what the job has.
fn choose(state: &State, context: Context, fresh: Option<&OsStr>) -> Result<Option<Request>, Refusal> {
    let directory = std::env::current_dir()
        .map_err(|cause| Refusal::new(Kind::Workdir, "the working directory", cause.to_string()))?;
    let mut options = state.options.clone();
    let lone = options.lone_flag();
    options.fill_from(sys::get_env);
    match (fresh, &state.inherited) {
        (Some(image), _) => match Request::parse(&options, image, &directory)? {
            Choice::Container(request) => Ok(Some(request)),
            Choice::Host => Ok(None),
        },
        (None, Some(inherited)) if context == Context::Srun => {
            let named = |refusal: Refusal| Refusal { object: STEPS.to_string_lossy().into_owned(), ..refusal };
            let inherited = Request::from_env(inherited).map_err(|error| named(error.into()))?;
            Ok(Some(inherited.amend(&options, &directory)?))
        }
        (None, _) => match lone {
            Some(flag) => Err(Error::WithoutImage(flag).into()),
            None => Ok(None),
        },
    }
}

/// Refuses what can be opened here and is no image.
fn first_look(request: &Request) -> Result<(), Refusal> {
    let path: &Path = &request.image.path;
    let refuse = |kind, cause: &str| Err(Refusal::new(kind, request.image.to_string(), cause));
    // O_PATH opens nothing: a FIFO is not waited for, and a device does nothing.
    let Ok(found) = sys::open_untrusted(path, OFlag::O_PATH).map(File::from) else { return Ok(()) };
    match found.metadata() {
        // Whether a directory may be an image is the node's to say.
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(metadata) if !metadata.is_file() => return refuse(Kind::ImageType, "no regular file, so not an image file"),
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    let Ok(file) = sys::open_untrusted(path, OFlag::O_RDONLY).map(File::from) else { return Ok(()) };
    let mut start = Vec::with_capacity(image::START);
    match file.take(image::START as u64).read_to_end(&mut start) {
        Ok(_) if Container::of(&start).is_none() => Err(image::Error::Unknown.refuse(&request.image.to_string())),
        _ => Ok(()),
    }
}
