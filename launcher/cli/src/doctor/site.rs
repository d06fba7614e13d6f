//! Finds faults of coracle.yaml on this host: settings that keep containers from starting, and rules without effect.
#![forbid(unsafe_code)]

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use coracle::report::Refusal;
use coracle_launcher::config::{self, Config, Owner, Rule, Scope};
use coracle_launcher::policy::Reader;
use nix::unistd::User;

use super::kernel::users_images_by_fuse;
use super::{Findings, Level};
use crate::arguments::Role;
use coracle_launcher::apply::fuse;
use coracle_launcher::slurm::Site;

/// Socket of the store's service.
const STORE_SOCKET: &str = "/run/coracle/store.sock";
/// UnkillableStepTimeout where slurm.conf has none, in seconds (slurm.conf(5)).
const UNKILLABLE: u64 = 60;

/// A fault of coracle.yaml on this host.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// [`Level::Error`] if no container starts.
    pub level: Level,
    /// Keys that cause the fault, for its line.
    pub keys: Vec<String>,
    /// Description of the fault.
    pub text: String,
    /// Hint: what to do.
    pub hint: String,
}

impl Fault {
    fn new(level: Level, keys: &[&str], text: String, hint: &str) -> Self {
        Self { level, keys: keys.iter().map(|key| (*key).to_owned()).collect(), text, hint: hint.to_owned() }
    }

    /// Line and column of the keys in the file's text.
    pub fn place(&self, text: &str) -> Option<(usize, usize)> {
        let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
        config::place_of(text, &keys)
    }
}

/// Finds the faults of `config`, read from `path`. `here` is true if container starts on this host read that file, and
/// false for a draft.
pub fn faults(path: &Path, config: &Config, slurm: &Site, here: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    if path.exists()
        && let Err(error) = config::trust(path)
    {
        let refusal = Refusal::from(error);
        let level = if here { Level::Error } else { Level::Warning };
        let text = format!("{}: {}: no container starts with this file", refusal.object, refusal.cause);
        faults.push(Fault::new(
            level,
            &[],
            text,
            "it and every directory above must be root's, and writable by nobody else",
        ));
    }
    nothing_runs(config, &mut faults);
    binds(config, &mut faults);
    audit(config, &mut faults);
    metrics(config, &mut faults);
    if users_images_by_fuse(config)
        && let Err(refusal) = fuse::Program::find(config, Reader::Fuse)
    {
        let text = format!("user_images is fuse, and {}: {}", refusal.object, refusal.cause);
        faults.push(Fault::new(Level::Error, &["user_images"], text, refusal.hint.as_deref().unwrap_or_default()));
    }
    without_effect(config, slurm, &mut faults);
    timeout(config, slurm, &mut faults);
    faults
}

/// Finds settings with which no image runs.
fn nothing_runs(config: &Config, faults: &mut Vec<Fault>) {
    let scopes = scopes(config);
    let said = scopes.iter().flat_map(|(_, scope)| &scope.0).any(|(_, rule)| rule.user_images.is_some());
    if config.user_images.is_none() && config.image_paths.is_empty() && !said {
        let text = "neither user_images nor image_paths is set: only stored images run".to_owned();
        faults.push(Fault::new(Level::Warning, &[], text, "user_images: kernel, fuse or deny"));
    }
    for (number, trusted) in config.image_paths.iter().enumerate() {
        if !trusted.path.0.is_dir() {
            let text = format!("image_paths: {}: no directory on this host", trusted.path);
            faults.push(Fault::new(Level::Warning, &["image_paths", &format!("[{number}]")], text, ""));
        }
    }
}

fn binds(config: &Config, faults: &mut Vec<Fault>) {
    for (number, bind) in config.binds.iter().enumerate() {
        if bind.required && !bind.source.0.exists() {
            let text = format!("binds: {}: not there, and required: no container starts", bind.source);
            faults.push(Fault::new(Level::Error, &["binds", &format!("[{number}]")], text, "required: false"));
        }
    }
}

/// Checks the files of records. A missing audit.file is no fault: the first record creates it.
fn audit(config: &Config, faults: &mut Vec<Fault>) {
    if let Some(Err(error)) = config.audit.users.directory().map(config::trust_directory) {
        let cause = Refusal::from(error);
        let text = format!("audit.users: {}: {}: users see no records of theirs", cause.object, cause.cause);
        faults.push(Fault::new(Level::Warning, &["audit", "users"], text, "a directory of root's, mode 0711"));
    }
    let Some(file) = &config.audit.file else { return };
    let cause = match file.0.parent().map(config::trust_directory) {
        None | Some(Ok(())) => match file.0.symlink_metadata() {
            Ok(_) => match config::trust(&file.0) {
                Ok(()) => return,
                Err(error) => Refusal::from(error),
            },
            Err(_) => return,
        },
        Some(Err(error)) => Refusal::from(error),
    };
    let (level, loss) = match config.audit.required {
        true => (Level::Error, "no container starts"),
        false => (Level::Warning, "records are lost"),
    };
    faults.push(unwritable(level, "audit", &cause, loss));
}

