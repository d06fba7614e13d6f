//! The few lines of Slurm's own configuration that say what its commands open by absolute path.
//!
//! The files are slurmd's, which runs as root what they name: they are as trustworthy as slurmd is.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::node::Node;

/// Files may include each other; nobody nests them deeper.
const MAX_DEPTH: usize = 4;

/// Settings of slurm.conf(5).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// PluginDir: folders, separated by colons.
    pub plugins: Vec<PathBuf>,
    /// PlugStackConfig; plugstack.conf beside slurm.conf if not said.
    pub plugstack: Option<PathBuf>,
    /// The socket that AuthInfo names, munge's if it is another than usual.
    pub auth_socket: Option<PathBuf>,
    /// True if AuthType is auth/slurm: commands ask slurmd or sackd, and not munged.
    pub auth_slurm: bool,
    /// TaskProlog and TaskEpilog, which slurmstepd runs in the task's own namespace.
    pub task_scripts: Vec<PathBuf>,
    /// GresTypes: the generic resources that Slurm manages.
    pub gres_types: Vec<String>,
    /// MpiDefault: what srun takes for `--mpi` when nobody says it.
    pub mpi_default: Option<String>,
    /// SlurmdSpoolDir as it is written, with `%h` and `%n`.
    pub spool: Option<String>,
}

impl Conf {
    /// Reads slurm.conf in `folder` and what it includes. What cannot be read says nothing.
    pub fn read(node: &Node, folder: &Path) -> Self {
        let mut conf = Self::default();
        for line in lines(node, folder, "slurm.conf") {
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.split_whitespace().next().unwrap_or_default().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "plugindir" => conf.plugins = value.split(':').map(PathBuf::from).collect(),
                "plugstackconfig" => conf.plugstack = Some(folder.join(value)),
                "grestypes" => conf.gres_types = value.split(',').map(str::to_owned).collect(),
                "mpidefault" => conf.mpi_default = Some(value.to_owned()),
                "slurmdspooldir" => conf.spool = Some(value.to_owned()),
                "taskprolog" | "taskepilog" => conf.task_scripts.push(folder.join(value)),
                "authtype" => conf.auth_slurm = value == "auth/slurm",
                "authinfo" => {
                    let socket = value.split(',').find_map(|option| option.strip_prefix("socket="));
                    conf.auth_socket = socket.map(PathBuf::from);
                }
                _ => {}
            }
        }
        conf
    }
}

/// The lines of the file `name` in `folder`, with those of files that it includes where they stand, and without comments.
/// What cannot be read has none.
pub fn lines(node: &Node, folder: &Path, name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    add_lines(node, folder, &folder.join(name), 0, &mut lines);
    lines
}

fn add_lines(node: &Node, folder: &Path, file: &Path, depth: usize, lines: &mut Vec<String>) {
    let Some(text) = node.text(file).filter(|_| depth < MAX_DEPTH) else { return };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match after_word(line, "include") {
            Some(included) => add_lines(node, folder, &folder.join(included), depth.saturating_add(1), lines),
            None => lines.push(line.to_owned()),
        }
    }
}

/// The files of the SPANK plugins that plugstack.conf names (spank(7)); relative names are searched in `plugins`.
pub fn spank_plugins(node: &Node, plugstack: &Path, plugins: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    add_spank_plugins(node, plugstack, plugins, 0, &mut found);
    found
}

fn add_spank_plugins(node: &Node, file: &Path, plugins: &[PathBuf], depth: usize, found: &mut Vec<PathBuf>) {
    let Some(text) = node.text(file).filter(|_| depth < MAX_DEPTH) else { return };
    let folder = file.parent().unwrap_or(Path::new("/"));
    for line in text.lines().map(str::trim) {
        if let Some(pattern) = after_word(line, "include") {
            for included in node.glob(&folder.join(pattern)) {
                add_spank_plugins(node, &included, plugins, depth.saturating_add(1), found);
            }
        } else if let Some(rest) = after_word(line, "required").or_else(|| after_word(line, "optional")) {
            let name = Path::new(rest.split_whitespace().next().unwrap_or_default());
            if name.is_absolute() {
                found.push(name.to_owned());
            } else {
                found.extend(plugins.iter().map(|folder| folder.join(name)).find(|path| node.exists(path)));
            }
        }
    }
}

/// Text behind `word`, whatever its case, and a blank at the start of `line`.
fn after_word<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = line.split_once(char::is_whitespace)?;
    first.eq_ignore_ascii_case(word).then_some(rest.trim())
}
