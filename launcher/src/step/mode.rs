//! Mode of a step: the container that its request or the site's default names, or none.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::config::Config;
use crate::mpi::{Pmi, server_directory};
use crate::policy::{self, Bare, Job};
use crate::view::HELPER;
use coracle::options::Id;
use coracle::report::Refusal;
use coracle::request::{Choice, ImageRef, Request, Scope, What, is_script};

use super::Server;
use super::epilog;
use crate::apply::fuse::Slurmstepd;
use crate::children::opener::Opener;
use crate::container::context::{Authority, Context, Options, Requester, node_files};
use crate::container::grants::{GrantSource, Grants, Provision};
use crate::container::image_mpi;
use crate::container::job_facts::{self, EffectivePolicy};
use crate::slurm::{Slurmd, StepSlurm};

/// Mode in which the tasks of a step run.
pub(super) enum StepMode {
    /// A container from this source.
    Container(Box<StepRequest>, Source),
    /// No container: the scope of the request leaves the step on the node.
    HostByScope,
    /// No container: the step requests none, or has no request and there is no default image.
    NoContainer,
}

/// Source of a step's container.
pub(super) enum Source {
    /// An image.
    Image {
        image: ImageRef,
        /// Directory that Slurm's PMIx server probably uses for the step, if the step has one.
        pmix: Option<PathBuf>,
        /// Request that the steps of this step inherit, if there is one.
        steps: Option<OsString>,
    },
    /// A running step of the job: the one with this id, or the job script, or else the lowest one.
    Step(Option<u32>),
}

/// Inputs of a step's container.
pub(super) struct StepRequest {
    pub(super) context: Context,
    /// Devices that the container probably has.
    pub(super) provision: Provision,
    /// Effective policy, if it had to be resolved.
    pub(super) policy: Option<EffectivePolicy>,
    /// Opener of a step that gets a container of an image.
    pub(super) opener: Option<Result<Opener, Refusal>>,
}

/// Request of a step with the site's default applied.
pub(super) struct EffectiveRequest {
    pub(super) request: Request,
    /// Effective policy, if it had to be resolved.
    policy: Option<EffectivePolicy>,
    /// True if the step has no request and gets the default image.
    pub(super) default: bool,
}

impl Server {
    /// Parses the step's own request; nothing if it has none.
    pub(super) fn parse_request(&self) -> Result<Option<Choice>, Refusal> {
        let text = &self.start.request;
        if text.is_empty() { Ok(None) } else { Ok(Some(Choice::from_env(text)?)) }
    }

    /// Resolves the step's own request and the site's default; nothing if the step runs on the node.
    pub(super) fn resolve_request(
        &self,
        choice: Option<Choice>,
        config: &Config,
    ) -> Result<Option<EffectiveRequest>, Refusal> {
        let ruled = || config.any_rule(|rule| rule.default_image.is_some() || rule.required.is_some());
        match choice {
            Some(Choice::Container(request)) => {
                Ok(Some(EffectiveRequest { request: *request, policy: None, default: false }))
            }
            None | Some(Choice::Host) if !ruled() => Ok(None),
            Some(Choice::Host) => {
                policy::outside(&self.resolve_policy(config)?.rules, "--container=none").map(|()| None)
            }
            None => {
                let policy = self.resolve_policy(config)?;
                match policy::bare(&policy.rules)? {
                    Bare::Outside => Ok(None),
                    Bare::Default(request) => {
                        Ok(Some(EffectiveRequest { request: *request, policy: Some(policy), default: true }))
                    }
                }
            }
        }
    }

    /// Resolves the effective policy of this step.
    pub(super) fn resolve_policy(&self, config: &Config) -> Result<EffectivePolicy, Refusal> {
        let opener = Opener::of_step(&self.start.identity, Instant::now() + config.start_timeout.0)?;
        self.resolve_policy_by(&opener, config)
    }

    fn resolve_policy_by(&self, opener: &Opener, config: &Config) -> Result<EffectivePolicy, Refusal> {
        let (identity, facts) = (&self.start.identity, self.read_job_facts(config));
        job_facts::resolve_policy(opener, config, identity, facts, &self.environment)
    }

    /// Reads the facts that root recorded of the job, if a rule needs them.
    fn read_job_facts(&self, config: &Config) -> Job {
        match config.partitions.0.is_empty() && config.accounts.0.is_empty() && config.qos.0.is_empty() {
            true => Job::default(),
            false => job_facts::read_job_facts(self.start.job, self.start.identity.uid),
        }
    }

