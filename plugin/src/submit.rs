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
use std::path::Path;

use coracle::env::{Change, INSIDE, OUTER, Record};
use coracle::image::{self, Container};
use coracle::options::{Id, Images, Naming, OPTIONS, OfComponent, RawOptions};
use coracle::report::{Kind, Refusal};
use coracle::request::{Choice, Error, ImageRef, NODE, Request, Scope};
use coracle::sys::{self, Release};
use coracle::wire::{Answer, EPILOG};
use nix::fcntl::OFlag;

use crate::arguments::Arguments;
use crate::face::{self, Context};
use crate::het::{self, Decided, Inherited};
use crate::notes;
use crate::slurm;

/// Slurm's variable for the value of `--container`. Slurm sets it only where it is unset, and jobs inherit it: it is
/// stale inside every job that has it.
pub const CONTAINER: &CStr = c"SLURM_CONTAINER";
/// The request, from the submit host to the nodes. The prefix makes it survive `--export=NONE`.
pub const REQUEST: &CStr = c"SLURM_CORACLE_REQUEST";
/// The request that the steps of a job inherit, set for tasks by the node.
pub const STEPS: &CStr = c"SLURM_CORACLE_STEPS";
/// Variables of the loader (ld.so(8)) that would have loaded the image's code into this command, and the variables in
/// which `coracle-inside` has saved them for the tasks.
const ASIDE: [(&CStr, &CStr); 2] =
    [(c"LD_PRELOAD", c"SLURM_CORACLE_LD_PRELOAD"), (c"LD_AUDIT", c"SLURM_CORACLE_LD_AUDIT")];

/// Prefix of the variables in which Slurm repeats the options of sbatch and salloc, by plugin and option, for every
/// command of the job as if they had been typed there (plugstack.c, `spank_process_env_options`). They hold only the
/// last of several values, and "(null)" for none. The request that steps inherit is in [`STEPS`].
const GIVEN: &str = "SLURM_SPANK__SLURM_SPANK_OPTION_coracle_";

/// Variable of the same kind for `--container`, where that is an option of the plugin.
pub const CONTAINER_GIVEN: &CStr = c"SLURM_SPANK__SLURM_SPANK_OPTION_coracle_container";

/// Options of this command.
#[derive(Default)]
pub struct State {
    /// Options of the component that is being read, as given.
    pub options: RawOptions,
    /// Options of the component before: a component without any has the same, as it has the same `--container`.
    before: RawOptions,
    /// Values of `--container` where that is the plugin's option.
    pub images: Images,
    /// Slurm's `--container` of the component before, see [`images_given`].
    image: Option<OsString>,
    inherited: Inherited,
    /// Decisions for the components so far.
    decided: Vec<Decided>,
    /// Number of times that this command has reached the end of its options.
    calls: u32,
    /// True once the configuration of nodes has been checked.
    looked: bool,
}

/// Removes inherited values from the environment before any option is parsed. Values that are there afterwards were
/// given to this command.
pub fn init(state: &mut State) {
    state.inherited = Inherited::take();
    OPTIONS.iter().flat_map(|spec| [Naming::Container, Naming::Coracle].map(|naming| spec.name_in(naming))).for_each(
        |name| {
            let name = format!("{GIVEN}{}", name.to_string_lossy().replace('-', "_"));
            CString::new(name).iter().for_each(|name| sys::unset_env(name));
        },
    );
    sys::unset_env(CONTAINER);
    sys::unset_env(CONTAINER_GIVEN);
    for (name, aside) in ASIDE {
        if let Some(value) = sys::get_env(aside) {
            sys::set_env(name, &value);
            sys::unset_env(aside);
        }
    }
}

