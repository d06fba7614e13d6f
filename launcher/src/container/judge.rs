//! State of the pipeline after the image is open: the site's policy, or the kernel's limits, allow it.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use crate::image::Image;
use crate::policy::{self, Form, Grant, Provenance};
use coracle::report::Refusal;
use coracle::sys::{self, CachedStat};
use nix::fcntl::OFlag;

use crate::children::verify::{self, Need};
use crate::container::bounds::Bounds;
use crate::container::context::Authority;
use crate::container::open::OpenImage;
use crate::container::resolve::{Admission, Resolved};

/// Image that may run, with the reason.
pub struct JudgedImage {
    image: OpenImage,
    grant: Grant,
}

impl OpenImage {
    /// Decides if the image may run. The site's policy decides about containers that root makes, the limits of the
    /// kernel about others.
    pub fn judge(self, resolved: &Resolved<'_>, admit: Admission<'_>) -> Result<JudgedImage, Refusal> {
        match resolved.context.authority {
            Authority::Root => self.judge_as_step(resolved, admit),
            Authority::Own => {
                let grant = policy::own(form(&self.opened.image)).map_err(|denied| denied.refuse(self.name()))?;
                Ok(JudgedImage { image: self, grant })
            }
        }
    }

    /// Decides by the site's policy, as for a step. The digest and the signers are computed if the rules need them and
    /// the image cannot change.
    pub fn judge_as_step(mut self, resolved: &Resolved<'_>, admit: Admission<'_>) -> Result<JudgedImage, Refusal> {
        let (rules, opener) = (resolved.step_rules(), resolved.opener);
        let mut provenance = self.provenance(resolved)?;
        if provenance.form == Form::Directory {
            Bounds::new(opener, rules).deny(self.opened.file.as_fd(), self.name())?;
        } else if provenance.is_fixed() && policy::too_large(rules, provenance.length).is_none() {
            if self.opened.digest.is_none() && rules.want_digest() {
                admit()?;
                self.opened.digest = Some(opener.digest(self.name())?);
            }
            if self.opened.signers.is_none() && rules.want_signers(provenance.trusted_by()) {
                admit()?;
                self.opened.signers = Some(self.signers(resolved)?);
            }
            (provenance.digest, provenance.signers) = (self.opened.digest, self.opened.signers.clone());
        }
        let grant = policy::judge(rules, &provenance).map_err(|denied| denied.refuse(self.name()))?;
        Ok(JudgedImage { image: self, grant })
    }

    /// Keys that sign all of the image, verified before the deadline of the opener.
    fn signers(&self, resolved: &Resolved<'_>) -> Result<Vec<String>, Refusal> {
        let (context, name) = (resolved.context, self.name());
        let keys = verify::site_keys(Path::new(verify::KEYS))?;
        let asked = Some((keys.as_slice(), Need::WhoeverSigned));
        let limit = resolved.opener.deadline().saturating_duration_since(Instant::now());
        let groups = context.daemon.map(|daemon| sys::Cgroups::of(daemon.pid)).transpose();
        let groups = groups.map_err(|error| Refusal::system(name, &error))?;
        let look = (&self.opened.file, self.opened.length);
        let found = verify::look(Some(&context.identity), groups.as_ref(), name, look, asked, false, limit)?;
        Ok(found.signers.into_iter().map(|signer| signer.key).collect())
    }

    /// Trusted directory that contains this same file, if there is one, with the owner and mode of the file.
    fn provenance(&self, resolved: &Resolved<'_>) -> Result<Provenance, Refusal> {
        let (context, opened) = (resolved.context, &self.opened);
        // Root has no access to a user's FUSE file system: no file there is trusted.
        let own = Provenance {
            owner: context.identity.uid,
            mode: 0o777,
            below: None,
            wanted_owner: None,
            form: form(&opened.image),
            stored: opened.record.is_some(),
            length: opened.length,
            digest: opened.digest,
            signers: opened.signers.clone(),
        };
        let Ok(file) = CachedStat::of(&opened.file) else { return Ok(own) };
        let mut provenance = Provenance { owner: file.uid, mode: file.mode, ..own };
        for (index, rule) in context.config.image_paths.iter().enumerate() {
            // A trusted directory that this node does not have is skipped.
            let Ok(directory) = sys::open_untrusted(&rule.path.0, OFlag::O_PATH | OFlag::O_DIRECTORY) else { continue };
            let Some(relative) = sys::hint_beneath(&directory, &opened.file) else { continue };
            if resolved.opener.is_beneath(directory.as_fd(), &relative, &file)? {
                let wanted_owner = resolved.opener.owner(&rule.owner)?;
                provenance = Provenance { below: Some(index), wanted_owner, ..provenance };
                // Another rule may name the same directory, or a parent, with another owner.
                if provenance.trusted_by().is_some() {
                    break;
                }
            }
        }
        Ok(provenance)
    }
}

impl JudgedImage {
    /// The rule that decided, and the reader of the image.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(super) fn into_parts(self) -> (OpenImage, Grant) {
        (self.image, self.grant)
    }

    /// Opens the same image for another process of the user, which makes the container. It has to be judged again.
    pub fn open_again(self, resolved: &Resolved<'_>) -> Result<OpenImage, Refusal> {
        self.image.open_again(resolved)
    }
}

/// Form of an image, as far as rules depend on it.
fn form(image: &Image) -> Form {
    match image {
        image if image.is_directory() => Form::Directory,
        image if image.has_ext3() => Form::FileWithExt3,
        _ => Form::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Container, Filesystem, Layer, squashfs::Compression};

    #[test]
    fn an_ext3_in_any_layer_decides_the_form() {
        let of = |container, filesystems: &[Filesystem]| {
            let layer = |filesystem: &Filesystem| Layer { filesystem: *filesystem, offset: 4096, size: 4096 };
            form(&Image { container, layers: filesystems.iter().map(layer).collect() })
        };
        let squashfs = Filesystem::Squashfs(Compression::Zstd);
        assert_eq!(of(Container::Directory, &[]), Form::Directory);
        assert_eq!(of(Container::File, &[squashfs]), Form::File);
        assert_eq!(of(Container::Sif, &[squashfs, Filesystem::Ext3]), Form::FileWithExt3);
    }
}
