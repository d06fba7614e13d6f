//! First state of the pipeline: the effective policy of a request is resolved.
#![forbid(unsafe_code)]

use crate::policy::{self, Rules};
use coracle::report::Refusal;

use crate::children::opener::{Account, Opener};
use crate::container::clock::Clock;
use crate::container::context::{Authority, Context};
use crate::container::job_facts::EffectivePolicy;

/// Waits until the job is charged for work for the user: slurmstepd is in the control groups of the job by then.
pub type Admission<'a> = &'a mut dyn FnMut() -> Result<(), Refusal>;

/// [`Admission`] of a container for no step: the user is charged for the work.
pub fn admit_at_once() -> Result<(), Refusal> {
    Ok(())
}

/// Request whose options the effective policy allows, and the child process that opens files for it. Each later phase
/// needs it, so no phase can run before the policy is known.
#[derive(Clone, Copy)]
pub struct Resolved<'a> {
    /// Inputs of the container.
    pub context: &'a Context,
    /// Child process that opens files as the user.
    pub opener: &'a Opener,
    /// Durations of the phases.
    pub clock: &'a Clock,
    policy: &'a EffectivePolicy,
}

impl<'a> Resolved<'a> {
    /// Checks the requested options against `user_options` of the effective policy.
    pub fn new(
        context: &'a Context,
        policy: &'a EffectivePolicy,
        opener: &'a Opener,
        clock: &'a Clock,
    ) -> Result<Self, Refusal> {
        if context.authority == Authority::Root {
            policy::options(&policy.rules, &context.used)?;
        }
        Ok(Self { context, opener, clock, policy })
    }

    /// Entries of the user in the node's user database.
    pub fn account(&self) -> &'a Account {
        &self.policy.account
    }

    /// Rules that bind this container. Unprivileged runs are not subject to site policy.
    pub(super) fn binding_rules(&self) -> Option<&'a Rules> {
        (self.context.authority == Authority::Root).then_some(&self.policy.rules)
    }

    /// Rules that would bind a step.
    pub(super) fn step_rules(&self) -> &'a Rules {
        &self.policy.rules
    }
}
