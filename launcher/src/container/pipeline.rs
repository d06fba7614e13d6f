//! Runs the pipeline of a container: request → config → image → verdict → view → plan → apply.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::config::Config;
use crate::devices::too_old;
use crate::env::{Change, Pair, Rules};
use crate::image::{Container as Wrapping, Image, fstab};
use crate::plan::{Owners, Plan, ResolvedMount, Shape, Target, Upper};
use crate::policy::{self, Form, Grant, Job, Provenance, Reader};
use crate::store::Shelf;
use crate::view::{self, Client, MountRequest, Origin, Presence, Source, Surroundings};
use coracle::options::Id;
use coracle::report::{Kind, Refusal};
use coracle::request::{ImageRef, Mpi, Settings, Variable, inside};
use coracle::sys::{self, CachedStat, Identity, MountNamespace};
use coracle::wire::Here;
use nix::fcntl::OFlag;

use crate::apply::fuse::Slurmstepd;
use crate::apply::fuse_owner;
use crate::apply::{self, Disk, Mounted, Rights, Sources};
use crate::children::in_container::Step;
use crate::children::opener::{Account, Opened, Opener};
use crate::children::verify::{self, Need};
use crate::container::bounds::Bounds;
use crate::container::clock::Clock;
use crate::container::device_rules::Confinement;
use crate::container::environment::{self, TaskEnvironment};
use crate::container::grants::{DeviceAccess, Grants, Provision};
use crate::container::host_mpi::{self, Replacement};
use crate::container::job_facts::{self, EffectivePolicy};
use crate::container::sources;
use crate::container::stored;
use crate::container::targets::{self, Last};
use crate::slurm::Slurmd;

/// Sources and user of a container.
pub struct Run {
    /// The image.
    pub image: ImageRef,
    /// Options of the request, with the site's defaults.
    pub settings: Settings,
    /// Files that Slurm's commands need, if they are to work in the container.
    pub client: Option<Client>,
    /// Path of `coracle-inside`.
    pub helper: PathBuf,
    /// Single files that the job refers to.
    pub files: Vec<PathBuf>,
    /// Directories that variables of the job name.
    pub named: Vec<PathBuf>,
    /// The job's environment on the node.
    pub environment: Vec<Pair>,
    /// The site's settings.
    pub config: Config,
    /// The user.
    pub identity: Identity,
    /// Privileges with which it is made.
    pub authority: Authority,
    /// Options that the user has used.
    pub used: Vec<Id>,
    /// Facts about the job that root has recorded.
    pub job: Job,
    /// Effective policy, once it is resolved.
    pub policy: Option<EffectivePolicy>,
    /// Path of the image in the store, if the requested file does not exist.
    pub stored: Option<PathBuf>,
    /// slurmstepd of the step, if there is one.
    pub daemon: Option<Slurmstepd>,
    /// MPI of the host that replaces the image's, once the loaded image has been checked.
    pub mpi: Option<Replacement>,
    /// Resources that Slurm has granted, and those of the node.
    pub grants: Grants,
    /// Part of them in the container.
    pub provision: Provision,
    /// Directory that Slurm's PMIx server probably uses for the step, if the step has one.
    pub server: Option<PathBuf>,
    /// Note for the user about an image whose C library is too old for the driver of its GPUs.
    pub driver_note: Option<String>,
    /// Notes about values of the request that the site has changed.
    pub notes: Vec<String>,
    /// Source of the device rules for the tasks of the step, once it is known.
    pub confinement: Option<Confinement>,
    /// Reader of the image in a step, if the container is only explained.
    pub explains: Option<Reader>,
    /// Duration of each phase.
    pub clock: Clock,
}

/// Privileges with which a container is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Root's, for the user: the site's policy applies.
    Root,
    /// The user's own, in a user namespace.
    Own,
}

