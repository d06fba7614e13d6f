//! Runs `coracle config check`: checks coracle.yaml, and shows the lines that decide for a user, job and image.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coracle::options::RawOptions;
use coracle::report::{Kind, Refusal, clean};
use coracle_launcher::config::{self, Config, Scope, place_of};
use coracle_launcher::elf::{self, Library, Root};
use coracle_launcher::mpi;
use coracle_launcher::policy::{Bare, Job, bare};
use nix::unistd::{Group, User};
use serde_json::json;

use crate::arguments::Check;
use crate::doctor::{self, Fault, Level};
use crate::document;
use coracle_launcher::children::opener::Opener;
use coracle_launcher::container::clock::Clock;
use coracle_launcher::container::job_facts;
use coracle_launcher::container::judge::JudgedImage;
use coracle_launcher::container::local::{LocalRequest, LocalRun, resolve_identity};
use coracle_launcher::container::open::OpenImage;
use coracle_launcher::container::resolve::{Resolved, admit_at_once};
use coracle_launcher::slurm;

/// Exit status for a fault of the file, or of the image; it is reported on standard error.
const BAD: u8 = 1;
/// Time limit for the user database.
const PATIENCE: Duration = Duration::from_secs(20);

/// Checks the file, and shows what the options request.
pub fn main(given: &Check) -> Result<ExitCode, Refusal> {
    let path = given.file.as_path();
    let (text, config) = match Config::text(path).and_then(|text| Ok((Config::parse(path, &text)?, text))) {
        Ok((config, text)) => (text, config),
        Err(error) => {
            let line = Refusal::from(error).line();
            eprintln!("{line}");
            if given.json {
                document::print(json!({ "file": path.to_string_lossy(), "verdict": "bad", "error": line }))?;
            }
            return Ok(ExitCode::from(BAD));
        }
    };
    if given.json {
        return show_json(given, &config, &text);
    }
    let shown = path.display();
    let (faults, bad) = faults(path, &config);
    for fault in &faults {
        let place = fault.place(&text).map_or(String::new(), |(line, column)| format!(":{line}:{column}"));
        eprintln!("{}", clean(&format!("coracle: {}: {shown}{place}: {}", fault.level.word(), fault.text)));
        if !fault.hint.is_empty() {
            eprintln!("{}", clean(&format!("coracle: hint: {}", fault.hint)));
        }
    }
    for (scope, name) in unknown_names(&config) {
        let place = place_of(&text, &[scope, name]).map_or(String::new(), |(line, column)| format!(":{line}:{column}"));
        let what = scope.trim_end_matches('s');
        warn(&Refusal::new(
            Kind::Config,
            format!("{shown}{place}"),
            format!("{scope}.{name}: no such {what} on this node"),
        ));
    }
    show_profiles(&config, &text, &shown.to_string());
    if given.asks() {
        let allowed = show(given, &config, &text)?;
        return Ok(ExitCode::from(if bad || !allowed { BAD } else { 0 }));
    }
    if !bad {
        println!("{shown}: good");
    }
    Ok(ExitCode::from(if bad { BAD } else { 0 }))
}

/// Finds faults of the settings on this host. The bool is true if container starts here read the file, which the
/// plugin's line names; any other file is a draft.
fn faults(path: &Path, config: &Config) -> (Vec<Fault>, bool) {
    let slurm = slurm::site(Path::new("/"), &config.slurm_client, slurm::conf_from_environment().as_deref());
    let named = slurm.argument("config").map_or(Path::new(config::PATH), Path::new);
    let faults = doctor::faults(path, config, &slurm, path == named);
    let bad = faults.iter().any(|fault| fault.level == Level::Error);
    (faults, bad)
}

