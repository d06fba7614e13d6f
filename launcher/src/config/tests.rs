//! Tests of valid values in coracle.yaml, and of the messages about invalid ones.
#![forbid(unsafe_code)]

use super::*;
use coracle::report::Refusal;

fn refusal(text: &str) -> String {
    Refusal::from(Config::parse(Path::new("c.yaml"), text).unwrap_err()).line()
}

#[test]
fn the_example_of_the_documentation_is_valid() {
    let text = include_str!("../../../slurm-conf-examples/coracle.yaml");
    let config = Config::parse(Path::new("coracle.yaml"), text).unwrap();
    let targets: Vec<_> = config.binds.iter().map(|bind| (bind.target().to_owned(), bind.required)).collect();
    for path in ["/gpfs", "/scratch", "/work"] {
        assert!(targets.contains(&(path.into(), false)), "{path}");
    }
}

#[test]
fn what_the_example_has_as_comments_is_valid_too() {
    let text = include_str!("../../../slurm-conf-examples/coracle.yaml");
    // Sentences start with one blank after the comment sign; what is indented in lists of keys does not start like a key.
    let first = |rest: &str| rest.split_whitespace().next().map(str::to_owned).unwrap_or_default();
    let key = |line: &str| {
        let rest = line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') || rest.starts_with("  "));
        rest.is_some_and(|rest| {
            first(rest).ends_with(':') && first(rest).starts_with(|letter: char| letter.is_ascii_lowercase())
        })
    };
    let text: String = text.lines().map(|line| if key(line) { &line[1..] } else { line }.to_owned() + "\n").collect();
    let config = Config::parse(Path::new("coracle.yaml"), &text).unwrap();
    assert!(config.top().signers.is_some() && config.squashfuse.is_some());
    let scopes = [&config.partitions, &config.accounts, &config.qos, &config.users, &config.groups];
    assert!(scopes.iter().all(|scope| scope.0.len() == 1), "{scopes:?}");
}

#[test]
fn the_defaults_allow_nothing_of_the_users() {
    let config = Config::parse(Path::new("c.yaml"), "version: 1\n").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!((config.user_images, config.image_paths.len()), (None, 0));
    assert_eq!(config.directories, None);
}

#[test]
fn a_plan_is_logged_when_the_site_says_so_in_one_of_yamls_ways() {
    let log_plan = |text: &str| Config::parse(Path::new("c.yaml"), text).unwrap().log_plan.0;
    for (text, wanted) in
        [("", false), ("log_plan: yes\n", true), ("log_plan: true\n", true), ("log_plan: no\n", false)]
    {
        assert_eq!(log_plan(&format!("version: 1\n{text}")), wanted, "{text}");
    }
}

#[test]
fn records_go_where_the_site_says() {
    let audit = |text: &str| Config::parse(Path::new("c.yaml"), &format!("version: 1\n{text}")).unwrap().audit;
    assert_eq!(audit(""), Audit::default());
    let file = Some(Absolute("/var/log/a".into()));
    assert_eq!(audit("audit: {file: /var/log/a}"), Audit { file: file.clone(), ..Audit::default() });
    let all = "audit:\n  file: /var/log/a\n  required: yes\n  comment: true\n";
    assert_eq!(audit(all), Audit { file, required: true, comment: true, ..Audit::default() });
    let users = |text: &str| audit(&format!("audit: {{users: {text}}}")).users;
    assert_eq!(users("none"), UserRecords::None);
    assert_eq!(users("/var/r"), UserRecords::In("/var/r".into()));
}

