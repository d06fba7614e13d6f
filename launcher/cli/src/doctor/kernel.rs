//! Checks the kernel of this host, and the programs of other packages that containers need.
#![forbid(unsafe_code)]

use std::path::Path;

use coracle_launcher::config::{Config, UserImages};
use coracle_launcher::policy::Reader;

use super::Findings;
use crate::arguments::Role;
use coracle_launcher::apply::fuse;
use coracle_launcher::apply::kernel;
use coracle_launcher::container::userns;

/// Oldest kernel that is tested (docs/decisions.md).
const OLDEST: (u32, u32) = (5, 14);
/// File systems of the kernel, and the function that is missing without them.
const FILE_SYSTEMS: [(&str, bool, &str); 3] = [
    ("squashfs", true, "SIF and squashfs images cannot be mounted"),
    ("overlay", true, "images without all mount points, and writable ones, cannot be run"),
    ("erofs", false, "EROFS images cannot be mounted"),
];
/// Programs that make images, and their packages.
const MAKERS: [(&str, &str, &str); 4] = [
    ("mksquashfs", "squashfs-tools", "no image can be made here"),
    ("unsquashfs", "squashfs-tools", "no image can be made of another here"),
    ("newuidmap", "uidmap", "definition files see root as the only user"),
    ("newgidmap", "uidmap", "definition files see root as the only group"),
];

/// Checks the kernel and the programs that read images.
pub fn look(findings: &mut Findings, config: &Config) {
    release(findings);
    let compute = findings.is(Role::Compute);
    if compute {
        file_systems(findings);
        loop_devices(findings);
    }
    let fuse = users_images_by_fuse(config);
    if compute && fuse || findings.is(Role::Login) {
        fuse_device(findings);
        let reader = if compute && fuse { Reader::Fuse } else { Reader::Own };
        match fuse::Program::find(config, reader) {
            Ok(program) => findings.ok("fuse", program.path().display()),
            Err(refusal) => findings.refusal("fuse", &refusal),
        }
    }
    if findings.is(Role::Login) {
        match userns::forbidden() {
            Some(cause) => findings.error("userns", cause, "nobody but root has coracle exec, run and shell here"),
            None => findings.ok("userns", "users may have user namespaces"),
        }
        making(findings);
    }
}

fn release(findings: &mut Findings) {
    let release = kernel::release();
    match kernel::version() {
        version if version >= kernel::SQUASHFS_MAPPED => findings.ok("kernel", &release),
        version if version >= OLDEST => {
            findings.ok("kernel", &release);
            let text = "in jobs, files of root in a squashfs stay root's: Linux 6.2 shows them as the user's";
            findings.warning("kernel", text);
        }
        _ => findings.lacks(
            Role::Compute,
            "kernel",
            format!("{release}: {}.{} is the oldest that works", OLDEST.0, OLDEST.1),
            "",
        ),
    }
}

/// Checks the file systems. The kernel loads a module at mount(2) if it has one.
fn file_systems(findings: &mut Findings) {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let modules = Path::new("/lib/modules").join(kernel::release()).join("modules.dep");
    let modules = std::fs::read_to_string(modules).unwrap_or_default();
    for (name, needed, loss) in FILE_SYSTEMS {
        let loaded = known.lines().any(|line| line.split_whitespace().next_back() == Some(name));
        let module = modules.lines().any(|line| {
            let file = line.split(':').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
            file.split('.').next() == Some(name)
        });
        match (loaded, module, needed) {
            (true, ..) => findings.ok("kernel", name),
            (false, true, _) => findings.ok("kernel", format!("{name} (a module that is not loaded yet)")),
            (false, false, true) => {
                findings.error("kernel", format!("{name}: not in this kernel: {loss}"), &format!("modprobe {name}"));
            }
            (false, false, false) => findings.warning("kernel", format!("{name}: not in this kernel: {loss}")),
        }
    }
}

fn loop_devices(findings: &mut Findings) {
    match Path::new("/dev/loop-control").exists() {
        true => findings.ok("kernel", "/dev/loop-control"),
        false => findings.error(
            "kernel",
            "/dev/loop-control: not there: no image file can be mounted",
            "modprobe loop, and list it in /etc/modules-load.d",
        ),
    }
}

/// True if a rule has user images read by squashfuse_ll.
pub fn users_images_by_fuse(config: &Config) -> bool {
    let scopes = [&config.partitions, &config.accounts, &config.qos, &config.users, &config.groups];
    let rules = scopes.into_iter().flat_map(|scope| scope.0.iter().map(|(_, rule)| rule.user_images));
    rules.chain([config.user_images]).any(|said| said == Some(UserImages::Fuse))
}

/// Checks /dev/fuse. Root opens it for steps; users open it themselves outside of jobs.
fn fuse_device(findings: &mut Findings) {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let path = "/dev/fuse";
    let hint = "modprobe fuse, and list it in /etc/modules-load.d";
    match std::fs::metadata(path) {
        Ok(found) if !found.file_type().is_char_device() => findings.error("fuse", format!("{path}: no device"), hint),
        Ok(found) if found.mode() & 0o006 != 0o006 && findings.is(Role::Login) => findings.error(
            "fuse",
            format!(
                "{path}: mode {:04o}: users cannot open it, and coracle exec, run and shell need it",
                found.mode() & 0o7777
            ),
            "a udev rule with MODE=\"0666\"",
        ),
        Ok(_) => match std::fs::File::options().read(true).write(true).open(path) {
            Ok(_) => findings.ok("fuse", path),
            Err(cause) => findings.error("fuse", format!("{path}: {cause}"), hint),
        },
        Err(cause) => findings.error("fuse", format!("{path}: {cause}"), hint),
    }
}

/// Checks the programs that `coracle build` and `coracle pull` need.
fn making(findings: &mut Findings) {
    for (program, package, loss) in MAKERS {
        let directories = std::env::var_os("PATH").unwrap_or_default();
        match std::env::split_paths(&directories).map(|directory| directory.join(program)).find(|path| path.is_file()) {
            Some(path) => findings.ok("images", path.display()),
            None => findings.warning("images", format!("{program}: not in PATH: {loss} (package {package})")),
        }
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        let ranges =
            std::fs::read_to_string(file).unwrap_or_default().lines().filter(|line| line.contains(':')).count();
        match ranges {
            0 => findings.warning("images", format!("{file}: no ranges: definition files see root as the only user")),
            _ => findings.ok("images", format!("{file}: {ranges} range(s)")),
        }
    }
}
