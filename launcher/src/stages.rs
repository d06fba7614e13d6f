//! A whole run on one page: request → config → image → verdict → view → plan → apply.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle::config::{Config, Owner};
use coracle::env::{Pair, Rules};
use coracle::image::{Container as Wrapping, Image};
use coracle::plan::{Plan, Shape, Sighting, Upper};
use coracle::policy::{self, Form, Grant, Provenance};
use coracle::report::{Kind, Refusal};
use coracle::request::{ImageRef, Settings};
use coracle::sys::{self, Identity, MountNamespace};
use coracle::view::{self, Client, Origin, Source, Surroundings, Want};
use coracle::wire::Here;
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::apply::{self, Disk, Rights, Sources};
use crate::proxy::{Account, Opened, Proxy};
use crate::slurm_client;
use crate::survey;
use crate::variables::{self, Variables};

/// What a container is made from, and for whom.
pub struct Run {
    /// The image.
    pub image: ImageRef,
    /// Everything that was asked for beside it, or is the site's default.
    pub settings: Settings,
    /// What Slurm's commands need inside, if they are to work there.
    pub client: Option<Client>,
    /// Our program that runs inside.
    pub helper: PathBuf,
    /// Single files that the job refers to.
    pub files: Vec<PathBuf>,
    /// The job's environment on the node.
    pub environment: Vec<Pair>,
    /// The site's settings.
    pub config: Config,
    /// The user.
    pub identity: Identity,
    /// With whose rights it is made.
    pub authority: Authority,
    /// slurmstepd's process id, if it is for a step.
    pub daemon: Option<u32>,
    /// How long each phase took.
    pub clock: Clock,
}

/// With whose rights a container is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Root's, for the user: so the site's policy decides.
    Root,
    /// The user's own, in a user namespace.
    Own,
}

/// An image that was opened as the user, found good, allowed, and made ready for mounting.
pub struct Loaded {
    /// The open file and what is in it.
    pub opened: Opened,
    /// The rule of the policy that allowed it.
    pub rule: String,
    /// What the node knows of the user.
    pub account: Account,
    disk: Disk,
}

/// A container that tasks can enter.
pub struct Container {
    /// Its mount namespace.
    pub namespace: MountNamespace,
    /// What was done to make it.
    pub plan: Plan,
}

impl Loaded {
    /// Whether a process of the user's reads the image while it is mounted: it has to be in the control groups of its
    /// job before.
    pub fn is_served(&self) -> bool {
        self.disk.is_served()
    }
}

impl Run {
    /// Opens, verifies and judges the image, in that order, and attaches it.
    pub fn load(&mut self, proxy: &Proxy) -> Result<Loaded, Refusal> {
        let opened = self.open(proxy)?;
        let grant = match self.authority {
            Authority::Root => self.judge(proxy, &opened)?,
            Authority::Own => self.judge_own(&opened)?,
        };
        self.attach(proxy, opened, grant)
    }

    /// Opens and verifies the image.
    pub fn open(&mut self, proxy: &Proxy) -> Result<Opened, Refusal> {
        let name = self.image.to_string();
        let opened = proxy.open_image(&self.image, self.settings.digest.is_some())?;
        self.clock.lap("open");
        if let (Some(wanted), Some(found)) = (self.settings.digest, opened.digest)
            && wanted != found
        {
            return Err(Refusal::new(Kind::Digest, name, format!("its digest is {found}, {wanted} was asked for")));
        }
        Ok(opened)
    }

    /// What the site says of an image that was opened.
    pub fn judge(&self, proxy: &Proxy, opened: &Opened) -> Result<Grant, Refusal> {
        let provenance = self.provenance(proxy, opened)?;
        policy::judge(&self.config, &provenance).map_err(|denied| denied.refuse(&self.image.to_string()))
    }

    /// What the kernel lets the user do with it.
    pub fn judge_own(&self, opened: &Opened) -> Result<Grant, Refusal> {
        policy::own(form(&opened.image)).map_err(|denied| denied.refuse(&self.image.to_string()))
    }

    /// Gets an image that may run ready for mounting.
    pub fn attach(&mut self, proxy: &Proxy, opened: Opened, grant: Grant) -> Result<Loaded, Refusal> {
        let name = self.image.to_string();
        let mut groups = vec![self.identity.gid];
        groups.extend(self.identity.groups.iter().filter(|gid| **gid != self.identity.gid));
        let account = proxy.account(&groups)?;
        self.clock.lap("judge");
        let disk = Disk::attach(proxy, &opened, &grant, &self.identity, &self.config, &name, self.daemon)?;
        Ok(Loaded { opened, rule: grant.rule, account, disk })
    }

