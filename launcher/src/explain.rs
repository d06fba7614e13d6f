//! `coracle explain`: what a step, or a job script, would get on this node, from the very code that makes it.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use coracle::devices::Unit;
use coracle::mpi::Shown;
use coracle::policy::Reader;
use coracle::report::{Refusal, clean};
use coracle::request::{Mpi, Scope};
use coracle::sys;
use coracle::view::HELPER;
use coracle::wire::Here;
use nix::sys::stat::Mode;

use crate::alone::{self, Order};
use crate::command::Explain;
use crate::doctor;
use crate::grant::Provision;
use crate::host_mpi::Chosen;
use crate::mpi;
use crate::proxy::{Opened, Proxy};
use crate::slurm_client;
use crate::stages::{self, Authority, Run};
use crate::variables;

/// Prints image, verdict, plan and environment, each as soon as it is known: what is refused is refused last.
pub fn main(given: &Explain) -> Result<ExitCode, Refusal> {
    let mut raw = given.options.0.clone();
    alone::fill(&mut raw);
    let image = given.container.as_os_str();
    let order = Order { raw, image, config: &given.config, user: given.user.as_deref() };
    let (mut run, directory) = order.prepare()?;
    run.explains = true;
    if let (Some(Scope::Steps), true) = (run.settings.scope, given.script) {
        println!("scope   steps: the job script runs on the node");
        return Ok(ExitCode::SUCCESS);
    }
    let told = slurm_client::told();
    if given.script || given.ntasks == 1 {
        run.client = slurm_client::find(Path::new("/"), &run.config.slurm_client, told.as_deref(), Path::new(HELPER))?;
    }
    let deadline = Instant::now() + run.config.start_timeout.0;
    let mut proxy = Proxy::start(&run.identity, deadline)?;
    let mut opened = run.open(&proxy, &mut stages::at_once)?;
    println!("image   {}", clean(&run.path().display().to_string()));
    if opened.image.is_directory() {
        println!("holds   {}", opened.image);
    } else {
        println!("holds   {}, in {} bytes", opened.image, opened.length);
    }
    if let Some(digest) = opened.digest {
        println!("digest  {digest}");
    }
    let verdict = run.judge(&proxy, &mut opened, &mut stages::at_once)?;
    let reader = match verdict.reader {
        Reader::Kernel => "by the kernel",
        Reader::Fuse | Reader::Own => "by squashfuse_ll, as the user",
    };
    println!("policy  allowed by {}, read {reader}", verdict.rule);
    let grant = match run.authority {
        Authority::Root => verdict,
        Authority::Own => {
            alone::empower(&run)?;
            proxy = Proxy::start(&run.identity, deadline)?;
            // It has been hashed, if that was asked for.
            run.settings.digest = None;
            opened = Opened { digest: opened.digest, ..run.open(&proxy, &mut stages::at_once)? };
            run.judge_own(&opened)?
        }
    };
    let loaded = run.attach(&proxy, opened, grant)?;
    alone::set_home(&mut run, loaded.account.home.as_deref(), given.user.is_some());
    let slurmd = slurm_client::slurmd(Path::new("/"), &run.config.slurm_client, told.as_deref());
    run.files = stages::files(slurmd.as_ref(), &run.environment);
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    println!("start   {}", clean(&run.settings.workdir.as_ref().unwrap_or(&directory).display().to_string()));
    let container = run.build(&proxy, &loaded, &Here { directory, pmix: None }, None)?;
    show_gpus(&run);
    show_mpi(&run);
    let found = run.variables(Some(&loaded.opened), &container.namespace, None)?;
    if given.mpi {
        let offer = slurm_client::offer(Path::new("/"), &run.config.slurm_client, told.as_deref());
        let environment = found.applied_to(&run.environment)?;
        let (namespace, identity) = (&container.namespace, &run.identity);
        print!("\n{}", mpi::explain(&offer, &environment, namespace, identity, proxy.deadline())?);
        return Ok(ExitCode::SUCCESS);
    }
    print!("\n{}", container.plan);
    let listing = sys::read_whole(&found.listing, variables::MAX_LEN)
        .map_err(|error| Refusal::system("the container's environment", &error))?;
    print!("\n{}", String::from_utf8_lossy(&listing));
    found.notes.iter().for_each(|note| println!("\nnote    {}", clean(note)));
    Ok(ExitCode::SUCCESS)
}

/// Which GPUs the container has, and what of their driver; or why it has none.
fn show_gpus(run: &Run) {
    let say = |line: &str| println!("gpu     {}", clean(line));
    let Provision { devices, driver, .. } = &run.provision;
    for (files, vendor) in devices.gpus() {
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        say(&format!("{}: {}", vendor.word(), files.join(", ")));
    }
    if let Some(driver) = driver {
        say(&format!("driver {}", doctor::summary(driver)));
        driver.notes.iter().chain(&run.misfit).for_each(|note| say(&format!("note: {note}")));
    } else if run.settings.gpu == Some(false) {
        say("none: that was asked for, or is the site's default");
    } else if run.grants.units.iter().any(Unit::is_gpu) {
        say("none: Slurm gives this job none, or they are not yours to open");
    }
}

/// Whose MPI programs get, and why: nothing, if that was not asked.
fn show_mpi(run: &Run) {
    let asked = run.settings.mpi.as_ref().map(Mpi::word).filter(|word| *word != Mpi::NONE);
    let Some(asked) = asked else { return };
    let say = |line: &str| println!("mpi     {}", clean(line));
    let Some(found) = &run.mpi else { return };
    found.passed.iter().for_each(|why| say(&format!("not {why}")));
    let Some(Chosen { name, profile, fit }) = &found.chosen else {
        return say(&format!("the image's own: {asked} finds no profile that fits"));
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
}
