//! States of the pipeline after the verdict: the image can be mounted, and is mounted for one container.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::plan::Owners;
use coracle::report::Refusal;

use crate::apply::{self, Disk, Mounted, Rights};
use crate::children::opener::{Opened, Opener};
use crate::container::context::Context;
use crate::container::judge::JudgedImage;
use crate::container::open::OpenImage;
use crate::container::resolve::Resolved;

/// Allowed image that is prepared for mounting. It outlives a container: another one can be built from it.
pub struct AttachedImage {
    image: OpenImage,
    rule: String,
    disk: Disk,
}

/// Detached mount of an image, for one container.
pub struct MountedImage<'a> {
    attached: &'a AttachedImage,
    tree: OwnedFd,
    owners: Owners,
}

impl JudgedImage {
    /// Prepares the image for mounting.
    pub fn attach(self, resolved: &Resolved<'_>) -> Result<AttachedImage, Refusal> {
        let (image, grant) = self.into_parts();
        let (context, opener) = (resolved.context, resolved.opener);
        resolved.clock.lap("judge");
        let (identity, config) = (&context.identity, &context.config);
        let disk = Disk::attach(opener, &image.opened, &grant, identity, config, image.name(), context.daemon)?;
        Ok(AttachedImage { image, rule: grant.rule, disk })
    }
}

impl AttachedImage {
    /// The image as it was opened.
    pub fn image(&self) -> &OpenImage {
        &self.image
    }

    /// The open file and its identified content.
    pub fn opened(&self) -> &Opened {
        &self.image.opened
    }

    /// Image rule that allowed it.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// True if a process of the user reads the image while it is mounted: slurmstepd must be in the control groups of
    /// its job before.
    pub fn is_served(&self) -> bool {
        self.disk.is_served()
    }

    /// True if the image's path leads to the same file, unchanged, in the namespace of `opener`.
    pub fn is_unchanged(&self, opener: &Opener) -> Result<bool, Refusal> {
        self.image.is_unchanged(opener)
    }

    /// Mounts the image for `work`, which builds a container from it. A process that serves the mount is watched until
    /// `work` ends.
    pub fn mount<T>(
        &self,
        resolved: &Resolved<'_>,
        work: impl FnOnce(MountedImage<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let name = self.image.name();
        let (identity, deadline) = (&resolved.context.identity, resolved.opener.deadline());
        let Mounted { tree, watches, owners } = self.disk.mount(name, self.opened(), identity, deadline)?;
        resolved.clock.lap("mount");
        let result = work(MountedImage { attached: self, tree, owners });
        watches.into_iter().fold(result, |result, watch| watch.finish(name, result))
    }
}

impl<'a> MountedImage<'a> {
    /// The image as a source of mounts.
    pub(super) fn attached(&self) -> &'a AttachedImage {
        self.attached
    }

    /// Top directory of the mount.
    pub(super) fn tree(&self) -> BorrowedFd<'_> {
        self.tree.as_fd()
    }

    pub(super) fn into_tree(self) -> OwnedFd {
        self.tree
    }

    /// Owners that the image's files show.
    pub(super) fn owners(&self) -> Owners {
        self.owners
    }

    /// Start of a file of the image, at most `limit` bytes; nothing if it cannot be read.
    pub fn read_file(&self, context: &Context, path: &Path, limit: u64) -> Option<Vec<u8>> {
        apply::file_of(self.tree.as_fd(), path, limit, self.rights(context))
    }

    /// Credentials for lookups in the image.
    pub(super) fn rights<'c>(&self, context: &'c Context) -> Rights<'c> {
        Rights::of(&self.attached.opened().image, &context.identity)
    }

    /// The image as the user typed it.
    pub(super) fn name(&self) -> &'a str {
        self.attached.image.name()
    }
}