/// An image that was opened as the user, verified, allowed, and prepared for mounting.
pub struct Loaded {
    /// The open file and its identified content.
    pub opened: Opened,
    /// Image rule that allowed it.
    pub rule: String,
    /// Entries of the user in the node's user database.
    pub account: Account,
    disk: Disk,
}

/// Waits until the job is charged for work for the user: slurmstepd is in the control groups of the job by then.
pub type Admission<'a> = &'a mut dyn FnMut() -> Result<(), Refusal>;

/// [`Admission`] of a container for no step: the user is charged for the work.
pub fn admit_at_once() -> Result<(), Refusal> {
    Ok(())
}

/// A container that tasks can enter.
pub struct Container {
    /// Mount namespace of the container.
    pub namespace: MountNamespace,
    /// Plan that was applied, or that a step would have.
    pub plan: Plan,
    /// Mounts in the container.
    attached: apply::Attached,
}

impl Loaded {
    /// True if a process of the user reads the image while it is mounted: slurmstepd must be in the control groups of
    /// its job before.
    pub fn is_served(&self) -> bool {
        self.disk.is_served()
    }
}

impl Run {
    /// Opens, verifies and judges the image, in that order, and attaches it. `admit` is called before work that grows
    /// with the size of the image.
    pub fn load(&mut self, opener: &Opener, admit: Admission<'_>) -> Result<Loaded, Refusal> {
        let mut opened = self.open(opener, admit)?;
        let grant = match self.authority {
            Authority::Root => self.judge(opener, &mut opened, admit)?,
            Authority::Own => self.judge_own(&opened)?,
        };
        self.attach(opener, opened, grant)
    }

    /// Looks up the user and the effective policy, and checks the requested options against `user_options`.
    fn resolve_policy(&mut self, opener: &Opener) -> Result<&EffectivePolicy, Refusal> {
        let policy = match self.policy.take() {
            Some(policy) => policy,
            None => {
                job_facts::resolve_policy(opener, &self.config, &self.identity, self.job.clone(), &self.environment)?
            }
        };
        if self.authority == Authority::Root {
            policy::options(&policy.rules, &self.used)?;
        }
        Ok(self.policy.insert(policy))
    }

    /// Opens and verifies the image.
    pub fn open(&mut self, opener: &Opener, admit: Admission<'_>) -> Result<Opened, Refusal> {
        let name = self.image.to_string();
        self.resolve_policy(opener)?;
        let mut opened = self.open_file_or_stored(opener, &name)?;
        if self.authority == Authority::Root {
            fuse_owner::refuse_image(&name, opened.file.as_fd())?;
        }
        self.clock.lap("open");
        opened.record = stored::read_record(opener, &self.config.store, &opened, &name)?;
        opened.digest = opened.record.as_ref().map(|record| record.digest);
        if opened.digest.is_none() && self.settings.digest.is_some() && !opened.image.is_directory() {
            self.check_size(opened.length, &name)?;
            admit()?;
            opened.digest = Some(opener.digest(&name)?);
        }
        match (self.settings.digest, opened.digest) {
            (Some(wanted), Some(found)) if wanted != found => {
                return Err(Refusal::new(Kind::Digest, name, format!("its digest is {found}, {wanted} was asked for")));
            }
            (Some(_), None) => return Err(Refusal::new(Kind::Digest, name, "a directory, which has no digest")),
            _ => {}
        }
        opened.signers = opened.record.as_ref().map(|record| record.signers.clone());
        self.clock.lap("know");
        Ok(opened)
    }

    /// Refuses an image that is too large for the site, before it is read completely.
    fn check_size(&self, length: u64, name: &str) -> Result<(), Refusal> {
        let rules = self.policy.as_ref().filter(|_| self.authority == Authority::Root).map(|policy| &policy.rules);
        rules.and_then(|rules| policy::too_large(rules, length)).map_or(Ok(()), |denied| Err(denied.refuse(name)))
    }

    /// Path of the image.
    pub fn path(&self) -> &Path {
        self.stored.as_deref().unwrap_or(&self.image.path)
    }

