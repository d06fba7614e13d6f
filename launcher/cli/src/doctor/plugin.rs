//! Checks Slurm on this host, and the plugin in its configuration.
#![forbid(unsafe_code)]

use std::path::Path;

use coracle::report::Refusal;
use coracle::sys::{self, Release};
use coracle_launcher::config::{self, Config};
use coracle_launcher::place;

use super::Findings;
use super::ask::ask;
use crate::arguments::Role;
use coracle::spank::executes_itself_for_scripts;
use coracle_launcher::slurm::{self, Site};

/// First release in which an oci.conf does not disable the plugin.
const OCI_IGNORED: (u32, u32) = (23, 2);
/// Options that the plugin adds to the help of srun, with both prefixes.
const OPTIONS: [&str; 2] = ["--container-bind", "--coracle-bind"];
const LINE: &str = "required /usr/lib/coracle/spank_coracle.so";

/// Checks release, plugstack.conf, the plugin and its arguments, oci.conf and MPI.
pub fn look(findings: &mut Findings, config: &Config, settings: &Path, slurm: &Site) {
    let Some(directory) = &slurm.directory else {
        let hint = "slurm_client: {conf: DIRECTORY} in coracle.yaml, or SLURM_CONF, says where it is";
        return findings.error("slurm", "no slurm.conf is found on this host", hint);
    };
    findings.ok("slurm", directory.join("slurm.conf").display());
    let release = slurm.srun.as_deref().and_then(release);
    tested(findings, release);
    let loaded = line(findings, slurm);
    if loaded {
        arguments(findings, settings, slurm);
        loads(findings, slurm);
    }
    if directory.join("oci.conf").exists() {
        let text = format!("{}: Slurm takes --container for an OCI bundle", directory.join("oci.conf").display());
        match release {
            Some((release, _)) if release >= OCI_IGNORED => findings.warning("slurm", format!("{text} in batch jobs")),
            _ => findings.error("slurm", text, "remove it: with it no plugin is asked"),
        }
    }
    if findings.is(Role::Compute) {
        mpi(findings, config);
    }
}

/// Reads the release and the micro release from `srun --version`.
fn release(srun: &Path) -> Option<((u32, u32), u32)> {
    let answer = ask(srun, &["--version"])?;
    let word =
        answer.text.lines().find_map(|line| line.strip_prefix("slurm"))?.split_whitespace().next_back()?.to_owned();
    let mut numbers = word.split(['.', '-']).map_while(|number| number.parse().ok());
    Some(((numbers.next()?, numbers.next()?), numbers.next().unwrap_or(0)))
}

fn tested(findings: &mut Findings, release: Option<((u32, u32), u32)>) {
    let Some(((year, month), micro)) = release else {
        return findings.warning("slurm", "srun does not say its release");
    };
    let word = Release(year, month);
    match sys::tested().any(|tested| tested == word) {
        true => findings.ok("slurm", format!("release {word}.{micro}")),
        false => findings.error(
            "slurm",
            format!(
                "release {word}.{micro}: not one that Coracle runs on ({})",
                sys::tested().map(|release| release.to_string()).collect::<Vec<_>>().join(", ")
            ),
            "every srun fails with this plugin line",
        ),
    }
    if executes_itself_for_scripts(Some(word), Some(micro)) {
        findings.warning(
            "slurm",
            format!("release {word}.{micro} starts TaskProlog through slurmstepd; Coracle has it start them directly"),
        );
    }
}