#[test]
fn the_slurm_commands_are_shown_unless_the_site_says_none() {
    let client = |text: &str| Config::parse(Path::new("c.yaml"), text).unwrap().slurm_client;
    assert_eq!(client("version: 1\n"), SlurmClient::Shown(ClientPaths::default()));
    assert_eq!(client("version: 1\nslurm_client: none\n"), SlurmClient::None);
    let text = "version: 1\nslurm_client:\n  bin: /opt/slurm/bin\n  plugins: [/opt/slurm/lib/slurm]\n";
    let SlurmClient::Shown(paths) = client(text) else { panic!() };
    assert_eq!(paths.bin, Some(Absolute("/opt/slurm/bin".into())));
    assert_eq!((paths.plugins.len(), paths.conf, paths.libraries.len()), (1, None, 0));
}

#[test]
fn faults_are_named_with_file_line_and_key() {
    for (text, wanted) in [
        ("version: 1\nuser_image: deny\n", "c.yaml:2:1: unknown field `user_image`, expected one of"),
        ("version: 1\nuser_images: yes\n", "c.yaml:2:1: `user_images` is kernel, fuse or deny, not \"yes\""),
        ("version: 1\nsquashfuse: bin/x\n", "c.yaml:2:1: `squashfuse` is an absolute path, not \"bin/x\""),
        ("version: 1\ndirectories: yes\n", "c.yaml:2:1: `directories` is deny or allow, not \"yes\""),
        ("version: 2\n", "c.yaml:1:1: `version` 2 is not known, only 1 is"),
        ("user_images: deny\n", "c.yaml:1:1: missing field `version`"),
        ("version: 1\nstart_timeout: 46\n", "c.yaml:2:1: `start_timeout` is 1 to 45 seconds, not 46"),
        ("version: 1\nstart_timeout: soon\n", "c.yaml:2:16: start_timeout: invalid type: string \"soon\""),
        ("version: 1\nbinds:\n- source: gpfs\n", "c.yaml:3:3: binds[0]: \"gpfs\" is not an absolute path"),
        ("version: 1\nbinds:\n- source: /a\n  mode: wr\n", "c.yaml:4:9: binds[0].mode: unknown variant `wr`"),
        ("version: 1\nbinds:\n- source: /a\n  target: /proc/x\n", "c.yaml:3:3: binds[0]: \"/proc/x\": nothing may"),
        ("version: 1\nbinds:\n- source: /a\n  user: x\n", "c.yaml:4:3: binds[0]: unknown field `user`"),
        ("version: 1\nversion: 1\n", "duplicate field `version`"),
        ("version: 1\nimage_paths: /a\n", "c.yaml:2:14: image_paths: invalid type"),
        ("version: 1\nslurm_client: off\n", "c.yaml:2:15: slurm_client: none or keys are expected, not \"off\""),
        ("version: 1\nslurm_client: 1\n", "slurm_client: invalid type: integer `1`, expected none, or the keys"),
        ("version: 1\nslurm_client:\n  bin: bin\n", "slurm_client: \"bin\" is not an absolute path"),
        ("version: 1\nslurm_client:\n  lib: /x\n", "c.yaml:3:3: slurm_client: unknown field `lib`"),
        ("version: 1\nlog_plan: maybe\n", "c.yaml:2:1: `log_plan` is yes or no"),
        ("version: 1\naudit:\n  required: yes\n", "c.yaml:3:3: `required` needs `file` (audit)"),
        ("version: 1\naudit:\n  file: a\n", "c.yaml:3:3: audit: \"a\" is not an absolute path"),
        (
            "version: 1\naudit:\n  users: r\n",
            "c.yaml:3:3: audit: `users` is an absolute path or none, not \"r\" (audit)",
        ),
        ("version: 1\naudit:\n  comment: maybe\n", "c.yaml:3:3: audit: yes or no is wanted"),
        ("version: 1\naudit:\n  path: /a\n", "c.yaml:3:3: audit: unknown field `path`"),
        ("version: 1\nlog: loud\n", "c.yaml:2:6: log: unknown variant `loud`"),
        (
            "version: 1\npartitions:\n  gpu:\n    signer: any\n",
            "c.yaml:4:5: partitions.gpu: unknown field `signer`, expected one of",
        ),
        (
            "version: 1\nusers:\n  a:\n    user_images: no\n",
            "users.a: `user_images` is kernel, fuse or deny, not \"no\"",
        ),
        ("version: 1\ngroups:\n  a: {}\n  a: {}\n", "groups: `a` stands there twice"),
        ("version: 1\naccounts:\n  '': {}\n", "accounts: a name is empty"),
        (
            "version: 1\nqos: [a]\n",
            "c.yaml:2:6: qos: invalid type: sequence, expected names, each with the keys of its rule",
        ),
        (
            "version: 1\nimage_paths:\n- path: /a\n- /b\n",
            "c.yaml:4:3: image_paths[1]: invalid type: string \"/b\", expected keys with values",
        ),
        (
            "version: 1\nimage_paths:\n- path: /a\n  owner: [x]\n",
            "c.yaml:4:3: image_paths[0]: `owner` is a user's name or number",
        ),
        ("version: 1\nbinds: /a\n", "c.yaml:2:8: binds: invalid type: string \"/a\", expected a list"),
        ("version: 1\nbinds:\n- source: /a\n- source: b\n", "c.yaml:4:3: binds[1]: \"b\" is not an absolute path"),
        ("version: 1\nusers:\n  a:\n    user_images: no\n", "c.yaml:4:5: users.a: `user_images` is kernel"),
        ("version: 1\ndigests: [sha256:ab]\n", "digests: \"sha256:ab\": "),
        ("version: 1\nsigners: [me]\n", "signers: \"me\" is no fingerprint: 40 or 64 hex digits, or SHA256:"),
        ("version: 1\nsigners: ['SHA256:x']\n", "signers: \"SHA256:x\" is no SHA256: fingerprint"),
        ("version: 1\nsigners: all\n", "c.yaml:2:10: signers: any or a list is expected, not \"all\""),
        ("version: 1\nmax_image_size: big\n", "c.yaml:2:1: `max_image_size` \"big\": "),
        ("version: 1\nbind_allow: [scratch]\n", "bind_allow: \"scratch\" is not an absolute path"),
        ("version: 1\nbind_deny: any\n", "c.yaml:2:12: bind_deny: invalid type"),
        ("version: 1\nuser_options: [bnd]\n", "user_options: unknown option `bnd`"),
        ("version: 1\nrequired: maybe\n", "c.yaml:2:1: `required` is yes or no"),
        (
            "version: 1\ndefault_image: a.sif\n",
            "c.yaml:2:1: `default_image` is none or an absolute path, not \"a.sif\"",
        ),
        ("version: 1\ndefault_image: /a@sha256:1\n", "c.yaml:2:1: `default_image` \"/a@sha256:1\": "),
        ("version: 1\nmpi:\n  a: {}\n", "c.yaml:3:6: mpi.a: missing field `libraries`"),
        ("version: 1\nmpi:\n  a:\n    libraries: []\n", "mpi.a: `libraries` names none"),
        ("version: 1\nmpi:\n  a:\n    libraries: [libmpi.so]\n", "\"libmpi.so\" is not an absolute path"),
        ("version: 1\nmpi:\n  a:\n    libs: [/a]\n", "c.yaml:4:5: mpi.a: unknown field `libs`"),
        ("version: 1\nmpi:\n  auto: {libraries: [/a]}\n", "c.yaml:3:3: mpi: `auto` cannot be the name of a profile"),
        ("version: 1\nmpi:\n  a/b: {libraries: [/a]}\n", "mpi: `a/b` cannot be the name of a profile"),
        ("version: 1\nmpi:\n  a: {libraries: [/a]}\n  a: {libraries: [/a]}\n", "mpi: `a` stands there twice"),
        ("version: 1\nmpi:\n  a: {libraries: [/a], folders: [/proc]}\n", "\"/proc\": nothing may be bound over"),
        ("version: 1\nmpi:\n  a: {libraries: [/a], folders: [{to: /x}]}\n", "unknown field `to`"),
        ("version: 1\nmpi:\n  a: {libraries: [/a], env: [A]}\n", "\"A\" is not NAME=VALUE"),
        ("version: 1\nmpi:\n  a: {libraries: [/a], env: [SLURM_X=1]}\n", "Slurm and Coracle set this variable"),
        ("version: 1\ngpu: {driver: nvidia}\n", "unknown variant `nvidia`, expected one of `auto`, `cdi`"),
        ("version: 1\ngpu:\n  drivers: cdi\n", "c.yaml:3:3: gpu: unknown field `drivers`"),
        ("version: 1\ngpu: {cdi: [cdi]}\n", "\"cdi\" is not an absolute path"),
        ("version: 1\ngpu: {libraries: [libcuda]}\n", "\"libcuda\" is neither a library's name, such as libcuda.so"),
        ("version: 1\ngpu: {libraries: [../libcuda.so]}\n", "\"../libcuda.so\" is neither a library's name"),
        ("version: 1\ngpu: {programs: [bin/nvidia-smi]}\n", "\"bin/nvidia-smi\" is neither a program's name nor"),
        ("version: 1\ngpu: {programs: [..]}\n", "\"..\" is neither a program's name nor an absolute path"),
        (
            "version: 1\nregistries: {docker.io: {mirror: x}}\n",
            "unknown field `mirror`, expected `plain_http` or `mirrors`",
        ),
        ("version: 1\nregistries: {docker.io: {plain_http: maybe}}\n", "yes or no is wanted"),
        ("version: 1\nregistries: {https://docker.io: {}}\n", "is no host of a registry"),
        ("version: 1\nregistries: {docker.io: {mirrors: [mirror.site.org]}}\n", "is no address of a mirror"),
        ("version: 1\ngpu: {files: [/proc/driver]}\n", "\"/proc/driver\": nothing may"),
        ("version: 1\noptions:\n  mpi: b\n", "c.yaml:3:3: options.mpi: there is no profile b below mpi"),
        ("version: [1\n", "c.yaml:1:10: version: invalid type"),
        ("", "c.yaml:1:1: missing field `version`"),
    ] {
        let line = refusal(text);
        assert!(line.contains(wanted) && line.ends_with("[config]"), "{text:?}: {line}");
    }
}