    /// Below which trusted folder this very file lies, if below any.
    fn provenance(&self, proxy: &Proxy, opened: &Opened) -> Result<Provenance, Refusal> {
        // What root cannot look at lies on a file system of the user's own: nothing there is trusted.
        let form = form(&opened.image);
        let own = Provenance { owner: self.identity.uid, mode: 0o777, below: None, wanted_owner: None, form };
        let Ok(file) = opened.file.metadata() else { return Ok(own) };
        let mut provenance = Provenance { owner: file.uid(), mode: file.mode(), ..own };
        for (index, rule) in self.config.image_paths.iter().enumerate() {
            // A trusted folder that this node does not have trusts nothing.
            let Ok(folder) = sys::open_untrusted(&rule.path.0, OFlag::O_PATH | OFlag::O_DIRECTORY) else { continue };
            // What counts is that the same inode is found there.
            let Some(relative) = sys::hint_beneath(&folder, &opened.file) else { continue };
            let Ok(found) = proxy.open_beneath(folder.as_fd(), &relative)? else { continue };
            let same = nix::sys::stat::fstat(&found)
                .is_ok_and(|found| (found.st_dev, found.st_ino) == (file.dev(), file.ino()));
            if same {
                let owner = match &rule.owner {
                    Owner::Number(uid) => Some(*uid),
                    Owner::Name(name) => proxy.uid_of(name)?,
                };
                provenance.below = Some(index);
                provenance.wanted_owner = owner;
                break;
            }
        }
        Ok(provenance)
    }

    /// What of the step decides what it sees.
    pub fn surroundings<'a>(
        &'a self,
        here: &'a Here,
        loaded: &'a Loaded,
        script_folder: Option<&'a Path>,
    ) -> Surroundings<'a> {
        Surroundings {
            directory: &here.directory,
            home: loaded.account.home.as_deref(),
            script_folder,
            pmix: here.pmix.as_deref(),
            files: &self.files,
            client: self.client.as_ref(),
            helper: &self.helper,
        }
    }

    /// What should be visible to a step that is there.
    pub fn wants(&self, around: &Surroundings<'_>) -> Vec<Want> {
        view::wants(&self.settings, &self.config, around)
    }

    /// Builds a container in the caller's mount namespace from an image that was loaded.
    pub fn build(
        &mut self,
        proxy: &Proxy,
        loaded: &Loaded,
        here: &Here,
        script_folder: Option<&Path>,
    ) -> Result<Container, Refusal> {
        let name = self.image.to_string();
        let (image, watches) = loaded.disk.mount(&name, &loaded.opened, &self.identity, proxy.deadline())?;
        self.clock.lap("mount");
        let built = self.build_on(proxy, loaded, here, script_folder, image);
        watches.into_iter().fold(built, |built, watch| watch.finish(&name, built))
    }

    fn build_on(
        &mut self,
        proxy: &Proxy,
        loaded: &Loaded,
        here: &Here,
        script_folder: Option<&Path>,
        image: OwnedFd,
    ) -> Result<Container, Refusal> {
        let name = self.image.to_string();
        let around = self.surroundings(here, loaded, script_folder);
        let (plan, sources) = self.plan(proxy, loaded, image.as_fd(), &around)?;
        self.clock.lap("plan");
        let namespace = apply::build(&name, &plan, image, &sources, &loaded.account, &self.identity)?;
        self.clock.lap("build");
        Ok(Container { namespace, plan })
    }

    fn plan(
        &self,
        proxy: &Proxy,
        loaded: &Loaded,
        image: std::os::fd::BorrowedFd<'_>,
        around: &Surroundings<'_>,
    ) -> Result<(Plan, Sources), Refusal> {
        let name = self.image.to_string();
        let rights = Rights::of(&loaded.opened.image, &self.identity);
        let (mut sightings, mut sources) = (Vec::new(), Sources::default());
        for want in self.wants(around) {
            let Some((shape, source)) = open(proxy, &want)? else { continue };
            let sight = rights.during(|| survey::look(image, &want.target));
            let sight = sight.map_err(|error| apply::damaged(&name, &error))?;
            sightings.push(Sighting { want, shape, sight });
            sources.sightings.push(source);
        }
        let upper = Upper::of(&self.settings, &self.config);
        if let Some(Upper::Folder(path)) = &upper {
            sources.upper = Some(open_upper(proxy, path)?);
        }
        let plan = Plan::build(loaded.opened.image.clone(), upper, &sightings)?;
        Ok((plan, sources))
    }

    /// What the tasks of this container find in their environment.
    pub fn variables(
        &mut self,
        opened: Option<&Opened>,
        namespace: &MountNamespace,
        step: Option<variables::Step<'_>>,
    ) -> Result<Variables, Refusal> {
        let early = || Refusal::new(Kind::Internal, "the container's environment", "was asked for too early");
        self.variables_if_time(opened, namespace, step)?.ok_or_else(early)
    }

    /// The same; nothing, if it is too early for what the image wants to be run.
    pub fn variables_if_time(
        &mut self,
        opened: Option<&Opened>,
        namespace: &MountNamespace,
        step: Option<variables::Step<'_>>,
    ) -> Result<Option<Variables>, Refusal> {
        let rules = Rules {
            clean: self.settings.clean_env.unwrap_or(false),
            already_inside: false,
            site: Vec::new(),
            user: self.settings.env.clone(),
            image: self.image.path.clone().into(),
            name: self.image.stem().to_owned(),
            digest: opened.and_then(|opened| opened.digest).map(|digest| digest.to_string().into()),
        };
        let question = variables::Question {
            host: &self.environment,
            rules,
            shown: self.image.to_string(),
            id: self.image.path.clone().into(),
            commands: self.client.is_some(),
            entrypoint: self.settings.entrypoint.unwrap_or(false),
            helper: &self.helper,
            sif: opened.filter(|opened| opened.image.container == Wrapping::Sif).map(|opened| &opened.file),
            step,
        };
        let found = variables::find_out(&question, namespace, &self.identity);
        self.clock.lap("environment");
        found
    }
}

