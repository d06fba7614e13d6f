//! Device rules of real control groups, as root: `confine` runs the cases, `confine bench` says what the calls cost.
//!
//! A program with one thread, because what it tests forks. tests/kernel runs it, too, on a node without version 1.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::{create_dir, read_dir, remove_dir, write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coracle::sys::{self, CgroupVersion, Channel, Child, DeviceGroups, DeviceRule};
use coracle_launcher::container::device_rules::Confinement;
use coracle_launcher::devices::Node;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

mod measure;

/// Devices that no machine has (Documentation/admin-guide/devices.txt, "Demo/sample use").
const GPUS: [&str; 2] = ["gpu0", "gpu1"];
const MAJOR: u32 = 42;
const OPENED: Errno = Errno::UnknownErrno;
const NULL: DeviceRule = DeviceRule { block: false, major: 1, minor: Some(3) };

/// Group of a process for which Slurm has made none, and beside which Slurm's groups are.
const SERVICE: &str = "service";
const SCOPE: &str = "scope";
const PARTS: [&str; 2] = [SERVICE, SCOPE];

type Case = (&'static str, fn(&Place));

const CASES: &[Case] = &[
    ("without_rules_all_is_accessible", |place| place.expect(&place.own(), [true, true, true])),
    ("a_rule_of_our_own_holds_for_adopted_tasks", own_rule),
    ("the_rule_of_a_driver_holds_for_all_its_devices", whole_driver),
    ("a_group_that_is_cleared_away_is_made_again", made_again),
    ("what_is_left_of_ended_steps_is_cleared_away", swept),
    ("a_group_that_is_still_used_is_not_taken_over", busy_name),
    ("the_rules_of_slurm_are_seen", slurms),
    ("a_rule_that_slurm_has_made_is_left_alone", not_ours),
    ("where_slurm_has_a_group_without_rules_ours_is_on_it", on_slurms_group),
    ("a_node_that_is_another_by_now_is_none", replaced),
    ("nothing_of_ours_is_left", nothing_left),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let bench = words.first().is_some_and(|word| word == "bench");
    let mut ran = 0;
    for version in [CgroupVersion::One, CgroupVersion::Two] {
        let place = match Place::new(version) {
            Ok(place) => place,
            Err(why) => {
                println!("not run: version {version:?}: {why}");
                continue;
            }
        };
        ran += 1;
        let controllers = std::fs::read_to_string(place.top.join(SCOPE).join("cgroup.controllers")).unwrap_or_default();
        println!("# version {version:?}: controllers: {}", controllers.trim_end());
        if bench {
            measure(&place);
            continue;
        }
        for (name, case) in CASES {
            if version == CgroupVersion::One && *name == "where_slurm_has_a_group_without_rules_ours_is_on_it" {
                continue;
            }
            if words.first().is_none_or(|wanted| name.contains(wanted.as_str())) {
                case(&place);
                println!("ok - version {version:?}: {name}");
            }
        }
    }
    assert!(ran > 0 || std::env::var_os("CORACLE_MUST_WORK").is_none(), "no control groups");
    ExitCode::SUCCESS
}

/// A part of a hierarchy, with a process in it that stands for slurmstepd, and device nodes.
struct Place {
    version: CgroupVersion,
    top: PathBuf,
    nodes: tempfile::TempDir,
}

impl Place {
    fn new(version: CgroupVersion) -> Result<Self, String> {
        if !nix::unistd::Uid::effective().is_root() {
            return Err("not root".into());
        }
        let nodes = tempfile::tempdir_in("/dev").map_err(|cause| format!("/dev: {cause}"))?;
        for (minor, name) in (0..).zip(GPUS) {
            let node = nodes.path().join(name);
            let made = make_node(&node, minor).and_then(|()| open_node(&node));
            if made != Err(Errno::ENXIO) {
                return Err(format!("a device node cannot be made and tried: {made:?}"));
            }
        }
        let found = match version {
            CgroupVersion::One => DeviceGroups::of(std::process::id()),
            CgroupVersion::Two => DeviceGroups::of_version_two(std::process::id()),
        };
        let found = found.map_err(|error| error.to_string())?.filter(|found| found.version == version);
        let top = found.ok_or("not mounted")?.own.join(format!("confine-test-{}", std::process::id()));
        create_dir(&top).map_err(|cause| format!("{top:?}: {cause}"))?;
        for part in PARTS {
            create_dir(top.join(part)).unwrap();
        }
        // Where there is a controller, Slurm has it for the groups of the tasks.
        enable_controller(&top);
        enable_controller(&top.join(SCOPE));
        Ok(Self { version, top, nodes })
    }

    fn node(&self, name: &str) -> Node {
        Node::at(&self.nodes.path().join(name)).unwrap()
    }

    /// /dev/null and two GPUs.
    fn nodes(&self) -> [Node; 3] {
        [Node::at(Path::new("/dev/null")).unwrap(), self.node(GPUS[0]), self.node(GPUS[1])]
    }

    fn groups(&self, daemon: &Daemon) -> Option<DeviceGroups> {
        match self.version {
            CgroupVersion::One => DeviceGroups::of(daemon.pid()).unwrap(),
            CgroupVersion::Two => DeviceGroups::of_version_two(daemon.pid()).unwrap(),
        }
    }

    /// A step for which Slurm has made no group here.
    fn own(&self) -> Step {
        let name = "coracle_1_0";
        let daemon = Daemon::inside(&self.top.join(SERVICE));
        let confinement = Confinement::by(self.groups(&daemon), name.into()).unwrap();
        Step { confinement, directories: Vec::new(), user: self.top.join(SERVICE).join(name), daemon }
    }

    /// A step for which it has; the first GPU is denied by `rules` at the directory with this index: the job, the step,
    /// and the tasks in version 2.
    fn slurm(&self, rules: Option<usize>) -> Step {
        let names: &[&str] = match self.version {
            CgroupVersion::One => &["job_7", "job_7/step_0", "job_7/step_0/task_0"],
            CgroupVersion::Two => {
                &["job_7", "job_7/step_0", "job_7/step_0/user", "job_7/step_0/slurm", "job_7/step_0/user/task_0"]
            }
        };
        let directories: Vec<PathBuf> = names.iter().map(|name| self.top.join(SCOPE).join(name)).collect();
        for (index, directory) in directories.iter().enumerate() {
            create_dir(directory).unwrap();
            if index < 3 {
                enable_controller(directory);
            }
        }
        match (rules.map(|index| &directories[index]), self.version) {
            (None, _) => {}
            (Some(directory), CgroupVersion::One) => write(directory.join("devices.deny"), "c 42:0 rwm").unwrap(),
            (Some(directory), CgroupVersion::Two) => {
                let directory = std::fs::File::open(directory).unwrap();
                sys::allow_devices(&directory, &[NULL, rule(MAJOR, Some(1))]).unwrap();
            }
        }
        let (own, user) = match self.version {
            CgroupVersion::One => (1, 2),
            CgroupVersion::Two => (3, 4),
        };
        let daemon = Daemon::inside(&directories[own]);
        let confinement = Confinement::by(self.groups(&daemon), "coracle_7_0".into()).unwrap();
        Step { confinement, user: directories[user].clone(), directories, daemon }
    }

    /// Compares the devices that are said to be accessible with those that a task can open.
    fn expect(&self, step: &Step, wanted: [bool; 3]) {
        assert_eq!(step.confinement.accessible(&self.nodes()).unwrap(), wanted);
        // The GPUs have no driver.
        let answers = [OPENED, Errno::ENXIO, Errno::ENXIO].into_iter().zip(wanted);
        let answers: Vec<Errno> =
            answers.map(|(answer, allowed)| if allowed { answer } else { Errno::EPERM }).collect();
        assert_eq!(step.opens(&self.nodes()), answers);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PARTS.iter().for_each(|part| _ = remove_dir(self.top.join(part)));
        for _ in 0..100 {
            if remove_dir(&self.top).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        println!("# left behind: {:?}", self.top);
    }
}

fn enable_controller(group: &Path) {
    let _ = write(group.join("cgroup.subtree_control"), "+pids");
}

fn make_node(path: &Path, minor: u64) -> nix::Result<()> {
    mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(u64::from(MAJOR), minor))
}

fn open_node(path: &Path) -> nix::Result<()> {
    let opened = std::fs::File::options().read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    opened.map(drop).map_err(|cause| Errno::from_raw(cause.raw_os_error().unwrap_or(255)))
}

/// A process that waits in a group until it is dropped.
struct Daemon(Option<Child>);

impl Daemon {
    fn inside(group: &Path) -> Self {
        let child = waiting();
        write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
        Self(Some(child))
    }

    fn pid(&self) -> u32 {
        u32::try_from(self.0.as_ref().unwrap().id()).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.take().unwrap().end(Duration::from_secs(10));
    }
}

fn waiting() -> Child {
    sys::fork(|| {
        let _ = sys::die_with_parent();
        std::thread::sleep(Duration::from_secs(600));
        0
    })
    .unwrap()
}

struct Step {
    confinement: Confinement,
    directories: Vec<PathBuf>,
    /// Group in which Slurm puts a task, or we do.
    user: PathBuf,
    daemon: Daemon,
}

impl Step {
    /// Results of open(2) for a task of the step, [`OPENED`] for success.
    fn opens(&self, nodes: &[Node]) -> Vec<Errno> {
        let (go, wait) = Channel::pair().unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let far = Instant::now() + Duration::from_secs(60);
        let task = sys::fork(|| {
            let _ = wait.receive(far);
            let errno = |node: &Node| open_node(&node.path).err().unwrap_or(OPENED) as i32;
            let numbers: Vec<u8> = nodes.iter().map(|node| u8::try_from(errno(node)).unwrap_or(255)).collect();
            u8::from(theirs.send(&numbers, &[], far).is_err())
        })
        .unwrap();
        if self.user.exists() && !self.directories.is_empty() {
            write(self.user.join("cgroup.procs"), task.id().to_string()).unwrap();
        }
        self.confinement.adopt(u32::try_from(task.id()).unwrap()).unwrap();
        go.send(b"go", &[], far).unwrap();
        let sys::Received::Packet(packet) = ours.receive(far).unwrap() else { panic!("no answer") };
        task.wait().unwrap();
        packet.data.iter().map(|errno| Errno::from_raw((*errno).into())).collect()
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.directories.is_empty() {
            let cgroups = sys::Cgroups::of(self.daemon.pid()).unwrap();
            let Some(name) = self.user.file_name() else { return };
            cgroups.remove_child(&name.to_string_lossy());
            return;
        }
        self.daemon.0.take().unwrap().end(Duration::from_secs(10));
        self.daemon.0 = Some(waiting());
        // As Slurm does at the end of a step.
        self.directories.iter().rev().for_each(|directory| remove_dir(directory).unwrap());
    }
}

fn rule(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule { block: false, major, minor }
}

fn own_rule(place: &Place) {
    let mut step = place.own();
    assert!(!step.confinement.is_slurms());
    step.confinement.restrict(&[NULL, place.node(GPUS[1]).rule()]).unwrap();
    place.expect(&step, [true, false, true]);
    assert!(step.user.exists());
}

fn whole_driver(place: &Place) {
    let mut step = place.own();
    step.confinement.restrict(&[rule(MAJOR, None)]).unwrap();
    place.expect(&step, [false, true, true]);
}

fn made_again(place: &Place) {
    let mut step = place.own();
    step.confinement.restrict(&[rule(MAJOR, Some(0))]).unwrap();
    remove_dir(&step.user).unwrap();
    let nodes = place.nodes();
    assert_eq!(step.opens(&nodes), [Errno::EPERM, Errno::ENXIO, Errno::EPERM]);
    remove_dir(&step.user).unwrap();
    place.expect(&step, [false, true, false]);
}

fn swept(place: &Place) {
    let (before, other) = (place.top.join("service/coracle_5_5"), place.top.join("service/other"));
    create_dir(&before).unwrap();
    create_dir(&other).unwrap();
    let mut step = place.own();
    step.confinement.restrict(&[NULL]).unwrap();
    assert_eq!((before.exists(), other.exists()), (false, true));
    remove_dir(&other).unwrap();
}

fn busy_name(place: &Place) {
    let mut first = place.own();
    first.confinement.restrict(&[NULL]).unwrap();
    let task = waiting();
    first.confinement.adopt(u32::try_from(task.id()).unwrap()).unwrap();
    let mut second = place.own();
    second.confinement.restrict(&[rule(MAJOR, Some(0))]).unwrap();
    place.expect(&second, [false, true, false]);
    place.expect(&first, [true, false, false]);
    task.end(Duration::from_secs(10));
    remove_dir(place.top.join("service/coracle_1_0_1")).unwrap();
}

fn slurms(place: &Place) {
    let places = if place.version == CgroupVersion::One { 0..2 } else { 0..3 };
    for index in places {
        let step = place.slurm(Some(index));
        assert!(step.confinement.is_slurms());
        place.expect(&step, [true, false, true]);
        assert!(!step.directories[2].join("coracle_probe").exists());
    }
}

fn not_ours(place: &Place) {
    let mut step = place.slurm(Some(0));
    assert_eq!(step.confinement.restrict(&[NULL]).unwrap_err().errno(), Errno::EPERM);
    step.confinement.adopt(step.daemon.pid()).unwrap();
    place.expect(&step, [true, false, true]);
}

fn on_slurms_group(place: &Place) {
    let mut step = place.slurm(None);
    assert!(!step.confinement.is_slurms());
    place.expect(&step, [true, true, true]);
    step.confinement.restrict(&[NULL, rule(MAJOR, Some(0))]).unwrap();
    place.expect(&step, [true, true, false]);
}

fn replaced(place: &Place) {
    let step = place.own();
    let gone = place.nodes.path().join("gone");
    make_node(&gone, 0).unwrap();
    let node = Node::at(&gone).unwrap();
    let ask = || step.confinement.accessible(std::slice::from_ref(&node)).unwrap();
    assert_eq!(ask(), [true]);
    std::fs::remove_file(&gone).unwrap();
    assert_eq!(ask(), [false]);
    make_node(&gone, 1).unwrap();
    assert_eq!(ask(), [false]);
    std::fs::remove_file(&gone).unwrap();
    std::os::unix::fs::symlink("/dev/null", &gone).unwrap();
    assert_eq!(ask(), [false]);
    std::fs::remove_file(&gone).unwrap();
    assert!(step.confinement.accessible(&[]).unwrap().is_empty());
}

fn nothing_left(place: &Place) {
    for part in PARTS {
        let directories = read_dir(place.top.join(part)).unwrap().filter_map(Result::ok);
        let directories = directories.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name());
        assert_eq!(directories.collect::<Vec<_>>(), [""; 0]);
    }
}