/// Decides the request after all options are parsed, once for each component of a heterogeneous job.
pub fn post_opt(state: &mut State, arguments: &Arguments, context: Context) -> Result<(), Refusal> {
    let images = images_given(state, context)?;
    if context == Context::Srun && arguments.defaults {
        judge_epilog(arguments)?;
    }
    // Slurm sets it only where it is unset: it must be unset for the next component.
    sys::unset_env(CONTAINER);
    let fresh_options = std::mem::take(&mut state.options);
    state.options = RawOptions::named(fresh_options.naming());
    if !fresh_options.is_empty() || state.calls == 0 {
        state.before = fresh_options;
    }
    let groups = het::groups(context, state.calls);
    state.calls += 1;
    for group in groups {
        let fresh = images.image(variable_of_component(context, group));
        let fresh = fresh.as_deref();
        if context == Context::Allocator
            && fresh.is_some_and(|image| image != NODE)
            && slurm::option_is_set(c"export-file")
        {
            // The job's whole environment comes from that file: the request would be lost, and the job would run on the
            // node.
            return Err(Refusal::new(Kind::Usage, "--export-file", "cannot be used together with --container")
                .hint("put what is in the file into the script, or use --export"));
        }
        let mut choice = choose(state, arguments, context, fresh, group)?;
        if let Some(Choice::Container(request)) = &mut choice {
            request.commands |= context == Context::Srun && slurm::option_is_set(c"pty");
            check(request, context)?;
            notes::of_variables();
            if !std::mem::replace(&mut state.looked, true) {
                notes::of_configless();
            }
        }
        state.decided.push(Decided { group, form: choice.as_ref().map(Choice::to_env) });
    }
    if context == Context::Allocator && !is_salloc() {
        het::known_to_steps(&state.decided)?;
    }
    // salloc runs its command on this host: an srun in it is a step of the job like any other.
    let names = if context == Context::Allocator { &[REQUEST, STEPS][..] } else { &[REQUEST] };
    het::publish(&state.decided, names)?;
    // salloc's own shell stays on this host; the steps that it starts run this code again.
    if state.decided.iter().all(|decided| decided.form.as_deref().is_none_or(|form| form == NODE)) && !is_salloc() {
        leave_the_container();
    }
    Ok(())
}

/// Returns the values of `--container` for the component whose options have just been parsed, on any release.
///
/// Before 21.08 the option is the plugin's. From 23.02 on, mpi/pmix puts its socket into the directory that only an
/// oci.conf sets for a step with `--container` (pmixp_info.c), and the step does not start. So the option is reset in
/// srun, which then does not copy it to the next component.
fn images_given(state: &mut State, context: Context) -> Result<OfComponent, Refusal> {
    if face::container_is_ours() {
        return Ok(state.images.component(sys::get_env(variable_of(context))));
    }
    let given = sys::get_env(CONTAINER);
    if context != Context::Srun || sys::release() < Some(Release(23, 2)) {
        return Ok(given.into());
    }
    if given.is_some() && !slurm::reset_option(c"container") {
        return Err(Refusal::new(
            Kind::Internal,
            "--container",
            "this srun does not let a plugin take the option back",
        ));
    }
    if given.is_some() {
        state.image = given;
    }
    Ok(state.image.clone().into())
}

/// Returns the variable that stands for `--container` in the environment of srun, sbatch or salloc, as Slurm has it
/// since 21.08. Not SLURM_CONTAINER: that one gives the container of a job, and every command in the job inherits it.
fn variable_of(context: Context) -> &'static CStr {
    match context {
        Context::Srun => c"SRUN_CONTAINER",
        _ if is_salloc() => c"SALLOC_CONTAINER",
        _ => c"SBATCH_CONTAINER",
    }
}

/// Returns the value of the variable of one component, where Slurm does not read it itself. Only srun has such
/// variables (opt.c, `_opt_env`).
fn variable_of_component(context: Context, group: u32) -> Option<OsString> {
    if context != Context::Srun || !face::container_is_ours() {
        return None;
    }
    ["HET", "PACK"].iter().find_map(|word| {
        let name = CString::new(format!("SRUN_CONTAINER_{word}_GROUP_{group}")).ok()?;
        sys::get_env(&name)
    })
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
    // A step of a job runs where its job runs, whatever other options say.
    let job = sys::get_env(c"SLURM_JOB_ID").is_some();
    let fact = |option: &CStr, variable: &CStr| {
        let said = if job { sys::get_env(variable) } else { slurm::option_value(option) };
        said.and_then(|said| CString::new(said.as_bytes()).ok()).unwrap_or_default()
    };
    let partition = fact(c"partition", c"SLURM_JOB_PARTITION");
    let (account, qos) = (fact(c"account", c"SLURM_JOB_ACCOUNT"), fact(c"qos", c"SLURM_JOB_QOS"));
    let words = [c"coracle", c"epilog", &arguments.config, &partition, &account, &qos];
    sys::output_of(&arguments.launcher, &words, 4096)
}

/// True in salloc. SPANK does not distinguish sbatch and salloc.
fn is_salloc() -> bool {
    let program = std::env::args_os().next().unwrap_or_default();
    Path::new(&program).file_name() == Some(OsStr::new("salloc"))
}

