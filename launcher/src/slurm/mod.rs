//! Describes the files that the node's Slurm commands need in an image without Slurm.
//!
//! The image may have another loader and other libraries, or none. So the node's directories of programs and libraries
//! are mounted below [`HOST`], and `coracle-inside` starts each command with the node's loader from there. Files that
//! the commands open by absolute path (slurm.conf, plugins, munge's socket) are mounted at that path.
//!
//! This module mounts nothing and starts no program. It only describes the mounts, from a few dozen lookups in
//! directories of the node, because each start of a step needs them.
#![forbid(unsafe_code)]

mod beside;
pub mod conf;
mod mpi;
pub mod node;
mod program;
mod remembered;
mod seen;
mod site;
mod slurmd;
mod step;

use std::fmt::Write;
use std::io::{self, BufRead};
use std::path::{Component, Path, PathBuf};

use crate::config::{Absolute, ClientPaths, SlurmClient};
use coracle::report::{Kind, Refusal};

use crate::view::{COMMANDS as BIN, Client, ClientBind as Bind, ClientLink as Link, HOST};

use conf::Conf;
use node::Node;
use program::Program;

pub use mpi::{Offer, offer};
pub use site::{Site, site};
pub use slurmd::{Slurmd, constrains_devices, slurmd};
pub use step::StepSlurm;

/// Invalid path in coracle.yaml. A usual path that does not exist is no error.
#[derive(Debug)]
pub enum Error {
    /// The directory does not exist, or lacks the file that identifies it.
    Lacks {
        /// Key below `slurm_client`.
        key: &'static str,
        /// The directory.
        directory: PathBuf,
        /// Expected content.
        what: &'static str,
    },
    /// A loader cannot start this srun.
    Program(PathBuf, io::Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let refuse = |key, cause| Self::new(Kind::Config, format!("slurm_client.{key}"), cause);
        match error {
            Error::Lacks { key, directory, what } => {
                refuse(key, format!("{} is not a directory with {what} on this node", directory.display()))
            }
            Error::Program(path, cause) => refuse("bin", format!("{}: {cause}", path.display())),
        }
    }
}

/// Commands of Slurm; those that the node has are linked.
const COMMANDS: &[&str] = &[
    "sacct", "sacctmgr", "salloc", "sattach", "sbatch", "sbcast", "scancel", "scontrol", "scrontab", "sdiag", "sinfo",
    "sprio", "squeue", "sreport", "srun", "sshare", "sstat", "strigger",
];
/// Directories that are searched for srun.
const BINS: &[&str] = &[
    "/usr/bin",
    "/usr/local/bin",
    "/opt/slurm/bin",
    "/opt/slurm/current/bin",
    "/usr/local/slurm/bin",
    "/cm/shared/apps/slurm/current/bin",
];
/// Directories that an image has too, so those of the node are mounted below [`HOST`]. On a node with a merged /usr,
/// all but the first are symbolic links.
const TOPS: &[&str] = &["usr", "lib", "lib64", "bin", "sbin"];
/// Directories with so many files of an image that only a single file in them is mounted, not the directory.
const CROWDED: &[&str] =
    &["/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local/bin", "/usr/local/lib", "/usr/local/lib64"];
/// Sockets of auth/slurm: of slurmd or sackd, and of the controller (auth/slurm/sack.c).
const SACK_SOCKETS: [&str; 2] = ["/run/slurm/sack.socket", "/run/slurmctld/sack.socket"];
/// Slurm's plugins, one for each major version of PMIx.
const PMIX_PLUGINS: &[&str] = &["mpi_pmix_v5.so", "mpi_pmix_v4.so", "mpi_pmix_v3.so", "mpi_pmix_v2.so"];
/// A link to one of them, or the only plugin.
const PMIX_PLUGIN: &str = "mpi_pmix.so";

/// Describes the Slurm commands of the node below `root` ("/" except in tests); nothing if the site disables them or
/// the node has none.
///
/// `told` is slurmd's value of `SLURM_CONF`, if it is set, and `helper` the path of `coracle-inside` in the container.
pub fn find(root: &Path, settings: &SlurmClient, told: Option<&Path>, helper: &Path) -> Result<Option<Client>, Error> {
    find_on(&Node::new(root), settings, told, helper)
}

