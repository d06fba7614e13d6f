//! Holds the inputs of a container that no phase of the pipeline changes: options, settings, user, job and node.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::env::{Change, Pair};
use crate::policy::Job;
use crate::view::{self, Client, MountRequest, Surroundings};
use coracle::options::Id;
use coracle::report::Refusal;
use coracle::request::{Settings, Variable};
use coracle::sys::Identity;

use crate::apply::fuse::Slurmstepd;
use crate::children::opener::Opener;
use crate::container::environment;
use crate::container::grants::{DeviceAccess, Grants, Provision};
use crate::container::job_facts::{self, EffectivePolicy};
use crate::place;
use crate::slurm::Slurmd;

/// Privileges with which a container is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Root's, for the user: the site's policy applies.
    Root,
    /// The user's own, in a user namespace.
    Own,
}

/// Options of a request.
pub struct Options {
    /// Options with the site's defaults applied.
    pub settings: Settings,
    /// Options that the user has used: `user_options` may forbid them.
    pub used: Vec<Id>,
    /// Notes about values that the site has changed.
    pub notes: Vec<String>,
}

/// User and job for which a container is made.
pub struct Requester {
    /// The user.
    pub identity: Identity,
    /// Privileges with which the container is made.
    pub authority: Authority,
    /// Facts about the job that root has recorded.
    pub job: Job,
    /// The job's environment on the node.
    pub environment: Vec<Pair>,
    /// slurmstepd of the step, if there is one.
    pub daemon: Option<Slurmstepd>,
}

/// Inputs of a container, which all phases of the pipeline share by reference.
pub struct Context {
    /// The site's settings.
    pub config: Config,
    /// Options of the request, with the site's defaults.
    pub settings: Settings,
    /// Options that the user has used.
    pub used: Vec<Id>,
    /// Notes about values of the request that the site has changed.
    pub notes: Vec<String>,
    /// The user.
    pub identity: Identity,
    /// Privileges with which the container is made.
    pub authority: Authority,
    /// Facts about the job that root has recorded.
    pub job: Job,
    /// The job's environment on the node.
    pub environment: Vec<Pair>,
    /// slurmstepd of the step, if there is one.
    pub daemon: Option<Slurmstepd>,
    /// Resources that Slurm has granted, and those of the node.
    pub grants: Grants,
    /// Files that Slurm's commands need, if they are to work in the container.
    pub client: Option<Client>,
    /// Single files that the job refers to.
    pub files: Vec<PathBuf>,
    /// Directories that variables of the job name.
    pub named: Vec<PathBuf>,
    /// Path of `coracle-inside`.
    pub helper: PathBuf,
}

impl Context {
    /// Combines a request with its user and the node's resources. The container has no commands of Slurm.
    pub fn new(config: Config, options: Options, requester: Requester, grants: Grants) -> Self {
        let Options { settings, used, notes } = options;
        let Requester { identity, authority, job, environment, daemon } = requester;
        Self {
            named: environment::named_directories(&environment, &settings),
            helper: place::helper(),
            client: None,
            files: Vec::new(),
            config,
            settings,
            used,
            notes,
            identity,
            authority,
            job,
            environment,
            daemon,
            grants,
        }
    }

    /// Adds Slurm's commands to the container, if there are any, and single files that the job refers to.
    #[must_use]
    pub fn with_slurm(self, client: Option<Client>, files: Vec<PathBuf>) -> Self {
        Self { client, files, ..self }
    }

    /// Looks up the user, and resolves the effective policy.
    pub fn resolve_policy(&self, opener: &Opener) -> Result<EffectivePolicy, Refusal> {
        job_facts::resolve_policy(opener, &self.config, &self.identity, self.job.clone(), &self.environment)
    }

    /// Devices of the container: Slurm's grant, as far as the rules of the step's control group permit. Without
    /// `rules`, they are those that it probably has. The driver is that of `before`, if it has the same GPUs.
    pub fn provide_devices(&self, rules: Option<&DeviceAccess<'_>>, before: &Provision) -> Result<Provision, Refusal> {
        self.grants.provide(&self.config, self.has_gpus(), rules, before)
    }

    /// Changes to the variables with which Slurm names a task's GPUs.
    pub fn gpu_changes(&self, provision: &Provision) -> Vec<Change> {
        let users = |name: &OsStr| {
            self.settings.env.iter().any(|variable| matches!(variable, Variable::Set(users, _) if users == name))
        };
        let changes = self.grants.changes(&provision.devices, self.has_gpus());
        // In the node's own /dev, the numbers are those of the node.
        let hidden = |change: &Change| self.authority == Authority::Root || !matches!(change, Change::Numbered(..));
        changes.into_iter().filter(|change| hidden(change) && !users(change.name())).collect()
    }

