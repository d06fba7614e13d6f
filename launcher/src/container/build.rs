//! Last state of the pipeline: a container that tasks can enter.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::plan::Plan;
use coracle::report::Refusal;
use coracle::sys::MountNamespace;

use crate::apply;
use crate::container::planned::PlannedContainer;
use crate::container::resolve::Resolved;
use crate::container::sources;

/// A container that tasks can enter.
pub struct Container {
    /// Mount namespace of the container.
    pub namespace: MountNamespace,
    /// Plan that was applied.
    pub plan: Plan,
    /// Mounts in the container.
    attached: apply::Attached,
}

impl PlannedContainer<'_> {
    /// Builds the container.
    pub fn build(self, resolved: &Resolved<'_>) -> Result<Container, Refusal> {
        let (image, plan, sources) = self.into_parts();
        let Resolved { context, opener, .. } = *resolved;
        let name = image.name();
        let (account, identity) = (resolved.account(), &context.identity);
        let (namespace, attached) = apply::build(name, &plan, image.into_tree(), &sources, account, identity, opener)?;
        // A task that waits for a file system which does not answer could not be killed.
        if let Some(workdir) = &context.settings.workdir
            && let Some((above, below)) = attached.above(workdir)
        {
            let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
            opener.try_directory(above, below, &workdir.display().to_string())?;
        }
        resolved.clock.built();
        Ok(Container { namespace, plan, attached })
    }
}

impl Container {
    /// Attaches the mounts whose sources exist only after the container was built.
    pub fn attach_late_mounts(&self, resolved: &Resolved<'_>) -> Result<(), Refusal> {
        let Self { namespace, plan, attached } = self;
        let Resolved { context, opener, .. } = *resolved;
        let open = |path: &Path| sources::open_late(opener, path);
        let completed = apply::complete(namespace, plan, attached, &context.identity, opener, open);
        resolved.clock.lap("build");
        completed
    }
}
