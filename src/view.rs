//! What should be visible where inside a container, before anybody has looked at the image or the node.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::mpi;
use crate::request::{Access, Request};
use crate::sys::Attributes;

/// One thing that should be visible inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Where it comes from.
    pub source: Source,
    /// Where it should appear.
    pub target: PathBuf,
    /// Whether it can be written to.
    pub access: Access,
    /// What happens when the node does not have it, or the image does.
    pub presence: Presence,
    /// Who wants it.
    pub origin: Origin,
}

/// Where something comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder or file of the node, opened as the user.
    Node(PathBuf),
    /// The image's /etc/passwd with the user's line.
    Passwd,
    /// The image's /etc/group with the lines of the user's groups.
    Group,
}

/// What happens when the node does not have it, or the image does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The container is refused without it.
    Required,
    /// It is left out where the node does not have it.
    IfThere,
    /// Required, but the image's own folder of that name is just as good.
    UnlessInImage,
}

/// Who wants it. Where two want the same place, the later in this list gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// /proc, /sys, /dev: real folders in every image, or missing.
    Kernel,
    /// Every container has it.
    System,
    /// The user's home.
    Home,
    /// The working directory of the job.
    Workdir,
    /// The batch script, the PMIx server, munge.
    Slurm,
    /// `binds` of coracle.yaml, by index.
    Site(usize),
    /// `--container-bind`
    User,
}

/// Slurm's facts about the step that decide what it sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings<'a> {
    /// The working directory.
    pub directory: &'a Path,
    /// The user's home, if the node knows the user.
    pub home: Option<&'a Path>,
    /// The folder of a batch script.
    pub script_folder: Option<&'a Path>,
    /// The folder of the PMIx server.
    pub pmix: Option<&'a Path>,
}

