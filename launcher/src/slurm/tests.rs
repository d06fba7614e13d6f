#![forbid(unsafe_code)]
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// A node below a scratch directory. Its srun is a program of the test's host, which names the loader of that host; the
/// loader is at the path of that name.
pub(super) struct Tree {
    directory: tempfile::TempDir,
    /// Name of the loader in srun.
    interpreter: PathBuf,
}

const HELPER: &str = "/run/coracle/inside";

impl Tree {
    fn new() -> Self {
        let program = fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let interpreter = Program::read(&program).unwrap().loader.unwrap().into();
        Self { directory: tempfile::tempdir_in(fs::canonicalize(std::env::temp_dir()).unwrap()).unwrap(), interpreter }
    }

    /// Layout of Debian: /lib and /lib64 are links, and the loader is beside libc.
    pub(super) fn merged() -> Self {
        let tree = Self::new();
        tree.file("/usr/lib/arch/ld-linux.so.2", "");
        for top in ["lib", "lib64", "bin"] {
            tree.directory(&format!("/usr/{top}"));
            tree.link(&format!("/{top}"), &format!("usr/{top}"));
        }
        // Through the links, as from /lib64.
        tree.link(tree.interpreter.to_str().unwrap(), "../lib/arch/ld-linux.so.2");
        tree
    }

    pub(super) fn root(&self) -> &Path {
        self.directory.path()
    }

