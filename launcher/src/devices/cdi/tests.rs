//! Tests of the parts of specifications that are applied, refused or left out.
#![forbid(unsafe_code)]

use proptest::prelude::*;

use super::*;
use crate::devices::Library;
use crate::devices::tree::{RELEASE, Tree};
use coracle::report::Refusal;

const YAML: &str = include_str!("../../../../tests/gpus/nvidia.yaml");
const JSON: &str = include_str!("../../../../tests/gpus/nvidia.json");
const DIRECTORY: &str = "/usr/lib/x86_64-linux-gnu";

fn spec(text: &str) -> Spec {
    let name = if text.starts_with('{') { "/etc/cdi/x.json" } else { "/etc/cdi/x.yaml" };
    Spec::parse(Path::new(name), text).unwrap()
}

fn fault(text: &str) -> String {
    let name = if text.starts_with('{') { "/etc/cdi/x.json" } else { "/etc/cdi/x.yaml" };
    Refusal::from(Spec::parse(Path::new(name), text).unwrap_err()).line()
}

fn granted(nodes: &[&str]) -> Vec<PathBuf> {
    nodes.iter().map(|node| Path::new("/dev").join(node)).collect()
}

fn chosen(specs: &[Spec], nodes: &[&str]) -> Option<Chosen> {
    choose(specs, &granted(nodes)).unwrap()
}

fn devices(nodes: &[&str]) -> Vec<String> {
    let chosen = chosen(&[spec(YAML)], nodes);
    let names = chosen.into_iter().flat_map(|chosen| chosen.devices);
    names.map(|name| name.trim_start_matches("nvidia.com/gpu=").to_owned()).collect()
}

fn nodes(nodes: &[&str]) -> Vec<String> {
    let chosen = chosen(&[spec(YAML)], nodes).unwrap();
    chosen.nodes.iter().map(|node| node.strip_prefix("/dev").unwrap().display().to_string()).collect()
}

/// Specification with one GPU, and `edits` for all.
fn with(edits: &str) -> Spec {
    spec(&format!(
        "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices:\n- name: '0'\n  containerEdits:\n    deviceNodes:\n    - path: \
         /dev/nvidia0\ncontainerEdits:\n{edits}"
    ))
}

/// Driver for the one GPU of [`with`].
fn driver(tree: &Tree, edits: &str) -> Driver {
    chosen(&[with(edits)], &["nvidia0"]).unwrap().driver(&tree.sources())
}

fn mounts(pairs: &[(&str, &str)]) -> String {
    let one = |(host, target): &(&str, &str)| format!("  - hostPath: {host}\n    containerPath: {target}\n");
    format!("  mounts:\n{}", pairs.iter().map(one).collect::<String>())
}

