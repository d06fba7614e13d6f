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
use coracle_launcher::devices::Unit;
use coracle_launcher::mpi::Shown;
use coracle_launcher::policy::Reader;
use coracle_launcher::view::HELPER;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::arguments::Explain;
use crate::doctor;
use crate::document;
use coracle_launcher::children::opener::{Opened, Opener};
use coracle_launcher::container::environment;
use coracle_launcher::container::grants::Provision;
use coracle_launcher::container::host_mpi::Chosen;
use coracle_launcher::container::local::{self, LocalRequest};
use coracle_launcher::container::pipeline::{self, Authority, Run};
use coracle_launcher::slurm;

/// Prints image, image rule, plan and environment, each as soon as it is known. A refusal comes last.
pub fn main(given: &Explain) -> Result<ExitCode, Refusal> {
    let mut page = Page { kept: given.json.then(|| json!({})) };
    let mut raw = given.options.0.clone();
    local::fill_from_variables(&mut raw);
    let image = given.container.as_os_str();
    let request = LocalRequest { raw, image, config: &given.config, user: given.user.as_deref() };
    let (mut run, directory) = request.prepare()?;
    if let (Some(Scope::Steps), true) = (run.settings.scope, given.script) {
        page.line("scope", "scope", "steps", "steps: the job script runs on the node");
        page.end()?;
        return Ok(ExitCode::SUCCESS);
    }
    let told = slurm::conf_from_environment();
    if given.script || given.ntasks == 1 {
        run.client = slurm::find(Path::new("/"), &run.config.slurm_client, told.as_deref(), Path::new(HELPER))?;
    }
    let deadline = Instant::now() + run.config.start_timeout.0;
    let mut opener = Opener::start(&run.identity, deadline)?;
    let mut opened = run.open(&opener, &mut pipeline::admit_at_once)?;
    let path = run.path().display().to_string();
    page.line("image", "image", path.as_str(), &path);
    let holds = opened.image.to_string();
    if opened.image.is_directory() {
        page.line("holds", "holds", holds.as_str(), &holds);
    } else {
        page.line("holds", "holds", holds.as_str(), &format!("{holds}, in {} bytes", opened.length));
        page.keep("size", opened.length);
    }
    if let Some(digest) = opened.digest {
        page.line("digest", "digest", digest.to_string(), &digest.to_string());
    }
    let verdict = run.judge(&opener, &mut opened, &mut pipeline::admit_at_once)?;
    let reader = match verdict.reader {
        Reader::Kernel => "by the kernel",
        Reader::Fuse | Reader::Own => "by squashfuse_ll, as the user",
    };
    page.line("policy", "rule", verdict.rule.as_str(), &format!("allowed by {}, read {reader}", verdict.rule));
    run.explains = Some(verdict.reader);
    page.keep("reader", if verdict.reader == Reader::Kernel { "kernel" } else { "squashfuse" });
    let grant = match run.authority {
        Authority::Root => verdict,
        Authority::Own => {
            local::enter_user_namespace(&run)?;
            opener = Opener::start(&run.identity, deadline)?;
            // The file has been hashed by now, if that was requested.
            run.settings.digest = None;
            opened = Opened { digest: opened.digest, ..run.open(&opener, &mut pipeline::admit_at_once)? };
            run.judge_own(&opened)?
        }
    };
    let loaded = run.attach(&opener, opened, grant)?;
    local::set_home(&mut run, loaded.account.home.as_deref(), given.user.is_some());
    let slurmd = slurm::slurmd(Path::new("/"), &run.config.slurm_client, told.as_deref());
    run.files = pipeline::node_files(slurmd.as_ref(), &run.environment);
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let start = run.settings.workdir.as_ref().unwrap_or(&directory).display().to_string();
    page.line("start", "workdir", start.as_str(), &start);
    let container = run.build(&opener, &loaded, &Here { directory, pmix: None }, None)?;
    let owners = container.plan.owners;
    page.line("owners", "owners", owners.word(), owners.sentence());
    page.lines("gpu", gpus(&run));
    page.lines("mpi", host_mpi(&run));
    let found = run.evaluate_environment(Some(&loaded.opened), &container.namespace, None)?;
    if given.mpi {
        let offer = slurm::offer(Path::new("/"), &run.config.slurm_client, told.as_deref());
        let environment = found.applied_to(&run.environment)?;
        let (namespace, identity) = (&container.namespace, &run.identity);
        let report = mpi::explain(&offer, &environment, namespace, identity, opener.deadline())?;
        if page.kept.is_none() {
            print!("\n{report}");
        } else {
            let report = serde_json::to_value(report);
            page.keep("mpi_start", report.map_err(|error| Refusal::new(Kind::Internal, "json", error.to_string()))?);
            page.keep("notes", run.notes.clone());
        }
        page.end()?;
        return Ok(ExitCode::SUCCESS);
    }
    page.block("plan", &container.plan.to_string());
    let listing = sys::read_whole(&found.listing, environment::MAX_LEN)
        .map_err(|error| Refusal::system("the container's environment", &error))?;
    page.block("environment", &String::from_utf8_lossy(&listing));
    let notes: Vec<String> = run.notes.iter().chain(&found.notes).cloned().collect();
    if page.kept.is_none() {
        notes.iter().for_each(|note| {
            println!(
                "
note    {}",
                clean(note)
            )
        });
    }
    page.keep("notes", notes);
    page.end()?;
    Ok(ExitCode::SUCCESS)
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
fn gpus(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    let mut say = |line: &str| lines.push(line.to_owned());
    let Provision { devices, driver, .. } = &run.provision;
    for (files, vendor) in devices.gpus() {
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        say(&format!("{}: {}", vendor.word(), files.join(", ")));
    }
    if let Some(driver) = driver {
        say(&format!("driver {}", doctor::summary(driver)));
        driver.notes.iter().chain(&run.driver_note).for_each(|note| say(&format!("note: {note}")));
    } else if run.settings.gpu == Some(false) {
        say("none: that was asked for, or is the site's default");
    } else if run.grants.units.iter().any(Unit::is_gpu) {
        say("none: Slurm gives this job none, or they are not yours to open");
    }
    lines
}

/// MPI that programs get, and the reason. Empty if it was not requested.
fn host_mpi(run: &Run) -> Vec<String> {
    let mut lines = Vec::new();
    let asked = run.settings.mpi.as_ref().map(Mpi::word).filter(|word| *word != Mpi::NONE);
    let (Some(asked), Some(found)) = (asked, &run.mpi) else { return lines };
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
