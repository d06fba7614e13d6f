//! Tests each row of the table in the module's documentation, and the restoration of the host's environment.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use proptest::prelude::*;

use super::*;

fn pairs(list: &[(&str, &str)]) -> Vec<Pair> {
    list.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn value<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
    environment.get(name).map(|variable| variable.value.to_str().unwrap())
}

fn origin(environment: &Environment, name: &str) -> String {
    environment.get(name).unwrap().origin.to_string()
}

fn items(text: &str) -> Vec<Item> {
    Item::parse_list(OsStr::new(text)).unwrap()
}

/// Environment without settings of an image.
fn finished(host: &[Pair], rules: &Rules) -> Environment {
    let mut environment = Environment::start(host, rules);
    environment.finish(host, rules);
    environment
}

#[test]
fn a_directory_of_no_use_is_not_told_unless_somebody_says_so() {
    let host = pairs(&[("TMPDIR", "/local"), ("XDG_RUNTIME_DIR", "/run/user/1")]);
    let rules = |user: &str| Rules { useless: vec!["TMPDIR".into()], user: items(user), ..Rules::default() };
    let environment = finished(&host, &rules(""));
    assert_eq!((value(&environment, "TMPDIR"), value(&environment, "XDG_RUNTIME_DIR")), (None, Some("/run/user/1")));
    assert!(environment.changes(&host).contains(&Change::Unset("TMPDIR".into())));
    assert_eq!(value(&finished(&host, &rules("TMPDIR")), "TMPDIR"), Some("/local"));
    assert_eq!(value(&finished(&host, &rules("TMPDIR=/tmp")), "TMPDIR"), Some("/tmp"));
    let inside = Rules { already_inside: true, ..rules("") };
    assert_eq!(value(&finished(&host, &inside), "TMPDIR"), None);
}

#[test]
fn the_hosts_variables_pass_but_for_paths_of_the_nodes_files() {
    let mut host = pairs(&[
        ("PATH", "/host/bin"),
        ("LD_LIBRARY_PATH", "/host/lib"),
        ("LD_PRELOAD", "/host/x.so"),
        ("LD_AUDIT", "/host/y.so"),
        ("OMP_NUM_THREADS", "4"),
        ("SLURM_JOB_ID", "7"),
        ("BASH_FUNC_module%%", "() { :\n}"),
        ("OMP_NUM_THREADS", "the second does not count"),
        ("SINGULARITY_NAME", "other.sif"),
        ("APPTAINER_CACHEDIR", "/scratch"),
    ]);
    host.push(("LATIN".into(), OsString::from_vec(vec![0xfc])));
    let environment = finished(&host, &Rules::default());
    assert_eq!((value(&environment, "PATH"), origin(&environment, "PATH").as_str()), (Some(DEFAULT_PATH), "default"));
    for name in ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "SINGULARITY_NAME", "CORACLE_DIGEST"] {
        assert_eq!(value(&environment, name), None, "{name}");
    }
    assert_eq!(value(&environment, "OMP_NUM_THREADS"), Some("4"));
    assert_eq!(value(&environment, "APPTAINER_CACHEDIR"), Some("/scratch"));
    assert_eq!(origin(&environment, "OMP_NUM_THREADS"), "host");
    assert_eq!(origin(&environment, "SLURM_JOB_ID"), "slurm");
    assert_eq!(value(&environment, "BASH_FUNC_module%%"), Some("() { :\n}"));
    assert_eq!(environment.get("LATIN").unwrap().value.as_bytes(), [0xfc]);
}