    /// Opens the requested file or, if it does not exist, the stored image.
    fn open_file_or_stored(&mut self, opener: &Opener, name: &str) -> Result<Opened, Refusal> {
        self.stored = None;
        let missing = match self.image.file().map(|path| opener.open_image(path, name)) {
            Some(Err(refusal)) if refusal.kind == Kind::ImageMissing => Some(match self.image.of_registry() {
                Some(image) => refusal.hint(format!("{image}?")),
                None => refusal,
            }),
            Some(answer) => return answer,
            None => None,
        };
        let stored = match (self.image.stored(), self.store_directory(opener)?) {
            (Some(stored), Some(shelf)) => shelf.join(stored.as_str()),
            _ => return Err(missing.unwrap_or_else(|| stored::refuse_unknown_user(&self.identity, name))),
        };
        match opener.open_image(&stored, name) {
            Err(refusal) if refusal.kind == Kind::ImageMissing => {
                Err(stored::refuse_missing(name, missing.and(self.image.file()), &stored))
            }
            Err(refusal) => Err(refusal),
            Ok(opened) => {
                self.stored = Some(stored);
                Ok(opened)
            }
        }
    }

    /// Path of the user's directory in the store, if the node knows the user's name.
    fn store_directory(&mut self, opener: &Opener) -> Result<Option<PathBuf>, Refusal> {
        let user = self.resolve_policy(opener)?.account.name().map(str::to_owned);
        Ok(user.and_then(|user| Shelf::path(self.config.store.path(), &user)))
    }

    /// Verdict of the site's policy on an open image. The digest and the signers are computed if the rules need them
    /// and the image cannot change.
    pub fn judge(&self, opener: &Opener, opened: &mut Opened, admit: Admission<'_>) -> Result<Grant, Refusal> {
        let name = self.image.to_string();
        let early = || Refusal::new(Kind::Internal, &name, "was to be judged before the rules were known");
        let rules = &self.policy.as_ref().ok_or_else(early)?.rules;
        let mut provenance = self.provenance(opener, opened)?;
        if provenance.form == Form::Directory {
            Bounds::new(opener, rules).deny(opened.file.as_fd(), &name)?;
        } else if provenance.is_fixed() && policy::too_large(rules, provenance.length).is_none() {
            if opened.digest.is_none() && rules.want_digest() {
                admit()?;
                opened.digest = Some(opener.digest(&name)?);
            }
            if opened.signers.is_none() && rules.want_signers(provenance.trusted_by()) {
                admit()?;
                opened.signers = Some(self.signers(opener, opened, &name)?);
            }
            (provenance.digest, provenance.signers) = (opened.digest, opened.signers.clone());
        }
        policy::judge(rules, &provenance).map_err(|denied| denied.refuse(&name))
    }

    /// Keys that sign all of the image, verified before the deadline of the opener.
    fn signers(&self, opener: &Opener, opened: &Opened, name: &str) -> Result<Vec<String>, Refusal> {
        let keys = verify::site_keys(Path::new(verify::KEYS))?;
        let asked = Some((keys.as_slice(), Need::WhoeverSigned));
        let limit = opener.deadline().saturating_duration_since(Instant::now());
        let groups = self.daemon.map(|daemon| sys::Cgroups::of(daemon.pid)).transpose();
        let groups = groups.map_err(|error| Refusal::system(name, &error))?;
        let look = (&opened.file, opened.length);
        let found = verify::look(Some(&self.identity), groups.as_ref(), name, look, asked, false, limit)?;
        Ok(found.signers.into_iter().map(|signer| signer.key).collect())
    }

    /// Limits of the kernel on unprivileged use of the image.
    pub fn judge_own(&self, opened: &Opened) -> Result<Grant, Refusal> {
        policy::own(form(&opened.image)).map_err(|denied| denied.refuse(&self.image.to_string()))
    }