#[test]
fn profiles_of_mpi_are_in_the_order_of_the_file() {
    let text = "version: 1\noptions: {mpi: auto}\nmpi:\n  z:\n    libraries: [/z/libmpi.so.40]\n    folders: [/z/etc, {source: \
                /z/x, target: /y}]\n    env: ['A=1,2']\n  a: {libraries: [/a/libmpi.so.12], dependencies: [/a/libx.so]}\n";
    let config = Config::parse(Path::new("c.yaml"), text).unwrap();
    assert_eq!(config.options.0.mpi.as_ref().map(Mpi::word), Some("auto"));
    assert_eq!(config.mpi.names(), "z, a");
    let folders = config.mpi.get("z").unwrap().folders.iter();
    let folders: Vec<_> = folders.map(|folder| (folder.source.0.to_str().unwrap(), folder.target())).collect();
    assert_eq!(folders, [("/z/etc", Path::new("/z/etc")), ("/z/x", Path::new("/y"))]);
    let set = coracle::request::Variable::Set("A".into(), "1,2".into());
    assert_eq!(config.mpi.get("z").unwrap().env().collect::<Vec<_>>(), [set]);
    let files: Vec<_> = config.mpi.get("a").unwrap().files().collect();
    assert_eq!(files, [Path::new("/a/libmpi.so.12"), Path::new("/a/libx.so")]);
    assert!(config.mpi.get("b").is_none());
}

