//! Describes an option: its names, its argument, and its field of [`Settings`].
#![forbid(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString};
use std::path::Path;

use super::Argument::{Flag, Maybe, Value};
use super::{Error, Id, OPTIONS, Settings};

/// Argument of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Argument {
    /// A value, shown so in help.
    Value(&'static CStr),
    /// A value that may be left out, and the value that is then meant.
    Maybe(&'static CStr, &'static str),
    /// No value: the option stands for this one.
    Flag(&'static str),
}

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// Subject of the option.
    pub id: Id,
    /// Its name without the dashes.
    pub name: &'static CStr,
    /// Its name where another plugin has the first one (plugin argument `options=long`).
    pub long: &'static CStr,
    /// Its argument.
    pub argument: Argument,
    /// Effect of the option, in one line for `srun --help`.
    pub help: &'static CStr,
    /// Variable that gives the value in the user's environment if the command line does not.
    pub variable: Option<&'static CStr>,
    /// Value if neither the user nor the site sets one; `None` where the option is then left out.
    pub default: Option<&'static str>,
    /// The key in `options` of coracle.yaml, and in the request as it is in the environment.
    pub key: &'static str,
    /// True if coracle.yaml may have the key. The site sets the other options elsewhere, or not at all: an image's
    /// digest is the user's own claim.
    pub site: bool,
    /// True if the option may be given more than once; the values add up.
    pub repeats: bool,
    /// True if the setting is fixed once the container is made, so that a step that joins a container cannot have it.
    pub fixed: bool,
    /// The field of [`Settings`].
    pub field: Field,
}

/// Choice of an option's two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Naming {
    /// `--container-bind`
    #[default]
    Container,
    /// `--coracle-bind`
    Coracle,
}

pub(super) const fn c_string(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a NUL inside"),
    }
}

/// Value of an option as typed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Typed<'a> {
    /// The value.
    pub text: &'a OsStr,
    /// Directory from which relative paths are taken.
    pub directory: &'a Path,
    /// The option, under the user's name for it.
    pub flag: &'a str,
}

/// Field of [`Settings`] that an option sets.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Reads a value into the field.
    pub(super) read: fn(&mut Settings, &Typed<'_>) -> Result<(), Error>,
    /// Returns the values from which `read` makes the field again: none for an open one.
    pub(super) words: fn(&Settings) -> Vec<OsString>,
    /// Completes the field with that of other settings.
    pub(super) complete: fn(&mut Settings, &Settings),
}

/// Makes the [`Field`] of an option that has one value, from the functions that read and write the value.
macro_rules! one {
    ($field:ident, $read:expr, $word:expr) => {
        Field {
            read: |settings, typed| {
                let read: fn(&super::spec::Typed<'_>) -> _ = $read;
                settings.$field = Some(read(typed)?);
                Ok(())
            },
            words: |settings| settings.$field.as_ref().map($word).into_iter().collect(),
            complete: |settings, other| {
                if settings.$field.is_none() {
                    settings.$field.clone_from(&other.$field);
                }
            },
        }
    };
}

pub(super) use one;

impl Spec {
    /// Returns its name without dashes.
    pub fn name_in(&self, naming: Naming) -> &'static CStr {
        match naming {
            Naming::Container => self.name,
            Naming::Coracle => self.long,
        }
    }

    /// `--container-bind`
    pub fn flag(&self, naming: Naming) -> String {
        format!("--{}", self.name_in(naming).to_string_lossy())
    }

    /// Returns the value that stands for the option if it was given without one.
    pub fn implied(&self) -> Option<&'static str> {
        match self.argument {
            Value(_) => None,
            Maybe(_, implied) | Flag(implied) => Some(implied),
        }
    }

    /// Returns the first option about `id`.
    pub fn of(id: Id) -> Option<&'static Self> {
        OPTIONS.iter().find(|spec| spec.id == id)
    }

    /// Returns the first option with this key.
    pub fn of_key(key: &str) -> Option<&'static Self> {
        OPTIONS.iter().find(|spec| spec.key == key)
    }

    /// Returns the option that sets a field, for each field.
    pub fn of_fields() -> impl Iterator<Item = &'static Self> {
        // An option that only says no has no variable.
        OPTIONS.iter().filter(|spec| spec.variable.is_some())
    }
}
