//! Tests of the visible mounts, and of their mount points.
#![forbid(unsafe_code)]

use super::*;
use crate::devices::{Node, Type};
use coracle::request::Request;
use std::ffi::OsStr;

const NONE: &Devices = &Devices {
    nodes: Vec::new(),
    links: Vec::new(),
    directories: Vec::new(),
    granted: Vec::new(),
    numbers: Vec::new(),
};

fn settings(fields: &str) -> Settings {
    Request::from_env(OsStr::new(&format!("2:image=/i.sif{fields}"))).unwrap().settings
}

fn shown(binds: &[&str], around: &Surroundings<'_>) -> Vec<(String, Presence)> {
    let fields: String = binds.iter().map(|bind| format!(";bind={bind}:rw")).collect();
    mount_requests(&settings(&fields), &Config::default(), around)
        .iter()
        .filter(|request| !matches!(request.origin, Origin::Kernel | Origin::Device | Origin::System))
        .map(|request| (request.target.display().to_string(), request.presence))
        .collect()
}

fn around<'a>(directory: &'a str, home: &'a str) -> Surroundings<'a> {
    Surroundings {
        root: false,
        directory: Path::new(directory),
        home: Some(Path::new(home)),
        script_folder: None,
        pmix: None,
        files: &[],
        named: &[],
        client: None,
        helper: Path::new("/usr/lib/coracle/coracle-inside"),
        mpi: None,
        devices: Some(NONE),
        driver: None,
    }
}

fn paths(shown: &[(String, Presence)]) -> Vec<&str> {
    shown.iter().map(|(path, _)| path.as_str()).collect()
}

#[test]
fn what_is_visible_anyway_is_not_bound_again() {
    assert_eq!(paths(&shown(&[], &around("/home/a/x", "/home/a"))), ["/home/a", "/run/munge"]);
    assert_eq!(paths(&shown(&[], &around("/tmp/x", "/tmp/home"))), ["/run/munge"]);
    assert_eq!(paths(&shown(&["/home:/home"], &around("/home/a/x", "/home/a"))), ["/home", "/run/munge"]);
    assert_eq!(paths(&shown(&[], &around("/dev/shm/x", "/"))), ["/run/munge"]);
}

#[test]
fn the_users_bind_stands_for_a_working_directory_below_it() {
    assert_eq!(paths(&shown(&["/data:/work"], &around("/work/run", "/home/a"))), ["/work", "/home/a", "/run/munge"]);
}

#[test]
fn the_working_directory_in_a_system_directory_may_be_the_images() {
    for (directory, presence) in [
        ("/usr/share/doc", Presence::UnlessInImage),
        ("/opt", Presence::UnlessInImage),
        ("/opt/project", Presence::Required),
        ("/scratch/run", Presence::Required),
    ] {
        let shown = shown(&[], &around(directory, "/home/a"));
        assert_eq!(shown.last(), Some(&(directory.to_owned(), presence)));
    }
    assert_eq!(paths(&shown(&[], &around("/", "/home/a"))), ["/home/a", "/run/munge"]);
}

#[test]
fn device_nodes_work_only_where_they_were_put() {
    let node = |path: &str| Node { path: path.into(), kind: Type::Character, major: 1, minor: 3 };
    let nodes = vec![node("/dev/infiniband/uverbs0"), node("/dev/null")];
    let links = vec![("/dev/fd".into(), "/proc/self/fd".into())];
    let around = Surroundings { devices: Some(&Devices { nodes, links, ..Devices::default() }), ..around("/w", "/h") };
    for request in mount_requests(&settings(";bind=/a:/b:ro"), &Config::default(), &around) {
        let flags = request.attributes();
        assert!(flags.no_suid, "{request:?}");
        let works = ["/dev", "/dev/pts", "/dev/infiniband/uverbs0"].map(Path::new).contains(&&*request.target);
        assert_eq!(flags.no_dev, !works, "{request:?}");
        assert_eq!(flags.read_only, request.access == Access::ReadOnly);
        if request.target == Path::new("/dev") {
            let directory = |path: &str| Entry::Directory(path.into());
            let file = |path: &str| Entry::File(path.into(), String::new());
            let directories = ["pts", "shm", "mqueue", "hugepages", "infiniband"].map(directory);
            let null = Entry::Device("null".into(), 1, 3);
            let others = [file("infiniband/uverbs0"), Entry::Link("fd".into(), "/proc/self/fd".into())];
            let wanted: Vec<Entry> =
                directories[..4].iter().cloned().chain([null, directories[4].clone()]).chain(others).collect();
            assert_eq!(request.source, Source::Made(wanted));
        }
    }
}

