//! Decides if an image may run on this node: a pure function of the effective policy and the properties of the open
//! file.
#![forbid(unsafe_code)]

use super::effective::{Missing, Rules, Ruling, Value};
use crate::config::{Allowed, Digest, Directories, Fingerprint, MaxSize, UserImages};
use coracle::report::{Kind, Refusal};
use coracle::request;

/// Properties of an image file, all read from the open descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// Owner of the file.
    pub owner: u32,
    /// Mode bits of the file.
    pub mode: u32,
    /// Index of the rule of `image_paths` whose directory contains this file.
    pub below: Option<usize>,
    /// Owner that this rule requires.
    pub wanted_owner: Option<u32>,
    /// Form of the image.
    pub form: Form,
    /// True if the image is in the site's store.
    pub stored: bool,
    /// Length of the file, in bytes; 0 for a directory.
    pub length: u64,
    /// SHA-256 of the file, if known.
    pub digest: Option<request::Digest>,
    /// Signers of all objects, in the form of [`Fingerprint`]; `None` if signatures have not been checked.
    pub signers: Option<Vec<String>>,
}

/// Form of an image, as far as the decision depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// File whose file systems are meant to be mounted from untrusted sources, or nearly so.
    File,
    /// File that contains an ext3.
    FileWithExt3,
    /// Directory of the node; owner and mode are those of the directory itself.
    Directory,
}

/// Reader of an image at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The kernel.
    Kernel,
    /// A process of the user, for the kernel (fuse(4)).
    Fuse,
    /// A process of the user, in a user namespace of their own (user_namespaces(7)), where no process has more
    /// privileges than they.
    Own,
}

/// Permission to run an image, with its reader and the deciding rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Rule that decided, as the log shows it: `image_paths[0]`, `user_images=kernel`.
    pub rule: String,
    /// Reader of the image.
    pub reader: Reader,
    /// True if only the owner whom the site trusts can change the image.
    pub trusted: bool,
}

/// Reason why an image may not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// `user_images: deny`, set by this line.
    UserImages(String),
    /// `user_images` is not set.
    NoDefault,
    /// `directories: deny`, set by this line.
    Directories(String),
    /// Larger than this line allows.
    Size {
        /// Length in bytes.
        length: u64,
        /// Limit in bytes.
        limit: u64,
        /// Line that sets the limit.
        rule: String,
    },
    /// The digest, if there is one, is not in the list of this line.
    Digest(Option<request::Digest>, String),
    /// This line lists digests or signers, and the user can change the image.
    Changeable(String),
    /// No signer in the list of this line has signed the image, or its signers are not known.
    Signers {
        /// Signers of the image.
        found: Option<Vec<String>>,
        /// Line that lists signers.
        rule: String,
    },
    /// A missing fact leaves the decision open.
    Undecided(Missing),
    /// An ext3 that the user can change.
    Ext3,
    /// An ext3 in an unprivileged run: the kernel lets no process there mount it.
    OwnExt3,
}