    /// Chooses the mode of the step, and collects what its container needs.
    pub(super) fn choose_mode(&self, effective: EffectiveRequest, config: Config) -> Result<StepMode, Refusal> {
        let EffectiveRequest { mut request, policy, default } = effective;
        let script = is_script(self.start.step);
        let notes = request.settings.limit(config.writable_limit.0);
        // Request for the steps of this step: its default image, and limited sizes, so that their note is not repeated.
        let told_again = !notes.is_empty() && request.settings.scope != Some(Scope::Script);
        let steps = (default || told_again).then(|| OsString::from(request.to_env()));
        let mut used = if default { Vec::new() } else { request.settings.given() };
        // Steps inherit the digest of a default image that has one, and pinning an image needs no permission.
        used.retain(|id| !(request.inherited && *id == Id::Digest));
        let settings = request.settings.or_site(&config.options.0);
        match settings.scope {
            Some(Scope::Steps) if script => return self.leave_on_host(&config, &used),
            Some(Scope::Script) if !script && request.inherited => return self.leave_on_host(&config, &used),
            _ => {}
        }
        let opener = match &request.what {
            What::Image(_) => Some(self.start_opener(&config, policy.is_none())),
            What::Step(_) => None,
        };
        let told = self.start.slurm_conf.as_deref();
        let slurm = StepSlurm::of(self.start.daemon, &config.slurm_client, told);
        // Not for the ranks of a parallel program: mount points that only these commands need would put an overlay
        // between each rank and the image.
        let single = self.start.nodes == 1 && self.start.tasks == 1;
        let mut client = match script || single || request.commands {
            true => slurm.client(Path::new(HELPER))?,
            false => None,
        };
        let mut policy = policy;
        if let Some(client) = &mut client {
            if policy.is_none() && config.any_rule(|rule| rule.required.is_some()) {
                policy = Some(match &opener {
                    Some(Ok(opener)) => self.resolve_policy_by(opener, &config)?,
                    Some(Err(refusal)) => return Err(refusal.clone()),
                    None => self.resolve_policy(&config)?,
                });
            }
            client.epilog = epilog::text(policy.as_ref().map(|policy| &policy.rules));
        }
        let job = self.read_job_facts(&config);
        let slurmd = slurm.slurmd();
        let source = GrantSource::Slurmstepd { script, node: self.start.node_name.clone() };
        let grants = Grants::find(slurmd.as_ref(), &self.environment, &source);
        let requester = Requester {
            identity: self.start.identity.clone(),
            authority: Authority::Root,
            job,
            environment: self.environment.clone(),
            daemon: Some(Slurmstepd { pid: self.start.daemon, step: self.start.step }),
        };
        let files = node_files(slurmd.as_ref(), &self.environment);
        let context = Context::new(config, Options { settings, used, notes }, requester, grants);
        let context = context.with_slurm(client, files);
        let provision = context.provide_devices(None, &Provision::default())?;
        let source = match request.what {
            What::Image(image) => {
                let pmix = slurmd.as_ref().and_then(|slurmd| self.guess_pmix_directory(slurmd));
                Source::Image { image, pmix, steps }
            }
            What::Step(step) => Source::Step(step.id),
        };
        Ok(StepMode::Container(Box::new(StepRequest { context, provision, policy, opener }), source))
    }

    /// Starts the opener of the step. It looks up the user, if `account`, while the launcher looks at the node.
    fn start_opener(&self, config: &Config, account: bool) -> Result<Opener, Refusal> {
        let identity = &self.start.identity;
        let opener = Opener::of_step(identity, Instant::now() + config.start_timeout.0)?;
        if account {
            job_facts::begin_look_up(&opener, identity)?;
        }
        Ok(opener)
    }

    /// Directory that Slurm's PMIx server probably uses for this step. slurmstepd names it after init_post_opt.
    fn guess_pmix_directory(&self, slurmd: &Slurmd) -> Option<PathBuf> {
        let host = nix::unistd::gethostname().ok()?.into_string().ok()?;
        let node = self.start.node_name.as_deref().and_then(OsStr::to_str).unwrap_or(&host);
        let spool = slurmd.spool(node, &host);
        self.has_pmix().then(|| server_directory(&spool, self.start.job, self.start.step))
    }

    /// True if the step probably has a PMIx server. Scripts have none, although their environment may name one.
    pub(super) fn has_pmix(&self) -> bool {
        !is_script(self.start.step) && image_mpi::pmi(None, &self.environment) == Some(Pmi::Pmix)
    }

    /// Leaves the step on the node as its scope says, if the effective policy allows that.
    fn leave_on_host(&self, config: &Config, used: &[Id]) -> Result<StepMode, Refusal> {
        if config.any_rule(|rule| rule.user_options.is_some()) {
            policy::options(&self.resolve_policy(config)?.rules, used)?;
        }
        if config.any_rule(|rule| rule.required.is_some()) {
            policy::outside(&self.resolve_policy(config)?.rules, "--container-scope")?;
        }
        Ok(StepMode::HostByScope)
    }
}
