//! May this image run here? A pure function of the rules that hold and of what is known about the open file.
#![forbid(unsafe_code)]

use super::effective::{Missing, Rules, Ruling, Value};
use crate::config::{Allowed, Digest, Directories, Fingerprint, MaxSize, UserImages};
use coracle::report::{Kind, Refusal};
use coracle::request;

/// Known properties of an image file, all of it seen on the open descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// The file's owner.
    pub owner: u32,
    /// The file's mode bits.
    pub mode: u32,
    /// The rule of `image_paths`, by its index, below whose folder this very file was found.
    pub below: Option<usize>,
    /// Whom that rule wants as the owner.
    pub wanted_owner: Option<u32>,
    /// Form that the kernel would be asked to mount.
    pub form: Form,
    /// It is in the site's store.
    pub stored: bool,
    /// Length of the file, in bytes; of a directory 0.
    pub length: u64,
    /// Its SHA-256, if it is known.
    pub digest: Option<request::Digest>,
    /// By whom all of it is signed, as [`Fingerprint`] has it; nothing where that has not been looked at.
    pub signers: Option<Vec<String>>,
}

/// Form of an image, as far as the verdict depends on it.
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
    /// `user_images: deny`, in this line.
    UserImages(String),
    /// `user_images` is not set.
    NoDefault,
    /// `directories: deny`, in this line.
    Directories(String),
    /// Longer than this line allows.
    Size {
        /// In bytes.
        length: u64,
        /// In bytes.
        limit: u64,
        /// The line.
        rule: String,
    },
    /// Its digest, if it has one, is not in the list of this line.
    Digest(Option<request::Digest>, String),
    /// The list of this line says what is in an image, and the user can change it.
    Changeable(String),
    /// None of those in the list of this line has signed it, or that is not known.
    Signers {
        /// Who has signed it.
        found: Option<Vec<String>>,
        /// The line.
        rule: String,
    },
    /// It cannot be decided.
    Undecided(Missing),
    /// An ext3 that its user can change.
    Ext3,
    /// An ext3, and nobody there whom the kernel would let mount it.
    OwnExt3,
}

impl Denied {
    /// The refusal of the image that the user calls `image`.
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
    /// The rule of `image_paths` that trusts this file. One below a trusted folder that its owner shares, or that is
    /// somebody else's, counts as a user's own.
    pub fn trusted_by(&self) -> Option<usize> {
        self.below.filter(|_| self.wanted_owner == Some(self.owner) && self.mode & 0o022 == 0)
    }

    /// True if it stays what it is: what has been found out about any other file may be over in the next moment.
    pub fn is_fixed(&self) -> bool {
        self.stored || self.trusted_by().is_some()
    }
}

/// Decides.
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
        // Nobody can change it; but a user has made it, and nothing makes an ext3 harmless.
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

/// Refuses an image of `length` bytes for that alone, before anything else is known of it.
pub fn too_large(rules: &Rules, length: u64) -> Option<Denied> {
    match &rules.max_image_size {
        Ruling::Said(Value { value: MaxSize::Bytes(limit), rule }) if length > limit.0 => {
            Some(Denied::Size { length, limit: limit.0, rule: rule.clone() })
        }
        _ => None,
    }
}

/// The line that limits the length, if one does. A directory has none.
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

/// The line that lists digests, if one does.
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

/// The line that lists signers, if one does.
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

/// The list that holds, and its line.
fn listed<T>(said: Result<Option<&Value<Allowed<T>>>, Missing>) -> Result<Option<(&[T], &str)>, Denied> {
    match said.map_err(Denied::Undecided)? {
        Some(Value { value: Allowed::Only(list), rule }) => Ok(Some((list, rule))),
        Some(Value { value: Allowed::Any, .. }) | None => Ok(None),
    }
}

/// Grant for a user with no other rights than their own. The site has no say in it: they could run any other tool.
pub fn own(form: Form) -> Result<Grant, Denied> {
    match form {
        Form::FileWithExt3 => Err(Denied::OwnExt3),
        Form::File | Form::Directory => Ok(Grant { rule: "own rights".into(), reader: Reader::Own, trusted: false }),
    }
}
