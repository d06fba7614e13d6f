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
    /// PlugStackConfig, or plugstack.conf beside slurm.conf.
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
    /// UnkillableStepTimeout, in seconds.
    pub unkillable: Option<u64>,
    /// SlurmctldParameters has enable_configless: nodes get their configuration from the controller.
    pub configless: bool,
}

impl Conf {
    /// Reads slurm.conf in `folder` and what it includes. What cannot be read says nothing.
    pub fn read(node: &Node, folder: &Path) -> Self {
        let mut conf = Self { plugstack: Some(folder.join("plugstack.conf")), ..Self::default() };
        for line in lines(node, folder, "slurm.conf") {
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.split_whitespace().next().unwrap_or_default().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "plugindir" => conf.plugins = value.split(':').map(PathBuf::from).collect(),
                "plugstackconfig" => conf.plugstack = Some(folder.join(value)),
                "grestypes" => conf.gres_types = value.split(',').map(str::to_owned).collect(),
                "mpidefault" => conf.mpi_default = Some(value.to_owned()),
                "unkillablesteptimeout" => conf.unkillable = value.parse().ok(),
                "slurmctldparameters" => conf.configless = coracle::configless::is_enabled(value),
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

/// A line of plugstack.conf (spank(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpankLine {
    /// The file that has it.
    pub file: PathBuf,
    /// False if it is `optional`, whose failures Slurm ignores.
    pub required: bool,
    /// The plugin, as it is named.
    pub plugin: PathBuf,
    /// The words behind it.
    pub arguments: Vec<String>,
}

impl SpankLine {
    /// The plugin's file: a relative name is searched in `plugins`.
    pub fn found(&self, node: &Node, plugins: &[PathBuf]) -> Option<PathBuf> {
        match self.plugin.is_absolute() {
            true => Some(self.plugin.clone()),
            false => plugins.iter().map(|folder| folder.join(&self.plugin)).find(|path| node.exists(path)),
        }
    }
}

/// The lines of plugstack.conf, with those of files that it includes.
pub fn spank_lines(node: &Node, plugstack: &Path) -> Vec<SpankLine> {
    let mut found = Vec::new();
    add_spank_lines(node, plugstack, 0, &mut found);
    found
}

fn add_spank_lines(node: &Node, file: &Path, depth: usize, found: &mut Vec<SpankLine>) {
    let Some(text) = node.text(file).filter(|_| depth < MAX_DEPTH) else { return };
    let folder = file.parent().unwrap_or(Path::new("/"));
    for line in text.lines().map(str::trim) {
        if let Some(pattern) = after_word(line, "include") {
            for included in node.glob(&folder.join(pattern)) {
                add_spank_lines(node, &included, depth.saturating_add(1), found);
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

/// Text behind `word`, whatever its case, and a blank at the start of `line`.
fn after_word<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = line.split_once(char::is_whitespace)?;
    first.eq_ignore_ascii_case(word).then_some(rest.trim())
}