fn measure(place: &Place) {
    const TIMES: usize = 200;
    let median = |work: &mut dyn FnMut()| measure::median(TIMES, work);
    let nodes = place.nodes();
    let say = |what: &str, (median, most): (Duration, Duration)| {
        println!("version {:?}: {what}: median {median:?}, 9 of 10 below {most:?}", place.version);
    };
    let many: Vec<Node> = std::iter::repeat_n(nodes.clone(), 100).flatten().collect();
    let plain = |work: &mut dyn FnMut() -> u8| _ = sys::fork(work).unwrap().wait().unwrap();
    say("fork and wait alone", median(&mut || plain(&mut || 0)));
    say(
        "fork, one process into a group",
        median(&mut || {
            plain(&mut || u8::from(write(place.top.join("service/cgroup.procs"), "0").is_err()));
        }),
    );
    {
        let step = place.slurm(Some(1));
        say("accessible, 3 nodes", median(&mut || _ = step.confinement.accessible(&nodes).unwrap()));
        say("accessible, 300 nodes", median(&mut || _ = step.confinement.accessible(&many).unwrap()));
    }
    let allowed: Vec<DeviceRule> = (0..40).map(|minor| rule(MAJOR, Some(minor))).collect();
    let mut restricts = Vec::new();
    say(
        "restrict (40 rules) and adopt one task",
        median(&mut || {
            let mut step = place.own();
            let task = waiting();
            let begun = Instant::now();
            step.confinement.restrict(&allowed).unwrap();
            let restricted = begun.elapsed();
            step.confinement.adopt(u32::try_from(task.id()).unwrap()).unwrap();
            restricts.push((restricted, begun.elapsed() - restricted));
            task.end(Duration::from_secs(10));
        }),
    );
    let middle = |mut times: Vec<Duration>| {
        times.sort();
        times[TIMES / 2]
    };
    let (restrict, adopt) = restricts.into_iter().unzip();
    println!("version {:?}: of these: restrict {:?}, adopt {:?}", place.version, middle(restrict), middle(adopt));
}