impl Denied {
    /// Refusal of the image that the user calls `image`.
    pub fn refuse(&self, image: &str) -> Refusal {
        match self {
            Self::UserImages(rule) => Refusal::new(
                Kind::Policy,
                image,
                format!("the site runs only images from its image_paths ({rule}: deny)"),
            ),
            Self::NoDefault => Refusal::new(
                Kind::Policy,
                image,
                "in none of the site's image_paths, and user_images is not set in coracle.yaml",
            )
            .hint("the site's admin decides: user_images: kernel or fuse runs users' own images, deny refuses them"),
            Self::Directories(rule) => Refusal::new(
                Kind::Policy,
                image,
                format!("a directory, and the site runs only image files ({rule}: deny)"),
            )
            .hint("make a squashfs of it: mksquashfs DIRECTORY IMAGE.sqsh"),
            Self::Size { length, limit, rule } => Refusal::new(
                Kind::Policy,
                image,
                format!("{length} bytes long, and the site runs images of at most {limit} ({rule})"),
            ),
            Self::Changeable(rule) => Refusal::new(
                Kind::Policy,
                image,
                format!("you can change it, and the site runs only what it has a list of ({rule})"),
            )
            .hint("coracle cp puts it into the store, where it stays what it is"),
            Self::Digest(Some(found), rule) => {
                Refusal::new(Kind::Policy, image, format!("its digest {found} is not in the site's list ({rule})"))
            }
            Self::Digest(None, rule) => {
                Refusal::new(Kind::Policy, image, format!("it has no digest, and the site has a list of them ({rule})"))
            }
            Self::Signers { found, rule } => {
                let cause = match found.as_deref() {
                    None => "whether the site's signers have signed it is not known".to_owned(),
                    Some([]) => "it has no valid signature that covers all of it".to_owned(),
                    Some(found) => format!("signed by {}, none of the site's signers", found.join(" and ")),
                };
                Refusal::new(Kind::Policy, image, format!("{cause} ({rule})"))
                    .hint("coracle verify IMAGE shows who has signed what of it")
            }
            Self::Undecided(missing) => missing.refuse(image),
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

impl Provenance {
    /// Rule of `image_paths` that trusts this file. A file below a trusted directory counts as a user image if it
    /// belongs to another owner, or if other users can write it.
    pub fn trusted_by(&self) -> Option<usize> {
        self.below.filter(|_| self.wanted_owner == Some(self.owner) && self.mode & 0o022 == 0)
    }

    /// True if the file cannot change; anything that was checked of another file may be outdated at once.
    pub fn is_fixed(&self) -> bool {
        self.stored || self.trusted_by().is_some()
    }
}

/// Decides if the image may run.
pub fn judge(rules: &Rules, image: &Provenance) -> Result<Grant, Denied> {
    let mut suffix = String::new();
    if image.form == Form::Directory {
        match rules.directories.said().map_err(Denied::Undecided)? {
            Some(Value { value: Directories::Allow, rule }) => suffix += &format!(",{rule}=allow"),
            Some(Value { value: Directories::Deny, rule }) => return Err(Denied::Directories(rule.clone())),
            None => return Err(Denied::Directories("directories".into())),
        }
    }
    let lists = [size(rules, image)?, digest(rules, image)?, signer(rules, image)?];
    lists.into_iter().flatten().for_each(|rule| suffix += &format!(",{rule}"));
    let grant = |rule: String, reader, trusted| Ok(Grant { rule: rule + &suffix, reader, trusted });
    if let Some(index) = image.trusted_by() {
        return grant(format!("image_paths[{index}]"), Reader::Kernel, true);
    }
    if image.stored {
        // No user can change the image, but a user made it, and nothing makes an ext3 harmless.
        return match image.form {
            Form::FileWithExt3 => Err(Denied::Ext3),
            _ => grant("store".into(), Reader::Kernel, true),
        };
    }
    let Some(Value { value, rule }) = rules.user_images.said().map_err(Denied::Undecided)? else {
        return Err(Denied::NoDefault);
    };
    let reader = match value {
        UserImages::Deny => return Err(Denied::UserImages(rule.clone())),
        _ if image.form == Form::FileWithExt3 => return Err(Denied::Ext3),
        UserImages::Kernel => Reader::Kernel,
        UserImages::Fuse => Reader::Fuse,
    };
    grant(format!("{rule}={value}"), reader, false)
}

/// Refuses an image for its length alone, before anything else of it is known.
pub fn too_large(rules: &Rules, length: u64) -> Option<Denied> {
    match &rules.max_image_size {
        Ruling::Said(Value { value: MaxSize::Bytes(limit), rule }) if length > limit.0 => {
            Some(Denied::Size { length, limit: limit.0, rule: rule.clone() })
        }
        _ => None,
    }
}

/// Line that limits the length, if any. A directory has no length.
fn size<'a>(rules: &'a Rules, image: &Provenance) -> Result<Option<&'a str>, Denied> {
    if image.form == Form::Directory {
        return Ok(None);
    }
    if let Some(denied) = too_large(rules, image.length) {
        return Err(denied);
    }
    match rules.max_image_size.said().map_err(Denied::Undecided)? {
        Some(Value { value: MaxSize::Bytes(_), rule }) => Ok(Some(rule)),
        Some(Value { value: MaxSize::Any, .. }) | None => Ok(None),
    }
}

/// Line that lists digests, if any.
fn digest<'a>(rules: &'a Rules, image: &Provenance) -> Result<Option<&'a str>, Denied> {
    let Some((list, rule)) = listed(rules.digests.said())? else { return Ok(None) };
    if !image.is_fixed() {
        return Err(Denied::Changeable(rule.to_owned()));
    }
    match image.digest {
        Some(found) if list.contains(&Digest(found)) => Ok(Some(rule)),
        found => Err(Denied::Digest(found, rule.to_owned())),
    }
}

/// Line that lists signers, if any.
fn signer<'a>(rules: &'a Rules, image: &Provenance) -> Result<Option<&'a str>, Denied> {
    if let Some((list, rule)) = rules.signers_of(image.trusted_by()) {
        signed_by(list, rule, image)?;
    }
    let Some((list, rule)) = listed(rules.signers.said())? else { return Ok(None) };
    if !image.is_fixed() {
        return Err(Denied::Changeable(rule.to_owned()));
    }
    signed_by(list, rule, image).map(|()| Some(rule))
}

fn signed_by(list: &[Fingerprint], rule: &str, image: &Provenance) -> Result<(), Denied> {
    let has = |found: &String| list.iter().any(|Fingerprint(wanted)| wanted == found);
    match &image.signers {
        Some(found) if found.iter().any(has) => Ok(()),
        found => Err(Denied::Signers { found: found.clone(), rule: rule.to_owned() }),
    }
}

/// The effective list and its line, if it is not `any`.
fn listed<T>(said: Result<Option<&Value<Allowed<T>>>, Missing>) -> Result<Option<(&[T], &str)>, Denied> {
    match said.map_err(Denied::Undecided)? {
        Some(Value { value: Allowed::Only(list), rule }) => Ok(Some((list, rule))),
        Some(Value { value: Allowed::Any, .. }) | None => Ok(None),
    }
}

/// Grant for an unprivileged user. Site policy does not apply: they could use any other program instead.
pub fn own(form: Form) -> Result<Grant, Denied> {
    match form {
        Form::FileWithExt3 => Err(Denied::OwnExt3),
        Form::File | Form::Directory => Ok(Grant { rule: "own rights".into(), reader: Reader::Own, trusted: false }),
    }
}
