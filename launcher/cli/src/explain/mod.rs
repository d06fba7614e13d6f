//! Runs `coracle explain`: shows what a step or a job script would get on this node, from the code that builds it.
#![forbid(unsafe_code)]

mod mpi;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use coracle::report::{Kind, Refusal, clean};
use coracle::request::{Mpi, Scope};
use coracle::sys;
use coracle::wire::Here;
use coracle_launcher::apply;
use coracle_launcher::devices::Unit;
use coracle_launcher::image::fstab;
use coracle_launcher::mpi::Shown;
use coracle_launcher::plan::Plan;
use coracle_launcher::policy::Reader;
use coracle_launcher::view::{HELPER, Surroundings};
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::arguments::Explain;
use crate::doctor;
use crate::document;
use coracle_launcher::children::opener::Opener;
use coracle_launcher::container::attach::AttachedImage;
use coracle_launcher::container::build::Container;
use coracle_launcher::container::clock::Clock;
use coracle_launcher::container::context::{Authority, Context, node_files};
use coracle_launcher::container::environment;
use coracle_launcher::container::grants::Provision;
use coracle_launcher::container::host_fit::{HostFit, Place};
use coracle_launcher::container::host_mpi::{Chosen, Replacement};
use coracle_launcher::container::local::{self, LocalRequest, LocalRun};
use coracle_launcher::container::open::OpenImage;
use coracle_launcher::container::resolve::{Resolved, admit_at_once};
use coracle_launcher::container::tasks::Tasks;
use coracle_launcher::slurm;

/// Prints image, image rule, plan and environment, each as soon as it is known. A refusal comes last.
pub fn main(given: &Explain) -> Result<ExitCode, Refusal> {
    let mut page = Page { kept: given.json.then(|| json!({})) };
    let mut raw = given.options.0.clone();
    local::fill_from_variables(&mut raw);
    let image = given.container.as_os_str();
    let request = LocalRequest { raw, image, config: &given.config, user: given.user.as_deref() };
    let LocalRun { context, image, provision, directory } = request.prepare()?;
    if let (Some(Scope::Steps), true) = (context.settings.scope, given.script) {
        page.line("scope", "scope", "steps", "steps: the job script runs on the node");
        page.end()?;
        return Ok(ExitCode::SUCCESS);
    }
    let told = slurm::conf_from_environment();
    let context = with_slurm(given, context, told.as_deref())?;
    let deadline = Instant::now() + context.config.start_timeout.0;
    let clock = Clock::start();
    let mut opener = Opener::start(&context.identity, deadline)?;
    let policy = context.resolve_policy(&opener)?;
    let resolved = Resolved::new(&context, &policy, &opener, &clock)?;
    let opened = OpenImage::open(&resolved, &image, &mut admit_at_once)?;
    page.image(&opened);
    let judged = opened.judge_as_step(&resolved, &mut admit_at_once)?;
    let reader = judged.grant().reader;
    page.rule(&judged.grant().rule, reader);
    let judged = match context.authority {
        Authority::Root => judged,
        Authority::Own => {
            local::enter_user_namespace(context.authority)?;
            opener = Opener::start(&context.identity, deadline)?;
            let resolved = Resolved::new(&context, &policy, &opener, &clock)?;
            judged.open_again(&resolved)?.judge(&resolved, &mut admit_at_once)?
        }
    };
    let resolved = Resolved::new(&context, &policy, &opener, &clock)?;
    let loaded = judged.attach(&resolved)?;
    let host = local::with_home(&context.environment, policy.account.home.as_deref(), given.user.is_some());
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let start = context.settings.workdir.as_ref().unwrap_or(&directory).display().to_string();
    page.line("start", "workdir", start.as_str(), &start);
    let here = Here { directory, pmix: None };
    let place = Place { here: &here, script_folder: None, provision: &provision };
    let fit = HostFit::default();
    let Explained { container, plan, note } = build(&resolved, &loaded, place, &fit, reader)?;
    page.line("owners", "owners", plan.owners.word(), plan.owners.sentence());
    let driver_note = fit.driver_note(&provision, loaded.image().name());
    page.lines("gpu", gpus(&context, &provision, driver_note));
    page.lines("mpi", host_mpi(&context, fit.mpi()));
    let found = Tasks::of_image(&resolved, &loaded, &fit, &host).evaluate(&container.namespace, None)?;
    let mut notes: Vec<String> = context.notes.iter().cloned().chain(note).collect();
    if given.mpi {
        let offer = slurm::offer(Path::new("/"), &context.config.slurm_client, told.as_deref());
        let environment = found.applied_to(&host)?;
        let (namespace, identity) = (&container.namespace, &context.identity);
        let report = mpi::explain(&offer, &environment, namespace, identity, opener.deadline())?;
        if page.kept.is_none() {
            print!("\n{report}");
        } else {
            let report = serde_json::to_value(report);
            page.keep("mpi_start", report.map_err(|error| Refusal::new(Kind::Internal, "json", error.to_string()))?);
            page.keep("notes", notes);
        }
        page.end()?;
        return Ok(ExitCode::SUCCESS);
    }
    page.block("plan", &plan.to_string());
    let listing = sys::read_whole(&found.listing, environment::MAX_LEN)
        .map_err(|error| Refusal::system("the container's environment", &error))?;
    page.block("environment", &String::from_utf8_lossy(&listing));
    notes.extend(found.notes.iter().cloned());
    if page.kept.is_none() {
        notes.iter().for_each(|note| println!("\nnote    {}", clean(note)));
    }
    page.keep("notes", notes);
    page.end()?;
    Ok(ExitCode::SUCCESS)
}

