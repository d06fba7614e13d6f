//! Decision about the tasks of a step: the container that they ask for, the site's default, or none.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::config::Config;
use crate::mpi::{Pmi, server_folder};
use crate::policy::{self, Bare, Job};
use crate::view::HELPER;
use coracle::options::Id;
use coracle::report::Refusal;
use coracle::request::{Choice, Request, Scope, What, is_script};

use super::Server;
use crate::apply::fuse::Slurmstepd;
use crate::children::proxy::Proxy;
use crate::container::clock::Clock;
use crate::container::grant::{Grants, Provision, Teller};
use crate::container::image_mpi;
use crate::container::job_facts::{self, Known};
use crate::container::stages::{self, Authority, Run};
use crate::container::variables;
use crate::place;
use crate::slurm::{self, Slurmd};
use crate::step::epilog;
use crate::step::join;

/// Decision about the tasks of a step.
pub(super) enum Errand {
    /// A container of an image; and what the steps of this one inherit, if it is the site's default.
    Container(Box<Run>, Option<OsString>),
    /// The container of a running step.
    Join(Box<Run>, Option<u32>),
    /// Nothing: a scope leaves them on the node.
    Outside,
    /// Nothing: they have asked for none, and there is no default.
    Bare,
}

/// Decision about a step.
pub(super) struct Settled {
    pub(super) request: Request,
    /// The rules, if they had to be asked.
    known: Option<Known>,
    /// It has not asked for it.
    pub(super) default: bool,
}

impl Server {
    /// Container that the step asks for, if it asks.
    pub(super) fn asked(&self) -> Result<Option<Choice>, Refusal> {
        let text = &self.start.request;
        if text.is_empty() { Ok(None) } else { Ok(Some(Choice::from_env(text)?)) }
    }

    /// Container of the step: the one that it asks for, or the site's default; nothing, if it runs on the node.
    pub(super) fn settle(&self, choice: Option<Choice>, config: &Config) -> Result<Option<Settled>, Refusal> {
        let ruled = || config.any_rule(|rule| rule.default_image.is_some() || rule.required.is_some());
        match choice {
            Some(Choice::Container(request)) => Ok(Some(Settled { request: *request, known: None, default: false })),
            None | Some(Choice::Host) if !ruled() => Ok(None),
            Some(Choice::Host) => policy::outside(&self.known(config)?.rules, "--container=none").map(|()| None),
            None => {
                let known = self.known(config)?;
                match policy::bare(&known.rules)? {
                    Bare::Outside => Ok(None),
                    Bare::Default(request) => {
                        Ok(Some(Settled { request: *request, known: Some(known), default: true }))
                    }
                }
            }
        }
    }

    /// The rules that hold for this step.
    pub(super) fn known(&self, config: &Config) -> Result<Known, Refusal> {
        let identity = &self.start.identity;
        let proxy = Proxy::of_step(identity, Instant::now() + config.start_timeout.0)?;
        job_facts::learn(&proxy, config, identity, self.job(config), &self.environment)
    }

    /// Facts that root knows of the job, if a rule asks for them.
    fn job(&self, config: &Config) -> Job {
        match config.partitions.0.is_empty() && config.accounts.0.is_empty() && config.qos.0.is_empty() {
            true => Job::default(),
            false => job_facts::of_job(self.start.job, self.start.identity.uid),
        }
    }

    pub(super) fn errand(&self, settled: Settled, config: Config) -> Result<Errand, Refusal> {
        let Settled { mut request, known, default } = settled;
        let script = is_script(self.start.step);
        let notes = request.settings.limit(config.writable_limit.0);
        // What the steps of this one get with it: its default image, and sizes that they need not be told of again.
        let told_again = !notes.is_empty() && request.settings.scope != Some(Scope::Script);
        let steps = (default || told_again).then(|| OsString::from(request.to_env()));
        let mut used = if default { Vec::new() } else { request.settings.given() };
        // A default image that has one hands it on to the steps, and pinning an image is no liberty.
        used.retain(|id| !(request.inherited && *id == Id::Digest));
        let settings = request.settings.or_site(&config.options.0);
        match settings.scope {
            Some(Scope::Steps) if script => return self.outside(&config, &used),
            Some(Scope::Script) if !script && request.inherited => return self.outside(&config, &used),
            _ => {}
        }
        let (image, step) = match request.what {
            What::Image(image) => (image, None),
            What::Step(step) => (join::stands_for(step), Some(step.id)),
        };
        let told = self.start.slurm_conf.as_deref();
        let slurm = slurm::beside(&config.slurm_client, self.start.daemon);
        // Not for the ranks of a parallel program: mount points that only these commands need would put an overlay
        // between each of them and the image.
        let single = self.start.nodes == 1 && self.start.tasks == 1;
        let mut client = match script || single || request.commands {
            true => slurm::find(Path::new("/"), &slurm, told, Path::new(HELPER))?,
            false => None,
        };
        let mut known = known;
        if let Some(client) = &mut client {
            if known.is_none() && config.any_rule(|rule| rule.required.is_some()) {
                known = Some(self.known(&config)?);
            }
            client.epilog = epilog::text(known.as_ref().map(|known| &known.rules));
        }
        let job = self.job(&config);
        let slurmd = slurm::slurmd(Path::new("/"), &slurm, told);
        let teller = Teller::Step { script, node: self.start.node_name.clone() };
        let grants = Grants::find(slurmd.as_ref(), &self.environment, &teller);
        let provision = grants.provide(&config, settings.gpu.unwrap_or(true), None, Provision::default())?;
        let server = slurmd.as_ref().and_then(|slurmd| self.server(slurmd));
        let run = Box::new(Run {
            image,
            named: variables::directories(&self.environment, &settings),
            settings,
            client,
            helper: place::helper(),
            files: stages::files(slurmd.as_ref(), &self.environment),
            environment: self.environment.clone(),
            config,
            identity: self.start.identity.clone(),
            authority: Authority::Root,
            used,
            job,
            known,
            stored: None,
            daemon: Some(Slurmstepd { pid: self.start.daemon, step: self.start.step }),
            mpi: None,
            grants,
            provision,
            misfit: None,
            notes,
            server,
            confinement: None,
            explains: None,
            clock: Clock::start(),
        });
        Ok(match step {
            None => Errand::Container(run, steps),
            Some(step) => Errand::Join(run, step),
        })
    }

    /// Directory that Slurm's PMIx server will probably use for this step: slurmstepd names it after init_post_opt.
    fn server(&self, slurmd: &Slurmd) -> Option<PathBuf> {
        let host = nix::unistd::gethostname().ok()?.into_string().ok()?;
        let node = self.start.node_name.as_deref().and_then(OsStr::to_str).unwrap_or(&host);
        let spool = slurmd.spool(node, &host);
        self.has_pmix().then(|| server_folder(&spool, self.start.job, self.start.step))
    }

    /// True if the step will probably have a PMIx server. Scripts have none, though their environment may name one.
    pub(super) fn has_pmix(&self) -> bool {
        !is_script(self.start.step) && image_mpi::pmi(None, &self.environment) == Some(Pmi::Pmix)
    }

    /// A scope that leaves the step on the node, if the site's rules do.
    fn outside(&self, config: &Config, used: &[Id]) -> Result<Errand, Refusal> {
        if config.any_rule(|rule| rule.user_options.is_some()) {
            policy::options(&self.known(config)?.rules, used)?;
        }
        if config.any_rule(|rule| rule.required.is_some()) {
            policy::outside(&self.known(config)?.rules, "--container-scope")?;
        }
        Ok(Errand::Outside)
    }
}
