//! What is right in coracle.yaml, and how what is wrong is named.
#![forbid(unsafe_code)]

use super::*;

fn refusal(text: &str) -> String {
    Refusal::from(Config::parse(Path::new("c.yaml"), text).unwrap_err()).line()
}

#[test]
fn the_example_of_the_documentation_is_valid() {
    let text = include_str!("../../slurm-conf-examples/coracle.yaml");
    let config = Config::parse(Path::new("coracle.yaml"), text).unwrap();
    let targets: Vec<_> = config.binds.iter().map(|bind| (bind.target().to_owned(), bind.required)).collect();
    for path in ["/gpfs", "/scratch", "/work"] {
        assert!(targets.contains(&(path.into(), false)), "{path}");
    }
}

#[test]
fn the_defaults_allow_nothing_of_the_users() {
    let config = Config::parse(Path::new("c.yaml"), "version: 1\n").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!((config.user_images, config.image_paths.len()), (None, 0));
    assert_eq!(config.directories, Directories::Deny);
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
    assert_eq!(audit("audit: {file: /var/log/a}"), Audit { file: file.clone(), required: false, comment: false });
    let all = "audit:\n  file: /var/log/a\n  required: yes\n  comment: true\n";
    assert_eq!(audit(all), Audit { file, required: true, comment: true });
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
        ("version: 1\naudit:\n  comment: maybe\n", "c.yaml:3:3: audit: yes or no is wanted"),
        ("version: 1\naudit:\n  path: /a\n", "c.yaml:3:3: audit: unknown field `path`"),
        ("version: 1\nlog: loud\n", "c.yaml:2:6: log: unknown variant `loud`"),
        ("version: [1\n", "c.yaml:1:10: version: invalid type"),
        ("", "c.yaml:1:1: missing field `version`"),
    ] {
        let line = refusal(text);
        assert!(line.contains(wanted) && line.ends_with("[config]"), "{text:?}: {line}");
    }
}

#[test]
fn the_store_is_where_it_is_unless_the_site_says_otherwise() {
    let store = |text: &str| Config::parse(Path::new("c.yaml"), text).unwrap().store;
    let found = store("version: 1\n");
    assert_eq!((found.path(), found.max_images), (Path::new("/var/lib/coracle/store"), 20));
    let found =
        store("version: 1\nstore: {path: /gpfs/images, max_images: 3, max_bytes: 1t, scanner: [/bin/scan, -x]}\n");
    assert_eq!((found.path(), found.max_images, found.max_bytes()), (Path::new("/gpfs/images"), 3, 1 << 40));
    let scanner = found.scanner.unwrap();
    assert_eq!((scanner.program.as_path(), scanner.arguments), (Path::new("/bin/scan"), vec!["-x".to_owned()]));
    for (text, cause) in [
        ("store: {path: images}", "not an absolute path"),
        ("store: {scanner: [scan]}", "a program's absolute path"),
        ("store: {scanner: []}", "a program's absolute path"),
        ("store: {scanner_timeout: 0}", "1 to 86400"),
        ("store: {size: 1}", "unknown field `size`"),
    ] {
        let line = refusal(&format!("version: 1\n{text}\n"));
        assert!(line.contains(cause), "{text}: {line}");
    }
}
