//! Needs of the node's Slurm commands inside of an image that has nothing of theirs.
//!
//! The image's own loader and libraries may be others or none. So the node's folders of programs and libraries are
//! shown below [`HOST`], and `coracle-inside` starts each command with the node's loader from there. What the commands
//! open by absolute path (slurm.conf, plugins, munge's socket) is shown at that path.
//!
//! Nothing is mounted and no program is started here: the answer is a description, made of a few dozen lookups in
//! folders of the node, because it is wanted at the start of every step.
#![forbid(unsafe_code)]

mod beside;
mod conf;
mod mpi;
mod node;
mod program;
mod site;
mod slurmd;

use std::fmt::Write;
use std::io::{self, BufRead};
use std::path::{Component, Path, PathBuf};

use crate::config::{Absolute, ClientPaths, SlurmClient};
use coracle::report::{Kind, Refusal};

use crate::view::{COMMANDS as BIN, Client, ClientBind as Bind, ClientLink as Link, HOST};

use conf::Conf;
use node::Node;
use program::Program;

pub use beside::beside;
pub use mpi::{Offer, offer};
pub use site::{Site, site};
pub use slurmd::{Slurmd, constrains_devices, slurmd};

/// Statement of coracle.yaml that is not so. A path that is only looked for and not found is no error.
#[derive(Debug)]
pub enum Error {
    /// There is no such folder, or not with the file that makes it the right one.
    Lacks {
        /// The key below `slurm_client`.
        key: &'static str,
        /// The folder.
        folder: PathBuf,
        /// Thing that should be there.
        what: &'static str,
    },
    /// This srun cannot be started by a loader.
    Program(PathBuf, io::Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let refuse = |key, cause| Self::new(Kind::Config, format!("slurm_client.{key}"), cause);
        match error {
            Error::Lacks { key, folder, what } => {
                refuse(key, format!("{} is not a folder with {what} on this node", folder.display()))
            }
            Error::Program(path, cause) => refuse("bin", format!("{}: {cause}", path.display())),
        }
    }
}

/// The commands of Slurm; those that the node has are linked.
const COMMANDS: &[&str] = &[
    "sacct", "sacctmgr", "salloc", "sattach", "sbatch", "sbcast", "scancel", "scontrol", "scrontab", "sdiag", "sinfo",
    "sprio", "squeue", "sreport", "srun", "sshare", "sstat", "strigger",
];
/// Directories in which srun is looked for.
const BINS: &[&str] = &[
    "/usr/bin",
    "/usr/local/bin",
    "/opt/slurm/bin",
    "/opt/slurm/current/bin",
    "/usr/local/slurm/bin",
    "/cm/shared/apps/slurm/current/bin",
];
/// Folders that are an image's own, and therefore shown below [`HOST`]. On a node whose /usr is merged all but the
/// first are symbolic links.
const TOPS: &[&str] = &["usr", "lib", "lib64", "bin", "sbin"];
/// Folders with so much of an image that a single file of them is shown rather than the folder.
const CROWDED: &[&str] =
    &["/usr/bin", "/usr/lib", "/usr/lib64", "/usr/local/bin", "/usr/local/lib", "/usr/local/lib64"];
/// The sockets of auth/slurm: slurmd's or sackd's, and the controller's (auth/slurm/sack.c).
const SACK_SOCKETS: [&str; 2] = ["/run/slurm/sack.socket", "/run/slurmctld/sack.socket"];
/// Slurm's plugins for each generation of PMIx.
const PMIX_PLUGINS: &[&str] = &["mpi_pmix_v5.so", "mpi_pmix_v4.so", "mpi_pmix_v3.so", "mpi_pmix_v2.so"];
/// A link to one of them, or the only one.
const PMIX_PLUGIN: &str = "mpi_pmix.so";