/// Shows each profile of MPI, and what images must have for it.
fn show_profiles(config: &Config, text: &str, shown: &str) {
    let node = match Root::node() {
        Ok(node) => node,
        Err(error) => return warn(&Refusal::system("/", &error)),
    };
    for (name, profile) in &config.mpi.0 {
        let name = name.word();
        let place = place_of(text, &["mpi", name]).map_or(String::new(), |(line, column)| format!(":{line}:{column}"));
        let fault = |cause: String| {
            warn(&Refusal::new(Kind::Config, format!("{shown}{place}"), format!("mpi.{name}: {cause}")));
        };
        let files = match mpi::needs(profile, &node) {
            Ok(files) => files,
            Err(driver_note) => {
                fault(driver_note.to_string());
                continue;
            }
        };
        for directory in profile.folders.iter().filter(|directory| !directory.source.0.is_dir()) {
            fault(format!("{} is no directory on this node", directory.source));
        }
        let (mut glibc, mut others): (Vec<&str>, BTreeSet<&str>) = (Vec::new(), BTreeSet::new());
        for file in &files {
            println!("mpi.{name}: {} is {} ({})", file.file.display(), file.soname, file.version);
            glibc.extend(file.library.wanted.iter().flat_map(|wanted| wanted.versions.iter().map(String::as_str)));
            others.extend(file.from_image(&files).filter(|needed| !elf::is_glibc(needed)));
        }
        for directory in &profile.folders {
            let wanted = wanted_below(&node, &directory.source.0, COMPONENTS);
            let wanted = wanted.into_iter().filter(|needed| !elf::is_glibc(needed));
            let known = |needed: &str| others.contains(needed) || files.iter().any(|file| file.soname == needed);
            let more: Vec<String> = wanted.filter(|needed| !known(needed)).collect();
            if !more.is_empty() {
                println!("mpi.{name}: components in {} need {}, too", directory.source, more.join(", "));
            }
        }
        let glibc = elf::newest(glibc.into_iter(), "GLIBC_").unwrap_or("any version");
        let others: Vec<&str> = others.into_iter().collect();
        let others = if others.is_empty() { String::new() } else { format!(", and {}", others.join(", ")) };
        println!("mpi.{name}: images must have glibc with {glibc}{others}");
    }
}

/// Depth of components in a profile's directories.
const COMPONENTS: usize = 3;

/// Libraries needed by those in a directory, down to `depth` levels.
fn wanted_below(node: &Root, directory: &Path, depth: usize) -> BTreeSet<String> {
    let mut wanted = BTreeSet::new();
    for name in node.names(directory).iter().filter(|name| name.ends_with(".so")) {
        if let Ok(Some(file)) = node.open(&directory.join(name)) {
            wanted.extend(Library::read(&file).map(|library| library.needed).unwrap_or_default());
        }
    }
    if depth > 1 {
        node.directories(directory).iter().for_each(|below| wanted.extend(wanted_below(node, below, depth - 1)));
    }
    wanted
}

/// Prints a fault that does not keep containers from starting here.
fn warn(refusal: &Refusal) {
    eprintln!("{}", clean(&format!("coracle: warning: {}: {}", refusal.object, refusal.cause)));
}

/// Names of a scope that are not numbers.
fn named(scope: &Scope) -> impl Iterator<Item = &str> {
    scope.0.iter().map(|(name, _)| name.as_str()).filter(|name| name.parse::<u32>().is_err())
}

/// Names that the node's user database does not have.
fn unknown_names(config: &Config) -> Vec<(&'static str, &str)> {
    let user = |name: &str| matches!(User::from_name(name), Ok(Some(_)));
    let group = |name: &str| matches!(Group::from_name(name), Ok(Some(_)));
    let users = named(&config.users).filter(|name| !user(name)).map(|name| ("users", name));
    let groups = named(&config.groups).filter(|name| !group(name)).map(|name| ("groups", name));
    users.chain(groups).collect()
}

/// Prints every rule that holds for the user and job, and the decision about the image: false if it is refused.
fn show(given: &Check, config: &Config, text: &str) -> Result<bool, Refusal> {
    let (identity, _) = resolve_identity(given.user.as_deref())?;
    let fact = |said: &Option<String>| Some(said.clone().unwrap_or_default());
    let job = Job { partition: fact(&given.partition), account: fact(&given.account), qos: fact(&given.qos) };
    let opener = Opener::start(&identity, Instant::now() + PATIENCE)?;
    let known = job_facts::resolve_policy(&opener, config, &identity, job.clone(), &[])?;
    let line = |rule: &str| {
        let keys: Vec<&str> = keys(rule);
        let place =
            place_of(text, &keys).map_or(String::new(), |(line, _)| format!(" ({}:{line})", given.file.display()));
        format!("{rule}{place}")
    };
    for (key, value, rule) in known.rules.lines() {
        println!("{key:15} {value:24} {}", rule.map_or("not said".to_owned(), line));
    }
    match bare(&known.rules) {
        Ok(Bare::Outside) => println!("\nwithout --container: on the node"),
        Ok(Bare::Default(request)) => println!("\nwithout --container: in {} (with defaults=on)", request.what),
        Err(refusal) => println!("\nwithout --container: refused (with defaults=on): {}", refusal.cause),
    }
    let Some(image) = &given.image else { return Ok(true) };
    drop(known);
    let run = prepare(given, image, config, job)?;
    match judge(&run, &opener) {
        Ok(judged) => {
            let grant = judged.grant();
            let rules: Vec<String> =
                grant.rule.split(',').map(|rule| line(rule.split('=').next().unwrap_or(rule))).collect();
            println!("{}: allowed by {} ({})", run.image, grant.rule, rules.join(", "));
            Ok(true)
        }
        Err(refusal) => {
            println!("{}: refused", run.image);
            eprintln!("{refusal}");
            Ok(false)
        }
    }
}

