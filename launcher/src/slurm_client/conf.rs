//! The few lines of Slurm's own configuration that say what its commands open by absolute path.
//!
//! The files are slurmd's, which runs as root what they name: they are as trustworthy as slurmd is.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::node::Node;

/// Files may include each other; nobody nests them deeper.
const MAX_DEPTH: usize = 4;

/// What slurm.conf(5) says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// PluginDir: folders, separated by colons.
    pub plugins: Vec<PathBuf>,
    /// PlugStackConfig; plugstack.conf beside slurm.conf if not said.
    pub plugstack: Option<PathBuf>,
    /// The socket that AuthInfo names, munge's if it is another than usual.
    pub auth_socket: Option<PathBuf>,
    /// TaskProlog and TaskEpilog, which slurmstepd runs in the task's own namespace.
    pub task_scripts: Vec<PathBuf>,
    /// GresTypes: the generic resources that Slurm manages.
    pub gres_types: Vec<String>,
    /// MpiDefault: what srun takes for `--mpi` when nobody says it.
    pub mpi_default: Option<String>,
}

impl Conf {
    /// Reads slurm.conf in `folder` and what it includes. What cannot be read says nothing.
    pub fn read(node: &Node, folder: &Path) -> Self {
        let mut conf = Self::default();
        conf.add(node, folder, &folder.join("slurm.conf"), 0);
        conf
    }

    fn add(&mut self, node: &Node, folder: &Path, file: &Path, depth: usize) {
        let Some(text) = node.text(file).filter(|_| depth < MAX_DEPTH) else { return };
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(included) = after_word(line, "include") {
                self.add(node, folder, &folder.join(included), depth.saturating_add(1));
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let value = value.split_whitespace().next().unwrap_or_default().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "plugindir" => self.plugins = value.split(':').map(PathBuf::from).collect(),
                "plugstackconfig" => self.plugstack = Some(folder.join(value)),
                "grestypes" => self.gres_types = value.split(',').map(str::to_owned).collect(),
                "mpidefault" => self.mpi_default = Some(value.to_owned()),
                "taskprolog" | "taskepilog" => self.task_scripts.push(folder.join(value)),
                "authinfo" => {
                    let socket = value.split(',').find_map(|option| option.strip_prefix("socket="));
                    self.auth_socket = socket.map(PathBuf::from);
                }
                _ => {}
            }
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

/// What follows `word`, whatever its case, and a blank at the start of `line`.
pub(super) fn after_word<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let (first, rest) = line.split_once(char::is_whitespace)?;
    first.eq_ignore_ascii_case(word).then_some(rest.trim())
}