    /// Changes for the container of another step, whose own GPU variables do not apply to this step.
    pub fn joined_changes(&self, provision: &Provision) -> Vec<Change> {
        let driver = provision.driver.iter().flat_map(|driver| &driver.env);
        let told = driver.map(|(name, value)| Change::Set(name.into(), value.into()));
        told.chain(self.gpu_changes(provision)).collect()
    }

    fn has_gpus(&self) -> bool {
        self.settings.gpu.unwrap_or(true)
    }

    /// Mounts that a container in these surroundings should have.
    pub fn mount_requests(&self, around: &Surroundings<'_>) -> Vec<MountRequest> {
        view::mount_requests(&self.settings, &self.config, around)
    }

    /// True if `path` is the file of the X server's cookie.
    pub(super) fn is_cookie(&self, path: &Path) -> bool {
        cookie(&self.environment).is_some_and(|cookie| cookie == path)
    }
}

/// Single files of the node that Slurm or a job's environment refers to.
pub fn node_files(slurmd: Option<&Slurmd>, environment: &[Pair]) -> Vec<PathBuf> {
    let cookie = cookie(environment);
    let scripts = slurmd.iter().flat_map(|slurmd| &slurmd.task_scripts).cloned();
    cookie.into_iter().chain(scripts).filter(|path| path.is_absolute()).collect()
}

/// File of the X server's cookie (X(7)).
fn cookie(environment: &[Pair]) -> Option<PathBuf> {
    environment.iter().find(|(name, _)| name == "XAUTHORITY").map(|(_, path)| PathBuf::from(path))
}

#[cfg(test)]
impl Context {
    /// Context of uid 7 with these settings and environment.
    pub(super) fn for_test(authority: Authority, settings: Settings, environment: Vec<Pair>) -> Self {
        let identity = Identity { uid: 7, gid: 7, groups: Vec::new() };
        let requester = Requester { identity, authority, job: Job::none(), environment, daemon: None };
        let options = Options { settings, used: Vec::new(), notes: Vec::new() };
        Self::new(Config::default(), options, requester, Grants::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Devices;

    fn pair(name: &str, value: &str) -> Pair {
        (name.into(), value.into())
    }

    #[test]
    fn files_of_the_node_have_absolute_paths() {
        let slurmd = Slurmd { task_scripts: vec!["/etc/prolog".into(), "prolog".into()], ..Slurmd::default() };
        assert_eq!(node_files(Some(&slurmd), &[]), [Path::new("/etc/prolog")]);
        let cookie = [pair("XAUTHORITY", "/run/x"), pair("XAUTHORITY", "/run/y")];
        assert_eq!(node_files(Some(&slurmd), &cookie), [Path::new("/run/x"), Path::new("/etc/prolog")]);
        assert!(node_files(None, &[pair("XAUTHORITY", "x")]).is_empty());
    }

    #[test]
    fn only_the_first_cookie_counts() {
        let environment = vec![pair("XAUTHORITY", "/run/x"), pair("XAUTHORITY", "/run/y")];
        let context = Context::for_test(Authority::Root, Settings::default(), environment);
        assert!(context.is_cookie(Path::new("/run/x")));
        assert!(!context.is_cookie(Path::new("/run/y")));
    }

    #[test]
    fn the_numbers_of_gpus_are_those_of_the_containers_dev() {
        let mut provision = Provision::default();
        provision.devices = Devices { numbers: vec![0, 1], ..Devices::default() };
        let names = |authority, settings| {
            let changes = Context::for_test(authority, settings, Vec::new()).gpu_changes(&provision);
            changes.iter().map(|change| change.name().to_owned()).collect::<Vec<_>>()
        };
        let all = names(Authority::Root, Settings::default());
        assert!(all.iter().any(|name| name == "CUDA_VISIBLE_DEVICES"), "{all:?}");
        assert_eq!(names(Authority::Own, Settings::default()), [""; 0]);
        let set = Variable::Set("CUDA_VISIBLE_DEVICES".into(), "1".into());
        let own = names(Authority::Root, Settings { env: vec![set], ..Settings::default() });
        assert_eq!(own, all.into_iter().filter(|name| name != "CUDA_VISIBLE_DEVICES").collect::<Vec<_>>());
    }
}