#[test]
fn clean_leaves_what_slurm_mpi_and_the_terminal_need() {
    let kept = [
        "SLURM_JOB_ID",
        "SLURMD_NODENAME",
        "PMI_RANK",
        "PMIX_RANK",
        "LANG",
        "LC_ALL",
        "LANGUAGE",
        "TZ",
        "TERM",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "PWD",
        "TMPDIR",
        "DISPLAY",
        "XAUTHORITY",
        "http_proxy",
        "HTTPS_PROXY",
        "CUDA_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "HIP_VISIBLE_DEVICES",
        "ZE_AFFINITY_MASK",
        "GPU_DEVICE_ORDINAL",
    ];
    let dropped = ["OMP_NUM_THREADS", "MODULEPATH", "CORACLE_CONTAINER_BIND", "OMPI_MCA_pml", "BASH_FUNC_x%%", "LANGX"];
    let host: Vec<Pair> = kept.iter().chain(&dropped).map(|name| ((*name).into(), "x".into())).collect();
    let rules = Rules { clean: true, user: items("OMPI_*"), ..Rules::default() };
    let environment = finished(&host, &rules);
    let names: Vec<&OsStr> = environment.iter().map(|(name, _)| name).collect();
    let mut expected: Vec<&OsStr> =
        kept.iter().chain(&["PATH", "OMPI_MCA_pml", "CORACLE_IMAGE", "CORACLE_NAME"]).map(OsStr::new).collect();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn the_document_for_users_names_what_passes_clean() {
    let manual = include_str!("../../../docs/environment.md");
    let source = include_str!("../../../src/env/names.rs");
    let (_, body) = source.split_once("pub fn passes_clean").unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let names: Vec<&str> = body.split('"').skip(1).step_by(2).filter(|name| *name != "CORACLE_").collect();
    assert!(names.contains(&"TMPDIR") && names.iter().all(|name| manual.contains(name)), "{names:?}");
}

#[test]
fn the_image_wins_but_not_over_language_user_and_slurm() {
    let host = pairs(&[
        ("LANG", "de_DE.UTF-8"),
        ("SLURM_PROCID", "3"),
        ("HOME", "/home/alice"),
        ("EDITOR", "vi"),
        ("SAME", "1"),
    ]);
    let rules = Rules::default();
    for from in ["script", "config", "file", "shell"] {
        let mut environment = Environment::start(&host, &rules);
        let lines =
            ["LANG=C", "LC_ALL=C", "SLURM_PROCID=0", "PMIX_RANK=0", "HOME=/root", "EDITOR=ed", "CORACLE_X=1", "SAME=1"];
        let image = match from {
            "script" => {
                let text = format!("export {}", lines.join(" "));
                script::evaluate("/e.sh", text.as_bytes(), &mut environment).unwrap();
                "image: /e.sh"
            }
            "config" => {
                environment.oci_env(&lines);
                "image: config Env"
            }
            "file" => {
                environment.environment_file(lines.join("\n").as_bytes());
                "image: /etc/environment"
            }
            _ => {
                let mut after = environment.exported();
                after.retain(|(name, _)| name != "LANG" && name != "EDITOR");
                after.extend(
                    lines
                        .iter()
                        .filter(|line| !line.starts_with("SAME"))
                        .filter_map(|line| line.split_once('=').map(|(name, value)| (name.into(), value.into()))),
                );
                environment.take_over(&after, "/e.sh");
                "image: /e.sh"
            }
        };
        environment.finish(&host, &rules);
        assert_eq!(value(&environment, "LANG"), Some("de_DE.UTF-8"), "{from}");
        assert_eq!(value(&environment, "SLURM_PROCID"), Some("3"), "{from}");
        assert_eq!(value(&environment, "HOME"), Some("/home/alice"), "{from}");
        for name in ["LC_ALL", "PMIX_RANK", "CORACLE_X"] {
            assert_eq!(value(&environment, name), None, "{from}: {name}");
        }
        assert_eq!((value(&environment, "EDITOR"), origin(&environment, "EDITOR").as_str()), (Some("ed"), image));
        assert_eq!(origin(&environment, "SAME"), "host", "{from}");
    }
}

#[test]
fn the_images_shell_may_unset_and_its_noise_is_ignored() {
    let host = pairs(&[("PWD", "/home/alice"), ("GONE", "1"), ("BASH_FUNC_x%%", "() { :\n}")]);
    let mut environment = Environment::start(&host, &Rules::default());
    environment.take_over(&pairs(&[("PWD", "/"), ("OLDPWD", "/x"), ("SHLVL", "1"), ("_", "env"), ("A", "1")]), "/e.sh");
    let names: Vec<&OsStr> = environment.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["A", "BASH_FUNC_x%%", "PWD"]);
    assert_eq!(value(&environment, "PWD"), Some("/home/alice"));
}

#[test]
fn an_environment_file_is_read_as_enroot_writes_it_and_pam_reads_it() {
    let mut environment = Environment::start(&[], &Rules::default());
    environment.environment_file(
        b"# comment\nPATH=\"/opt/bin:/bin\"\n  A=a b = $HOME 'x'\nexport B='1'\r\nC=\nno value\n=x\nD\0=1\nE=\"half\nF-G=1\n",
    );
    let found: Vec<(&str, &str)> =
        environment.iter().map(|(name, variable)| (name.to_str().unwrap(), variable.value.to_str().unwrap())).collect();
    assert_eq!(found, [("A", "a b = $HOME 'x'"), ("B", "1"), ("C", ""), ("E", "\"half"), ("PATH", "/opt/bin:/bin")]);
}

