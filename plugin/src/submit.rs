//! Turns options into a request in the job's environment, in srun, sbatch and salloc.
//!
//! The node relies on no check of this module. A certain error is refused now, before the job queues; a file that is
//! missing here may well exist on the node.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use coracle::image::{self, Container};
use coracle::options::Naming;
use coracle::report::{Kind, Refusal};
use coracle::request::{Choice, ImageRef, Request};
use coracle::spank::{
    Arguments, ClientCommand, JobFact, Program, Submission, refuse_entrypoint_of_programs, refuse_export_file,
    variable_of_component,
};
use coracle::sys::{self, Release};
use coracle::wire::{Answer, EPILOG};
use nix::fcntl::OFlag;

use crate::notes;
use crate::slurm;

/// Maximum length of the launcher's answer, in bytes.
const MAX_ANSWER: u64 = 4096;
/// More than scontrol prints about any job, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// This srun, sbatch or salloc.
struct Command;

impl ClientCommand for Command {
    fn release(&self) -> Option<Release> {
        sys::release()
    }

    fn variable(&self, name: &CStr) -> Option<OsString> {
        sys::get_env(name)
    }

    fn set_variable(&self, name: &CStr, value: &OsStr) -> bool {
        sys::set_env(name, value)
    }

    fn unset_variable(&self, name: &CStr) {
        sys::unset_env(name);
    }

    fn has_option(&self, name: &CStr) -> bool {
        slurm::option_is_set(name)
    }

    fn option(&self, name: &CStr) -> Option<OsString> {
        slurm::option_value(name)
    }

    fn reset_option(&self, name: &CStr) -> bool {
        slurm::reset_option(name)
    }

    fn job_record(&self, id: &CStr) -> sys::Result<Vec<u8>> {
        let words = [c"scontrol", c"--oneliner", c"show", c"job", id];
        sys::output_of(words[0], &words, MAX_RECORD)
    }

    fn note(&self, text: &str) {
        slurm::note(text);
    }
}

/// State of this command between hooks.
#[derive(Default)]
pub struct State {
    /// Options and decisions.
    pub submission: Submission,
    /// True once the configuration of nodes has been checked.
    looked: bool,
}

impl State {
    /// Begins, before any option is parsed.
    pub fn begin(&mut self, naming: Naming) {
        self.submission = Submission::begin(&Command, naming);
    }

    /// Decides the request after all options are parsed, once for each component of a heterogeneous job.
    pub fn post_opt(&mut self, arguments: &Arguments, program: Program) -> Result<(), Refusal> {
        let images = self.submission.images_given(&Command, program)?;
        if program == Program::Srun && arguments.defaults {
            judge_epilog(arguments)?;
        }
        for group in self.submission.end_options(&Command, program) {
            let fresh = images.image(variable_of_component(&Command, program, group));
            let fresh = fresh.as_deref();
            refuse_export_file(&Command, program, fresh)?;
            let directory = std::env::current_dir()
                .map_err(|cause| Refusal::new(Kind::Workdir, "the working directory", cause.to_string()))?;
            let import = |image| import(image, arguments);
            let mut choice = self.submission.choose(&Command, program, fresh, group, &directory, import)?;
            if let Some(Choice::Container(request)) = &mut choice {
                request.commands |= program == Program::Srun && slurm::option_is_set(c"pty");
                check(request, program)?;
                notes::of_variables();
                if !std::mem::replace(&mut self.looked, true) {
                    notes::of_configless();
                }
            }
            self.submission.decide(group, choice.as_ref());
        }
        self.submission.publish(&Command, program)
    }
}