#[test]
fn the_driver_is_found_by_itself_unless_the_site_says_otherwise() {
    let gpu = |text: &str| Config::parse(Path::new("c.yaml"), &format!("version: 1\n{text}")).unwrap().gpu;
    let found = gpu("");
    assert_eq!(found.driver, DriverFrom::Auto);
    assert_eq!(found.cdi().collect::<Vec<_>>(), [Path::new("/etc/cdi"), Path::new("/var/run/cdi")]);
    assert_eq!(found, gpu("gpu: {}\n"));
    let found = gpu("gpu:\n  driver: libraries\n  cdi: []\n  libraries: [libcuda.so, /opt/x/liby.so.1]\n  programs: \
                     [dcgmi, /opt/x/bin/z]\n  files: [/run//x/socket]\n");
    assert_eq!((found.driver, found.cdi().count()), (DriverFrom::Libraries, 0));
    let wanted = [LibraryName::Listed("libcuda.so".into()), LibraryName::File("/opt/x/liby.so.1".into())];
    assert_eq!(found.libraries, wanted);
    let wanted = [ProgramName::Listed("dcgmi".into()), ProgramName::File("/opt/x/bin/z".into())];
    assert_eq!(found.programs, wanted);
    assert_eq!(found.files().collect::<Vec<_>>(), [Path::new("/run/x/socket")]);
}