#[test]
fn what_no_environment_holds_does_not_come_from_a_config() {
    let mut environment = Environment::start(&[], &Rules::default());
    environment.oci_env(&["NO_VALUE", "=x", "A=1\0B=2", "C\0=1", "dotted.name=1", "PATH=/p=q"]);
    let names: Vec<&OsStr> = environment.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["PATH", "dotted.name"]);
    assert_eq!(value(&environment, "PATH"), Some("/p=q"));
}

#[test]
fn apptainers_prefixed_variables_work_as_users_know_them_and_are_not_seen() {
    let host = pairs(&[
        ("APPTAINERENV_A", "$(literal) $HOME"),
        ("SINGULARITYENV_A", "loses"),
        ("SINGULARITYENV_B", "2"),
        ("APPTAINERENV_PREPEND_PATH", "/first"),
        ("SINGULARITYENV_APPEND_PATH", "/last"),
        ("APPTAINERENV_PREPEND_LD_LIBRARY_PATH", "/l"),
        ("APPTAINERENV_LANG", "C"),
        ("APPTAINERENV_HOME", "/no"),
        ("APPTAINERENV_SLURM_PROCID", "9"),
        ("APPTAINERENV_CORACLE_IMAGE", "/no"),
        ("APPTAINERENV_", "x"),
        ("LANG", "de_DE"),
        ("HOME", "/home/alice"),
    ]);
    for clean in [false, true] {
        let environment =
            finished(&host, &Rules { clean, image: "/i.sif".into(), name: "i".into(), ..Rules::default() });
        let found: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, variable)| (name.to_str().unwrap(), variable.value.to_str().unwrap()))
            .collect();
        let path = format!("/first:{DEFAULT_PATH}:/last");
        assert_eq!(
            found,
            [
                ("A", "$(literal) $HOME"),
                ("B", "2"),
                ("CORACLE_IMAGE", "/i.sif"),
                ("CORACLE_NAME", "i"),
                ("HOME", "/home/alice"),
                ("LANG", "C"),
                ("LD_LIBRARY_PATH", "/l"),
                ("PATH", path.as_str()),
            ]
        );
        assert_eq!(origin(&environment, "PATH"), "APPTAINERENV_");
    }
    let mut host = host;
    host.push(("APPTAINERENV_PATH".into(), "/all".into()));
    assert_eq!(value(&finished(&host, &Rules::default()), "PATH"), Some("/all"));
}

#[test]
fn the_system_directories_that_an_image_leaves_out_stand_behind_its_own() {
    let path = |list: &str, host: &[Pair], rules: &Rules| {
        let mut environment = Environment::start(host, rules);
        environment.oci_env(&[list]);
        environment.finish(host, rules);
        environment.get("PATH").map(|path| (path.value.to_str().unwrap().to_owned(), path.origin.to_string()))
    };
    let image = |list: &str| Some((list.to_owned(), "image: config Env".to_owned()));
    let rules = Rules::default();
    let completed = format!("/opt/app/bin:{DEFAULT_PATH}");
    assert_eq!(path("PATH=/opt/app/bin", &[], &rules), image(&completed));
    let in_their_order = "/bin:/opt:/usr/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin";
    assert_eq!(path("PATH=/bin:/opt:/usr/bin", &[], &rules), image(in_their_order));
    assert_eq!(path("PATH=", &[], &rules), Some((DEFAULT_PATH.into(), "default".into())));

    let appended = path("PATH=/opt/app/bin", &pairs(&[("APPTAINERENV_APPEND_PATH", "/last")]), &rules);
    assert_eq!(appended, Some((format!("{completed}:/last"), "APPTAINERENV_".into())));
    let said = Rules { user: vec![Item::Set("PATH".into(), "/mine".into())], ..Rules::default() };
    assert_eq!(path("PATH=/opt/app/bin", &[], &said), Some(("/mine".into(), "--container-env".into())));
}