    /// Prepares an allowed image for mounting.
    pub fn attach(&mut self, opener: &Opener, opened: Opened, grant: Grant) -> Result<Loaded, Refusal> {
        let name = self.image.to_string();
        let account = self.resolve_policy(opener)?.account.clone();
        self.mpi = None;
        self.clock.lap("judge");
        let disk = Disk::attach(opener, &opened, &grant, &self.identity, &self.config, &name, self.daemon)?;
        Ok(Loaded { opened, rule: grant.rule, account, disk })
    }

    /// Trusted directory that contains this same file, if there is one, with the owner and mode of the file.
    fn provenance(&self, opener: &Opener, opened: &Opened) -> Result<Provenance, Refusal> {
        // Root has no access to a user's FUSE file system: no file there is trusted.
        let form = form(&opened.image);
        let own = Provenance {
            owner: self.identity.uid,
            mode: 0o777,
            below: None,
            wanted_owner: None,
            form,
            stored: opened.record.is_some(),
            length: opened.length,
            digest: opened.digest,
            signers: opened.signers.clone(),
        };
        let Ok(file) = CachedStat::of(&opened.file) else { return Ok(own) };
        let mut provenance = Provenance { owner: file.uid, mode: file.mode, ..own };
        for (index, rule) in self.config.image_paths.iter().enumerate() {
            // A trusted directory that this node does not have is skipped.
            let Ok(folder) = sys::open_untrusted(&rule.path.0, OFlag::O_PATH | OFlag::O_DIRECTORY) else { continue };
            let Some(relative) = sys::hint_beneath(&folder, &opened.file) else { continue };
            if opener.is_beneath(folder.as_fd(), &relative, &file)? {
                let wanted_owner = opener.owner(&rule.owner)?;
                provenance = Provenance { below: Some(index), wanted_owner, ..provenance };
                // Another rule may name the same directory, or a parent, with another owner.
                if provenance.trusted_by().is_some() {
                    break;
                }
            }
        }
        Ok(provenance)
    }

