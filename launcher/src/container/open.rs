//! State of the pipeline after the policy: the image is open.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::policy;
use crate::store::Shelf;
use coracle::report::{Kind, Refusal};
use coracle::request::{Digest, ImageRef};
use coracle::sys::CachedStat;

use crate::apply::fuse_owner;
use crate::children::opener::{Opened, Opener};
use crate::container::context::Authority;
use crate::container::resolve::{Admission, Resolved};
use crate::container::stored;

/// Image that was opened as the user. It has the requested digest, and its record in the store is read.
pub struct OpenImage {
    request: ImageRef,
    name: String,
    /// Path in the store, if the requested file does not exist.
    stored: Option<PathBuf>,
    pub(super) opened: Opened,
}

impl OpenImage {
    /// Opens the image and verifies its digest, if the request has one. `admit` is called before work that grows with
    /// the size of the image.
    pub fn open(resolved: &Resolved<'_>, request: &ImageRef, admit: Admission<'_>) -> Result<Self, Refusal> {
        let mut image = Self::find(resolved, request)?;
        image.verify_digest(resolved, admit)?;
        resolved.clock.lap("know");
        Ok(image)
    }

    /// Opens the same image for another process of the user. Its digest has been verified.
    pub(super) fn open_again(&self, resolved: &Resolved<'_>) -> Result<Self, Refusal> {
        let mut image = Self::find(resolved, &self.request)?;
        image.opened.digest = self.opened.digest;
        resolved.clock.lap("know");
        Ok(image)
    }

    /// Opens the image, and reads its record if it is in the store.
    fn find(resolved: &Resolved<'_>, request: &ImageRef) -> Result<Self, Refusal> {
        let (context, name) = (resolved.context, request.to_string());
        let (mut opened, stored) = open_file_or_stored(resolved, request, &name)?;
        if context.authority == Authority::Root {
            fuse_owner::refuse_image(&name, opened.file.as_fd())?;
        }
        resolved.clock.lap("open");
        opened.record = stored::read_record(resolved.opener, &context.config.store, &opened, &name)?;
        opened.digest = opened.record.as_ref().map(|record| record.digest);
        opened.signers = opened.record.as_ref().map(|record| record.signers.clone());
        Ok(Self { request: request.clone(), name, stored, opened })
    }

    fn verify_digest(&mut self, resolved: &Resolved<'_>, admit: Admission<'_>) -> Result<(), Refusal> {
        let (name, wanted) = (&self.name, resolved.context.settings.digest);
        if self.opened.digest.is_none() && wanted.is_some() && !self.opened.image.is_directory() {
            // An image that is too large for the site is refused before it is read completely.
            if let Some(denied) =
                resolved.binding_rules().and_then(|rules| policy::too_large(rules, self.opened.length))
            {
                return Err(denied.refuse(name));
            }
            admit()?;
            self.opened.digest = Some(resolved.opener.digest(name)?);
        }
        compare_digests(name, wanted, self.opened.digest)
    }

    /// Path of the image.
    pub fn path(&self) -> &Path {
        self.stored.as_deref().unwrap_or(&self.request.path)
    }

    /// The image as the user typed it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The open file and its identified content.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// True if the image's path leads to the same file, unchanged, in the namespace of `opener`.
    pub(super) fn is_unchanged(&self, opener: &Opener) -> Result<bool, Refusal> {
        // A directory can only be cloned in the namespace of its mount.
        if self.opened.image.is_directory() {
            return Ok(false);
        }
        // A file takes precedence over the stored image, and this namespace may have one.
        if self.stored.is_some()
            && self.request.file().is_some_and(|file| !matches!(opener.open_source(file), Ok(Err(_))))
        {
            return Ok(false);
        }
        let Ok((found, _)) = opener.open_source(self.path())? else { return Ok(false) };
        let known = CachedStat::of(&self.opened.file).ok();
        Ok(CachedStat::of(&found).is_ok_and(|found| {
            known.is_some_and(|known| {
                (found.device, found.inode, found.size, found.changed)
                    == (known.device, known.inode, known.size, known.changed)
            })
        }))
    }
}

/// Opens the requested file or, if it does not exist, the stored image, whose path is then returned.
fn open_file_or_stored(
    resolved: &Resolved<'_>,
    request: &ImageRef,
    name: &str,
) -> Result<(Opened, Option<PathBuf>), Refusal> {
    let (context, opener) = (resolved.context, resolved.opener);
    let missing = match request.file().map(|path| opener.open_image(path, name)) {
        Some(Err(refusal)) if refusal.kind == Kind::ImageMissing => Some(match request.of_registry() {
            Some(image) => refusal.hint(format!("{image}?")),
            None => refusal,
        }),
        Some(answer) => return Ok((answer?, None)),
        None => None,
    };
    // The node may not know the user's name.
    let shelf = resolved.account().name().and_then(|user| Shelf::path(context.config.store.path(), user));
    let stored = match (request.stored(), shelf) {
        (Some(stored), Some(shelf)) => shelf.join(stored.as_str()),
        _ => return Err(missing.unwrap_or_else(|| stored::refuse_unknown_user(&context.identity, name))),
    };
    match opener.open_image(&stored, name) {
        Err(refusal) if refusal.kind == Kind::ImageMissing => {
            Err(stored::refuse_missing(name, missing.and(request.file()), &stored))
        }
        Err(refusal) => Err(refusal),
        Ok(opened) => Ok((opened, Some(stored))),
    }
}

/// Refuses an image that has not the digest of the request.
fn compare_digests(name: &str, wanted: Option<Digest>, found: Option<Digest>) -> Result<(), Refusal> {
    match (wanted, found) {
        (Some(wanted), Some(found)) if wanted != found => {
            Err(Refusal::new(Kind::Digest, name, format!("its digest is {found}, {wanted} was asked for")))
        }
        (Some(_), None) => Err(Refusal::new(Kind::Digest, name, "a directory, which has no digest")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_requested_digest_is_accepted() {
        let digest = |digit: &str| Digest::parse(format!("sha256:{}", digit.repeat(64)).as_ref()).unwrap();
        let (one, two) = (digest("1"), digest("2"));
        let cause = |wanted, found| compare_digests("a.sif", wanted, found).map_err(|refusal| refusal.cause);
        assert_eq!(cause(None, None), Ok(()));
        assert_eq!(cause(None, Some(two)), Ok(()));
        assert_eq!(cause(Some(one), Some(one)), Ok(()));
        assert_eq!(cause(Some(one), Some(two)), Err(format!("its digest is {two}, {one} was asked for")));
        assert_eq!(cause(Some(one), None), Err("a directory, which has no digest".to_owned()));
    }
}