#[test]
fn the_user_has_the_last_word_before_ours() {
    let host = pairs(&[
        ("PATH", "/host/bin"),
        ("UCX_TLS", "rc"),
        ("UCX_NET", "ib0"),
        ("UCY", "1"),
        ("K", "host"),
        ("APPTAINERENV_K", "prefixed"),
        ("CORACLE_IMAGE", "/forged"),
        ("CORACLE_DIGEST", "forged"),
    ]);
    let rules = Rules {
        site: items("A=site,B=site,MISSING"),
        user: items(r"PATH,UCX_*,K,B=user\,s,CORACLE_IMAGE"),
        image: "/i.sif".into(),
        name: "i".into(),
        ..Rules::default()
    };
    let mut environment = Environment::start(&host, &rules);
    environment.oci_env(&["UCX_TLS=image", "UCX_NET=image", "UCY=image", "K=image", "PATH=/image", "MISSING=image"]);
    environment.finish(&host, &rules);
    for (name, expected, from) in [
        ("PATH", "/host/bin", "--container-env"),
        ("UCX_TLS", "rc", "--container-env"),
        ("UCX_NET", "ib0", "--container-env"),
        ("UCY", "image", "image: config Env"),
        ("K", "host", "--container-env"),
        ("A", "site", "site"),
        ("B", "user,s", "--container-env"),
        ("MISSING", "image", "image: config Env"),
        ("CORACLE_IMAGE", "/i.sif", "coracle"),
    ] {
        assert_eq!((value(&environment, name), origin(&environment, name).as_str()), (Some(expected), from), "{name}");
    }
    assert_eq!(value(&environment, "CORACLE_DIGEST"), None);
}

#[test]
fn a_step_inside_of_the_same_image_keeps_what_is_there() {
    let host =
        pairs(&[("PATH", "/image/bin"), ("LD_LIBRARY_PATH", "/image/lib"), ("OWN", "1"), ("SINGULARITY_NAME", "x")]);
    let rules = Rules { already_inside: true, clean: true, user: items("X=1"), ..Rules::default() };
    let changes = finished(&host, &rules).changes(&host);
    let names: Vec<&OsStr> = changes.iter().map(Change::name).collect();
    assert_eq!(names, ["CORACLE_IMAGE", "CORACLE_NAME", "X"]);
}

/// Environment of the host after the changes, as slurmstepd makes them.
fn applied(host: &[Pair], changes: &[Change]) -> Vec<Pair> {
    let mut after: std::collections::BTreeMap<_, _> = host.iter().cloned().collect();
    for change in changes {
        match change {
            Change::Set(name, value) => after.insert(name.clone(), value.clone()),
            Change::Unset(name) => after.remove(name),
            other => panic!("no environment asks for {other:?}"),
        };
    }
    after.into_iter().collect()
}

/// Environment of a container with changes of every kind.
fn container(host: &[Pair]) -> Environment {
    let rules =
        Rules { clean: true, site: items("SITE=1"), user: items("MINE=1,LD_PRELOAD=/in.so"), ..Rules::default() };
    let mut environment = Environment::start(host, &rules);
    environment.oci_env(&["PATH=/image/bin", "NEW=image\u{e9};=,%", "EDITOR=ed"]);
    environment.finish(host, &rules);
    environment
}

fn a_host() -> Vec<Pair> {
    pairs(&[
        ("PATH", "/host/bin"),
        ("LD_LIBRARY_PATH", "/host/lib"),
        ("LD_PRELOAD", "/host.so"),
        ("EDITOR", "vi"),
        ("DROPPED", "x"),
        ("SLURM_JOB_ID", "7"),
        ("HOME", "/home/alice"),
        ("APPTAINERENV_P", "1"),
    ])
}

#[test]
fn leaving_a_container_gives_the_hosts_environment_back() {
    let host = a_host();
    let environment = container(&host);
    let text = record(OsStr::new("8:1;2"), &host, &environment).to_env();
    let path = "/image/bin%3a/usr/local/sbin%3a/usr/local/bin%3a/usr/sbin%3a/usr/bin%3a/sbin%3a/bin";
    assert!(text.starts_with(&format!("1:8%3a1%3b2;PATH=+{path},+/host/bin;LD_LIBRARY_PATH=-,+/host/lib;")), "{text}");
    let record = Record::from_env(OsStr::new(&text)).unwrap();
    assert_eq!(record.id(), "8:1;2");
    let inside = environment.exported();
    let changes = record.undo(|name| environment.get(name).map(|variable| variable.value.clone()));
    let mut expected = host;
    expected.extend(pairs(&[("MINE", "1"), ("P", "1"), ("CORACLE_IMAGE", ""), ("CORACLE_NAME", "")]));
    expected.sort();
    assert_eq!(applied(&inside, &changes), expected);
}

#[test]
fn what_the_user_changed_inside_stays() {
    let host = a_host();
    let environment = container(&host);
    let record = record(OsStr::new("id"), &host, &environment);
    let changes = record.undo(|name| match name.to_str() {
        Some("PATH") => Some("/mine:/image/bin".into()),
        Some("DROPPED") => Some("set again".into()),
        Some("EDITOR") => None,
        _ => environment.get(name).map(|variable| variable.value.clone()),
    });
    let names: Vec<&OsStr> = changes.iter().map(Change::name).collect();
    assert_eq!(names, ["LD_LIBRARY_PATH", "LD_PRELOAD", "NEW", "SITE", "APPTAINERENV_P"]);
}

