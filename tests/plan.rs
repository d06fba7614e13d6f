//! Golden plans: each file of tests/plans is a case, and the plan that it must give.
//!
//! Above the line of dashes: the request as it travels, where the step is, what the node lacks, what the image has.
//! Below: the plan's text, or the refusal. CORACLE_BLESS=1 writes what came out, for reading the difference in git.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use coracle::report::Refusal;
use coracle::request::Request;
use coracle_launcher::config::Config;
use coracle_launcher::devices::{Devices, Node, Type};
use coracle_launcher::image::{Container, Filesystem, Image, Layer, squashfs::Compression};
use coracle_launcher::mpi::{Fit, Over, Shown};
use coracle_launcher::plan::{Obstacle, Owners, Plan, ResolvedMount, Shape, Target, Upper};
use coracle_launcher::view::{
    Client, ClientBind, ClientLink, Origin, Presence, Source, Surroundings, TIME_ZONE, mount_requests,
};

const LINE: &str = "----\n";

#[derive(Default)]
struct Case {
    one: BTreeMap<String, String>,
    config: String,
    /// Files of the node; everything else that is asked for is a directory there.
    files: Vec<PathBuf>,
    lacking: Vec<PathBuf>,
    image: BTreeMap<PathBuf, String>,
    /// Libraries of the image that the first profile of MPI covers, each with the name of the profile's file.
    over: Vec<(String, PathBuf)>,
    devices: Devices,
}

