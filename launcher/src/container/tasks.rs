//! Evaluates the environment of the tasks of a container.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::env::{Pair, Rules};
use crate::image::Container as Wrapping;
use crate::store::Shelf;
use coracle::report::Refusal;
use coracle::request::ImageRef;
use coracle::sys::{Channel, MountNamespace};

use crate::children::opener::{Account, Opened};
use crate::container::attach::AttachedImage;
use crate::container::clock::Clock;
use crate::container::context::Context;
use crate::container::environment::{self, Inputs, StartedStep, TaskEnvironment};
use crate::container::host_fit::HostFit;
use crate::container::host_mpi::Replacement;
use crate::container::resolve::Resolved;

/// Tasks that get the environment of a container.
pub struct Tasks<'a> {
    context: &'a Context,
    clock: &'a Clock,
    /// Environment on the node.
    host: &'a [Pair],
    /// The image as the user typed it.
    name: String,
    path: &'a Path,
    /// The open image; nothing in the container of another step.
    opened: Option<&'a Opened>,
    /// MPI of the host in the container.
    mpi: Option<&'a Replacement>,
    /// Entries of the user, if they have been looked up.
    account: Option<&'a Account>,
}

impl<'a> Tasks<'a> {
    /// Tasks in a container of `image`. Their environment on the node is `host`.
    pub fn of_image(resolved: &Resolved<'a>, image: &'a AttachedImage, fit: &'a HostFit, host: &'a [Pair]) -> Self {
        let open = image.image();
        Self {
            context: resolved.context,
            clock: resolved.clock,
            host,
            name: open.name().to_owned(),
            path: open.path(),
            opened: Some(open.opened()),
            mpi: fit.mpi(),
            account: Some(resolved.account()),
        }
    }

    /// Tasks that join a running step, whose container is of `image`.
    pub fn joining(context: &'a Context, clock: &'a Clock, image: &'a ImageRef, account: Option<&'a Account>) -> Self {
        let (host, name) = (context.environment.as_slice(), image.to_string());
        Self { context, clock, host, name, path: &image.path, opened: None, mpi: None, account }
    }

    /// Evaluates the environment, for tasks of `step` if they are of one.
    pub fn evaluate(
        &self,
        namespace: &MountNamespace,
        step: Option<StartedStep<'_>>,
    ) -> Result<TaskEnvironment, Refusal> {
        let found = environment::evaluate(&self.inputs(), namespace, &self.context.identity, step);
        self.clock.lap("environment");
        found
    }

    /// Evaluates the environment before slurmstepd has set up the step, which waits on `line`; nothing if that needs
    /// programs of the image.
    pub fn evaluate_ahead(
        &self,
        namespace: &MountNamespace,
        line: &Channel,
    ) -> Result<Option<TaskEnvironment>, Refusal> {
        let found = environment::evaluate_ahead(&self.inputs(), namespace, &self.context.identity, line);
        self.clock.lap("environment");
        found
    }

    fn inputs(&self) -> Inputs<'_> {
        let Self { context, path, .. } = self;
        let sites = context.config.options.0.env.iter().cloned();
        let store = |account: &Account| Shelf::path(context.config.store.path(), account.name()?);
        let rules = Rules {
            clean: context.settings.clean_env.unwrap_or(false),
            useless: Vec::new(),
            already_inside: false,
            site: sites.chain(self.mpi.iter().flat_map(|mpi| mpi.variables())).collect(),
            user: context.settings.env.clone(),
            image: path.into(),
            name: path.file_stem().unwrap_or(path.as_os_str()).to_owned(),
            digest: self.opened.and_then(|opened| opened.digest).map(|digest| digest.to_string().into()),
            allowed_dir: self.account.and_then(store).map(PathBuf::into_os_string),
        };
        Inputs {
            host: self.host,
            rules,
            shown: self.name.clone(),
            id: path.into(),
            commands: context.client.is_some(),
            entrypoint: context.settings.entrypoint.unwrap_or(false),
            helper: &context.helper,
            sif: self.opened.filter(|opened| opened.image.container == Wrapping::Sif).map(|opened| &opened.file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::context::Authority;
    use coracle::request::{Settings, Variable};

    #[test]
    fn tasks_that_join_a_step_know_its_image_by_name() {
        let host = vec![("A".into(), "1".into())];
        let own = Variable::Set("B".into(), "2".into());
        let settings = Settings { env: vec![own.clone()], entrypoint: Some(true), ..Settings::default() };
        let mut context = Context::for_test(Authority::Root, settings, host.clone());
        let sites = Variable::Set("C".into(), "3".into());
        context.config.options.0.env = vec![sites.clone()];
        let (clock, image) = (Clock::start(), ImageRef { path: "/images/a.sif".into(), typed: "a.sif".into() });
        let account = Account { passwd: "alice:x:7:7::/home/alice:/bin/sh".into(), ..Account::default() };
        let known = Tasks::joining(&context, &clock, &image, Some(&account));
        let Inputs { host: found, rules, shown, id, commands, entrypoint, sif, .. } = known.inputs();
        assert_eq!((found, shown.as_str(), id.as_os_str()), (&*host, "a.sif", image.path.as_os_str()));
        assert_eq!((rules.image.as_os_str(), rules.name.to_str()), (image.path.as_os_str(), Some("a")));
        assert_eq!((rules.site, rules.user), (vec![sites], vec![own]));
        assert!(entrypoint && !commands && !rules.clean && rules.digest.is_none() && sif.is_none());
        let store = context.config.store.path().join("alice");
        assert_eq!(rules.allowed_dir, Some(store.into_os_string()));
        let unknown = Tasks::joining(&context, &clock, &image, None);
        assert_eq!(unknown.inputs().rules.allowed_dir, None);
    }
}
