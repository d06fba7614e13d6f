//! Reads the lines of Slurm's configuration that name the files which Slurm's commands open by absolute path.
//!
//! The files belong to slurmd, which runs the programs in them as root: they are as trustworthy as slurmd.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::node::Node;

/// Limit on nested includes, deeper than any real configuration.
const MAX_DEPTH: usize = 4;
/// Limit on the files that are read: a file that includes itself is read again and again.
const MAX_FILES: usize = 1000;

/// Settings of slurm.conf(5).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// PluginDir: directories, separated by colons.
    pub plugins: Vec<PathBuf>,
    /// PlugStackConfig, or plugstack.conf beside slurm.conf.
    pub plugstack: Option<PathBuf>,
    /// Socket that AuthInfo names, if munge's is not the usual one.
    pub auth_socket: Option<PathBuf>,
    /// True if AuthType is auth/slurm: commands ask slurmd or sackd, not munged.
    pub auth_slurm: bool,
    /// TaskProlog and TaskEpilog, which slurmstepd runs in the task's own namespace.
    pub task_scripts: Vec<PathBuf>,
    /// GresTypes: the generic resources that Slurm manages.
    pub gres_types: Vec<String>,
    /// MpiDefault: value of `--mpi` for an srun without that option.
    pub mpi_default: Option<String>,
    /// SlurmdSpoolDir as configured, with `%h` and `%n`.
    pub spool: Option<String>,
    /// UnkillableStepTimeout, in seconds.
    pub unkillable: Option<u64>,
    /// True if SlurmctldParameters has enable_configless: nodes get their configuration from the controller.
    pub configless: bool,
}

impl Conf {
    /// Reads slurm.conf in the directory `directory`, and its includes. An unreadable file counts as empty.
    pub fn read(node: &Node, directory: &Path) -> Self {
        let mut conf = Self { plugstack: Some(directory.join("plugstack.conf")), ..Self::default() };
        for line in lines(node, directory, "slurm.conf") {
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.split_whitespace().next().unwrap_or_default().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "plugindir" => conf.plugins = value.split(':').map(PathBuf::from).collect(),
                "plugstackconfig" => conf.plugstack = Some(directory.join(value)),
                "grestypes" => conf.gres_types = value.split(',').map(str::to_owned).collect(),
                "mpidefault" => conf.mpi_default = Some(value.to_owned()),
                "unkillablesteptimeout" => conf.unkillable = value.parse().ok(),
                "slurmctldparameters" => conf.configless = coracle::configless::is_enabled(value),
                "slurmdspooldir" => conf.spool = Some(value.to_owned()),
                "taskprolog" | "taskepilog" => conf.task_scripts.push(directory.join(value)),
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

/// Lines of the file `name` in `directory`, without comments and with includes expanded in place; none for
/// an unreadable file.
pub fn lines(node: &Node, directory: &Path, name: &str) -> Vec<String> {
    let (mut lines, mut left) = (Vec::new(), MAX_FILES);
    add_lines(node, directory, &directory.join(name), (0, &mut left), &mut lines);
    lines
}

fn add_lines(node: &Node, directory: &Path, file: &Path, (depth, left): (usize, &mut usize), lines: &mut Vec<String>) {
    let Some(text) = text(node, file, depth, left) else { return };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        match after_word(line, "include") {
            Some(included) => {
                add_lines(node, directory, &directory.join(included), (depth.saturating_add(1), left), lines)
            }
            None => lines.push(line.to_owned()),
        }
    }
}

/// Text of a file that is read at the depth `depth`, as one of the `left` files.
fn text(node: &Node, file: &Path, depth: usize, left: &mut usize) -> Option<String> {
    *left = left.checked_sub(1).filter(|_| depth < MAX_DEPTH)?;
    node.text(file)
}

/// A line of plugstack.conf (spank(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpankLine {
    /// File that contains the line.
    pub file: PathBuf,
    /// False for `optional`, whose failures Slurm ignores.
    pub required: bool,
    /// Plugin as named in the line.
    pub plugin: PathBuf,
    /// Words after the plugin.
    pub arguments: Vec<String>,
}

impl SpankLine {
    /// File of the plugin; a relative name is searched in `plugins`.
    pub fn found(&self, node: &Node, plugins: &[PathBuf]) -> Option<PathBuf> {
        match self.plugin.is_absolute() {
            true => Some(self.plugin.clone()),
            false => plugins.iter().map(|directory| directory.join(&self.plugin)).find(|path| node.exists(path)),
        }
    }
}

/// Lines of plugstack.conf, with those of its includes.
pub fn spank_lines(node: &Node, plugstack: &Path) -> Vec<SpankLine> {
    let (mut found, mut left) = (Vec::new(), MAX_FILES);
    add_spank_lines(node, plugstack, (0, &mut left), &mut found);
    found
}

fn add_spank_lines(node: &Node, file: &Path, (depth, left): (usize, &mut usize), found: &mut Vec<SpankLine>) {
    let Some(text) = text(node, file, depth, left) else { return };
    let directory = file.parent().unwrap_or(Path::new("/"));
    for line in text.lines().map(str::trim) {
        if let Some(pattern) = after_word(line, "include") {
            for included in node.glob(&directory.join(pattern)) {
                add_spank_lines(node, &included, (depth.saturating_add(1), left), found);
            }
            continue;
        }
        let required = after_word(line, "required");
        let Some(rest) = required.or_else(|| after_word(line, "optional")) else { continue };
        let mut words = rest.split_whitespace().map(str::to_owned);
        let plugin = words.next().unwrap_or_default().into();
        let file = file.to_owned();
        found.push(SpankLine { file, required: required.is_some(), plugin, arguments: words.collect() });
    }
}

/// Text after `word` and a blank at the start of `line`, without regard to case.
fn after_word<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = line.split_once(char::is_whitespace)?;
    first.eq_ignore_ascii_case(word).then_some(rest.trim())
}