#[test]
fn a_home_that_is_not_wanted_is_not_shown_but_a_working_directory_in_it_is() {
    let shown = |directory| -> Vec<PathBuf> {
        let requests = mount_requests(&settings(";home=no"), &Config::default(), &around(directory, "/home/a"));
        requests
            .into_iter()
            .filter(|request| request.origin == Origin::Workdir || request.origin == Origin::Home)
            .map(|request| request.target)
            .collect()
    };
    assert_eq!(shown("/scratch/x"), [PathBuf::from("/scratch/x")]);
    assert_eq!(shown("/home/a/x"), [PathBuf::from("/home/a/x")]);
}

#[test]
fn a_directory_that_a_variable_names_is_shown_where_nothing_else_is_meant() {
    let named = |fields: &str, path: &str| -> Vec<(PathBuf, Presence)> {
        let named = [PathBuf::from(path)];
        let around = Surroundings { named: &named, ..around("/scratch/run", "/home/a") };
        let requests = mount_requests(&settings(fields), &Config::default(), &around);
        let requests = requests.into_iter().filter(|request| request.origin == Origin::Variable);
        requests.map(|request| (request.target, request.presence)).collect()
    };
    for path in ["/scratch/x", "/run/user/2001", "/scratch"] {
        assert_eq!(named("", path), [(path.into(), Presence::IfMissing)]);
    }
    // Visible anyway, of the image, the kernel or Coracle, or not a plain path.
    for path in ["/tmp", "/tmp/x", "/home/a/tmp", "/scratch/run/x", "/usr/x", "/run", "/", "/opt", "/proc/1", "/sys/x"]
    {
        assert_eq!(named("", path), [], "{path}");
    }
    for path in ["/dev/shm/x", "/run/coracle/x", "/scratch/../x", "x", ""] {
        assert_eq!(named("", path), [], "{path}");
    }
    assert_eq!(named(";bind=/a:/scratch:rw", "/scratch/x"), []);
    assert_eq!(named(";home=no", "/home/a/tmp"), []);
}

#[test]
fn our_directory_is_there_only_when_something_in_it_is_needed() {
    let client = Client {
        binds: [("/usr", "/run/coracle/host/usr"), ("/etc/slurm", "/etc/slurm")]
            .map(|(source, target)| ClientBind { source: source.into(), target: target.into(), unless_in_image: false })
            .into(),
        links: vec![ClientLink { place: "/run/coracle/slurm/bin/srun".into(), target: HELPER.into() }],
        epilog: String::new(),
        launch: "loader=/x\n".into(),
    };
    let ours = |fields, client| -> Vec<PathBuf> {
        let around = Surroundings { client, ..around("/w", "/h") };
        let requests = mount_requests(&settings(fields), &Config::default(), &around);
        requests.into_iter().filter(|request| request.origin == Origin::Private).map(|request| request.target).collect()
    };
    assert!(ours("", None).is_empty());
    assert_eq!(ours(";entrypoint=yes", None), [PathBuf::from(HELPER), PRIVATE.into()]);
    assert_eq!(ours("", Some(&client)), [HELPER, "/run/coracle/host/usr", PRIVATE].map(PathBuf::from));
}

#[test]
fn the_directory_of_a_pmix_server_comes_late_unless_it_is_visible_anyway() {
    let late = |binds: &[&str]| -> Vec<PathBuf> {
        let fields: String = binds.iter().map(|bind| format!(";bind={bind}:rw")).collect();
        let around = Surroundings { pmix: Some(Path::new("/var/spool/slurmd/pmix.7.0")), ..around("/w", "/h") };
        let requests = mount_requests(&settings(&fields), &Config::default(), &around);
        requests
            .into_iter()
            .filter(|request| matches!(request.source, Source::Late(_)))
            .map(|request| request.target)
            .collect()
    };
    assert_eq!(late(&[]), [PathBuf::from("/var/spool/slurmd/pmix.7.0")]);
    assert!(late(&["/var:/var"]).is_empty());
}