fn find_on(
    node: &Node<'_>,
    settings: &SlurmClient,
    told: Option<&Path>,
    helper: &Path,
) -> Result<Option<Client>, Error> {
    let SlurmClient::Shown(settings) = settings else { return Ok(None) };
    let Some((named, bin, program)) = find_commands(node, settings)? else { return Ok(None) };
    let Some(loader) = program.loader.as_ref().and_then(|loader| node.real(Path::new(loader))) else {
        return match &settings.bin {
            Some(Absolute(bin)) => {
                let cause = io::Error::new(io::ErrorKind::InvalidData, "a program without a loader");
                Err(Error::Program(bin.join("srun"), cause))
            }
            None => Ok(None),
        };
    };

    let mut shown = Shown::new(node);
    let prefix = bin.parent().unwrap_or(&bin);
    if !is_system(&bin) {
        // Compiled-in paths may go through a link such as /opt/slurm/current.
        if let Some(named) = named.parent().filter(|named| !is_system(named) && !is_crowded(named)) {
            shown.at_its_place(named);
        }
        shown.at_its_place(if prefix.components().count() > 2 { prefix } else { &bin });
    }

    let directory = find_conf(node, settings, told, || prefix.to_owned())?;
    let conf = directory.as_ref().map(|directory| Conf::read(node, directory)).unwrap_or_default();
    if let Some(directory) = &directory {
        shown.at_its_place(directory);
        // The path that slurmd sets as SLURM_CONF, and the target of a link in that directory.
        for real in [
            node.real(directory),
            node.real(&directory.join("slurm.conf")).and_then(|real| Some(real.parent()?.into())),
        ] {
            if let Some(real) = real.filter(|real| !is_crowded(real)) {
                shown.at_its_place(&real);
            }
        }
    }

    let run_path = run_path(&program, &bin);
    let plugins = find_plugins(node, settings, &conf, &run_path, prefix, &loader)?;
    for directory in &plugins {
        shown.at_its_place(directory);
    }
    let lines = conf.plugstack.as_deref().map(|file| conf::spank_lines(node, file)).unwrap_or_default();
    // plugstack.conf and its includes may be in other directories than slurm.conf, and the plugins in any directory.
    let stack = lines.iter().map(|line| line.file.clone());
    for file in stack.chain(lines.iter().filter_map(|line| line.found(node, &plugins))) {
        let directory = file.parent().unwrap_or(&file);
        shown.at_its_place(if is_crowded(directory) || loader.parent() == Some(directory) { &file } else { directory });
    }
    let munge = conf.auth_socket.as_deref().unwrap_or(Path::new("/run/munge/munge.socket.2"));
    let sockets = if conf.auth_slurm { SACK_SOCKETS.map(Path::new).to_vec() } else { vec![munge] };
    for directory in sockets.iter().filter_map(|socket| socket.parent()).filter(|directory| !is_crowded(directory)) {
        shown.at_its_place(directory);
    }
    for directory in &plugins {
        let generations = PMIX_PLUGINS.iter().filter(|name| shown.libpmix_of(&directory.join(name))).count();
        if generations == 0 {
            shown.libpmix_of(&directory.join(PMIX_PLUGIN));
        }
    }

    let mut libraries: Vec<PathBuf> = Vec::new();
    let wanted = loader.parent().map(Path::to_owned).into_iter().chain(run_path).chain(plugins);
    for directory in wanted.chain(settings.libraries.iter().map(|Absolute(directory)| directory.clone())) {
        libraries.extend(shown.anywhere(&directory));
    }
    // Directories that the node's loader searches: only those that are visible anyway.
    let mut known = [vec!["/usr/lib64".into(), "/lib64".into()], cached_directories(node)].concat();
    known.retain(|directory| loader.parent() != Some(directory));
    libraries.extend(known.iter().filter_map(|directory| shown.if_visible(&node.real_directory(directory)?)));

    let inside = (shown.anywhere(loader.parent().unwrap_or(&loader)), shown.anywhere(&bin));
    let (Some(loaders), Some(bin_inside)) = inside else { return Ok(None) };
    let launch = launch(&loaders, &loader, &libraries, &bin_inside);
    let mut links: Vec<Link> = TOPS
        .iter()
        .filter_map(|top| {
            let target = node.link(&Path::new("/").join(top)).filter(|target| target.is_relative())?;
            Some(Link { place: Path::new(HOST).join(top), target })
        })
        .collect();
    links.extend(
        COMMANDS
            .iter()
            .filter(|name| node.exists(&bin.join(name)))
            .map(|name| Link { place: Path::new(BIN).join(name), target: helper.to_owned() }),
    );
    Ok(launch.map(|launch| Client { binds: shown.binds, links, launch, epilog: String::new() }))
}