/// Adds Slurm's commands and the files of the job, as a step would have them.
fn with_slurm(given: &Explain, context: Context, told: Option<&Path>) -> Result<Context, Refusal> {
    let settings = &context.config.slurm_client;
    let client = match given.script || given.ntasks == 1 {
        true => slurm::find(Path::new("/"), settings, told, Path::new(HELPER))?,
        false => None,
    };
    let slurmd = slurm::slurmd(Path::new("/"), settings, told);
    let files = node_files(slurmd.as_ref(), &context.environment);
    Ok(context.with_slurm(client, files))
}

/// A container, and what is shown of that of a step.
struct Explained {
    container: Container,
    /// Plan of a step.
    plan: Plan,
    /// Note about mounts that the image asks for.
    note: Option<String>,
}

/// Builds the container, and plans that of a step whose image `reader` reads.
fn build(
    resolved: &Resolved<'_>,
    image: &AttachedImage,
    place: Place<'_>,
    fit: &HostFit,
    reader: Reader,
) -> Result<Explained, Refusal> {
    let context = resolved.context;
    image.mount(resolved, |mounted| {
        let compared = mounted.compare(resolved, place.provision, fit)?;
        let fstab = compared.mounted().read_file(context, Path::new(fstab::PATH), fstab::LIMIT);
        let note = fstab.and_then(|text| fstab::note(&text));
        let around = fit.surroundings(resolved, place);
        let planned = compared.plan(resolved, &around)?;
        let of_a_step = Surroundings { devices: Some(&place.provision.devices), ..around };
        let shown = match around == of_a_step {
            true => None,
            false => Some(planned.preview(resolved, &of_a_step)?),
        };
        let container = planned.build(resolved)?;
        let plan = shown.unwrap_or_else(|| container.plan.clone());
        let owners = match context.authority {
            Authority::Root => plan.owners,
            Authority::Own => apply::step_owners(plan.owners, reader),
        };
        Ok(Explained { container, plan: Plan { owners, ..plan }, note })
    })
}

/// Page as text: printed at once, or kept for one document.
struct Page {
    kept: Option<Value>,
}

impl Page {
    /// Adds a line of text, and its key to the document.
    fn line(&mut self, word: &str, key: &str, value: impl Into<Value>, text: &str) {
        if self.kept.is_none() {
            println!("{word:<7} {}", clean(text));
        }
        self.keep(key, value);
    }