impl Case {
    fn parse(text: &str) -> Self {
        let mut case = Self { config: "version: 1\n".into(), ..Self::default() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?}"));
            match key {
                "config" => case.config.push_str(&format!("{value}\n")),
                "node-file" => case.files.push(value.into()),
                "device" => {
                    let (major, minor) = (195, 0);
                    case.devices.nodes.push(Node { path: value.into(), kind: Type::Character, major, minor });
                }
                "node-lacks" => case.lacking.push(value.into()),
                "mpi-over" => {
                    let (name, place) = value.split_once(" -> ").unwrap();
                    case.over.push((name.into(), place.into()));
                }
                "image-directory" | "image-file" => {
                    case.image.insert(value.into(), key["image-".len()..].into());
                }
                "image-link" => {
                    let (link, to) = value.split_once(" -> ").unwrap();
                    case.image.insert(link.into(), format!("-> {to}"));
                }
                key => {
                    case.one.insert(key.into(), value.into());
                }
            }
        }
        case
    }

    fn target(&self, target: &Path) -> Result<Target, Obstacle> {
        for above in target.ancestors() {
            match self.image.get(above).map(String::as_str) {
                Some("-> out") => return Err(Obstacle::Escape(above.into())),
                Some(link) if link.starts_with("-> ") => {
                    let rest = target.strip_prefix(above).unwrap();
                    let to = if rest.as_os_str().is_empty() {
                        PathBuf::from(&link[3..])
                    } else {
                        Path::new(&link[3..]).join(rest)
                    };
                    let mut target = self.target(&to)?;
                    target.link = Some(above.into());
                    return Ok(target);
                }
                Some("file") if above != target => return Err(Obstacle::NotADirectory(above.into())),
                _ => {}
            }
        }
        let found = self.image.get(target).map(|shape| if shape == "file" { Shape::File } else { Shape::Directory });
        Ok(Target { place: target.into(), found, link: None })
    }

    fn shown(&self, name: &str) -> Shown {
        let over = self.over.iter().filter(|(known, _)| known == name);
        let over = over.map(|(_, place)| Over { place: place.clone(), version: name.into() }).collect();
        // As a rule the SONAME ends with the first number.
        let soname: Vec<&str> = name.split('.').take(3).collect();
        Shown { soname: soname.join("."), version: name.into(), over, stays: false }
    }

    fn run(&self) -> Result<Plan, Refusal> {
        let path = |key: &str| self.one.get(key).map(Path::new);
        let request = Request::from_env(OsStr::new(&self.one["request"]))?;
        let config = Config::parse(Path::new("coracle.yaml"), &self.config)?;
        let client = Client {
            binds: [("/usr", "/run/coracle/host/usr"), ("/etc/slurm", "/etc/slurm")]
                .map(|(source, target)| ClientBind {
                    source: source.into(),
                    target: target.into(),
                    unless_in_image: false,
                })
                .into(),
            links: ["srun", "squeue"]
                .map(|name| ClientLink {
                    place: format!("/run/coracle/slurm/bin/{name}").into(),
                    target: "/run/coracle/inside".into(),
                })
                .into(),
            launch: String::new(),
            epilog: String::new(),
        };
        let profile = config.mpi.0.first().map(|(_, profile)| profile);
        let fit = profile.map(|profile| Fit {
            shown: profile.files().map(|file| self.shown(file.file_name().unwrap().to_str().unwrap())).collect(),
            from_image: Vec::new(),
            doubts: Vec::new(),
        });
        let around = Surroundings {
            root: false,
            directory: path("directory").unwrap(),
            home: path("home"),
            script_folder: path("script-directory"),
            pmix: path("pmix"),
            files: &[],
            named: &[],
            client: request.commands.then_some(&client),
            helper: Path::new("/usr/lib/coracle/coracle-inside"),
            mpi: profile.zip(fit.as_ref()),
            devices: Some(&self.devices),
            driver: None,
        };
        let mut mounts = Vec::new();
        for mount in mount_requests(&request.settings, &config, &around) {
            let file = |path: &PathBuf| {
                path.starts_with("/etc/hosts")
                    || path.starts_with("/etc/resolv.conf")
                    || path == around.helper
                    || self.files.contains(path)
            };
            let shape = match &mount.source {
                Source::Node(path) if self.lacking.contains(path) => {
                    assert_eq!(mount.presence, Presence::IfThere, "{path:?} would be refused before there is a plan");
                    continue;
                }
                Source::Node(path) if file(path) => Shape::File,
                Source::Node(path) if self.devices.nodes.iter().any(|node| node.path == *path) => Shape::File,
                Source::TimeZone if self.lacking.iter().any(|path| path == Path::new(TIME_ZONE)) => continue,
                Source::TimeZone | Source::Passwd | Source::Group => Shape::File,
                _ => Shape::Directory,
            };
            let target = match mount.origin {
                Origin::Device => Ok(Target { place: mount.target.clone(), found: None, link: None }),
                _ if mount.source == Source::TimeZone && self.image.contains_key(&mount.target) => {
                    // Not a link's target.
                    let directory = self.image[&mount.target] == "directory";
                    let found = Some(if directory { Shape::Directory } else { Shape::File });
                    Ok(Target { place: mount.target.clone(), found, link: None })
                }
                _ => self.target(&mount.target),
            };
            mounts.push(ResolvedMount { request: mount, shape, target });
        }
        let root = Layer { filesystem: Filesystem::Squashfs(Compression::Zstd), offset: 4096, size: 8192 };
        let image = Image { container: Container::Sif, layers: vec![root] };
        let owners = match self.one.get("owners").map(String::as_str) {
            None => Owners::Image,
            Some("root-as-user") => Owners::RootIsUser,
            Some("all-as-user") => Owners::AllAreUsers,
            Some(word) => panic!("owners: {word}"),
        };
        let plan = Plan::build(image, Upper::of(&request.settings, &config), &mounts)?;
        Ok(Plan { owners, ..plan })
    }
}

#[test]
fn every_case_gives_its_plan() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/plans");
    let mut cases = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let (case, wanted) = text.split_once(LINE).unwrap_or((&text, ""));
        let found = match Case::parse(case).run() {
            Ok(plan) => plan.to_string(),
            Err(refusal) => format!("{refusal}\n"),
        };
        if std::env::var_os("CORACLE_BLESS").is_some() {
            std::fs::write(&file, format!("{case}{LINE}{found}")).unwrap();
        } else {
            assert_eq!(found, wanted, "{}", file.display());
        }
        cases += 1;
    }
    assert!(cases >= 8, "the cases are gone");
}