#[test]
fn what_is_granted_says_which_devices_are_meant() {
    assert_eq!(devices(&["nvidia2"]), ["2"]);
    assert_eq!(devices(&["nvidia3", "nvidia7"]), ["3", "7"]);
    assert_eq!(devices(&["nvidia0", "nvidia-caps/nvidia-cap21", "nvidia-caps/nvidia-cap22"]), ["0:1"]);
    let two = ["nvidia1", "nvidia-caps/nvidia-cap147", "nvidia-caps/nvidia-cap148"];
    let two = [&two[..], &["nvidia-caps/nvidia-cap165", "nvidia-caps/nvidia-cap166", "nvidia4"]].concat();
    assert_eq!(devices(&two), ["1:0", "1:2", "4"]);
    // A part counts with both of its device nodes, and only for the right GPU.
    assert_eq!(devices(&["nvidia0", "nvidia-caps/nvidia-cap12"]), [""; 0]);
    assert_eq!(devices(&["nvidia1", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"]), [""; 0]);
    assert_eq!(devices(&["nvidia0"]), [""; 0]);
    assert_eq!(devices(&["nvidia8"]), [""; 0]);
    assert_eq!(devices(&["nvidiactl", "nvidia-uvm", "dri/renderD130"]), [""; 0]);
    assert_eq!(devices(&[]), [""; 0]);
}

#[test]
fn the_nodes_are_those_of_the_granted_devices_and_the_common_ones() {
    let common = ["nvidia-modeset", "nvidia-uvm", "nvidia-uvm-tools", "nvidiactl"];
    assert_eq!(nodes(&["nvidia2"]), [&common[..], &["nvidia2", "dri/card3", "dri/renderD130"]].concat());
    let part = ["nvidia0", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"];
    assert_eq!(nodes(&part), [&common[..], &part].concat());
    let all: Vec<String> = (0..8).map(|number| format!("nvidia{number}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert!(nodes(&all).iter().all(|node| !node.contains("caps")));
}

#[test]
fn a_device_node_of_another_device_is_never_added() {
    let two = "cdiVersion: 0.5.0\nkind: a.com/gpu\ndevices:\n- name: '0'\n  containerEdits: {deviceNodes: [{path: \
               /dev/nvidia0}, {path: /dev/dri/renderD128}, {path: /dev/dri/renderD129}]}\n- name: '1'\n  \
               containerEdits: {deviceNodes: [{path: /dev/nvidia1}, {path: /dev/dri/renderD129}]}\ncontainerEdits: \
               {deviceNodes: [{path: /dev/nvidia1}, {path: /dev/nvidiactl}]}\n";
    let chosen = |nodes: &[&str]| chosen(&[spec(two)], nodes).map(|chosen| chosen.nodes);
    let wanted = ["nvidiactl", "nvidia0", "dri/renderD128"];
    assert_eq!(chosen(&["nvidia0"]), Some(granted(&wanted)));
    // Device nodes that a specification's devices share identify none of them.
    let wanted = ["nvidia1", "nvidiactl", "nvidia0", "dri/renderD128", "dri/renderD129"];
    assert_eq!(chosen(&["nvidia0", "nvidia1", "dri/renderD129"]), Some(granted(&wanted)));
}

#[test]
fn what_all_devices_have_in_common_is_no_gpu() {
    let edits = "  deviceNodes: [{path: /dev/nvidia7}, {path: /dev/nvidia-caps/nvidia-cap9}, {path: /dev/dri/card9}, {path: \
                 /dev/nvidia-uvm}]\n";
    assert_eq!(chosen(&[with(edits)], &["nvidia0"]).unwrap().nodes, granted(&["nvidia-uvm", "nvidia0"]));
}

#[test]
fn a_part_is_preferred_to_the_whole_and_an_old_specification_gives_no_more_than_was_granted() {
    let whole = "- name: '0'\n  containerEdits: {deviceNodes: [{path: /dev/nvidia0}, {path: /dev/dri/card0}]}\n";
    let part = "- name: '0:0'\n  containerEdits: {deviceNodes: [{path: /dev/nvidia0}, {path: \
                /dev/nvidia-caps/nvidia-cap12}]}\n";
    let text = |devices: &str| spec(&format!("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n{devices}"));
    let caps = ["nvidia0", "nvidia-caps/nvidia-cap12"];
    let found = chosen(&[text(&format!("{whole}{part}"))], &caps).unwrap();
    assert_eq!((found.devices, found.nodes), (vec!["nvidia.com/gpu=0:0".into()], granted(&caps)));
    let found = chosen(&[text(whole)], &caps).unwrap();
    assert_eq!((found.devices, found.nodes), (vec!["nvidia.com/gpu=0".into()], granted(&["nvidia0"])));
    assert_eq!(found.notes, ["/dev/nvidia-caps/nvidia-cap12: no specification has it"]);
}

#[test]
fn gpus_of_others_are_told_by_their_node_for_rendering() {
    let amd = "cdiVersion: 0.6.0\nkind: amd.com/gpu\ndevices:\n- name: '0'\n  containerEdits: {deviceNodes: [{path: \
               /dev/kfd}, {path: /dev/dri/card1}, {path: /dev/dri/renderD128}]}\n- name: '1'\n  containerEdits: \
               {deviceNodes: [{path: /dev/kfd}, {path: /dev/dri/card2}, {path: /dev/dri/renderD129}]}\n";
    let found = chosen(&[spec(amd)], &["dri/renderD129"]).unwrap();
    assert_eq!(found.devices, ["amd.com/gpu=1"]);
    assert_eq!(found.nodes, granted(&["kfd", "dri/card2", "dri/renderD129"]));
    assert_eq!(chosen(&[spec(amd)], &["kfd"]), None);
}

#[test]
fn the_whole_specification_becomes_a_driver() {
    let tree = Tree::new();
    tree.fill(YAML);
    let driver = chosen(&[spec(YAML)], &["nvidia2"]).unwrap().driver(&tree.sources());
    assert_eq!(driver.libraries.len(), 30, "{:#?}", driver.libraries);
    let library = |name: &str| driver.libraries.iter().find(|library| library.name == name).unwrap();
    let file = |stem: &str| tree.at(&format!("{DIRECTORY}/{stem}.so.{RELEASE}"));
    let links = |links: &[&str]| links.iter().map(|link| (*link).to_owned()).collect::<Vec<_>>();
    let cuda = Library {
        source: file("libcuda"),
        name: "libcuda.so.1".into(),
        links: links(&[&format!("libcuda.so.{RELEASE}"), "libcuda.so"]),
    };
    assert_eq!(library("libcuda.so.1"), &cuda);
    let links = &library("libGLX_nvidia.so.1").links;
    assert_eq!(links.as_slice(), [format!("libGLX_nvidia.so.{RELEASE}"), "libGLX_indirect.so.0".into()]);
    assert!(library(&format!("libnvidia-glcore.so.{RELEASE}")).links.is_empty());
    assert_eq!(driver.glibc.as_deref(), Some("GLIBC_2.27"));
    let programs: Vec<_> = driver.programs.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(programs.len(), 5, "{programs:?}");
    assert!(programs.contains(&"nvidia-smi"));
    let targets: Vec<_> = driver.files.iter().map(|file| file.target.display().to_string()).collect();
    for target in ["/run/nvidia-persistenced/socket", "/usr/share/vulkan/icd.d/nvidia_icd.json"] {
        assert!(targets.contains(&target.to_owned()), "{targets:?}");
    }
    assert_eq!(targets.len(), 12, "{targets:?}");
    assert!(driver.env.is_empty());
    assert_eq!(driver.found_in, ["/etc/cdi/x.yaml"]);
    let notes = [
        "/etc/cdi/x.yaml: nvidia-cdi-hook enable-cuda-compat is not run: programs use this node's libcuda".to_owned(),
        format!("{DIRECTORY}/gbm/nvidia-drm_gbm.so: no link to ../libnvidia-allocator.so.1 is made"),
        format!(
            "/usr/lib/xorg/modules/extensions/libglxserver_nvidia.so: no link to libglxserver_nvidia.so.{RELEASE} is made"
        ),
    ];
    let found: BTreeSet<_> = driver.notes.iter().cloned().collect();
    assert_eq!(found, notes.into());
}

#[test]
fn a_specification_whose_libraries_are_gone_is_stale() {
    let tree = Tree::new();
    tree.fill(&YAML.replace(RELEASE, "560.35.03"));
    let make = |text: &str| chosen(&[spec(text)], &["nvidia2"]).unwrap().make(&tree.sources()).map(Making::done);
    let stale = make(YAML).unwrap_err();
    assert_eq!(stale.found_in, ["/etc/cdi/x.yaml"]);
    // Some libraries have no release in their names.
    let stays = ["libnvidia-egl-gbm", "libnvidia-egl-wayland", "nvidia_drv"];
    let others = |name: &str| !stays.iter().any(|stay| name.contains(stay));
    assert!(stale.libraries.iter().all(|library| !others(&library.name)), "{:?}", stale.libraries);
    assert!(
        make(
            "cdiVersion: 0.5.0\nkind: a/b\ndevices: [{name: x, containerEdits: {deviceNodes: [{path: /dev/nvidia2}]}}]"
        )
        .is_ok()
    );
}

#[test]
fn json_is_read_as_well() {
    let tree = Tree::new();
    tree.library("/usr/lib64/libcuda.so.550.54.15", "libcuda.so.1", "GLIBC_2.17");
    let found = chosen(&[spec(JSON)], &["nvidia1"]).unwrap();
    assert_eq!(found.devices, ["nvidia.com/gpu=1"]);
    let driver = found.driver(&tree.sources());
    let env = [("NVIDIA_DRIVER_CAPABILITIES", "compute,utility"), ("NVIDIA_SECOND", "1")];
    assert_eq!(driver.env, env.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(driver.nodes, granted(&["nvidiactl", "nvidia-uvm", "nvidia1", "dri/renderD129"]));
    assert_eq!((driver.libraries.len(), driver.glibc.as_deref()), (1, Some("GLIBC_2.17")));
    assert_eq!(driver.notes, ["/usr/bin/nvidia-smi: not on this node"]);
}

#[test]
fn later_directories_count_and_one_directory_has_a_device_once() {
    let first = spec(JSON);
    let text = JSON.replace("NVIDIA_SECOND=1", "NVIDIA_SECOND=2");
    let second = Spec { path: "/run/cdi/x.json".into(), priority: 1, ..spec(&text) };
    let found = chosen(&[first.clone(), second.clone()], &["nvidia1"]).unwrap();
    assert_eq!(found.specs, [Path::new("/run/cdi/x.json")]);
    assert!(found.env.contains(&("NVIDIA_SECOND".into(), "2".into())));
    // A kind of its own, as Kubernetes' plugin writes it, is the same device again.
    let other = Spec { kind: "k8s.device-plugin.nvidia.com/gpu".into(), ..second.clone() };
    assert_eq!(chosen(&[first.clone(), other], &["nvidia1"]).unwrap().devices.len(), 1);
    let beside = Spec { path: "/etc/cdi/y.json".into(), ..first.clone() };
    let refused = choose(&[first.clone(), beside.clone()], &granted(&["nvidia1"])).unwrap_err();
    let line = Refusal::from(refused).line();
    assert_eq!(line, "coracle: /etc/cdi/y.json: has the device nvidia.com/gpu=1, as /etc/cdi/x.json does [config]");
    assert_eq!(chosen(&[first.clone(), beside.clone()], &["nvidia5"]), None);
    assert!(chosen(&[first, beside, second], &["nvidia1"]).is_some());
}

#[test]
fn what_cannot_be_understood_is_named() {
    let head = "cdiVersion: 0.5.0\nkind: a.com/b\n";
    let edits = |edits: &str| format!("{head}devices: []\ncontainerEdits: {edits}\n");
    for (text, wanted) in [
        ("", "/etc/cdi/x.yaml"),
        ("devices: []\n", "missing field `cdiVersion`"),
        ("cdiVersion: 2.0.0\nnew: x\n", "cdiVersion \"2.0.0\" is not known, only 0.3 to 1.x are"),
        ("cdiVersion: 0.2.0\n", "cdiVersion \"0.2.0\" is not known"),
        ("cdiVersion: latest\n", "cdiVersion \"latest\" is not known"),
        ("cdiVersion: 0.5.0\nkind: gpu\ndevices: []\n", "kind: \"gpu\" is not vendor/class"),
        ("{\"cdiVersion\": \"1.0.0\", \"kind\": \"a/b\"}", "x.json:1:38: missing field `devices`"),
        ("{\"cdiVersion\": \"1.0.0\",", "/etc/cdi/x.json:1:23: EOF while parsing"),
        (&format!("{head}devices: []\nvolumes: []\n"), "unknown field `volumes`"),
        (&edits("{mount: []}"), "unknown field `mount`"),
        (&edits("{hooks: [{path: /x}]}"), "missing field `hookName`"),
        (&format!("{head}devices: [{{name: '', containerEdits: {{}}}}]\n"), "a device has no name"),
        (
            &format!("{head}devices: [{{name: a, containerEdits: {{}}}}, {{name: a, containerEdits: {{}}}}]\n"),
            "the device \"a\" stands there twice",
        ),
        ("cdiVersion: &v 0.5.0\nkind: *v\ndevices: []\n", "has anchors and aliases, which are not read"),
    ] {
        let line = fault(text);
        assert!(line.contains(wanted) && line.ends_with("[config]"), "{text:?}: {line}");
    }
    let annotated =
        "annotations: {a.com/b: {any: [thing]}}\ndevices: [{name: x, annotations: {c: d}, containerEdits: {}}]\n";
    assert_eq!(spec(&format!("{head}{annotated}")).devices.len(), 1);
    assert_eq!(with("  {}\n").edits.mounts.len(), 0);
}

#[test]
fn little_text_does_not_become_much() {
    let many = "x,".repeat(50_000);
    let bomb = format!(
        "cdiVersion: 0.5.0\nkind: a/b\ndevices: []\ncontainerEdits:\n  env: &a [{many}]\n  mounts: [*a,{}]\n",
        "*a,".repeat(50_000)
    );
    assert!(fault(&bomb).contains("anchors and aliases"));
    assert!(has_aliases_of("{\"a\":&b [1], c: [*b]}") && has_aliases_of("- &b 1\n- *b"));
    assert!(!has_aliases_of("a: x&y\nb: 2*3") && !has_aliases_of(YAML));
    for sign in ["[", "{", "- ", "? ", "a: "] {
        let deep = format!("cdiVersion: 0.5.0\nkind:\n {}\n", sign.repeat(100_000));
        let start = std::time::Instant::now();
        assert!(fault(&deep).ends_with("[config]"));
        assert!(start.elapsed().as_secs() < 5, "{sign:?}: {:?}", start.elapsed());
    }
}

fn has_aliases_of(text: &str) -> bool {
    super::spec::has_aliases(text)
}

#[test]
fn a_hook_that_nobody_knows_is_refused_by_name_and_none_is_run() {
    let tree = Tree::new();
    tree.library("/usr/lib/libcuda.so.1", "libcuda.so.1", "GLIBC_2.4");
    let hook =
        |path: &str, args: &str| format!("  hooks:\n  - {{hookName: createContainer, path: {path}, args: [{args}]}}\n");
    for (path, args) in [
        ("/usr/bin/nvidia-ctk", "x, hook, update-ldcache, --folder, /usr/lib"),
        ("/usr/bin/nvidia-ctk-hook", "x, update-ldcache"),
        ("/usr/bin/nvidia-cdi-hook", "x, chmod, --mode, '755'"),
        ("/usr/bin/nvidia-cdi-hook", "x, update-application-profile"),
        ("/usr/bin/nvidia-cdi-hook", "x, create-symlinks, --link=a::/b"),
    ] {
        assert!(choose(&[with(&hook(path, args))], &granted(&["nvidia0"])).is_ok(), "{path} {args}");
    }
    for (path, args) in [
        ("/usr/bin/nvidia-ctk", "nvidia-ctk, update-ldcache"),
        ("/usr/bin/nvidia-ctk", "nvidia-ctk, hook, run, /bin/sh"),
        ("/usr/bin/nvidia-cdi-hook", ""),
        ("/usr/bin/nvidia-cdi-hook", "nvidia-cdi-hook, create-symlinks, --link, a"),
        ("/opt/vendor/hook", "nvidia-cdi-hook, update-ldcache"),
    ] {
        let refusal = Refusal::from(choose(&[with(&hook(path, args))], &granted(&["nvidia0"])).unwrap_err());
        let wanted = format!("/etc/cdi/x.yaml: wants {path} to be run ({})", args.replace(", ", " "));
        assert!(refusal.line().contains(&wanted), "{}", refusal.line());
        assert!(refusal.hint.unwrap().contains("gpu.driver: libraries"));
    }
    // CVE-2025-23266: the environment for the hook's process is ignored.
    let preload = "  hooks:\n  - hookName: createContainer\n    path: /usr/bin/nvidia-cdi-hook\n    args: [x, \
                   update-ldcache]\n    env: [LD_PRELOAD=./evil.so]\n";
    let found = driver(&tree, &format!("{preload}{}", mounts(&[("/usr/lib/libcuda.so.1", "/usr/lib/libcuda.so.1")])));
    assert_eq!((found.env.len(), found.libraries.len(), found.notes.len()), (0, 1, 0), "{found:?}");
}

#[test]
fn variables_that_are_not_a_drivers_are_left_out() {
    let names = ["LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HOME", "SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "BASH_ENV"];
    let list: Vec<String> = names.iter().map(|name| format!("{name}=x")).collect();
    let edits = format!("  env: [A=1, A=1, A=2, {}, 'B C=1', D, NVIDIA_CTK_X=1]\n", list.join(", "));
    let found = driver(&Tree::new(), &edits);
    assert_eq!(found.env, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(found.notes.len(), names.len() + 3, "{:?}", found.notes);
    for name in names {
        let note = format!("/etc/cdi/x.yaml: {name:?} is no variable for a driver to set");
        assert!(found.notes.contains(&note), "{note}");
    }
}

#[test]
fn mounts_that_lead_astray_are_left_out() {
    let tree = Tree::new();
    tree.put("/usr/share/a", b"data");
    for target in ["/../../etc", "/usr/../etc", "etc", "/", "/proc/1", "/sys/x", "/dev/x", "/run/coracle/lib"] {
        let found = driver(&tree, &mounts(&[("/usr/share/a", target)]));
        assert_eq!(found.notes, [format!("/usr/share/a: {target:?} is no place for a driver's files")]);
        assert!(found.files.is_empty());
    }
    for source in ["/proc/self/environ", "/dev/sda", "/usr/share/../share/a", "usr/share/a"] {
        let found = driver(&tree, &mounts(&[(source, "/opt/a")]));
        assert!(found.files.is_empty() && found.notes.len() == 1, "{source}: {found:?}");
    }
    let found = driver(&tree, "  mounts: [{hostPath: /usr/share/a, containerPath: /b, type: tmpfs}]\n");
    assert_eq!(found.notes, ["/b: a mount of type \"tmpfs\" is not made"]);
    // A link is resolved in the node's root, and its target is checked.
    std::os::unix::fs::symlink("/../../usr/share/a", tree.at("/usr/share/link")).unwrap();
    let found = driver(&tree, &mounts(&[("/usr/share/link", "/opt/a")]));
    assert_eq!(found.files.first().unwrap().source, tree.at("/usr/share/a"));
}

#[test]
fn device_nodes_elsewhere_are_left_out() {
    let found = driver(
        &Tree::new(),
        "  deviceNodes: [{path: /tmp/a}, {path: /dev/x, hostPath: /srv/x}, {path: /dev/../tmp/b}, \
                                      {path: /dev}, {path: dev/c}, {path: /dev/d, hostPath: ''}]\n",
    );
    assert_eq!(found.nodes, granted(&["d", "nvidia0"]));
    assert_eq!(found.notes.len(), 5, "{:?}", found.notes);
}

#[test]
fn what_a_step_belongs_to_is_not_changed() {
    let found = driver(
        &Tree::new(),
        "  additionalGids: [0]\n  intelRdt: {closID: x}\n  netDevices: [{hostInterfaceName: a}]\n",
    );
    assert_eq!(found.notes.len(), 3, "{:?}", found.notes);
}

#[test]
fn specifications_that_others_could_write_are_refused() {
    let tree = Tree::new();
    assert!(read([Path::new("/no/such/directory"), tree.directory.path()].into_iter()).unwrap().is_empty());
    tree.put("notes.txt", b"cdi");
    assert!(read([tree.directory.path()].into_iter()).unwrap().is_empty());
    tree.put("nvidia.json", JSON.as_bytes());
    // All users can write to the directory of temporary files.
    let line = Refusal::from(read([tree.directory.path()].into_iter()).unwrap_err()).line();
    assert!(line.contains("writable by others than root") || line.contains("must belong to root"), "{line}");
}

proptest! {
    #[test]
    fn no_damage_makes_it_panic(at in 0..YAML.len(), length in 0_usize..40, put in "[ -~\n]{0,12}") {
        let end = (at + length).min(YAML.len());
        let text = format!("{}{put}{}", &YAML[..at], &YAML[end..]);
        if let Ok(spec) = Spec::parse(Path::new("/x.yaml"), &text) {
            let found = choose(&[spec], &granted(&["nvidia2", "nvidia3"]));
            let other = |node: &PathBuf| is_nvidia(node) && !granted(&["nvidia2", "nvidia3"]).contains(node);
            prop_assert!(!found.is_ok_and(|found| found.is_some_and(|found| found.nodes.iter().any(other))));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        for name in ["/x.yaml", "/x.json"] {
            if let Ok(spec) = Spec::parse(Path::new(name), &text) {
                let _ = choose(&[spec], &granted(&["nvidia0"]));
            }
        }
    }
}

#[test]
fn only_what_names_another_kind_of_device_is_passed_over() {
    for text in ["cdiVersion: 9\nkind: acme.com/nic\n", "{\n  \"kind\": \"acme.com/nic\",\n", "kind: 'acme.com/nic'"] {
        assert!(spec::is_of_no_gpu(text), "{text}");
    }
    for text in [
        "kind: nvidia.com/gpu",
        "kind: acme.com/gpu",
        "kind: amd.com/nic",
        "kind: x",
        "",
        "{\"kind\": \"intel.com/x\"}",
    ] {
        assert!(!spec::is_of_no_gpu(text), "{text}");
    }
}