/// Prepares a container of the image, for a user and job of the options.
fn prepare(given: &Check, image: &OsStr, config: &Config, job: Job) -> Result<LocalRun, Refusal> {
    let request =
        LocalRequest { raw: RawOptions::default(), image, config: Path::new(""), user: given.user.as_deref() };
    request.prepare_for(config.clone(), job)
}

/// Decision of the site's policy about the image.
fn judge(run: &LocalRun, opener: &Opener) -> Result<JudgedImage, Refusal> {
    let clock = Clock::start();
    let policy = run.context.resolve_policy(opener)?;
    let resolved = Resolved::new(&run.context, &policy, opener, &clock)?;
    OpenImage::open(&resolved, &run.image, &mut admit_at_once)?.judge_as_step(&resolved, &mut admit_at_once)
}

/// Prints the same rules as one document.
fn show_json(given: &Check, config: &Config, text: &str) -> Result<ExitCode, Refusal> {
    let (faults, bad) = faults(&given.file, config);
    let faults = faults.iter().map(|fault| {
        let (level, line) = (fault.level.word(), fault.place(text).map(|(line, _)| line));
        json!({ "level": level, "key": fault.keys.join("."), "line": line, "text": fault.text, "hint": fault.hint })
    });
    let unknown: Vec<String> = unknown_names(config).iter().map(|(scope, name)| format!("{scope}.{name}")).collect();
    let mut said = json!({
        "file": given.file.to_string_lossy(),
        "verdict": if bad { "bad" } else { "good" },
        "error": null,
        "faults": faults.collect::<Vec<_>>(),
        "unknown_names": unknown,
    });
    let mut status = if bad { BAD } else { 0 };
    if given.asks() {
        let (identity, _) = resolve_identity(given.user.as_deref())?;
        let fact = |said: &Option<String>| Some(said.clone().unwrap_or_default());
        let job = Job { partition: fact(&given.partition), account: fact(&given.account), qos: fact(&given.qos) };
        let opener = Opener::start(&identity, Instant::now() + PATIENCE)?;
        let known = job_facts::resolve_policy(&opener, config, &identity, job.clone(), &[])?;
        let rules = known.rules.lines().into_iter().map(|(key, value, rule)| {
            let line = rule.and_then(|rule| place_of(text, &keys(rule))).map(|(line, _)| line);
            json!({ "key": key, "value": value, "rule": rule, "line": line })
        });
        said["rules"] = rules.collect();
        said["without_container"] = match bare(&known.rules) {
            Ok(Bare::Outside) => json!({ "runs": "node" }),
            Ok(Bare::Default(request)) => json!({ "runs": "container", "image": request.what.to_string() }),
            Err(refusal) => json!({ "runs": "nothing", "error": refusal.line() }),
        };
        drop(known);
        if let Some(image) = &given.image {
            let run = prepare(given, image, config, job)?;
            let verdict = judge(&run, &opener);
            status = if verdict.is_ok() { status } else { BAD };
            said["image"] = json!({
                "name": run.image.to_string(),
                "verdict": if verdict.is_ok() { "allowed" } else { "refused" },
                "rule": verdict.as_ref().ok().map(|judged| judged.grant().rule.clone()),
                "error": verdict.as_ref().err().map(Refusal::line),
            });
        }
    }
    document::print(said)?;
    Ok(ExitCode::from(status))
}

/// Keys of a line such as `partitions.gpu.signers` or `image_paths[0]`; names may contain dots.
fn keys(rule: &str) -> Vec<&str> {
    let rule = rule.split('[').next().unwrap_or(rule);
    match (rule.split_once('.'), rule.rsplit_once('.')) {
        (Some((scope, rest)), Some((_, key))) => {
            vec![scope, rest.strip_suffix(key).and_then(|name| name.strip_suffix('.')).unwrap_or(rest), key]
        }
        _ => vec![rule],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_line_are_found_whatever_its_name_is() {
        assert_eq!(keys("signers"), ["signers"]);
        assert_eq!(keys("image_paths[0]"), ["image_paths"]);
        assert_eq!(keys("users.a.b.signers"), ["users", "a.b", "signers"]);
    }
}