/// Describes the Slurm commands of the node below `root` ("/", but in tests); nothing, if the site wants none or the
/// node has none.
///
/// `told` is the value of `SLURM_CONF` that slurmd has, if it has one, and `helper` the path of `coracle-inside` as it
/// is seen in the container.
pub fn find(root: &Path, settings: &SlurmClient, told: Option<&Path>, helper: &Path) -> Result<Option<Client>, Error> {
    let SlurmClient::Shown(settings) = settings else { return Ok(None) };
    let node = Node::new(root);
    let Some((named, bin, program)) = find_commands(&node, settings)? else { return Ok(None) };
    let Some(loader) = program.loader.as_ref().and_then(|loader| node.real(Path::new(loader))) else {
        return match &settings.bin {
            Some(Absolute(bin)) => {
                let cause = io::Error::new(io::ErrorKind::InvalidData, "a program without a loader");
                Err(Error::Program(bin.join("srun"), cause))
            }
            None => Ok(None),
        };
    };

    let mut shown = Shown::new(&node);
    let prefix = bin.parent().unwrap_or(&bin);
    if !is_system(&bin) {
        // What was compiled in may go through a link like /opt/slurm/current.
        if let Some(named) = named.parent().filter(|named| !is_system(named) && !is_crowded(named)) {
            shown.at_its_place(named);
        }
        shown.at_its_place(if prefix.components().count() > 2 { prefix } else { &bin });
    }

    let folder = find_conf(&node, settings, told, || prefix.to_owned())?;
    let conf = folder.as_ref().map(|folder| Conf::read(&node, folder)).unwrap_or_default();
    if let Some(folder) = &folder {
        shown.at_its_place(folder);
        // What slurmd has passed on as SLURM_CONF, and what a link in that folder leads to.
        for real in
            [node.real(folder), node.real(&folder.join("slurm.conf")).and_then(|real| Some(real.parent()?.into()))]
        {
            if let Some(real) = real.filter(|real| !is_crowded(real)) {
                shown.at_its_place(&real);
            }
        }
    }

    let run_path = run_path(&program, &bin);
    let plugins = find_plugins(&node, settings, &conf, &run_path, prefix, &loader)?;
    for folder in &plugins {
        shown.at_its_place(folder);
    }
    let lines = conf.plugstack.as_deref().map(|file| conf::spank_lines(&node, file)).unwrap_or_default();
    // plugstack.conf and what it includes may be in other directories than slurm.conf, and the plugins in any.
    let stack = lines.iter().map(|line| line.file.clone());
    for file in stack.chain(lines.iter().filter_map(|line| line.found(&node, &plugins))) {
        let folder = file.parent().unwrap_or(&file);
        shown.at_its_place(if is_crowded(folder) || loader.parent() == Some(folder) { &file } else { folder });
    }
    let munge = conf.auth_socket.as_deref().unwrap_or(Path::new("/run/munge/munge.socket.2"));
    let sockets = if conf.auth_slurm { SACK_SOCKETS.map(Path::new).to_vec() } else { vec![munge] };
    for directory in sockets.iter().filter_map(|socket| socket.parent()).filter(|directory| !is_crowded(directory)) {
        shown.at_its_place(directory);
    }
    for folder in &plugins {
        let generations = PMIX_PLUGINS.iter().filter(|name| shown.libpmix_of(&folder.join(name))).count();
        if generations == 0 {
            shown.libpmix_of(&folder.join(PMIX_PLUGIN));
        }
    }

    let mut libraries: Vec<PathBuf> = Vec::new();
    let wanted = loader.parent().map(Path::to_owned).into_iter().chain(run_path).chain(plugins);
    for folder in wanted.chain(settings.libraries.iter().map(|Absolute(folder)| folder.clone())) {
        libraries.extend(shown.anywhere(&folder));
    }
    // Folders that the node's loader knows: only where they are visible anyway.
    let mut known = [vec!["/usr/lib64".into(), "/lib64".into()], cached_folders(&node)].concat();
    known.retain(|folder| loader.parent() != Some(folder));
    libraries.extend(known.iter().filter_map(|folder| shown.if_visible(&node.real_folder(folder)?)));

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

/// One of the node's commands, whether containers show them or not.
pub fn command(settings: &SlurmClient, name: &str) -> Option<PathBuf> {
    let (_, bin, _) = find_commands(&Node::new(Path::new("/")), &settings.paths()).ok().flatten()?;
    Some(bin.join(name))
}

/// Path of Slurm's configuration by the word of this process' environment: that of a person, or of slurmd.
pub fn conf_from_environment() -> Option<PathBuf> {
    std::env::var_os("SLURM_CONF").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The node's scontrol, for a question of our own. `settings` may keep the commands from containers; they are there.
pub fn scontrol(root: &Path, settings: &SlurmClient) -> Option<PathBuf> {
    let node = Node::new(root);
    let (_, bin, _) = find_commands(&node, &settings.paths()).ok().flatten()?;
    Some(bin.join("scontrol")).filter(|program| node.exists(program))
}

/// The folder of srun as it is named and as it is, and what srun says of itself.
fn find_commands(node: &Node, settings: &ClientPaths) -> Result<Option<(PathBuf, PathBuf, Program)>, Error> {
    if let Some(Absolute(folder)) = &settings.bin {
        let lacks = Error::Lacks { key: "bin", folder: folder.clone(), what: "srun" };
        let (bin, program) = command_at(node, folder).ok_or(lacks)?;
        return match program {
            Ok(program) => Ok(Some((folder.clone(), bin, program))),
            Err(cause) => Err(Error::Program(folder.join("srun"), cause)),
        };
    }
    Ok(BINS.iter().map(Path::new).find_map(|folder| {
        let (bin, program) = command_at(node, folder)?;
        Some((folder.to_owned(), bin, program.ok()?))
    }))
}

/// Directory of the srun that `directory` leads to, and what this srun says of itself.
fn command_at(node: &Node, directory: &Path) -> Option<(PathBuf, io::Result<Program>)> {
    let real = node.real(&directory.join("srun"))?;
    // A link of another name (a wrapper, alternatives) says nothing about the other commands.
    let bin = if real.ends_with("srun") { real.parent()?.to_owned() } else { node.real_folder(directory)? };
    Some((bin, Program::read(&node.open(&real)?)))
}

/// Directory that the Slurm of `commands` is installed in.
fn prefix_of(commands: Option<&(PathBuf, PathBuf, Program)>) -> &Path {
    commands.and_then(|(_, bin, _)| bin.parent()).unwrap_or(Path::new("/usr"))
}

/// Directory of slurm.conf, as its readers spell it. `prefix` is asked only where `told` leads to none, because a step
/// that shows no commands would read the file of srun for it.
fn find_conf(
    node: &Node,
    settings: &ClientPaths,
    told: Option<&Path>,
    prefix: impl FnOnce() -> PathBuf,
) -> Result<Option<PathBuf>, Error> {
    let right = |folder: &Path| node.exists(&folder.join("slurm.conf"));
    if let Some(Absolute(folder)) = &settings.conf {
        let lacks = || Error::Lacks { key: "conf", folder: folder.clone(), what: "slurm.conf" };
        return if right(folder) { Ok(Some(folder.clone())) } else { Err(lacks()) };
    }
    if let Some(folder) = told.and_then(Path::parent).filter(|folder| right(folder)) {
        return Ok(Some(folder.to_owned()));
    }
    let prefix = prefix();
    // Beside an srun in a directory of its own, /etc/slurm may be another Slurm's.
    let own = [prefix.join("etc"), prefix.join("etc/slurm")];
    // The last is where slurmd keeps what it got from the controller.
    let usual = ["/etc/slurm".into(), "/run/slurm/conf".into()];
    Ok(own.into_iter().chain(usual).find(|folder| right(folder)))
}

/// PluginDir: as configured, else where srun's own makers put it.
fn find_plugins(
    node: &Node,
    settings: &ClientPaths,
    conf: &Conf,
    run_path: &[PathBuf],
    prefix: &Path,
    loader: &Path,
) -> Result<Vec<PathBuf>, Error> {
    for Absolute(folder) in &settings.plugins {
        if node.real_folder(folder).is_none() {
            return Err(Error::Lacks { key: "plugins", folder: folder.clone(), what: "plugins of Slurm" });
        }
    }
    if !settings.plugins.is_empty() {
        return Ok(settings.plugins.iter().map(|Absolute(folder)| folder.clone()).collect());
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
        |folder: &PathBuf| ["auth_munge.so", "auth_slurm.so"].iter().any(|name| node.exists(&folder.join(name)));
    Ok(run_path.iter().cloned().chain(usual).find(right).into_iter().collect())
}

/// The folders of RUNPATH, with `$ORIGIN` filled in (ld.so(8)); what has other variables is left out.
fn run_path(program: &Program, bin: &Path) -> Vec<PathBuf> {
    let list = program.run_path.as_deref().unwrap_or_default();
    let origin = bin.to_string_lossy();
    list.split(':')
        .map(|folder| folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))
        .filter(|folder| folder.starts_with('/') && !folder.contains('$'))
        .map(PathBuf::from)
        .collect()
}

/// The folders of /etc/ld.so.conf and the files beside it (ldconfig(8)).
fn cached_folders(node: &Node) -> Vec<PathBuf> {
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

/// The text of [`crate::view::LAUNCH`]; nothing if a path cannot be written there.
fn launch(loaders: &Path, loader: &Path, libraries: &[PathBuf], bin: &Path) -> Option<String> {
    let plain = |path: &Path| path.to_str().filter(|path| !path.contains([':', ';', '\n'])).map(str::to_owned);
    let name = loader.file_name()?.to_str()?;
    let mut list: Vec<String> = Vec::new();
    for folder in libraries.iter().filter_map(|folder| plain(folder)) {
        if !list.contains(&folder) {
            list.push(folder);
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

/// True if a loader whose real name is this knows `--argv0`, which is as old as glibc 2.33. Until then the real name
/// was ld-VERSION.so, and since 2.34 it is the one that programs have in them.
fn knows_argv0(name: &str) -> bool {
    let version = name.strip_prefix("ld-2.").and_then(|rest| rest.split('.').next());
    version.is_none_or(|minor| minor.parse().is_ok_and(|minor: u32| minor >= 33))
}

/// True if the node's `path` is in a folder of which each image has its own.
fn is_system(path: &Path) -> bool {
    path.components().nth(1).is_some_and(|top| TOPS.iter().any(|name| top == Component::Normal(name.as_ref())))
}

/// True if showing the folder `path` at its place would hide too much of an image.
fn is_crowded(path: &Path) -> bool {
    path.components().count() <= 2 || CROWDED.iter().any(|folder| path == Path::new(folder))
}

/// Parts of the container so far.
struct Shown<'a> {
    node: &'a Node<'a>,
    binds: Vec<Bind>,
}

impl<'a> Shown<'a> {
    fn new(node: &'a Node<'a>) -> Self {
        Self { node, binds: Vec::new() }
    }

    /// Shows a folder or file where it is on the node, if it is there.
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

    /// Path at which a folder is seen: below [`HOST`], else at its place.
    fn anywhere(&mut self, folder: &Path) -> Option<PathBuf> {
        let real = self.node.real_folder(folder)?;
        let top = Path::new("/").join(real.components().nth(1)?);
        if is_system(&real) && self.node.is_plain_folder(&top) {
            let target = below_host(&top);
            if !self.binds.iter().any(|bind| bind.target == target) {
                self.binds.push(Bind { source: top, target, unless_in_image: false });
            }
        } else if !is_crowded(&real) {
            self.at_its_place(&real);
        }
        self.if_visible(&real)
    }

    /// Path at which the real folder is seen, if it is.
    fn if_visible(&self, real: &Path) -> Option<PathBuf> {
        let below = below_host(real);
        if self.binds.iter().any(|bind| below.starts_with(&bind.target)) {
            return Some(below);
        }
        self.is_at_its_place(real).then(|| real.to_owned())
    }

    /// Shows the library that one of Slurm's PMIx plugins opens. An image that has that file needs its own more. False
    /// when there is no such plugin.
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

/// The texts of a program that begin with `/` and have no blank or other sign that is none of a path.
fn absolute_paths(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let mut place = 0_usize;
    std::iter::from_fn(move || {
        loop {
            // A program has few slashes, and skip_until looks for them many bytes at a time.
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

/// The libraries that a PMIx plugin of Slurm may open: it holds the directory, or has it in its RUNPATH where Slurm was
/// built with one (x_ac_pmix.m4), and the name of the file, which is `libpmix.so.2` since 23.11 and `libpmix.so` before
/// (mpi_pmix.c, `_libpmix_open`).
fn pmix_libraries(plugin: &[u8]) -> impl Iterator<Item = PathBuf> {
    const FILE: &[u8] = b"libpmix.so";
    let found = plugin.windows(FILE.len()).position(|text| text == FILE);
    let text = found.and_then(|at| plugin.get(at..)?.split(|byte| *byte == 0).next());
    let name = text.and_then(|text| str::from_utf8(text).ok()).unwrap_or("libpmix.so").to_owned();
    let directories = absolute_paths(plugin).flat_map(|list| list.split(':')).filter(|path| path.starts_with('/'));
    directories.map(move |directory| Path::new(directory).join(&name))
}

/// `path` of the node as it is called below [`HOST`].
fn below_host(path: &Path) -> PathBuf {
    Path::new(HOST).join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests;