    /// Properties of the step that determine the content of its container.
    pub fn surroundings<'a>(
        &'a self,
        here: &'a Here,
        loaded: &'a Loaded,
        script_folder: Option<&'a Path>,
    ) -> Surroundings<'a> {
        Surroundings {
            root: self.authority == Authority::Root && self.identity.uid == 0,
            directory: &here.directory,
            home: loaded.account.home.as_deref(),
            script_folder,
            pmix: here.pmix.as_deref(),
            files: &self.files,
            named: &self.named,
            client: self.client.as_ref(),
            helper: &self.helper,
            mpi: self.mpi.as_ref().and_then(|mpi| mpi.chosen.as_ref()).map(|chosen| (&chosen.profile, &chosen.fit)),
            devices: (self.authority == Authority::Root).then_some(&self.provision.devices),
            driver: self.provision.driver.as_ref(),
        }
    }

    /// Adds Slurm's grant to the container, as far as the rules of the step's control group permit.
    pub fn provide_devices(&mut self, rules: Option<&DeviceAccess<'_>>) -> Result<(), Refusal> {
        let before = std::mem::take(&mut self.provision);
        let glibc = before.glibc().map(str::to_owned);
        self.provision = self.grants.provide(&self.config, self.settings.gpu.unwrap_or(true), rules, before)?;
        if self.provision.glibc() != glibc.as_deref() {
            self.driver_note = None;
        }
        Ok(())
    }

    /// Changes to the variables with which Slurm names a task's GPUs.
    pub fn gpu_changes(&self) -> Vec<Change> {
        let users = |name: &OsStr| {
            self.settings.env.iter().any(|variable| matches!(variable, Variable::Set(users, _) if users == name))
        };
        let changes = self.grants.changes(&self.provision.devices, self.settings.gpu.unwrap_or(true));
        // In the node's own /dev, the numbers are those of the node.
        let hidden = |change: &Change| self.authority == Authority::Root || !matches!(change, Change::Numbered(..));
        changes.into_iter().filter(|change| hidden(change) && !users(change.name())).collect()
    }

    /// Changes for the container of another step, whose own GPU variables do not apply to this step.
    pub fn joined_changes(&self) -> Vec<Change> {
        let driver = self.provision.driver.iter().flat_map(|driver| &driver.env);
        let told = driver.map(|(name, value)| Change::Set(name.into(), value.into()));
        told.chain(self.gpu_changes()).collect()
    }

    /// Attaches the mounts whose sources exist only after `container` was built.
    pub fn attach_late_mounts(&mut self, opener: &Opener, container: &Container) -> Result<(), Refusal> {
        let Container { namespace, plan, attached } = container;
        let open = |path: &Path| sources::open_late(opener, path);
        let completed = apply::complete(namespace, plan, attached, &self.identity, opener, open);
        self.clock.lap("build");
        completed
    }

    /// Mounts that a step in these surroundings should have.
    pub fn mount_requests(&self, around: &Surroundings<'_>) -> Vec<MountRequest> {
        view::mount_requests(&self.settings, &self.config, around)
    }

    /// Builds a container in the caller's mount namespace from a loaded image.
    pub fn build(
        &mut self,
        opener: &Opener,
        loaded: &Loaded,
        here: &Here,
        script_folder: Option<&Path>,
    ) -> Result<Container, Refusal> {
        let name = self.image.to_string();
        let mounted = loaded.disk.mount(&name, &loaded.opened, &self.identity, opener.deadline())?;
        let Mounted { tree, watches, owners } = mounted;
        self.clock.lap("mount");
        let built = self.build_on(opener, loaded, here, script_folder, (tree, owners));
        watches.into_iter().fold(built, |built, watch| watch.finish(&name, built))
    }

    fn build_on(
        &mut self,
        opener: &Opener,
        loaded: &Loaded,
        here: &Here,
        script_folder: Option<&Path>,
        (image, owners): (OwnedFd, Owners),
    ) -> Result<Container, Refusal> {
        let name = self.image.to_string();
        let wanted = self.settings.mpi.as_ref().filter(|wanted| wanted.word() != Mpi::NONE);
        if let (Some(wanted), None) = (wanted, &self.mpi) {
            self.mpi = Some(host_mpi::choose(opener, image.as_fd(), wanted, &self.config.mpi, &name)?);
            self.clock.lap("mpi");
        }
        if let (Some(wanted), None) = (self.provision.glibc(), &self.driver_note) {
            // An image without a glibc has no programs for the driver.
            let own = opener.glibc(image.as_fd(), &name)?;
            self.driver_note = own.filter(|own| too_old(wanted, own)).map(|own| {
                format!(
                    "the driver of this node's GPUs needs {wanted}, {name} has {own}: its libraries cannot be loaded"
                )
            });
            self.clock.lap("driver");
        }
        if self.explains.is_some() {
            let rights = Rights::of(&loaded.opened.image, &self.identity);
            let text = apply::file_of(image.as_fd(), Path::new(fstab::PATH), fstab::LIMIT, rights);
            self.notes.extend(text.and_then(|text| fstab::note(&text)));
        }
        let around = self.surroundings(here, loaded, script_folder);
        let owners = match (self.explains, self.authority) {
            (Some(reader), Authority::Own) => apply::step_owners(owners, reader),
            _ => owners,
        };
        let (plan, sources) = self.plan(opener, loaded, (image.as_fd(), owners), &around)?;
        let of_a_step = Surroundings { devices: Some(&self.provision.devices), ..around };
        let shown = match self.explains.is_some() && around != of_a_step {
            true => Some(self.plan(opener, loaded, (image.as_fd(), owners), &of_a_step)?.0),
            false => None,
        };
        self.clock.lap("plan");
        let (namespace, attached) =
            apply::build(&name, &plan, image, &sources, &loaded.account, &self.identity, opener)?;
        // A task that waits for a file system which does not answer could not be killed.
        if let Some(workdir) = &self.settings.workdir
            && let Some((above, below)) = attached.above(workdir)
        {
            let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
            opener.try_directory(above, below, &workdir.display().to_string())?;
        }
        self.clock.built();
        Ok(Container { namespace, plan: shown.unwrap_or(plan), attached })
    }

    fn plan(
        &self,
        opener: &Opener,
        loaded: &Loaded,
        (image, owners): (BorrowedFd<'_>, Owners),
        around: &Surroundings<'_>,
    ) -> Result<(Plan, Sources), Refusal> {
        let name = self.image.to_string();
        let rights = Rights::of(&loaded.opened.image, &self.identity);
        let (mut resolved, mut sources) = (Vec::new(), Sources::default());
        // Unprivileged runs are not subject to site policy.
        let rules = self.policy.as_ref().filter(|_| self.authority == Authority::Root).map(|policy| &policy.rules);
        let bounds = rules.map(|rules| Bounds::new(opener, rules));
        for request in self.mount_requests(around) {
            let Some((shape, source)) = sources::open(opener, &request, self.authority)? else { continue };
            let target = match request.origin {
                // In Coracle's own /dev, and in the node's /proc, whatever the image contains there.
                Origin::Device => Ok(Target { place: request.target.clone(), found: None, link: None }),
                Origin::Kernel if request.target.parent() == Some(Path::new("/proc")) => {
                    Ok(Target { place: request.target.clone(), found: None, link: None })
                }
                _ => rights
                    .during(|| targets::resolve(image, &request.target, last_of(&request)))
                    .map_err(|error| apply::unusable(&name, image, &request.target, &error))?,
            };
            if request.origin == Origin::Variable
                && !self.may_show(shape, source.as_ref(), &request, (&resolved, &sources))
            {
                continue;
            }
            let images_own = request.presence == Presence::UnlessInImage
                && target.as_ref().is_ok_and(|target| target.found == Some(Shape::Folder));
            if let (Some(bounds), Some(source), false) = (&bounds, &source, images_own)
                && !self.is_allowed(bounds, &request, source)?
            {
                continue;
            }
            resolved.push(ResolvedMount { request, shape, target });
            sources.mounts.push(source);
        }
        let upper = Upper::of(&self.settings, &self.config);
        if let Some(Upper::Folder(path)) = &upper {
            let folder = sources::open_upper(opener, path)?;
            if self.authority == Authority::Root {
                fuse_owner::refuse_overlay(&path.display().to_string(), folder.as_fd())?;
            }
            if let Some(bounds) = &bounds {
                let shown = path.display().to_string();
                bounds.allow(folder.as_fd(), &shown)?;
                bounds.deny(folder.as_fd(), &shown)?;
            }
            sources.upper = Some(folder);
        }
        let plan = Plan::build(loaded.opened.image.clone(), upper, &resolved)?;
        Ok((Plan { owners, ..plan }, sources))
    }

    /// True if the directory of a variable belongs to the user, is not part of a kernel file system, and is above no
    /// mount from elsewhere. A mount inside a tree of the node needs its mount point in that tree.
    fn may_show(
        &self,
        shape: Shape,
        source: Option<&OwnedFd>,
        request: &MountRequest,
        (resolved, sources): (&[ResolvedMount], &Sources),
    ) -> bool {
        let Some(source) = source.filter(|_| shape == Shape::Folder) else { return false };
        let own = CachedStat::of(source).is_ok_and(|stat| stat.uid == self.identity.uid);
        let plain = sys::fd_path(source).is_ok_and(|path| inside(&path).is_ok());
        let mut below = resolved.iter().zip(&sources.mounts).filter(|(other, _)| {
            other.request.target != request.target && other.request.target.starts_with(&request.target)
        });
        let in_place = |other: &ResolvedMount, fd: &Option<OwnedFd>| {
            fd.as_ref().is_some_and(|fd| sys::fd_path(fd).is_ok_and(|path| path == other.request.target))
        };
        own && plain && below.all(|(other, fd)| in_place(other, fd))
    }

    /// True if a source is within the bounds of the site's rules; false if the container omits it.
    ///
    /// The site's own binds and files for Slurm are not checked. The file of the X server's cookie, and directories
    /// that variables name, are chosen by the user but not requested, so they are omitted instead of refused.
    fn is_allowed(&self, bounds: &Bounds<'_>, request: &MountRequest, source: &OwnedFd) -> Result<bool, Refusal> {
        let Source::Node(path) = &request.source else { return Ok(true) };
        let (source, shown) = (source.as_fd(), path.display().to_string());
        match request.origin {
            Origin::User => bounds.allow(source, &shown).and_then(|()| bounds.deny(source, &shown)),
            Origin::Workdir => {
                bounds.deny(source, &shown).map_err(|refusal| refusal.hint("start the job in another directory"))
            }
            Origin::Home => {
                bounds.deny(source, &shown).map_err(|refusal| refusal.hint("--no-container-home leaves it out"))
            }
            Origin::Variable => {
                return Ok(bounds.allow(source, &shown).and_then(|()| bounds.deny(source, &shown)).is_ok());
            }
            Origin::Slurm if cookie(&self.environment).as_ref() == Some(path) => {
                return Ok(bounds.allow(source, &shown).and_then(|()| bounds.deny(source, &shown)).is_ok());
            }
            _ => Ok(()),
        }
        .map(|()| true)
    }

    /// Evaluates the environment of the tasks of this container.
    pub fn evaluate_environment(
        &mut self,
        opened: Option<&Opened>,
        namespace: &MountNamespace,
        step: Option<Step<'_>>,
    ) -> Result<TaskEnvironment, Refusal> {
        let early = || Refusal::new(Kind::Internal, "the container's environment", "was asked for too early");
        self.try_evaluate_environment(opened, namespace, step)?.ok_or_else(early)
    }

    /// Like [`Self::evaluate_environment`]; nothing if it is too early to run the image's scripts.
    pub fn try_evaluate_environment(
        &mut self,
        opened: Option<&Opened>,
        namespace: &MountNamespace,
        step: Option<Step<'_>>,
    ) -> Result<Option<TaskEnvironment>, Refusal> {
        let rules = Rules {
            clean: self.settings.clean_env.unwrap_or(false),
            useless: Vec::new(),
            already_inside: false,
            site: self
                .config
                .options
                .0
                .env
                .iter()
                .cloned()
                .chain(self.mpi.iter().flat_map(Replacement::variables))
                .collect(),
            user: self.settings.env.clone(),
            image: self.path().into(),
            name: self.path().file_stem().unwrap_or(self.path().as_os_str()).to_owned(),
            digest: opened.and_then(|opened| opened.digest).map(|digest| digest.to_string().into()),
            allowed_dir: self.policy.as_ref().and_then(|policy| {
                Shelf::path(self.config.store.path(), policy.account.name()?).map(PathBuf::into_os_string)
            }),
        };
        let inputs = environment::Inputs {
            host: &self.environment,
            rules,
            shown: self.image.to_string(),
            id: self.path().into(),
            commands: self.client.is_some(),
            entrypoint: self.settings.entrypoint.unwrap_or(false),
            helper: &self.helper,
            sif: opened.filter(|opened| opened.image.container == Wrapping::Sif).map(|opened| &opened.file),
            step,
        };
        let found = environment::evaluate(&inputs, namespace, &self.identity);
        self.clock.lap("environment");
        found
    }
}

/// A link in the image that names its time zone stays a link: the mount does not cover the zone that it leads to.
fn last_of(request: &MountRequest) -> Last {
    if request.source == Source::TimeZone { Last::Itself } else { Last::Followed }
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

fn form(image: &Image) -> Form {
    match image {
        image if image.is_directory() => Form::Directory,
        image if image.has_ext3() => Form::FileWithExt3,
        _ => Form::File,
    }
}