#[test]
fn the_store_is_where_it_is_unless_the_site_says_otherwise() {
    let store = |text: &str| Config::parse(Path::new("c.yaml"), text).unwrap().store;
    let found = store("version: 1\n");
    assert_eq!((found.path(), found.max_images()), (Path::new("/var/lib/coracle/store"), 20));
    let found =
        store("version: 1\nstore: {path: /gpfs/images, max_images: 3, max_bytes: 1t, scanner: [/bin/scan, -x]}\n");
    assert_eq!((found.path(), found.max_images(), found.max_bytes()), (Path::new("/gpfs/images"), 3, 1 << 40));
    let scanner = found.scanner.unwrap();
    assert_eq!((scanner.program.as_path(), scanner.arguments), (Path::new("/bin/scan"), vec!["-x".to_owned()]));
    for (text, cause) in [
        ("store: {path: images}", "not an absolute path"),
        ("store: {scanner: [scan]}", "a program's absolute path"),
        ("store: {scanner: []}", "a program's absolute path"),
        ("store: {scanner_timeout: 0}", "1 to 86400"),
        ("store: {max_images: 0}", "`max_images` is 1 to 100000, not 0"),
        ("store: {max_images: -1}", "`max_images` is 1 to 100000, not -1"),
        ("store: {max_images: 5000000000}", "`max_images` is 1 to 100000, not 5000000000"),
        ("store: {size: 1}", "unknown field `size`"),
    ] {
        let line = refusal(&format!("version: 1\n{text}\n"));
        assert!(line.contains(cause), "{text}: {line}");
    }
}

#[test]
fn a_rule_has_every_key_that_the_top_level_has_and_names_may_be_numbers() {
    let keys = "default_image: /a.sif\nrequired: yes\nuser_images: deny\ndirectories: allow\ndigests: any\nsigners: \
                ['0123 4567 89ab cdef 0123  4567 89ab cdef 0123 4567']\nmax_image_size: 50g\nbind_allow: [/a]\nbind_deny: \
                [/b]\nuser_options: [clean-env]\n";
    let indented: String = keys.lines().map(|line| format!("    {line}\n")).collect();
    let config = |text: &str| Config::parse(Path::new("c.yaml"), &format!("version: 1\n{text}")).unwrap();
    let (top, scopes) = (config(keys).top(), config(&format!("users:\n  2001:\n{indented}")).users.0);
    assert_eq!(scopes, [("2001".to_owned(), top.clone())]);
    assert_eq!(top.signers.unwrap().to_string(), "[0123456789ABCDEF0123456789ABCDEF01234567]");
    assert_eq!(top.max_image_size.unwrap().to_string(), "53687091200 bytes");
    assert_eq!(top.user_options.unwrap().to_string(), "[clean-env]");
}