/// Folders that belong to the operating system: there the image's own is meant, not the node's.
const OWN: &[&str] = &["/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"];
/// Folders that are the image's when the job stands right in them, and the node's below.
const TOPS: &[&str] = &["/", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/srv", "/var"];

impl Want {
    fn node(path: impl Into<PathBuf>, access: Access, presence: Presence, origin: Origin) -> Self {
        let path = path.into();
        Self { source: Source::Node(path.clone()), target: path, access, presence, origin }
    }

    /// The flags of its mounts. Device nodes work in /dev and nowhere else.
    pub fn attributes(&self) -> Attributes {
        let kernel = self.origin == Origin::Kernel;
        let dev = kernel && self.target == Path::new("/dev");
        Attributes { read_only: self.access == Access::ReadOnly, no_suid: true, no_dev: !dev, no_exec: kernel && !dev }
    }

    /// True when `path` is already visible through this one, at the same place as on the node.
    fn shows(&self, path: &Path) -> bool {
        matches!(&self.source, Source::Node(source) if *source == self.target && path.starts_with(source))
    }
}

/// Everything that should be visible, in no particular order.
pub fn wants(request: &Request, config: &Config, around: &Surroundings<'_>) -> Vec<Want> {
    use Access::{ReadOnly, ReadWrite};
    use Presence::{IfThere, Required, UnlessInImage};

    let mut wants = Vec::new();
    for (index, bind) in config.binds.iter().enumerate() {
        wants.push(Want {
            source: Source::Node(bind.source.0.clone()),
            target: bind.target().to_owned(),
            access: bind.access(),
            presence: if bind.required { Required } else { IfThere },
            origin: Origin::Site(index),
        });
    }
    for bind in &request.binds {
        wants.push(Want {
            source: Source::Node(bind.source.clone()),
            target: bind.target.clone(),
            access: bind.access,
            presence: Required,
            origin: Origin::User,
        });
    }
    // What the user or the site has put at a place, or above it, stands for what would be there.
    let taken = |wants: &[Want], path: &Path| {
        wants.iter().any(|want| want.origin >= Origin::Site(0) && path.starts_with(&want.target))
    };

    for path in ["/proc", "/sys", "/dev"] {
        wants.push(Want::node(path, ReadWrite, Required, Origin::Kernel));
    }
    let mut system = Vec::new();
    for path in ["/tmp", "/var/tmp"] {
        system.push(Want::node(path, ReadWrite, Required, Origin::System));
    }
    for path in ["/etc/hosts", "/etc/resolv.conf"] {
        system.push(Want::node(path, ReadOnly, IfThere, Origin::System));
    }
    for (source, path) in [(Source::Passwd, "/etc/passwd"), (Source::Group, "/etc/group")] {
        let target = PathBuf::from(path);
        system.push(Want { source, target, access: ReadOnly, presence: Required, origin: Origin::System });
    }
    system.retain(|want| !taken(&wants, &want.target));
    wants.append(&mut system);

    let mut add = |path: &Path, access, presence, origin| {
        let shown = taken(&wants, path) || wants.iter().any(|want| want.shows(path));
        if !shown && crate::request::inside(path).is_ok() {
            wants.push(Want::node(path, access, presence, origin));
        }
    };
    // A service account's home may be /bin: the image's is meant there.
    if let Some(home) = around.home.filter(|home| !OWN.iter().any(|top| home.starts_with(top))) {
        add(home, ReadWrite, IfThere, Origin::Home);
    }
    for folder in mpi::folders(around.pmix) {
        add(&folder.path, ReadWrite, if folder.required { Required } else { IfThere }, Origin::Slurm);
    }
    if let Some(folder) = around.script_folder {
        add(folder, ReadOnly, Required, Origin::Slurm);
    }
    let images_own = OWN.iter().any(|top| around.directory.starts_with(top))
        || TOPS.iter().any(|top| around.directory == Path::new(top));
    add(around.directory, ReadWrite, if images_own { UnlessInImage } else { Required }, Origin::Workdir);
    wants
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::RawOptions;
    use crate::request::Choice;
    use std::ffi::OsStr;

    fn shown(binds: &[&str], around: &Surroundings<'_>) -> Vec<(String, Presence)> {
        let raw = RawOptions { binds: binds.iter().map(Into::into).collect(), ..RawOptions::default() };
        let Ok(Choice::Container(request)) = Request::parse(&raw, OsStr::new("/i.sif"), Path::new("/")) else {
            panic!()
        };
        wants(&request, &Config::default(), around)
            .iter()
            .filter(|want| !matches!(want.origin, Origin::Kernel | Origin::System))
            .map(|want| (want.target.display().to_string(), want.presence))
            .collect()
    }

    fn around<'a>(directory: &'a str, home: &'a str) -> Surroundings<'a> {
        Surroundings { directory: Path::new(directory), home: Some(Path::new(home)), script_folder: None, pmix: None }
    }

    fn paths(shown: &[(String, Presence)]) -> Vec<&str> {
        shown.iter().map(|(path, _)| path.as_str()).collect()
    }

    #[test]
    fn what_is_visible_anyway_is_not_bound_again() {
        assert_eq!(paths(&shown(&[], &around("/home/a/x", "/home/a"))), ["/home/a", "/run/munge"]);
        assert_eq!(paths(&shown(&[], &around("/tmp/x", "/tmp/home"))), ["/run/munge"]);
        assert_eq!(paths(&shown(&["/home"], &around("/home/a/x", "/home/a"))), ["/home", "/run/munge"]);
        assert_eq!(paths(&shown(&[], &around("/dev/shm/x", "/"))), ["/run/munge"]);
    }

    #[test]
    fn the_users_bind_stands_for_a_working_directory_below_it() {
        assert_eq!(
            paths(&shown(&["/data:/work"], &around("/work/run", "/home/a"))),
            ["/work", "/home/a", "/run/munge"]
        );
    }

    #[test]
    fn the_working_directory_in_a_system_folder_may_be_the_images() {
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
    fn only_dev_has_device_nodes() {
        for want in wants(
            &Request::from_env(OsStr::new("1:image=/i;bind=/a:/b:ro")).unwrap(),
            &Config::default(),
            &around("/w", "/h"),
        ) {
            let flags = want.attributes();
            assert!(flags.no_suid, "{want:?}");
            assert_eq!(flags.no_dev, want.target != Path::new("/dev"), "{want:?}");
            assert_eq!(flags.read_only, want.access == Access::ReadOnly);
        }
    }
}