    /// Adds the file and its content.
    fn image(&mut self, image: &OpenImage) {
        let (path, opened) = (image.path().display().to_string(), image.opened());
        self.line("image", "image", path.as_str(), &path);
        let holds = opened.image.to_string();
        if opened.image.is_directory() {
            self.line("holds", "holds", holds.as_str(), &holds);
        } else {
            self.line("holds", "holds", holds.as_str(), &format!("{holds}, in {} bytes", opened.length));
            self.keep("size", opened.length);
        }
        if let Some(digest) = opened.digest {
            self.line("digest", "digest", digest.to_string(), &digest.to_string());
        }
    }

    /// Adds the rule that allows the image for a step, and its reader there.
    fn rule(&mut self, rule: &str, reader: Reader) {
        let (how, key) = match reader {
            Reader::Kernel => ("by the kernel", "kernel"),
            Reader::Fuse | Reader::Own => ("by squashfuse_ll, as the user", "squashfuse"),
        };
        self.line("policy", "rule", rule, &format!("allowed by {rule}, read {how}"));
        self.keep("reader", key);
    }

    /// Adds several lines with the same word.
    fn lines(&mut self, word: &str, lines: Vec<String>) {
        if self.kept.is_none() {
            lines.iter().for_each(|line| println!("{word:<7} {}", clean(line)));
        }
        self.keep(word, lines);
    }

    /// Adds a block after an empty line; in the document, a list of lines.
    fn block(&mut self, key: &str, text: &str) {
        if self.kept.is_none() {
            print!("\n{text}");
        }
        self.keep(key, text.lines().collect::<Vec<_>>());
    }

    /// Adds a key that only the document has.
    fn keep(&mut self, key: &str, value: impl Into<Value>) {
        if let Some(kept) = &mut self.kept {
            kept[key] = value.into();
        }
    }

    fn end(self) -> Result<(), Refusal> {
        self.kept.map_or(Ok(()), document::print)
    }
}

/// GPUs of the container and the files of their driver, or the reason why there are none.
fn gpus(context: &Context, provision: &Provision, driver_note: Option<String>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |line: &str| lines.push(line.to_owned());
    let Provision { devices, driver, .. } = provision;
    for (files, vendor) in devices.gpus() {
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        say(&format!("{}: {}", vendor.word(), files.join(", ")));
    }
    if let Some(driver) = driver {
        say(&format!("driver {}", doctor::summary(driver)));
        driver.notes.iter().chain(&driver_note).for_each(|note| say(&format!("note: {note}")));
    } else if context.settings.gpu == Some(false) {
        say("none: that was asked for, or is the site's default");
    } else if context.grants.units.iter().any(Unit::is_gpu) {
        say("none: Slurm gives this job none, or they are not yours to open");
    }
    lines
}

/// MPI that programs get, and the reason. Empty if it was not requested.
fn host_mpi(context: &Context, found: Option<&Replacement>) -> Vec<String> {
    let mut lines = Vec::new();
    let asked = context.settings.mpi.as_ref().map(Mpi::word).filter(|word| *word != Mpi::NONE);
    let (Some(asked), Some(found)) = (asked, found) else { return lines };
    let mut say = |line: &str| lines.push(line.to_owned());
    found.passed.iter().for_each(|why| say(&format!("not {why}")));
    let Some(Chosen { name, profile, fit }) = &found.chosen else {
        say(&format!("the image's own: {asked} finds no profile that fits"));
        return lines;
    };
    say(&format!("{name}, which fits"));
    for (file, Shown { soname, version, over, stays }) in profile.files().zip(&fit.shown) {
        if *stays {
            say(&format!("{} ({version}) is not needed: the image's {soname} is newer", file.display()));
            continue;
        }
        let covered: Vec<String> =
            over.iter().map(|over| format!("{} ({})", over.place.display(), over.version)).collect();
        let covered = if covered.is_empty() { "nothing of the image's".to_owned() } else { covered.join(", ") };
        say(&format!("{} ({version}) as {soname} in place of {covered}", file.display()));
    }
    let wanted = fit.from_image.iter().map(|(library, newest)| match newest {
        Some(newest) => format!("{library} ({newest})"),
        None => library.clone(),
    });
    fit.doubts.iter().for_each(|doubt| say(&format!("note: {doubt}")));
    say(&format!("of the image: {}", wanted.collect::<Vec<_>>().join(", ")));
    lines
}