    fn at(&self, path: &str) -> PathBuf {
        let place = self.directory.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    fn directory(&self, path: &str) {
        fs::create_dir_all(self.at(path)).unwrap();
    }

    pub(super) fn file(&self, path: &str, text: &str) {
        fs::write(self.at(path), text).unwrap();
    }

    pub(super) fn link(&self, path: &str, target: &str) {
        symlink(target, self.at(path)).unwrap();
    }

    pub(super) fn srun(&self, directory: &str) {
        fs::copy(std::env::current_exe().unwrap(), self.at(&format!("{directory}/srun"))).unwrap();
    }

    fn find(&self, settings: &ClientPaths, told: Option<&str>) -> Result<Option<Client>, Error> {
        let settings = SlurmClient::Shown(settings.clone());
        find(self.directory.path(), &settings, told.map(Path::new), Path::new(HELPER))
    }

    fn client(&self) -> Client {
        self.find(&ClientPaths::default(), None).unwrap().unwrap()
    }
}

fn binds(client: &Client) -> BTreeMap<&str, &str> {
    client.binds.iter().map(|bind| (bind.target.to_str().unwrap(), bind.source.to_str().unwrap())).collect()
}

fn links(client: &Client) -> BTreeMap<&str, &str> {
    client.links.iter().map(|link| (link.place.to_str().unwrap(), link.target.to_str().unwrap())).collect()
}

#[test]
fn a_packaged_slurm_on_a_node_with_merged_usr() {
    let tree = Tree::merged();
    tree.srun("/usr/bin");
    tree.file("/usr/bin/squeue", "");
    tree.file("/usr/lib/arch/slurm-wlm/auth_munge.so", "");
    tree.file("/usr/lib/coracle/spank_coracle.so", "");
    tree.file("/usr/lib/arch/one.so", "");
    tree.file("/etc/slurm/slurm.conf", "ClusterName=c # PluginDir=/no\n");
    tree.file("/etc/slurm/plugstack.conf", "include /etc/slurm/plugstack.conf.d/*.conf\n# required /no/x.so\n");
    tree.file("/etc/slurm/plugstack.conf.d/a.conf", "required /usr/lib/coracle/spank_coracle.so config=/x\n");
    tree.file("/etc/slurm/plugstack.conf.d/b.conf", "optional /usr/lib/arch/one.so\noptional /no/such.so\n");
    tree.file("/etc/slurm/plugstack.conf.d/c.conf~", "required /etc/slurm/no.so\n");
    tree.directory("/run/munge");
    tree.directory("/usr/local/lib");
    tree.directory("/opt/vendor/lib");
    tree.file("/etc/ld.so.conf.d/local.conf", "/usr/local/lib\n/opt/vendor/lib\n");

    let client = tree.client();
    assert_eq!(
        binds(&client),
        BTreeMap::from([
            ("/etc/slurm", "/etc/slurm"),
            ("/run/coracle/host/usr", "/usr"),
            ("/run/munge", "/run/munge"),
            ("/usr/lib/arch/one.so", "/usr/lib/arch/one.so"),
            ("/usr/lib/arch/slurm-wlm", "/usr/lib/arch/slurm-wlm"),
            ("/usr/lib/coracle", "/usr/lib/coracle"),
        ])
    );
    assert_eq!(
        links(&client),
        BTreeMap::from([
            ("/run/coracle/host/bin", "usr/bin"),
            ("/run/coracle/host/lib", "usr/lib"),
            ("/run/coracle/host/lib64", "usr/lib64"),
            ("/run/coracle/slurm/bin/squeue", HELPER),
            ("/run/coracle/slurm/bin/srun", HELPER),
        ])
    );
    assert_eq!(
        client.launch,
        "loader=/run/coracle/host/usr/lib/arch/ld-linux.so.2\n\
         library_path=/run/coracle/host/usr/lib/arch:/run/coracle/host/usr/lib/arch/slurm-wlm:\
         /run/coracle/host/usr/lib64:/run/coracle/host/usr/local/lib\n\
         bin=/run/coracle/host/usr/bin\nargv0=yes\n"
    );
}

#[test]
fn an_older_node_with_a_real_lib64_and_slurm_in_opt() {
    let tree = Tree::new();
    let loader = tree.interpreter.to_str().unwrap().to_owned();
    let directory = tree.interpreter.parent().unwrap().to_str().unwrap().to_owned();
    tree.file(&format!("{directory}/ld-2.31.so"), "");
    tree.link(&loader, "ld-2.31.so");
    tree.directory("/usr/lib64");
    tree.srun("/opt/slurm/22.05/bin");
    tree.link("/opt/slurm/current", "22.05");
    tree.file("/opt/slurm/22.05/lib/slurm/auth_munge.so", "");
    tree.file("/opt/slurm/22.05/etc/slurm.conf", "");

    let client = tree.client();
    let lib = format!("/run/coracle/host{directory}");
    assert_eq!(
        binds(&client),
        BTreeMap::from([
            (lib.as_str(), directory.as_str()),
            ("/opt/slurm/22.05", "/opt/slurm/22.05"),
            ("/opt/slurm/current", "/opt/slurm/22.05"),
        ])
    );
    assert_eq!(
        client.launch,
        format!("loader={lib}/ld-2.31.so\nlibrary_path={lib}:/opt/slurm/22.05/lib/slurm\nbin=/opt/slurm/22.05/bin\n")
    );
}

#[test]
fn a_slurm_in_a_directory_of_its_own_has_its_configuration_there() {
    let tree = Tree::merged();
    tree.srun("/opt/slurm/bin");
    tree.file("/opt/slurm/lib/slurm/auth_munge.so", "");
    tree.file("/etc/slurm/slurm.conf", "GresTypes=other\n");
    let types = || slurmd(tree.root(), &SlurmClient::default(), None).unwrap().gres_types;
    assert_eq!(types(), ["other"]);
    tree.file("/opt/slurm/etc/slurm.conf", "GresTypes=gpu\n");
    tree.file("/opt/slurm/etc/cgroup.conf", "ConstrainDevices=yes\n");
    assert_eq!(types(), ["gpu"]);
    assert!(constrains_devices(tree.root(), &SlurmClient::default(), None));
    assert_eq!(binds(&tree.client()).get("/etc/slurm"), None);
    // Its plugstack.conf may include lines from other directories.
    tree.file("/opt/slurm/etc/plugstack.conf", "include /etc/slurm/plugstack.conf.d/*.conf\n");
    tree.file("/etc/slurm/plugstack.conf.d/a.conf", "required /usr/lib/coracle/spank_coracle.so\n");
    tree.file("/usr/lib/coracle/spank_coracle.so", "");
    let shown: Vec<_> = tree.client().binds.into_iter().map(|bind| bind.target).collect();
    for directory in ["/opt/slurm", "/etc/slurm/plugstack.conf.d", "/usr/lib/coracle"] {
        assert!(shown.contains(&directory.into()), "{directory} in {shown:?}");
    }
    assert_eq!(site(tree.root(), &SlurmClient::default(), None).directory, Some("/opt/slurm/etc".into()));
}

#[test]
fn slurm_conf_says_where_plugins_the_plugin_stack_and_the_socket_are() {
    let tree = Tree::merged();
    tree.srun("/usr/bin");
    tree.file("/usr/lib/arch/slurm-wlm/auth_munge.so", "");
    tree.file("/etc/slurm/slurm.conf", "Include more.conf\nAuthInfo=ttl=9,socket=/run/other/m.socket\n");
    tree.file(
        "/etc/slurm/more.conf",
        "plugindir = \"/site/a:/site/b\"\nPlugStackConfig=/site/stack\ninclude slurm.conf\n",
    );
    tree.file("/site/b/spank.so", "");
    tree.file("/site/stack", "required spank.so\nrequired /site/spank/x.so\n");
    tree.file("/site/spank/x.so", "");
    tree.directory("/site/a");
    tree.directory("/run/other");
    tree.directory("/run/munge");

    let client = tree.client();
    let shown: Vec<_> = binds(&client).into_keys().collect();
    assert_eq!(
        shown,
        ["/etc/slurm", "/run/coracle/host/usr", "/run/other", "/site/a", "/site/b", "/site/spank", "/site/stack"]
    );
    assert!(client.launch.contains(":/site/a:/site/b:"), "{}", client.launch);
}

#[test]
fn files_that_include_themselves_are_read_a_limited_number_of_times() {
    let tree = Tree::merged();
    let node = node::Node::new(tree.root());
    tree.file("/etc/slurm/slurm.conf", &format!("A=1\n{}", "include slurm.conf\n".repeat(50)));
    tree.file("/etc/slurm/x.conf", &format!("required x.so\n{}", "include *.conf\n".repeat(50)));
    let lines = conf::lines(&node, Path::new("/etc/slurm"), "slurm.conf").len();
    let spank = conf::spank_lines(&node, Path::new("/etc/slurm/x.conf")).len();
    assert!((2..=1000).contains(&lines) && (1..=1000).contains(&spank), "{lines} {spank}");
}

#[test]
fn slurmd_may_be_told_another_slurm_conf_and_links_are_followed() {
    let tree = Tree::merged();
    tree.srun("/usr/bin");
    tree.file("/usr/lib/arch/slurm-wlm/auth_munge.so", "");
    tree.file("/etc/slurm/slurm.conf", "");
    tree.file("/var/spool/slurmd/conf-cache/slurm.conf", "");
    tree.link("/run/slurm/conf", "../../var/spool/slurmd/conf-cache");

    let told = tree.find(&ClientPaths::default(), Some("/run/slurm/conf/slurm.conf")).unwrap().unwrap();
    let cache = "/var/spool/slurmd/conf-cache";
    assert_eq!(binds(&told).get("/run/slurm/conf"), Some(&cache));
    assert_eq!(binds(&told).get(cache), Some(&cache));
    assert_eq!(binds(&told).get("/etc/slurm"), None);
}

#[test]
fn the_libpmix_that_slurms_plugin_names_is_shown_where_the_image_has_none() {
    let tree = Tree::merged();
    tree.srun("/usr/bin");
    tree.file("/usr/lib/arch/slurm-wlm/auth_munge.so", "");
    tree.file("/usr/lib/arch/slurm-wlm/mpi_pmix_v4.so", "\0\0pmix/v4\0/usr/lib/arch/pmix2/lib\0libpmix.so\0/usr/lib\0");
    tree.link("/usr/lib/arch/slurm-wlm/mpi_pmix.so", "mpi_pmix_v4.so");
    tree.file("/usr/lib/arch/pmix2/lib/libpmix.so.2.6", "");
    tree.link("/usr/lib/arch/pmix2/lib/libpmix.so", "libpmix.so.2.6");

    let unless: Vec<Bind> = tree.client().binds.into_iter().filter(|bind| bind.unless_in_image).collect();
    let [bind] = unless.as_slice() else { panic!("{unless:?}") };
    assert_eq!(bind.source, Path::new("/usr/lib/arch/pmix2/lib/libpmix.so.2.6"));
    assert_eq!(bind.target, Path::new("/usr/lib/arch/pmix2/lib/libpmix.so"));

    // A plugin that was built with a RUNPATH contains only the file name.
    tree.file(
        "/usr/lib/arch/slurm-wlm/mpi_pmix_v4.so",
        "\0pmix/v4\0/usr/lib64:/usr/lib/arch/pmix2/lib\0libpmix.so.2\0",
    );
    tree.link("/usr/lib/arch/pmix2/lib/libpmix.so.2", "libpmix.so.2.6");
    let shown: Vec<_> = tree.client().binds.into_iter().filter(|bind| bind.unless_in_image).collect();
    assert_eq!(shown.first().unwrap().target, Path::new("/usr/lib/arch/pmix2/lib/libpmix.so.2"));
    let offer = offer(tree.root(), &SlurmClient::default(), None);
    assert_eq!(offer.libpmix, Some("/usr/lib/arch/pmix2/lib/libpmix.so.2.6".into()));
}

#[test]
fn a_node_without_slurm_commands_or_with_a_script_for_srun_has_no_client() {
    let tree = Tree::merged();
    assert_eq!(tree.find(&ClientPaths::default(), None).unwrap(), None);
    tree.file("/usr/bin/srun", "#!/bin/sh\nexec /somewhere/srun \"$@\"\n");
    assert_eq!(tree.find(&ClientPaths::default(), None).unwrap(), None);
    tree.srun("/opt/slurm/bin");
    assert!(tree.client().launch.ends_with("bin=/opt/slurm/bin\nargv0=yes\n"));
    assert_eq!(find(tree.directory.path(), &SlurmClient::None, None, Path::new(HELPER)).unwrap(), None);
}

#[test]
fn what_coracle_yaml_says_must_be_so() {
    let tree = Tree::merged();
    tree.srun("/usr/bin");
    tree.file("/opt/script/srun", "#!/bin/sh\n");
    let absolute = |path: &str| Absolute(path.into());
    let none = ClientPaths::default;
    for (settings, wanted) in [
        (
            ClientPaths { bin: Some(absolute("/opt/no")), ..none() },
            "coracle: slurm_client.bin: /opt/no is not a directory with srun on this node [config]",
        ),
        (ClientPaths { bin: Some(absolute("/opt/script")), ..none() }, "coracle: slurm_client.bin: /opt/script/srun: "),
        (
            ClientPaths { conf: Some(absolute("/usr")), ..none() },
            "coracle: slurm_client.conf: /usr is not a directory with slurm.conf on this node [config]",
        ),
        (
            ClientPaths { plugins: vec![absolute("/usr/bin/srun")], ..none() },
            "coracle: slurm_client.plugins: /usr/bin/srun is not a directory with plugins of Slurm on this node [config]",
        ),
    ] {
        let line = Refusal::from(tree.find(&settings, None).unwrap_err()).line();
        assert!(line.starts_with(wanted) && line.ends_with("[config]"), "{line}");
    }
    tree.directory("/data/lib");
    let more = ClientPaths { libraries: vec![absolute("/data/lib"), absolute("/no/such")], ..none() };
    let client = tree.find(&more, None).unwrap().unwrap();
    assert!(client.launch.contains(":/data/lib:"), "{}", client.launch);
    assert_eq!(binds(&client).get("/data/lib"), Some(&"/data/lib"));
}

#[test]
fn the_loaders_real_name_tells_whether_it_knows_argv0() {
    for (name, knows) in [
        ("ld-linux-x86-64.so.2", true),
        ("ld-linux-aarch64.so.1", true),
        ("ld-2.33.so", true),
        ("ld-2.31.so", false),
        ("ld-2.9.so", false),
    ] {
        assert_eq!(knows_argv0(name), knows, "{name}");
    }
}

#[test]
fn only_whole_paths_of_a_program_are_taken_for_paths() {
    let bytes = b"/first\0/usr/lib\0a/b\0/\0/with blank\0/new\nline\0//x\0/\xff\0/last";
    assert_eq!(absolute_paths(bytes).collect::<Vec<_>>(), ["/usr/lib", "//x", "/last"]);
    assert_eq!(absolute_paths(b"").count() + absolute_paths(b"\0\0").count() + absolute_paths(b"\0/").count(), 0);
}