/// Restores the environment of the node, before a container changed it, for a command whose job runs on the node.
fn leave_the_container() {
    let name = |name: &OsStr| CString::new(name.as_bytes()).ok();
    let outer = name(OUTER.as_ref()).and_then(|outer| sys::get_env(&outer));
    let Some(record) = outer.and_then(|text| Record::from_env(&text)) else { return };
    for change in record.undo(|variable| name(variable).and_then(|name| sys::get_env(&name))) {
        match (name(change.name()), change) {
            (Some(name), Change::Set(_, value)) => {
                sys::set_env(&name, &value);
            }
            (Some(name), Change::Unset(_)) => sys::unset_env(&name),
            (None, _) | (Some(_), Change::Without(..) | Change::Numbered(..)) => {}
        }
    }
    INSIDE.iter().chain([&OUTER]).filter_map(|ours| name(ours.as_ref())).for_each(|ours| sys::unset_env(&ours));
}

/// Returns the request of this command, if there is one: that of the command line, else, for a step, that of its job.
fn choose(
    state: &State,
    arguments: &Arguments,
    context: Context,
    fresh: Option<&OsStr>,
    group: u32,
) -> Result<Option<Choice>, Refusal> {
    let directory = std::env::current_dir()
        .map_err(|cause| Refusal::new(Kind::Workdir, "the working directory", cause.to_string()))?;
    let mut options = state.before.clone();
    let lone = options.lone_flag();
    // salloc starts its shell by an srun that repeats the image, and no other option of salloc.
    let repeated = context == Context::Srun && slurm::option_is_set(c"interactive");
    let inherited = match context {
        Context::Srun if fresh.is_none() || repeated => state.inherited.choice(group)?,
        _ => None,
    };
    // salloc has read the variables, and its command line has taken precedence over them.
    if !repeated || inherited.is_none() {
        options.fill_from(sys::get_env);
    }
    match (fresh, inherited) {
        (_, Some(Choice::Container(inherited))) if inherited.settings.scope == Some(Scope::Script) && !repeated => {
            if let Some(flag) = lone {
                face::note(&format!(
                    "{flag}: no effect on a step that {}=script leaves on the node",
                    options.flag(Id::Scope)
                ));
            }
            Ok(Some(Choice::Host))
        }
        (_, Some(Choice::Container(inherited))) => {
            let mut request = inherited.amend(&options, &directory)?;
            request.inherited = true;
            Ok(Some(Choice::Container(Box::new(request))))
        }
        (Some(image), _) => {
            if let Some(flag) = lone.filter(|_| image == NODE) {
                face::note(&format!("{flag}: no effect with --container={NODE}"));
            }
            let image = import(image, arguments)?;
            Ok(Some(Request::parse(&options, &image, &directory)?))
        }
        (None, inherited) => match lone {
            Some(flag) => Err(Error::WithoutImage(flag).into()),
            None => Ok(inherited),
        },
    }
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
    let said = sys::output_of(&arguments.launcher, &words, 4096);
    let said = said.map_err(|error| Refusal::system(image.to_string_lossy(), &error))?;
    match Answer::from_bytes(&said) {
        Ok(Answer::Refused(refusal)) => Err(refusal),
        // If there is no output, the error is that the name of an image is missing.
        _ => Ok(OsString::from_vec(said).into()),
    }
}

/// Refuses certain errors.
fn check(request: &Request, context: Context) -> Result<(), Refusal> {
    if request.settings.entrypoint == Some(true) && slurm::option_is_set(c"multi-prog") {
        return Err(Refusal::new(Kind::Usage, "--container-entrypoint", "cannot be used together with --multi-prog")
            .hint("name the entry point in the file of programs"));
    }
    match request.image() {
        Some(image) => check_image(image, context),
        None => Ok(()),
    }
}

/// Refuses a file that can be opened here and is no image. A file that cannot be opened here may exist on the node; the
/// user, whose job with it waits in a queue, gets a note.
fn check_image(wanted: &ImageRef, context: Context) -> Result<(), Refusal> {
    let Some(path) = wanted.file() else { return Ok(()) };
    let refuse = |kind, cause: &str| Err(Refusal::new(kind, wanted.to_string(), cause));
    let open = |flags| {
        let opened = sys::open_untrusted(path, flags).map(File::from);
        if let Err(error) = &opened
            && context == Context::Allocator
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
