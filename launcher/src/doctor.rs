//! `coracle doctor`: what this node has for containers, and what it lacks.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coracle::config::{self, Config};
use coracle::devices::{self, Driver, Vendor};
use coracle::report::{Refusal, clean};
use coracle::sys::{CgroupVersion, DeviceGroups};
use serde_json::{Value, json};

use crate::command::Doctor;
use crate::document;
use crate::grant::{Grants, Teller};
use crate::place;
use crate::slurm_client::{self, Slurmd};

/// Something that containers need is missing.
const BAD: u8 = 1;
/// The oldest kernel on which everything is tried (docs/decisions.md).
const OLDEST: (u32, u32) = (5, 14);
/// File systems of the kernel, and what is lost without them.
const FILE_SYSTEMS: [(&str, bool, &str); 3] = [
    ("squashfs", true, "SIF and squashfs images cannot be mounted"),
    ("overlay", true, "images without all mount points, and writable ones, cannot be run"),
    ("erofs", false, "EROFS images cannot be mounted"),
];

/// Findings, a line each.
#[derive(Default)]
struct Findings {
    bad: bool,
    /// Kept for one document, if that was asked for.
    kept: Option<Vec<Value>>,
}

impl Findings {
    fn good(&mut self, what: &str, found: impl Display) {
        self.say("good", what, found);
    }

    fn note(&mut self, what: &str, found: impl Display) {
        self.say("note", what, found);
    }

    fn bad(&mut self, what: &str, found: impl Display) {
        self.bad = true;
        self.say("bad", what, found);
    }

    fn say(&mut self, word: &str, what: &str, found: impl Display) {
        if let Some(kept) = &mut self.kept {
            kept.push(json!({ "level": word, "about": what, "text": found.to_string() }));
            return;
        }
        println!("{word:<4}  {what:<8}  {}", clean(&found.to_string()));
    }
}

/// Looks at everything, and says all of it.
pub fn main(given: &Doctor) -> Result<ExitCode, Refusal> {
    let mut findings = Findings { bad: false, kept: given.json.then(Vec::new) };
    kernel(&mut findings);
    let config = settings(&mut findings, &given.config);
    making(&mut findings);
    let told = slurm_client::told();
    let slurmd = slurm_client::slurmd(Path::new("/"), &config.slurm_client, told.as_deref());
    slurm(&mut findings, slurmd.as_ref());
    let grants = Grants::find(slurmd.as_ref(), &[], &Teller::Step { script: true, node: None });
    resources(&mut findings, &grants);
    confinement(&mut findings, &config, told.as_deref(), &grants);
    driver(&mut findings, &config, &grants);
    if let Some(kept) = findings.kept.take() {
        document::print(json!({ "verdict": if findings.bad { "bad" } else { "good" }, "findings": kept }))?;
    }
    Ok(ExitCode::from(if findings.bad { BAD } else { 0 }))
}

fn kernel(findings: &mut Findings) {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST => findings.good("kernel", &release),
        _ => findings.bad("kernel", format!("{release}: {}.{} is the oldest that works", OLDEST.0, OLDEST.1)),
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for (name, needed, loss) in FILE_SYSTEMS {
        let has = known.lines().any(|line| line.split_whitespace().next_back() == Some(name));
        match (has, needed) {
            (true, _) => findings.good("kernel", name),
            (false, true) => findings.bad("kernel", format!("{name} is not loaded: {loss} (modprobe {name})")),
            (false, false) => findings.note("kernel", format!("{name} is not loaded: {loss}")),
        }
    }
}

fn settings(findings: &mut Findings, path: &Path) -> Config {
    let shown = path.display();
    let helper = place::helper();
    match helper.is_file() {
        true => findings.good("coracle", helper.display()),
        false => findings.bad("coracle", format!("{}: not there: is Coracle installed as a whole?", helper.display())),
    }
    match Config::load(path) {
        Ok(config) if path.exists() => {
            findings.good("coracle", &shown);
            config
        }
        Ok(config) => {
            findings.note("coracle", format!("{shown}: not there, so only trusted and stored images run"));
            config
        }
        Err(config::Error::Read(_, cause)) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            findings.note("coracle", format!("{shown}: not for you to read; what follows is by the defaults"));
            Config::default()
        }
        Err(error) => {
            findings.bad("coracle", Refusal::from(error).line());
            Config::default()
        }
    }
}

/// Programs that `coracle build` and `coracle pull` need, which not every node has to have.
fn making(findings: &mut Findings) {
    for program in ["mksquashfs", "unsquashfs"] {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        match std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file()) {
            Some(path) => findings.good("images", path.display()),
            None => {
                findings.note("images", format!("{program} is not in PATH: no image can be made here (squashfs-tools)"))
            }
        }
    }
    let limit = std::fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if limit.trim() == "0" {
        let loss = "definition files cannot run commands here, and nobody but root has coracle run";
        findings.note("images", format!("sysctl user.max_user_namespaces is 0: {loss}"));
    }
}

