//! Checks Slurm's configuration as a controller hands it to nodes that have none of their own (`slurmd --conf-server`).
//!
//! The controller hands out plugstack.conf itself, and no file that it includes (fetch_config.c,
//! `new_config_response`). Nodes then load no plugin of an included line, and run jobs outside of their image.
#![forbid(unsafe_code)]

/// The plugin's file, as lines of plugstack.conf name it.
const PLUGIN: &str = "spank_coracle.so";

/// True if nodes that take these files from the controller do not load the plugin, though this host loads it.
///
/// With `PlugStackConfig` nodes read a file of their own, which is not known here.
pub fn lacks_line(slurm_conf: &str, plugstack: &str) -> bool {
    let mut configless = false;
    for (key, value) in lines(slurm_conf).filter_map(|line| line.split_once('=')) {
        let is = |name: &str| key.trim().eq_ignore_ascii_case(name);
        if is("PlugStackConfig") {
            return false;
        }
        if is("SlurmctldParameters") {
            configless = is_enabled(value);
        }
    }
    configless && !lines(plugstack).any(loads_plugin)
}

/// True if `parameters`, the value of SlurmctldParameters, let nodes take their configuration from the controller.
pub fn is_enabled(parameters: &str) -> bool {
    parameters.split([',', '"']).any(|word| word.trim().eq_ignore_ascii_case("enable_configless"))
}

/// True for `required PATH ARGUMENT…` and `optional PATH ARGUMENT…` with this plugin (spank(7)).
fn loads_plugin(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let kind = words.next().unwrap_or_default();
    let plugin = words.next().unwrap_or_default();
    ["required", "optional"].iter().any(|known| kind.eq_ignore_ascii_case(known))
        && plugin.rsplit('/').next() == Some(PLUGIN)
}

/// Returns the lines without comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split('#').next().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_of_the_file_itself_reaches_nodes() {
        let slurm = "ClusterName=x\nslurmctldparameters = idle_on_node_suspend,Enable_Configless # why\n";
        let include =
            "include /etc/slurm/plugstack.conf.d/*.conf\n# required /x/spank_coracle.so\nrequired /x/other.so\n";
        assert!(lacks_line(slurm, include));
        assert!(lacks_line(slurm, ""));
        assert!(lacks_line("SlurmctldParameters=\"enable_configless\"\n", include));
        for line in ["required /usr/lib/coracle/spank_coracle.so", "  REQUIRED spank_coracle.so defaults=on # x"] {
            assert!(!lacks_line(slurm, &format!("{include}{line}\n")), "{line}");
        }
        assert!(!lacks_line("ClusterName=x\n#SlurmctldParameters=enable_configless\n", include));
        assert!(!lacks_line("SlurmctldParameters=enable_configless_not\n", include));
        assert!(!lacks_line(&format!("{slurm}PlugStackConfig=/etc/slurm/plugstack.conf\n"), include));
    }
}