#[test]
fn a_record_is_bounded_and_paths_stand_in_front() {
    let mut host: Vec<Pair> = (0..2000).map(|number| (format!("A{number}").into(), "x".repeat(20).into())).collect();
    host.push(("A".into(), "x".repeat(100_000).into()));
    host.push(("PATH".into(), "/host/bin".into()));
    let environment = finished(&host, &Rules { clean: true, ..Rules::default() });
    let text = record(OsStr::new("id"), &host, &environment).to_env();
    assert!(text.len() <= 16 * 1024 && text.len() > 15 * 1024, "{}", text.len());
    let changes =
        Record::from_env(OsStr::new(&text)).unwrap().undo(|name| environment.get(name).map(|one| one.value.clone()));
    assert_eq!(changes[0], Change::Set("PATH".into(), "/host/bin".into()));
    assert!(changes.len() > 300, "{}", changes.len());
}

#[test]
fn a_forged_record_is_no_record() {
    let forged = [
        "",
        "1",
        "2:id",
        "id",
        "1:i d",
        "1:id;",
        "1:id;A",
        "1:id;A=+1",
        "1:id;A=+1,",
        "1:id;A=1,-",
        "1:id;A=+%,-",
        "1:id;A=+%0,-",
        "1:id;A=+%00,-",
        "1:id;A=+%zz,-",
        "1:id;=+1,-",
        "1:id;%3d=+1,-",
        "1:id;A=+1,-;A=+2,-",
        "1:id;SLURM_PROCID=+1,-",
        "1:id;A=+1\n,-",
        "1:id;A=+\u{e9},-",
        "1:id;A=-x,-",
    ];
    for text in forged {
        assert_eq!(Record::from_env(OsStr::new(text)), None, "{text}");
    }
    assert_eq!(Record::from_env(OsStr::from_bytes(b"1:\xff")), None);
    assert_eq!(Record::from_env(OsStr::new(&format!("1:{}", "x".repeat(16 * 1024)))), None);
    assert!(Record::from_env(OsStr::new("1:id")).unwrap().undo(|_| None).is_empty());
}

proptest! {
    #[test]
    fn changes_turn_the_host_into_the_container(
        host in prop::collection::btree_map("(PATH|LANG|SLURM_A|APPTAINERENV_[AB]|[A-D])", "[a,;=%é ]{0,4}", 0..9),
        image in prop::collection::vec("(PATH|LANG|SLURM_A|[A-D])=[a,;=%é ]{0,4}", 0..6),
        clean: bool,
    ) {
        let host: Vec<Pair> = host.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let rules = Rules { clean, ..Rules::default() };
        let mut environment = Environment::start(&host, &rules);
        environment.oci_env(&image);
        environment.finish(&host, &rules);
        let changes = environment.changes(&host);
        let changes = Change::from_bytes(&Change::to_bytes(&changes)).unwrap();
        prop_assert_eq!(applied(&host, &changes), environment.exported());

        let record = record(OsStr::new("id"), &host, &environment);
        prop_assert_eq!(Record::from_env(OsStr::new(&record.to_env())), Some(record));
    }

    #[test]
    fn any_text_is_read_as_a_record_without_a_panic(pieces in prop::collection::vec(prop::sample::select(b"1:;=,+-%0aAZ\xff".as_slice()), 0..40)) {
        let text = [b"1:id;A=".as_slice(), &pieces].concat();
        if let Some(record) = Record::from_env(OsStr::from_bytes(&text)) {
            let again = Record::from_env(OsStr::new(&record.to_env()));
            prop_assert_eq!(again, Some(record));
        }
    }
}

#[test]
fn a_directory_of_ours_stands_in_front_once_and_goes_when_it_is_not_there() {
    let list = "LD_LIBRARY_PATH";
    let value = |environment: &Environment| environment.get(list).map(|list| list.value.to_str().unwrap().to_owned());
    let mut environment = Environment::default();
    environment.prepend(list, "/ours");
    assert_eq!(value(&environment).unwrap(), "/ours");
    environment.put(list, "/theirs:".into());
    environment.prepend(list, "/ours");
    environment.prepend(list, "/ours");
    assert_eq!(value(&environment).unwrap(), "/ours:/theirs:");
    environment.leave_out(list, "/ours");
    assert_eq!(value(&environment).unwrap(), "/theirs:");
    environment.put(list, "/ours".into());
    environment.leave_out(list, "/ours");
    assert_eq!(value(&environment), None);
    environment.leave_out(list, "/ours");
}
