//! Checks the devices that Slurm gives on this node, the confinement of steps to them, and the GPU driver.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use coracle::report::Refusal;
use coracle::sys::{CgroupVersion, DeviceGroups};
use coracle_launcher::config::Config;
use coracle_launcher::devices::{self, Driver, Vendor};

use super::Findings;
use coracle_launcher::container::grants::{GrantSource, Grants};
use coracle_launcher::slurm;

/// Checks generic resources, confinement and driver.
pub fn look(findings: &mut Findings, config: &Config, told: Option<&Path>) {
    let slurmd = slurm::slurmd(Path::new("/"), &config.slurm_client, told);
    slurm(findings, slurmd.as_ref());
    let grants = Grants::find(slurmd.as_ref(), &[], &GrantSource::Slurmstepd { script: true, node: None });
    resources(findings, &grants);
    confinement(findings, config, told, &grants);
    driver(findings, config, &grants);
}

fn slurm(findings: &mut Findings, slurmd: Option<&slurm::Slurmd>) {
    match slurmd.map(|slurmd| &slurmd.gres_types) {
        Some(types) if types.is_empty() => findings.ok("gres", "slurm.conf has no GresTypes"),
        Some(types) => findings.ok("gres", format!("slurm.conf has GresTypes={}", types.join(","))),
        None => findings.warning("gres", "no slurm.conf is found on this node"),
    }
}

/// Checks the generic resources and reports files of theirs that are missing.
fn resources(findings: &mut Findings, grants: &Grants) {
    let nodes: BTreeSet<&Path> = grants.nodes().iter().map(|node| node.path.as_path()).collect();
    for unit in &grants.units {
        let missing: Vec<String> =
            unit.files.iter().filter(|file| !nodes.contains(file.as_path())).map(|file| shown(file)).collect();
        let files: Vec<String> = unit.files.iter().map(|file| shown(file)).collect();
        match missing.is_empty() {
            true => findings.ok("gres", format!("{}: {}", unit.name, files.join(", "))),
            false => findings.error(
                "gres",
                format!("{}: gres.conf names {}: not there", unit.name, missing.join(", ")),
                "is the driver loaded?",
            ),
        }
    }
    let dealt = |path: &Path| grants.units.iter().any(|unit| unit.has(path));
    let detected = devices::detected(Path::new("/"), nodes.iter().copied());
    let others: Vec<String> =
        detected.iter().flat_map(|unit| &unit.files).filter(|file| !dealt(file)).map(|file| shown(file)).collect();
    if !others.is_empty() {
        let cause = "no generic resource of Slurm's, so no container shows them (devices: of coracle.yaml can)";
        findings.warning("gres", format!("{}: {cause}", others.join(", ")));
    }
}

/// Checks the confinement of steps to their devices.
fn confinement(findings: &mut Findings, config: &Config, told: Option<&Path>, grants: &Grants) {
    let version = match DeviceGroups::of(std::process::id()) {
        Ok(Some(groups)) if groups.version == CgroupVersion::One => "version 1",
        Ok(Some(_)) => "version 2",
        Ok(None) => "none",
        Err(error) => return findings.error("cgroups", format!("of devices: {error}"), ""),
    };
    if grants.units.is_empty() {
        return findings.ok("cgroups", format!("of devices: {version}; Slurm gives no devices here"));
    }
    let constrains = slurm::constrains_devices(Path::new("/"), &config.slurm_client, told);
    match (version, constrains) {
        ("none", _) => findings.error("cgroups", "none are mounted: only what /dev shows keeps devices apart", ""),
        (_, true) => findings.ok("cgroups", format!("of devices: {version}; Slurm's rules (ConstrainDevices=yes)")),
        (_, false) => findings.warning(
            "cgroups",
            format!("of devices: {version}; without ConstrainDevices=yes in cgroup.conf only tasks in containers are confined, by Coracle"),
        ),
    }
}

/// Checks the driver of the node's GPUs.
fn driver(findings: &mut Findings, config: &Config, grants: &Grants) {
    let files: Vec<PathBuf> =
        grants.units.iter().filter(|unit| unit.is_gpu()).flat_map(|unit| unit.files.iter().cloned()).collect();
    let vendors: BTreeSet<Vendor> = files.iter().filter_map(|file| Vendor::of(Path::new("/"), file)).collect();
    if vendors.is_empty() {
        return;
    }
    let words: Vec<&str> = vendors.iter().map(|vendor| vendor.word()).collect();
    match devices::find(&config.gpu, &vendors.into_iter().collect::<Vec<_>>(), &files) {
        Err(error) => findings.refusal("driver", &Refusal::from(error)),
        Ok(None) => findings.warning("driver", "gpu.driver is none: images bring all of it"),
        Ok(Some(driver)) => {
            let found = format!("{}: {}", words.join(", "), summary(&driver));
            match driver.libraries.is_empty() && words.contains(&"NVIDIA") {
                true => findings.error("driver", found, "is the driver installed, and does ldconfig know it?"),
                false => findings.ok("driver", found),
            }
            driver.notes.iter().for_each(|note| findings.warning("driver", note));
        }
    }
}

/// Summary of a driver, in one line.
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