/// Single files of the node that Slurm or a job's environment refers to. `told` is what Slurm was told of its own
/// configuration (`SLURM_CONF`).
pub fn files(config: &Config, environment: &[Pair], told: Option<&Path>) -> Vec<PathBuf> {
    let cookie = environment.iter().find(|(name, _)| name == "XAUTHORITY");
    let cookie = cookie.map(|(_, path)| PathBuf::from(path));
    let scripts = slurm_client::task_scripts(Path::new("/"), &config.slurm_client, told);
    cookie.into_iter().chain(scripts).filter(|path| path.is_absolute()).collect()
}

fn form(image: &Image) -> Form {
    match image {
        image if image.is_directory() => Form::Directory,
        image if image.has_ext3() => Form::FileWithExt3,
        _ => Form::File,
    }
}

/// Opens what a want shows; nothing where the node does not have it and need not.
fn open(proxy: &Proxy, want: &Want) -> Result<Option<(Shape, Option<OwnedFd>)>, Refusal> {
    let path = match &want.source {
        Source::Node(path) => path,
        Source::Passwd | Source::Group => return Ok(Some((Shape::File, None))),
        Source::Memory(_) | Source::Made(_) => return Ok(Some((Shape::Folder, None))),
    };
    match proxy.open_source(path)? {
        Ok((fd, shape)) => Ok(Some((shape, Some(fd)))),
        // /etc/hosts, a home that this node does not mount, a site's /scratch: the job may well run without.
        Err(_) if want.presence.optional() => Ok(None),
        Err(errno) => Err(missing(want, path, errno)),
    }
}

/// Opens the folder that an overlay is to write into.
fn open_upper(proxy: &Proxy, path: &Path) -> Result<OwnedFd, Refusal> {
    let refuse = |cause: String| Refusal::new(Kind::Bind, path.display().to_string(), cause);
    match proxy.open_source(path)? {
        Ok((fd, Shape::Folder)) => Ok(fd),
        Ok((_, Shape::File)) => Err(refuse("not a folder, so nothing can be kept in it".into())),
        Err(errno) => Err(refuse(unusable(errno))),
    }
}

fn unusable(errno: Errno) -> String {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => "does not exist on this node".to_owned(),
        Errno::EACCES => "you may not use it on this node: permission denied".to_owned(),
        other => format!("cannot be opened on this node: {}", other.desc()),
    }
}

fn missing(want: &Want, path: &Path, errno: Errno) -> Refusal {
    let cause = unusable(errno);
    let path = path.display().to_string();
    match want.origin {
        Origin::Workdir => {
            Refusal::new(Kind::Workdir, path, cause).hint("start the job in another folder, or give --chdir")
        }
        Origin::Site(index) => Refusal::new(Kind::Bind, path, format!("{cause} (binds[{index}] of coracle.yaml)")),
        Origin::User => Refusal::new(Kind::Bind, path, cause),
        _ => Refusal::new(Kind::System, path, cause),
    }
}

/// How long each phase of a run took.
pub struct Clock {
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Clock {
    /// Starts.
    pub fn start() -> Self {
        Self { last: Instant::now(), laps: Vec::new() }
    }

    /// Ends the phase `name`. A phase that comes again adds up.
    pub fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        let took = now - self.last;
        self.last = now;
        match self.laps.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += took,
            None => self.laps.push((name, took)),
        }
    }

    /// `open=1.203 mount=0.300`, in milliseconds.
    pub fn milliseconds(&self) -> Vec<(&'static str, String)> {
        self.laps.iter().map(|(name, took)| (*name, format!("{:.3}", took.as_secs_f64() * 1000.0))).collect()
    }
}