/// Path of one of the node's commands, even if containers do not show them.
pub fn command(settings: &SlurmClient, name: &str) -> Option<PathBuf> {
    let (_, bin, _) = find_commands(&Node::new(Path::new("/")), &settings.paths()).ok().flatten()?;
    Some(bin.join(name))
}

/// Path of slurm.conf in the environment of this process, which the user or slurmd has set.
pub fn conf_from_environment() -> Option<PathBuf> {
    std::env::var_os("SLURM_CONF").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Directory of srun as named and with links resolved, and the ELF data of that srun.
fn find_commands(node: &Node, settings: &ClientPaths) -> Result<Option<(PathBuf, PathBuf, Program)>, Error> {
    if let Some(Absolute(directory)) = &settings.bin {
        let lacks = Error::Lacks { key: "bin", directory: directory.clone(), what: "srun" };
        let (bin, program) = command_at(node, directory).ok_or(lacks)?;
        return match program {
            Ok(program) => Ok(Some((directory.clone(), bin, program))),
            Err(cause) => Err(Error::Program(directory.join("srun"), cause)),
        };
    }
    Ok(BINS.iter().map(Path::new).find_map(|directory| {
        let (bin, program) = command_at(node, directory)?;
        Some((directory.to_owned(), bin, program.ok()?))
    }))
}

/// Directory of the srun that `directory` leads to, and the ELF data of that srun.
fn command_at(node: &Node, directory: &Path) -> Option<(PathBuf, io::Result<Program>)> {
    let real = node.real(&directory.join("srun"))?;
    // A link with another name (a wrapper, alternatives) does not locate the other commands.
    let bin = if real.ends_with("srun") { real.parent()?.to_owned() } else { node.real_directory(directory)? };
    Some((bin, Program::read(&node.open(&real)?)))
}

/// Directory in which the Slurm of `commands` is installed.
fn prefix_of(commands: Option<&(PathBuf, PathBuf, Program)>) -> &Path {
    commands.and_then(|(_, bin, _)| bin.parent()).unwrap_or(Path::new("/usr"))
}

/// Directory of slurm.conf, as its readers spell it. `prefix` is called only if `told` leads to no file: otherwise a
/// step that shows no commands would read the file of srun for it.
fn find_conf(
    node: &Node,
    settings: &ClientPaths,
    told: Option<&Path>,
    prefix: impl FnOnce() -> PathBuf,
) -> Result<Option<PathBuf>, Error> {
    let right = |directory: &Path| node.exists(&directory.join("slurm.conf"));
    if let Some(Absolute(directory)) = &settings.conf {
        let lacks = || Error::Lacks { key: "conf", directory: directory.clone(), what: "slurm.conf" };
        return if right(directory) { Ok(Some(directory.clone())) } else { Err(lacks()) };
    }
    if let Some(directory) = told.and_then(Path::parent).filter(|directory| right(directory)) {
        return Ok(Some(directory.to_owned()));
    }
    let prefix = prefix();
    // For an srun in a directory of its own, /etc/slurm may belong to another Slurm.
    let own = [prefix.join("etc"), prefix.join("etc/slurm")];
    // The last is slurmd's copy of the controller's configuration.
    let usual = ["/etc/slurm".into(), "/run/slurm/conf".into()];
    Ok(own.into_iter().chain(usual).find(|directory| right(directory)))
}

/// PluginDir: as configured, else the first directory of RUNPATH or of the usual ones that has Slurm's plugins.
fn find_plugins(
    node: &Node,
    settings: &ClientPaths,
    conf: &Conf,
    run_path: &[PathBuf],
    prefix: &Path,
    loader: &Path,
) -> Result<Vec<PathBuf>, Error> {
    for Absolute(directory) in &settings.plugins {
        if node.real_directory(directory).is_none() {
            return Err(Error::Lacks { key: "plugins", directory: directory.clone(), what: "plugins of Slurm" });
        }
    }
    if !settings.plugins.is_empty() {
        return Ok(settings.plugins.iter().map(|Absolute(directory)| directory.clone()).collect());
    }
    if !conf.plugins.is_empty() {
        return Ok(conf.plugins.clone());
    }
    let libraries = loader.parent().unwrap_or(Path::new("/usr/lib"));
    let usual = [
        prefix.join("lib64/slurm"),
        prefix.join("lib/slurm"),
        libraries.join("slurm-wlm"),
        libraries.join("slurm"),
        "/usr/lib64/slurm".into(),
    ];
    let right =
        |directory: &PathBuf| ["auth_munge.so", "auth_slurm.so"].iter().any(|name| node.exists(&directory.join(name)));
    Ok(run_path.iter().cloned().chain(usual).find(right).into_iter().collect())
}

/// Directories of RUNPATH, with `$ORIGIN` expanded (ld.so(8)); those with other variables are omitted.
fn run_path(program: &Program, bin: &Path) -> Vec<PathBuf> {
    let list = program.run_path.as_deref().unwrap_or_default();
    let origin = bin.to_string_lossy();
    list.split(':')
        .map(|directory| directory.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
        .filter(|directory| directory.starts_with('/') && !directory.contains('$'))
        .map(PathBuf::from)
        .collect()
}

/// Directories of /etc/ld.so.conf and the files in /etc/ld.so.conf.d (ldconfig(8)).
fn cached_directories(node: &Node) -> Vec<PathBuf> {
    let files = [vec![PathBuf::from("/etc/ld.so.conf")], node.glob(Path::new("/etc/ld.so.conf.d/*.conf"))].concat();
    let texts: Vec<String> = files.iter().filter_map(|file| node.text(file)).collect();
    texts
        .iter()
        .flat_map(|text| text.lines())
        .map(str::trim)
        .filter(|line| line.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

/// Text of [`crate::view::LAUNCH`]; nothing if a path cannot be written there.
fn launch(loaders: &Path, loader: &Path, libraries: &[PathBuf], bin: &Path) -> Option<String> {
    let plain = |path: &Path| path.to_str().filter(|path| !path.contains([':', ';', '\n'])).map(str::to_owned);
    let name = loader.file_name()?.to_str()?;
    let mut list: Vec<String> = Vec::new();
    for directory in libraries.iter().filter_map(|directory| plain(directory)) {
        if !list.contains(&directory) {
            list.push(directory);
        }
    }
    let mut text = String::new();
    writeln!(text, "loader={}/{name}", plain(loaders)?).ok()?;
    writeln!(text, "library_path={}", list.join(":")).ok()?;
    writeln!(text, "bin={}", plain(bin)?).ok()?;
    if knows_argv0(name) {
        writeln!(text, "argv0=yes").ok()?;
    }
    Some(text)
}

/// True if the loader with this real name knows `--argv0`, which exists since glibc 2.33. Up to that version, the real
/// name is ld-VERSION.so; since 2.34, it is the name that programs contain.
fn knows_argv0(name: &str) -> bool {
    let version = name.strip_prefix("ld-2.").and_then(|rest| rest.split('.').next());
    version.is_none_or(|minor| minor.parse().is_ok_and(|minor: u32| minor >= 33))
}

/// True if the node's `path` is in a directory that each image has, too.
fn is_system(path: &Path) -> bool {
    path.components().nth(1).is_some_and(|top| TOPS.iter().any(|name| top == Component::Normal(name.as_ref())))
}

/// True if a mount of the directory `path` at its own path would hide too much of an image.
fn is_crowded(path: &Path) -> bool {
    path.components().count() <= 2 || CROWDED.iter().any(|directory| path == Path::new(directory))
}

/// Mounts of the container so far.
struct Shown<'a> {
    node: &'a Node<'a>,
    binds: Vec<Bind>,
}

impl<'a> Shown<'a> {
    fn new(node: &'a Node<'a>) -> Self {
        Self { node, binds: Vec::new() }
    }

    /// Mounts a directory or file at its path on the node, if it exists.
    fn at_its_place(&mut self, path: &Path) {
        if self.is_at_its_place(path) {
            return;
        }
        if let Some(source) = self.node.real(path) {
            self.binds.push(Bind { source, target: path.to_owned(), unless_in_image: false });
        }
    }

    fn is_at_its_place(&self, path: &Path) -> bool {
        self.binds
            .iter()
            .any(|bind| !bind.unless_in_image && bind.target.is_absolute() && path.starts_with(&bind.target))
    }

    /// Path of a directory in the container: below [`HOST`], else at its own path.
    fn anywhere(&mut self, directory: &Path) -> Option<PathBuf> {
        let real = self.node.real_directory(directory)?;
        let top = Path::new("/").join(real.components().nth(1)?);
        if is_system(&real) && self.node.is_plain_directory(&top) {
            let target = below_host(&top);
            if !self.binds.iter().any(|bind| bind.target == target) {
                self.binds.push(Bind { source: top, target, unless_in_image: false });
            }
        } else if !is_crowded(&real) {
            self.at_its_place(&real);
        }
        self.if_visible(&real)
    }

    /// Path of the real directory in the container, if it is visible.
    fn if_visible(&self, real: &Path) -> Option<PathBuf> {
        let below = below_host(real);
        if self.binds.iter().any(|bind| below.starts_with(&bind.target)) {
            return Some(below);
        }
        self.is_at_its_place(real).then(|| real.to_owned())
    }

    /// Mounts the library that one of Slurm's PMIx plugins opens, unless the image has that file, because the image
    /// then needs its own. False if there is no such plugin.
    fn libpmix_of(&mut self, plugin: &Path) -> bool {
        let Some(bytes) = self.node.bytes(plugin) else { return false };
        for target in pmix_libraries(&bytes) {
            if !self.node.exists(&target) || self.is_at_its_place(&target) {
                continue;
            }
            if let Some(source) = self.node.real(&target) {
                self.binds.push(Bind { source, target, unless_in_image: true });
                break;
            }
        }
        true
    }
}

/// Strings of a program that begin with `/` and have no blank or other character that is unusual in a path.
fn absolute_paths(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let mut place = 0_usize;
    std::iter::from_fn(move || {
        loop {
            // A program has few slashes, and skip_until searches many bytes at a time.
            let skipped = bytes.get(place..)?.skip_until(b'/').ok()?;
            let slash = place.checked_add(skipped)?.checked_sub(1)?;
            if skipped == 0 {
                return None;
            }
            place = place.checked_add(skipped)?;
            let behind_nul = slash.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&0);
            let text = bytes.get(slash..)?.split(|byte| *byte == 0).next()?;
            if behind_nul && text.len() > 1 && text.iter().all(u8::is_ascii_graphic) {
                return str::from_utf8(text).ok();
            }
        }
    })
}

/// Libraries that a PMIx plugin of Slurm may open. The plugin contains the directory, or has it in its RUNPATH if Slurm
/// was built with one (x_ac_pmix.m4). It also contains the file name, which is `libpmix.so.2` since 23.11 and
/// `libpmix.so` before (mpi_pmix.c, `_libpmix_open`).
fn pmix_libraries(plugin: &[u8]) -> impl Iterator<Item = PathBuf> {
    const FILE: &[u8] = b"libpmix.so";
    let found = plugin.windows(FILE.len()).position(|text| text == FILE);
    let text = found.and_then(|at| plugin.get(at..)?.split(|byte| *byte == 0).next());
    let name = text.and_then(|text| str::from_utf8(text).ok()).unwrap_or("libpmix.so").to_owned();
    let directories = absolute_paths(plugin).flat_map(|list| list.split(':')).filter(|path| path.starts_with('/'));
    directories.map(move |directory| Path::new(directory).join(&name))
}

/// Path of the node's `path` below [`HOST`].
fn below_host(path: &Path) -> PathBuf {
    Path::new(HOST).join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests;