/// Checks the plugin's line in plugstack.conf on this host.
fn line(findings: &mut Findings, slurm: &Site) -> bool {
    let plugstack = slurm.plugstack.as_deref().unwrap_or(Path::new("plugstack.conf"));
    let shown = plugstack.display();
    let Some(line) = slurm.lines.first() else {
        let cause = match plugstack.exists() {
            true => "no line loads spank_coracle.so",
            false => "not there, so nothing loads spank_coracle.so",
        };
        findings.error(
            "plugin",
            format!("{shown}: {cause}: jobs run on the bare node, whatever --container says"),
            LINE,
        );
        return false;
    };
    let file = line.file.display();
    if slurm.lines.len() > 1 {
        findings.error("plugin", format!("{shown}: {} lines load spank_coracle.so", slurm.lines.len()), "leave one");
    }
    match line.required {
        true => findings.ok("plugin", format!("{file}: required {}", line.plugin.display())),
        false => findings.error(
            "plugin",
            format!("{file}: optional: Slurm ignores what it refuses, and the job runs on the bare node"),
            LINE,
        ),
    }
    if slurm.configless && line.file != plugstack {
        findings.error(
            "plugin",
            format!("{file}: included, and a configless controller hands out {shown} only: jobs run on bare nodes"),
            "put the line into plugstack.conf itself",
        );
    }
    let Some(plugin) = &slurm.plugin else {
        findings.error("plugin", format!("{}: not in Slurm's PluginDir", line.plugin.display()), "name it by its path");
        return false;
    };
    match config::trust(plugin) {
        Ok(()) => findings.ok("plugin", plugin.display()),
        Err(error) => {
            findings.refusal("plugin", &Refusal::from(error));
            return plugin.exists();
        }
    }
    true
}

/// Compares launcher and settings of the line with those that doctor checks.
fn arguments(findings: &mut Findings, settings: &Path, slurm: &Site) {
    let launcher = Path::new(slurm.argument("launcher").unwrap_or("/usr/lib/coracle/coracle-launcher"));
    match config::trust(launcher) {
        Ok(()) => findings.ok("plugin", format!("launcher {}", launcher.display())),
        Err(error) => {
            let refusal = Refusal::from(error);
            let text = format!("launcher {}: {}: no container starts", refusal.object, refusal.cause);
            findings.error("plugin", text, "launcher=PATH behind the plugin says where it is");
        }
    }
    if let Err(error) = config::trust(&place::verifier()) {
        let refusal = Refusal::from(error);
        let text = format!("{}: {}: images that must be signed are refused", refusal.object, refusal.cause);
        findings.error("plugin", text, "it is installed with coracle: make install, or the package");
    }
    let named = Path::new(slurm.argument("config").unwrap_or("/etc/coracle/coracle.yaml"));
    if named != settings {
        findings.warning(
            "plugin",
            format!("the plugin reads {}, and this looks at {} (--config)", named.display(), settings.display()),
        );
    }
}

/// Checks that srun loads the plugin: its help then lists the plugin's options.
fn loads(findings: &mut Findings, slurm: &Site) {
    let Some(srun) = &slurm.srun else {
        let hint = "slurm_client: {bin: DIRECTORY} in coracle.yaml says where it is";
        return findings.lacks(Role::Submit, "plugin", "srun is not found, so the plugin is not tried", hint);
    };
    match ask(srun, &["--help"]) {
        Some(answer) if OPTIONS.iter().any(|option| answer.text.contains(option)) => {
            findings.ok("plugin", format!("{} --help has its options", srun.display()));
        }
        Some(answer) => {
            let cause = answer.text.lines().find(|line| line.contains("error")).unwrap_or("its options are not listed");
            let status = if answer.success { "" } else { " fails" };
            findings.error(
                "plugin",
                format!("{} --help{status}: {cause}", srun.display()),
                "does the plugin load in this Slurm?",
            );
        }
        None => findings.warning("plugin", format!("{} --help does not answer", srun.display())),
    }
}

fn mpi(findings: &mut Findings, config: &Config) {
    let offer = slurm::offer(Path::new("/"), &config.slurm_client, slurm::conf_from_environment().as_deref());
    match offer.types.iter().any(|word| word.starts_with("pmix")) {
        true => findings.ok("mpi", format!("srun --mpi={}", offer.types.join("|"))),
        false => findings.warning(
            "mpi",
            format!(
                "Slurm has no mpi/pmix here (srun --mpi={}): Open MPI in images does not start",
                offer.types.join("|")
            ),
        ),
    }
}
