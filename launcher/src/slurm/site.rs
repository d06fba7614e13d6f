//! Describes the Slurm of this host, for `coracle doctor` and `coracle config check`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::config::SlurmClient;

use super::conf::{self, Conf, SpankLine};
use super::node::Node;
use super::{Program, find_commands, find_conf, find_plugins, prefix_of, run_path};

/// File name of the plugin.
const PLUGIN: &str = "spank_coracle.so";
/// File name of the second plugin, which records the controller's facts of a job.
const FACTS: &str = "spank_coracle_facts.so";

/// Slurm's programs and configuration.
#[derive(Debug, Default)]
pub struct Site {
    /// srun, if it exists.
    pub srun: Option<PathBuf>,
    /// Directory of slurm.conf, if it exists.
    pub directory: Option<PathBuf>,
    /// Path of plugstack.conf, which may not exist.
    pub plugstack: Option<PathBuf>,
    /// Lines of plugstack.conf that load the plugin.
    pub lines: Vec<SpankLine>,
    /// File of the plugin, as the first of these lines names it.
    pub plugin: Option<PathBuf>,
    /// Lines that load the second plugin.
    pub facts: Vec<SpankLine>,
    /// UnkillableStepTimeout, in seconds, if slurm.conf sets it.
    pub unkillable: Option<u64>,
    /// True if the controller distributes the configuration.
    pub configless: bool,
}

impl Site {
    /// Value of the argument `key=` in the plugin's line.
    pub fn argument(&self, key: &str) -> Option<&str> {
        let words = self.lines.first()?.arguments.iter();
        words
            .filter_map(|word| word.split_once('='))
            .filter(|(known, _)| *known == key)
            .map(|(_, value)| value)
            .next_back()
    }

    /// True if steps without a request get the defaults of coracle.yaml.
    pub fn has_defaults(&self) -> bool {
        self.argument("defaults") == Some("on")
    }

    /// True if the second plugin records the facts of jobs, which rules of partitions, accounts and QOS need.
    pub fn has_facts(&self) -> bool {
        self.facts.iter().any(|line| line.arguments.iter().any(|word| word == "job_facts=prolog"))
    }
}

/// Describes the node below `root` ("/" except in tests). `told` is the value of `SLURM_CONF`.
pub fn site(root: &Path, settings: &SlurmClient, told: Option<&Path>) -> Site {
    let node = Node::new(root);
    let paths = settings.paths();
    let commands = find_commands(&node, &paths).ok().flatten();
    let prefix = prefix_of(commands.as_ref()).to_owned();
    let directory = find_conf(&node, &paths, told, || prefix.clone()).ok().flatten();
    let conf = directory.as_ref().map(|directory| Conf::read(&node, directory)).unwrap_or_default();
    let plugins = commands.as_ref().map(|(_, bin, program)| plugins(&node, settings, &conf, bin, program, &prefix));
    let plugins = plugins.unwrap_or_default();
    let lines = conf.plugstack.as_ref().map(|file| conf::spank_lines(&node, file)).unwrap_or_default();
    let of = |name: &str| -> Vec<SpankLine> {
        lines.iter().filter(|line| line.plugin.file_name().is_some_and(|file| file == name)).cloned().collect()
    };
    let (ours, facts) = (of(PLUGIN), of(FACTS));
    Site {
        srun: commands.map(|(named, ..)| named.join("srun")),
        plugin: ours.first().and_then(|line| line.found(&node, &plugins)),
        directory,
        plugstack: conf.plugstack,
        lines: ours,
        facts,
        unkillable: conf.unkillable,
        configless: conf.configless,
    }
}

fn plugins(
    node: &Node,
    settings: &SlurmClient,
    conf: &Conf,
    bin: &Path,
    program: &Program,
    prefix: &Path,
) -> Vec<PathBuf> {
    let Some(loader) = program.loader.as_deref().and_then(|loader| node.real(Path::new(loader))) else {
        return Vec::new();
    };
    find_plugins(node, &settings.paths(), conf, &run_path(program, bin), prefix, &loader).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_lines_are_found_through_includes_with_their_arguments() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let directory = root.join("etc/slurm");
        std::fs::create_dir_all(directory.join("plugstack.conf.d")).unwrap();
        let look = || site(&root, &SlurmClient::default(), None);
        assert!(look().directory.is_none() && look().lines.is_empty());
        let conf = "UnkillableStepTimeout=90\nSlurmctldParameters=a,enable_configless\n";
        std::fs::write(directory.join("slurm.conf"), conf).unwrap();
        assert!(look().lines.is_empty() && look().configless && look().unkillable == Some(90));
        std::fs::write(directory.join("plugstack.conf"), "include plugstack.conf.d/*.conf\n").unwrap();
        let line = "# required /x/spank_coracle.so\noptional /x/other.so\nREQUIRED /x/spank_coracle.so defaults=on config=/c\n\
                    optional /x/spank_coracle_facts.so job_facts=prolog\n";
        std::fs::write(directory.join("plugstack.conf.d/coracle.conf"), line).unwrap();
        let site = look();
        assert_eq!(site.lines.len(), 1);
        assert!(site.lines[0].required && site.has_defaults() && site.has_facts());
        assert_eq!(site.argument("config"), Some("/c"));
        assert_eq!(site.argument("launcher"), None);
        assert_eq!(site.plugin.as_deref(), Some(Path::new("/x/spank_coracle.so")));
    }
}
