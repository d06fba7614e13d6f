//! Runs `coracle doctor`: reports every reason why a container would not start on this host.
#![forbid(unsafe_code)]

mod ask;
mod gpu;
mod kernel;
mod plugin;
mod site;

use std::fmt::{self, Display};
use std::path::Path;
use std::process::ExitCode;

use coracle::report::{Refusal, clean};
use coracle_launcher::config::{self, Config};
use serde_json::{Value, json};

use crate::arguments::{Doctor, Role};
use crate::document;
use coracle_launcher::place;
use coracle_launcher::slurm;

pub use gpu::summary;
pub use site::{Fault, faults};

/// Exit status if there is an error.
const BAD: u8 = 1;

impl Role {
    /// Roles of this host, by the programs of Slurm that it runs or has.
    fn found(slurm: &slurm::Site) -> Vec<Self> {
        let mut roles = Vec::new();
        let running = ask::running();
        let runs = |name: &str| running.iter().any(|program| program == name);
        if runs("slurmctld") {
            roles.push(Self::Controller);
        }
        if runs("slurmd") {
            roles.push(Self::Compute);
        }
        if slurm.srun.is_some() {
            roles.push(Self::Submit);
        }
        if !roles.contains(&Self::Compute) && !roles.contains(&Self::Controller) {
            roles.push(Self::Login);
        }
        roles
    }

    fn word(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Submit => "submit",
            Self::Compute => "compute",
            Self::Controller => "controller",
        }
    }
}

/// Level of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// No fault.
    Ok,
    /// A function is missing, but containers start.
    Warning,
    /// Containers do not start, or a job would run without one.
    Error,
}

impl Level {
    /// Word for the level.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Findings, one line each.
pub struct Findings {
    /// Roles of this host.
    roles: Vec<Role>,
    bad: bool,
    /// True if only warnings and errors are printed.
    faults_only: bool,
    /// Findings kept for one JSON document, if requested.
    kept: Option<Vec<Value>>,
}

impl Findings {
    fn is(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    fn ok(&mut self, about: &str, text: impl Display) {
        self.say(Level::Ok, about, text, None);
    }

    fn warning(&mut self, about: &str, text: impl Display) {
        self.say(Level::Warning, about, text, None);
    }

    fn error(&mut self, about: &str, text: impl Display, hint: &str) {
        self.say(Level::Error, about, text, Some(hint));
    }

    /// Reports an error on hosts with this role, and a warning on others.
    fn lacks(&mut self, role: Role, about: &str, text: impl Display, hint: &str) {
        let level = if self.is(role) { Level::Error } else { Level::Warning };
        self.say(level, about, text, Some(hint));
    }

    fn refusal(&mut self, about: &str, refusal: &Refusal) {
        self.say(Level::Error, about, format!("{}: {}", refusal.object, refusal.cause), refusal.hint.as_deref());
    }

    fn say(&mut self, level: Level, about: &str, text: impl Display, hint: Option<&str>) {
        self.bad |= level == Level::Error;
        let hint = hint.filter(|hint| !hint.is_empty());
        if let Some(kept) = &mut self.kept {
            kept.push(json!({ "level": level.word(), "about": about, "text": text.to_string(), "hint": hint }));
            return;
        }
        if self.faults_only && level == Level::Ok {
            return;
        }
        println!("{:7}  {about:8}  {}", level.word(), clean(&text.to_string()));
        if let Some(hint) = hint {
            println!("{:7}  {:8}  hint: {}", "", "", clean(hint));
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// Checks everything and prints all findings.
pub fn main(given: &Doctor) -> Result<ExitCode, Refusal> {
    let told = slurm::conf_from_environment();
    let mut findings =
        Findings { roles: Vec::new(), bad: false, faults_only: given.faults, kept: given.json.then(Vec::new) };
    let config = read(&mut findings, &given.config);
    let slurm = slurm::site(Path::new("/"), &config.slurm_client, told.as_deref());
    findings.roles = match (given.node, given.role.is_empty()) {
        (true, _) => vec![Role::Compute],
        (false, true) => Role::found(&slurm),
        (false, false) => given.role.clone(),
    };
    let words: Vec<&str> = findings.roles.iter().map(|role| role.word()).collect();
    findings.ok("host", format!("{} ({})", host(), words.join(", ")));
    programs(&mut findings);
    kernel::look(&mut findings, &config);
    if findings.roles != [Role::Login] {
        plugin::look(&mut findings, &config, &given.config, &slurm);
    }
    site::look(&mut findings, &given.config, &config, &slurm);
    if findings.is(Role::Compute) {
        gpu::look(&mut findings, &config, told.as_deref());
    }
    if let Some(kept) = findings.kept.take() {
        let verdict = if findings.bad { "error" } else { "ok" };
        document::print(json!({ "verdict": verdict, "host": host(), "roles": words, "findings": kept }))?;
    }
    Ok(ExitCode::from(if findings.bad { BAD } else { 0 }))
}

fn host() -> String {
    nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads coracle.yaml. If it is missing or wrong, the other checks use the defaults.
fn read(findings: &mut Findings, path: &Path) -> Config {
    let shown = path.display();
    match Config::load(path) {
        Ok(config) if path.exists() => {
            findings.ok("config", &shown);
            config
        }
        Ok(config) => {
            findings.warning("config", format!("{shown}: not there, so only trusted and stored images run"));
            config
        }
        Err(config::Error::Read(_, cause)) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            findings.warning("config", format!("{shown}: not for you to read; the rest is by the defaults"));
            Config::default()
        }
        Err(error) => {
            findings.refusal("config", &Refusal::from(error));
            Config::default()
        }
    }
}

/// Checks Coracle's own programs.
fn programs(findings: &mut Findings) {
    for part in [place::helper(), place::images()] {
        match part.is_file() {
            true => findings.ok("coracle", part.display()),
            false => {
                findings.error("coracle", format!("{}: not there", part.display()), "is Coracle installed as a whole?")
            }
        }
    }
}