fn slurm(findings: &mut Findings, slurmd: Option<&Slurmd>) {
    match slurmd.map(|slurmd| &slurmd.gres_types) {
        Some(types) if types.is_empty() => findings.good("slurm", "slurm.conf has no GresTypes"),
        Some(types) => findings.good("slurm", format!("slurm.conf has GresTypes={}", types.join(","))),
        None => findings.note("slurm", "no slurm.conf is found on this node"),
    }
}

/// Resources of Slurm, and those that the node has.
fn resources(findings: &mut Findings, grants: &Grants) {
    let nodes: BTreeSet<&Path> = grants.nodes().iter().map(|node| node.path.as_path()).collect();
    for unit in &grants.units {
        let missing: Vec<String> =
            unit.files.iter().filter(|file| !nodes.contains(file.as_path())).map(|file| shown(file)).collect();
        let files: Vec<String> = unit.files.iter().map(|file| shown(file)).collect();
        match missing.is_empty() {
            true => findings.good("gres", format!("{}: {}", unit.name, files.join(", "))),
            false => findings.bad("gres", format!("{}: gres.conf names {}: not there", unit.name, missing.join(", "))),
        }
    }
    let dealt = |path: &Path| grants.units.iter().any(|unit| unit.has(path));
    let detected = devices::detected(Path::new("/"), nodes.iter().copied());
    let others: Vec<String> =
        detected.iter().flat_map(|unit| &unit.files).filter(|file| !dealt(file)).map(|file| shown(file)).collect();
    if !others.is_empty() {
        let cause = "no generic resource of Slurm's, so no container shows them (devices: of coracle.yaml can)";
        findings.note("gres", format!("{}: {cause}", others.join(", ")));
    }
}

/// Who keeps steps from opening what they were not given.
fn confinement(findings: &mut Findings, config: &Config, told: Option<&Path>, grants: &Grants) {
    let version = match DeviceGroups::of(std::process::id()) {
        Ok(Some(groups)) if groups.version == CgroupVersion::One => "version 1",
        Ok(Some(_)) => "version 2",
        Ok(None) => "none",
        Err(error) => return findings.bad("cgroups", format!("of devices: {error}")),
    };
    if grants.units.is_empty() {
        return findings.good("cgroups", format!("of devices: {version}; Slurm gives no devices here"));
    }
    let constrains = slurm_client::constrains_devices(Path::new("/"), &config.slurm_client, told);
    match (version, constrains) {
        ("none", _) => findings.bad("cgroups", "none are mounted: only what /dev shows keeps devices apart"),
        (_, true) => findings.good("cgroups", format!("of devices: {version}; Slurm's rules (ConstrainDevices=yes)")),
        (_, false) => findings.note(
            "cgroups",
            format!("of devices: {version}; without ConstrainDevices=yes in cgroup.conf only tasks in containers are confined, by Coracle"),
        ),
    }
}

/// Files of the drivers of all the node's GPUs that programs get.
fn driver(findings: &mut Findings, config: &Config, grants: &Grants) {
    let files: Vec<PathBuf> =
        grants.units.iter().filter(|unit| unit.is_gpu()).flat_map(|unit| unit.files.iter().cloned()).collect();
    let vendors: BTreeSet<Vendor> = files.iter().filter_map(|file| Vendor::of(Path::new("/"), file)).collect();
    if vendors.is_empty() {
        return;
    }
    let words: Vec<&str> = vendors.iter().map(|vendor| vendor.word()).collect();
    match devices::find(&config.gpu, &vendors.into_iter().collect::<Vec<_>>(), &files) {
        Err(error) => findings.bad("driver", Refusal::from(error).line()),
        Ok(None) => findings.note("driver", "gpu.driver is none: images bring all of it"),
        Ok(Some(driver)) => {
            let found = format!("{}: {}", words.join(", "), summary(&driver));
            match driver.libraries.is_empty() && words.contains(&"NVIDIA") {
                true => findings.bad("driver", format!("{found}: is the driver installed, and does ldconfig know it?")),
                false => findings.good("driver", found),
            }
            driver.notes.iter().for_each(|note| findings.note("driver", note));
        }
    }
}

/// Contents of a driver, in one line.
pub fn summary(driver: &Driver) -> String {
    let from = match driver.found_in.is_empty() {
        true => "nothing found".to_owned(),
        false => format!("from {}", driver.found_in.join(", ")),
    };
    let counts =
        [(driver.libraries.len(), "libraries"), (driver.programs.len(), "programs"), (driver.files.len(), "files")];
    let counts: Vec<String> = counts.iter().map(|(count, what)| format!("{count} {what}")).collect();
    let glibc = driver.glibc.as_ref().map_or(String::new(), |version| format!(", images need {version}"));
    format!("{from}: {}{glibc}", counts.join(", "))
}

fn shown(file: &Path) -> String {
    file.display().to_string()
}
