//! May this image run here? A pure function of the site's settings and of what is known about the open file.
#![forbid(unsafe_code)]

use crate::config::{Config, UserImages};
use crate::report::{Kind, Refusal};

/// What is known about an image file, all of it seen on the open descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance {
    /// The file's owner.
    pub owner: u32,
    /// The file's mode bits.
    pub mode: u32,
    /// The rule of `image_paths`, by its index, below whose folder this very file was found.
    pub below: Option<usize>,
    /// Whom that rule wants as the owner.
    pub wanted_owner: Option<u32>,
}

/// Who reads an image while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The kernel.
    Kernel,
    /// A process of the user's, for the kernel (fuse(4)).
    Fuse,
}

/// That an image may run, how, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The rule that decided, as the log has it: `image_paths[0]`, `user_images=kernel`.
    pub rule: String,
    /// Who may read it.
    pub reader: Reader,
}

/// Why an image may not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// `user_images: deny`
    UserImages,
    /// `user_images` is not set.
    NoDefault,
}

impl Denied {
    /// The refusal of the image that the user calls `image`.
    pub fn refuse(&self, image: &str) -> Refusal {
        match self {
            Self::UserImages => {
                Refusal::new(Kind::Policy, image, "the site runs only images from its image_paths (user_images: deny)")
            }
            Self::NoDefault => Refusal::new(
                Kind::Policy,
                image,
                "in none of the site's image_paths, and user_images is not set in coracle.yaml",
            )
            .hint("the site's admin decides: user_images: kernel or fuse runs users' own images, deny refuses them"),
        }
    }
}

/// Decides.
pub fn judge(config: &Config, image: &Provenance) -> Result<Grant, Denied> {
    // Below a trusted folder, but a file that its owner shares or that is somebody else's, counts as a user's own.
    let trusted = image.wanted_owner == Some(image.owner) && image.mode & 0o022 == 0;
    if let Some(index) = image.below.filter(|_| trusted) {
        return Ok(Grant { rule: format!("image_paths[{index}]"), reader: Reader::Kernel });
    }
    match config.user_images {
        Some(UserImages::Kernel) => Ok(Grant { rule: "user_images=kernel".into(), reader: Reader::Kernel }),
        Some(UserImages::Fuse) => Ok(Grant { rule: "user_images=fuse".into(), reader: Reader::Fuse }),
        Some(UserImages::Deny) => Err(Denied::UserImages),
        None => Err(Denied::NoDefault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let site = |user_images| Config { user_images, ..Config::default() };
        let file =
            |owner, mode, below: Option<usize>| Provenance { owner, mode, below, wanted_owner: below.map(|_| 0) };
        let rule = |index: usize| Ok(Grant { rule: format!("image_paths[{index}]"), reader: Reader::Kernel });
        let kernel = Ok(Grant { rule: "user_images=kernel".into(), reader: Reader::Kernel });
        let fuse = Ok(Grant { rule: "user_images=fuse".into(), reader: Reader::Fuse });
        for (user_images, image, verdict) in [
            (None, file(0, 0o100_644, Some(3)), rule(3)),
            (Some(UserImages::Deny), file(0, 0o100_644, Some(0)), rule(0)),
            (None, file(0, 0o100_664, Some(0)), Err(Denied::NoDefault)),
            (None, file(0, 0o100_646, Some(0)), Err(Denied::NoDefault)),
            (None, file(2001, 0o100_644, Some(0)), Err(Denied::NoDefault)),
            (None, file(0, 0o100_644, None), Err(Denied::NoDefault)),
            (Some(UserImages::Deny), file(2001, 0o100_600, None), Err(Denied::UserImages)),
            (Some(UserImages::Kernel), file(2001, 0o100_600, None), kernel.clone()),
            (Some(UserImages::Kernel), file(2001, 0o100_644, Some(0)), kernel),
            (Some(UserImages::Fuse), file(2001, 0o100_600, None), fuse.clone()),
            (Some(UserImages::Fuse), file(0, 0o100_664, Some(0)), fuse),
            (Some(UserImages::Fuse), file(0, 0o100_644, Some(1)), rule(1)),
        ] {
            assert_eq!(judge(&site(user_images), &image), verdict, "{user_images:?} {image:?}");
        }
    }

    #[test]
    fn a_refusal_names_the_key() {
        assert!(Denied::NoDefault.refuse("a.sif").line().contains("user_images is not set"));
        assert!(Denied::UserImages.refuse("a.sif").line().contains("(user_images: deny)"));
    }
}