/// Refuses a TaskEpilog of the user where the site's rules allow nothing outside of containers: slurmstepd runs it on
/// the node, and has no hook for it. `required` holds only with `defaults=on`, and so does this.
fn judge_epilog(arguments: &Arguments) -> Result<(), Refusal> {
    // srun takes it from either.
    let epilog = slurm::option_value(c"task-epilog").or_else(|| sys::get_env(c"SLURM_TASK_EPILOG"));
    if epilog.is_none_or(|epilog| epilog.is_empty()) {
        return Ok(());
    }
    // A container has neither the launcher nor the site's settings; the node has left the answer in a file.
    let said = match std::fs::read(EPILOG) {
        Ok(said) => said,
        Err(_) => query_epilog(arguments).map_err(|error| Refusal::system("--task-epilog", &error))?,
    };
    match Answer::from_bytes(&said) {
        Ok(Answer::Refused(refusal)) => Err(refusal),
        Ok(Answer::Outside) => Ok(()),
        _ => Err(Refusal::new(Kind::Internal, "the launcher", "ended without an answer")),
    }
}

fn query_epilog(arguments: &Arguments) -> sys::Result<Vec<u8>> {
    let [partition, account, qos] =
        [JobFact::Partition, JobFact::Account, JobFact::Qos].map(|fact| fact.value(&Command));
    let words = [c"coracle", c"epilog", &arguments.config, &partition, &account, &qos];
    sys::output_of(&arguments.launcher, &words, MAX_ANSWER)
}

/// Prefix of images of registries.
const REGISTRY: &[u8] = b"docker://";

/// Returns the image to be run: the image itself, or the file or stored image that the site makes of an image of a
/// registry. A program of the user makes it on this host, so that the job has it once for all its nodes.
fn import<'a>(image: &'a OsStr, arguments: &Arguments) -> Result<Cow<'a, OsStr>, Refusal> {
    if !image.as_bytes().starts_with(REGISTRY) {
        return Ok(image.into());
    }
    let name = CString::new(image.as_bytes()).unwrap_or_default();
    let words = [c"coracle", c"pull", c"--for-job", c"--config", &arguments.config, c"--", &name];
    let said = sys::output_of(&arguments.launcher, &words, MAX_ANSWER);
    let said = said.map_err(|error| Refusal::system(image.to_string_lossy(), &error))?;
    match Answer::from_bytes(&said) {
        Ok(Answer::Refused(refusal)) => Err(refusal),
        // If there is no output, the error is that the name of an image is missing.
        _ => Ok(OsString::from_vec(said).into()),
    }
}

/// Refuses certain errors.
fn check(request: &Request, program: Program) -> Result<(), Refusal> {
    refuse_entrypoint_of_programs(&Command, request)?;
    match request.image() {
        Some(image) => check_image(image, program),
        None => Ok(()),
    }
}

/// Refuses a file that can be opened here and is no image. A file that cannot be opened here may exist on the node; the
/// user, whose job with it waits in a queue, gets a note.
fn check_image(wanted: &ImageRef, program: Program) -> Result<(), Refusal> {
    let Some(path) = wanted.file() else { return Ok(()) };
    let refuse = |kind, cause: &str| Err(Refusal::new(kind, wanted.to_string(), cause));
    let open = |flags| {
        let opened = sys::open_untrusted(path, flags).map(File::from);
        if let Err(error) = &opened
            && program != Program::Srun
            && wanted.stored().is_none()
        {
            notes::of_image(wanted, error);
        }
        opened.ok()
    };
    // O_PATH does not open the file itself: a FIFO does not block, and a device does nothing.
    let Some(found) = open(OFlag::O_PATH) else { return Ok(()) };
    match found.metadata() {
        // The node decides if a directory may be an image.
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(metadata) if !metadata.is_file() => return refuse(Kind::ImageType, "no regular file, so not an image file"),
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    let Some(file) = open(OFlag::O_RDONLY) else { return Ok(()) };
    let mut start = Vec::with_capacity(image::START);
    match file.take(image::START as u64).read_to_end(&mut start) {
        Ok(_) if Container::of(&start).is_none() => Err(image::refuse_unknown(&wanted.to_string())),
        _ => Ok(()),
    }
}