fn metrics(config: &Config, faults: &mut Vec<Fault>) {
    let directory = config.metrics.file.as_ref().and_then(|file| file.0.parent());
    if let Some(Err(error)) = directory.map(config::trust_directory) {
        faults.push(unwritable(Level::Warning, "metrics", &error.into(), "nothing is counted"));
    }
}

/// Fault of the file in `KEY.file`, which root refuses to write.
fn unwritable(level: Level, key: &str, cause: &Refusal, loss: &str) -> Fault {
    let text = format!("{key}.file: {}: {}: {loss}", cause.object, cause.cause);
    Fault::new(level, &[key, "file"], text, "a directory of root's that nobody else may write to")
}

/// Finds rules that need an argument or a second line in plugstack.conf.
fn without_effect(config: &Config, slurm: &Site, faults: &mut Vec<Fault>) {
    if slurm.lines.is_empty() {
        return;
    }
    let scopes = scopes(config);
    if !slurm.has_defaults() {
        let mut rules = vec![(vec![], config.default_image.is_some(), config.required.is_some())];
        for (name, scope) in &scopes {
            let rule = |(of, rule): &(String, Rule)| {
                (vec![(*name).to_owned(), of.clone()], rule.default_image.is_some(), rule.required.is_some())
            };
            rules.extend(scope.0.iter().map(rule));
        }
        for (of, default_image, required) in rules {
            for (key, _) in [("default_image", default_image), ("required", required)].iter().filter(|(_, said)| *said)
            {
                let keys = [of.as_slice(), &[(*key).to_owned()]].concat();
                let text = format!("{}: has no effect: the plugin's line lacks defaults=on", keys.join("."));
                let hint = "add defaults=on in plugstack.conf".to_owned();
                faults.push(Fault { level: Level::Warning, keys, text, hint });
            }
        }
    }
    if !slurm.has_facts() {
        for (name, scope) in &scopes[..3] {
            for (of, _) in &scope.0 {
                let text = format!(
                    "{name}.{of}: only as far as jobs say it themselves: the line of spank_coracle_facts.so with job_facts=prolog is missing"
                );
                faults.push(Fault::new(Level::Warning, &[name, of], text, "docs/admin/trust.md, \"Facts of jobs\""));
            }
        }
    }
}

fn timeout(config: &Config, slurm: &Site, faults: &mut Vec<Fault>) {
    if slurm.directory.is_none() {
        return;
    }
    let (ours, slurms) = (config.start_timeout.0.as_secs(), slurm.unkillable.unwrap_or(UNKILLABLE));
    if ours >= slurms {
        let text =
            format!("start_timeout: {ours} s, and UnkillableStepTimeout is {slurms} s: Slurm drains the node first");
        faults.push(Fault::new(
            Level::Error,
            &["start_timeout"],
            text,
            "a smaller start_timeout, or a larger UnkillableStepTimeout",
        ));
    }
}

fn scopes(config: &Config) -> [(&'static str, &Scope); 5] {
    [
        ("partitions", &config.partitions),
        ("accounts", &config.accounts),
        ("qos", &config.qos),
        ("users", &config.users),
        ("groups", &config.groups),
    ]
}

/// Reports the faults, and checks the store.
pub fn look(findings: &mut Findings, path: &Path, config: &Config, slurm: &Site) {
    let compute = findings.is(Role::Compute) || findings.is(Role::Submit);
    for fault in faults(path, config, slurm, true) {
        // Things that only nodes need may be missing on other hosts.
        let level = if compute { fault.level } else { Level::Warning };
        findings.say(level, "config", &fault.text, Some(&fault.hint));
    }
    store(findings, path, config);
}

fn store(findings: &mut Findings, path: &Path, config: &Config) {
    let said = std::fs::read_to_string(path).is_ok_and(|text| config::place_of(&text, &["store"]).is_some());
    if !said {
        return;
    }
    let directory = config.store.path();
    match directory.is_dir() {
        true => findings.ok("store", directory.display()),
        false => findings.error(
            "store",
            format!("{}: no directory on this host", directory.display()),
            "is it mounted here?",
        ),
    }
    if let Owner::Name(name) = &config.store.owner
        && !matches!(User::from_name(name), Ok(Some(_)))
    {
        findings.error("store", format!("store.owner: {name}: no such user on this host"), "systemd-sysusers makes it");
    }
    if findings.is(Role::Login) {
        match std::fs::metadata(STORE_SOCKET).is_ok_and(|found| found.file_type().is_socket()) {
            true => findings.ok("store", STORE_SOCKET),
            false => findings.error(
                "store",
                format!("{STORE_SOCKET}: not there"),
                "systemctl enable --now coracle-store.socket",
            ),
        }
    }
}
