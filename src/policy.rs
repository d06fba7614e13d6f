//! May this image run here? A pure function of the site's settings and of what is known about the open file.
#![forbid(unsafe_code)]

use crate::config::{Config, Directories, UserImages};
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
    /// What the kernel would be asked to show.
    pub form: Form,
    /// It is in the site's store.
    pub stored: bool,
}

/// What an image is, as far as the verdict depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A file with filesystems that are made to be mounted from anybody's hands, or nearly.
    File,
    /// A file with an ext3 in it.
    FileWithExt3,
    /// A tree of the node's; owner and mode are those of its top.
    Directory,
}

/// Who reads an image while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The kernel.
    Kernel,
    /// A process of the user's, for the kernel (fuse(4)).
    Fuse,
    /// The same in a user namespace of the user's own (user_namespaces(7)), where nobody has more rights than he.
    Own,
}

/// That an image may run, how, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The rule that decided, as the log has it: `image_paths[0]`, `user_images=kernel`.
    pub rule: String,
    /// Who may read it.
    pub reader: Reader,
    /// Nobody but the owner whom the site trusts can change the image.
    pub trusted: bool,
}

/// Why an image may not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// `user_images: deny`
    UserImages,
    /// `user_images` is not set.
    NoDefault,
    /// `directories: deny`
    Directories,
    /// An ext3 that its user can change.
    Ext3,
    /// An ext3, and nobody there whom the kernel would let mount it.
    OwnExt3,
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
            Self::Directories => {
                Refusal::new(Kind::Policy, image, "a directory, and the site runs only image files (directories: deny)")
                    .hint("make a squashfs of it: mksquashfs DIRECTORY IMAGE.sqsh")
            }
            Self::Ext3 => Refusal::new(
                Kind::Policy,
                image,
                "its overlay partition is an ext3, which is mounted only for images of the site's image_paths",
            )
            .hint("use --container-overlay, or make the overlay partition a squashfs"),
            Self::OwnExt3 => {
                Refusal::new(Kind::Policy, image, "its overlay partition is an ext3, which only root can mount")
                    .hint("run it in a job, if it is one of the site's image_paths, or make the partition a squashfs")
            }
        }
    }
}

/// Decides.
pub fn judge(config: &Config, image: &Provenance) -> Result<Grant, Denied> {
    // Below a trusted folder, but a file that its owner shares or that is somebody else's, counts as a user's own.
    let trusted = image.wanted_owner == Some(image.owner) && image.mode & 0o022 == 0;
    let directory = image.form == Form::Directory;
    if directory && config.directories == Directories::Deny {
        return Err(Denied::Directories);
    }
    let rule = |rule: String| if directory { format!("{rule},directories=allow") } else { rule };
    if let Some(index) = image.below.filter(|_| trusted) {
        return Ok(Grant { rule: rule(format!("image_paths[{index}]")), reader: Reader::Kernel, trusted: true });
    }
    if image.stored {
        // Nobody can change it; but a user has made it, and nothing makes an ext3 harmless.
        return match image.form {
            Form::FileWithExt3 => Err(Denied::Ext3),
            _ => Ok(Grant { rule: "store".into(), reader: Reader::Kernel, trusted: true }),
        };
    }
    let own = |word: &str, reader| Ok(Grant { rule: rule(format!("user_images={word}")), reader, trusted: false });
    match config.user_images {
        Some(UserImages::Kernel | UserImages::Fuse) if image.form == Form::FileWithExt3 => Err(Denied::Ext3),
        Some(UserImages::Kernel) => own("kernel", Reader::Kernel),
        Some(UserImages::Fuse) => own("fuse", Reader::Fuse),
        Some(UserImages::Deny) => Err(Denied::UserImages),
        None => Err(Denied::NoDefault),
    }
}

/// What a user may run with no other rights than his own. The site has no say in it: he could run any other tool.
pub fn own(form: Form) -> Result<Grant, Denied> {
    match form {
        Form::FileWithExt3 => Err(Denied::OwnExt3),
        Form::File | Form::Directory => Ok(Grant { rule: "own rights".into(), reader: Reader::Own, trusted: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(owner: u32, mode: u32, below: Option<usize>) -> Provenance {
        Provenance { owner, mode, below, wanted_owner: below.map(|_| 0), form: Form::File, stored: false }
    }

    #[test]
    fn directories_and_ext3_need_more_than_a_file() {
        let with = |user_images, directories| Config { user_images, directories, ..Config::default() };
        let verdict = |config: &Config, form, image| judge(config, &Provenance { form, ..image });
        let (own, sites) = (file(2001, 0o40_755, None), file(0, 0o40_755, Some(1)));
        let kernel = with(Some(UserImages::Kernel), Directories::Deny);
        assert_eq!(verdict(&kernel, Form::Directory, own), Err(Denied::Directories));
        assert_eq!(verdict(&kernel, Form::Directory, sites), Err(Denied::Directories));
        assert_eq!(verdict(&kernel, Form::FileWithExt3, own), Err(Denied::Ext3));
        assert!(verdict(&kernel, Form::FileWithExt3, sites).unwrap().trusted);
        let allow = with(Some(UserImages::Kernel), Directories::Allow);
        let rule = "user_images=kernel,directories=allow".into();
        assert_eq!(verdict(&allow, Form::Directory, own), Ok(Grant { rule, reader: Reader::Kernel, trusted: false }));
        let strict = with(Some(UserImages::Deny), Directories::Allow);
        assert_eq!(verdict(&strict, Form::Directory, own), Err(Denied::UserImages));
        let rule = "image_paths[1],directories=allow".into();
        assert_eq!(verdict(&strict, Form::Directory, sites), Ok(Grant { rule, reader: Reader::Kernel, trusted: true }));
        assert_eq!(verdict(&strict, Form::FileWithExt3, own), Err(Denied::UserImages));
    }

    #[test]
    fn a_stored_image_runs_whatever_the_site_thinks_of_users_own() {
        let stored = Provenance { stored: true, ..file(990, 0o100_440, None) };
        for user_images in [None, Some(UserImages::Deny), Some(UserImages::Fuse)] {
            let site = Config { user_images, ..Config::default() };
            let grant = Grant { rule: "store".into(), reader: Reader::Kernel, trusted: true };
            assert_eq!(judge(&site, &stored), Ok(grant));
            assert_eq!(judge(&site, &Provenance { form: Form::FileWithExt3, ..stored }), Err(Denied::Ext3));
        }
    }

    #[test]
    fn with_his_own_rights_a_user_runs_what_needs_no_others() {
        let grant = Grant { rule: "own rights".into(), reader: Reader::Own, trusted: false };
        assert_eq!((own(Form::File), own(Form::Directory)), (Ok(grant.clone()), Ok(grant)));
        let line = own(Form::FileWithExt3).unwrap_err().refuse("a.sif").line();
        assert_eq!(line, "coracle: a.sif: its overlay partition is an ext3, which only root can mount [policy]");
    }

    #[test]
    fn the_table() {
        let site = |user_images| Config { user_images, ..Config::default() };
        let rule =
            |index: usize| Ok(Grant { rule: format!("image_paths[{index}]"), reader: Reader::Kernel, trusted: true });
        let own = |word: &str, reader| Ok(Grant { rule: format!("user_images={word}"), reader, trusted: false });
        let kernel = own("kernel", Reader::Kernel);
        let fuse = own("fuse", Reader::Fuse);
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
        assert!(Denied::Directories.refuse("/tree").line().contains("(directories: deny)"));
        assert!(Denied::Ext3.refuse("a.sif").line().contains("image_paths"));
    }
}
