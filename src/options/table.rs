//! Defines every option in one entry: name, argument, help, and its field of [`super::Settings`] with the functions that
//! read and write it. A new option is an entry here and a field there.
#![forbid(unsafe_code)]

use std::path::Path;

use super::Argument::{Flag, Maybe, Value};
use super::settings::{gpu, gpu_word, overlay, yes_or_no, yes_word};
use super::spec::{Field, Spec, c_string, one};
use super::{Digest, Mpi, Scope, Variable, Writable, bind::plain_absolute};

/// Makes [`Id`] and [`OPTIONS`]. An entry with `no` gives a second option, which says no.
macro_rules! options {
    ($($(#[$doc:meta])* $id:ident $word:literal {
        argument: $argument:expr,
        help: $help:expr,
        $(no: $no:expr,)?
        variable: $variable:expr,
        default: $default:expr,
        site: $site:expr,
        repeats: $repeats:expr,
        fixed: $fixed:expr,
        field: $field:expr,
    })*) => {
        /// Subject of an option. `--container-home` and `--no-container-home` have the same one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Id {
            $($(#[$doc])* $id,)*
        }

        /// All options, in the order of the help text.
        ///
        /// Slurm breaks `help` into lines of 50 characters. Two such lines are easy to read.
        pub const OPTIONS: &[Spec] = &[$(
            options!(@spec "", $argument, $help, Some($variable), $id $word $default, $site, $repeats, $fixed, $field),
            $(options!(@spec "no-", Flag("no"), $no, None, $id $word $default, $site, $repeats, $fixed, $field),)?
        )*];
    };
    (@spec $no:literal, $argument:expr, $help:expr, $variable:expr, $id:ident $word:literal $default:expr, $site:expr,
     $repeats:expr, $fixed:expr, $field:expr) => {
        Spec {
            id: Id::$id,
            name: c_string(concat!($no, "container-", $word, "\0")),
            long: c_string(concat!($no, "coracle-", $word, "\0")),
            argument: $argument,
            help: $help,
            variable: $variable,
            default: $default,
            key: $word,
            site: $site,
            repeats: $repeats,
            fixed: $fixed,
            field: $field,
        }
    };
}

options! {
    /// Files and directories of the node that are visible.
    Bind "bind" {
        argument: Value(c"SRC[:DST[:ro|rw]][,...]"),
        help: c"show a file or directory of the node inside, or an empty directory: tmpfs:DST[:SIZE]; may be repeated",
        variable: c"CORACLE_CONTAINER_BIND",
        default: None,
        site: false,
        repeats: true,
        fixed: true,
        field: Field {
            read: |settings, typed| settings.binds.read(typed.text, typed.directory),
            words: |settings| settings.binds.words(),
            complete: |settings, other| settings.binds = std::mem::take(&mut settings.binds).after(other.binds.clone()),
        },
    }

    /// Digest that the image must have.
    Digest "digest" {
        argument: Value(c"sha256:HEX"),
        help: c"run only if the image file has this SHA-256",
        variable: c"CORACLE_CONTAINER_DIGEST",
        default: None,
        site: false,
        repeats: false,
        fixed: true,
        field: one!(digest, |typed| Digest::parse(typed.text), |digest| digest.to_string().into()),
    }

    /// Directory in which tasks start.
    Workdir "workdir" {
        argument: Value(c"DIR"),
        help: c"start in this directory of the container (default: the job's working directory)",
        variable: c"CORACLE_CONTAINER_WORKDIR",
        default: None,
        site: true,
        repeats: false,
        fixed: false,
        field: one!(workdir, |typed| plain_absolute(Path::new(typed.text)), |path| path.clone().into()),
    }

    /// Visibility of the home directory.
    Home "home" {
        argument: Flag("yes"),
        help: c"show your home (default, unless the site says otherwise)",
        no: c"do not show your home, except for a working directory in it",
        variable: c"CORACLE_CONTAINER_HOME",
        default: Some("yes"),
        site: true,
        repeats: false,
        fixed: true,
        field: one!(home, yes_or_no, yes_word),
    }

    /// Variables that pass or are set.
    Env "env" {
        argument: Value(c"NAME|NAME=VALUE[,...]"),
        help: c"pass variables of the node, whatever the image sets, or set them; may be repeated",
        variable: c"CORACLE_CONTAINER_ENV",
        default: None,
        site: true,
        repeats: true,
        fixed: false,
        field: Field {
            read: |settings, typed| Variable::parse_list(typed.text).map(|list| settings.env.extend(list)),
            words: |settings| settings.env.iter().map(Variable::word).collect(),
            complete: |settings, other| drop(settings.env.splice(..0, other.env.iter().cloned())),
        },
    }

    /// Leaves the host's variables outside.
    CleanEnv "clean-env" {
        argument: Flag("yes"),
        help: c"pass only the variables of Slurm, MPI, locale and terminal",
        variable: c"CORACLE_CONTAINER_CLEAN_ENV",
        default: Some("no"),
        site: true,
        repeats: false,
        fixed: false,
        field: one!(clean_env, yes_or_no, yes_word),
    }

    /// Lets tasks write into the image for as long as the step runs.
    Writable "writable" {
        argument: Maybe(c"SIZE", "yes"),
        help: c"let tasks write into the image: in memory, at most SIZE on each node, gone with the step",
        variable: c"CORACLE_CONTAINER_WRITABLE",
        default: Some("no"),
        site: true,
        repeats: false,
        fixed: true,
        field: one!(writable, Writable::parse, Writable::word),
    }

    /// Directory in which changes to the image are kept.
    Overlay "overlay" {
        argument: Value(c"DIR"),
        help: c"let tasks write into the image, and keep what they write in this directory of yours",
        variable: c"CORACLE_CONTAINER_OVERLAY",
        default: None,
        site: false,
        repeats: false,
        fixed: true,
        field: one!(overlay, overlay, |path| path.clone().into()),
    }

    /// Entry point of the image, which runs the command.
    Entrypoint "entrypoint" {
        argument: Flag("yes"),
        help: c"run the command through the image's entry point (SIF runscript, OCI ENTRYPOINT, enroot's /etc/rc)",
        no: c"run the command itself (default, unless the site says otherwise)",
        variable: c"CORACLE_CONTAINER_ENTRYPOINT",
        default: Some("no"),
        site: true,
        repeats: false,
        fixed: false,
        field: one!(entrypoint, yes_or_no, yes_word),
    }

    /// Parts of a job that run inside.
    Scope "scope" {
        argument: Value(c"script|steps|all"),
        help: c"what of a job runs in the container: its script, its steps, or all of it (default)",
        variable: c"CORACLE_CONTAINER_SCOPE",
        default: Some("all"),
        site: true,
        repeats: false,
        fixed: false,
        field: one!(scope, |typed| Scope::parse(typed.text), |scope| scope.word().into()),
    }

    /// MPI library that programs get.
    Mpi "mpi" {
        argument: Value(c"PROFILE|auto|none"),
        help: c"run with an MPI library of the node in place of the image's, if it fits (default: none)",
        variable: c"CORACLE_CONTAINER_MPI",
        default: Some("none"),
        site: true,
        repeats: false,
        fixed: true,
        field: one!(mpi, |typed| Mpi::parse(typed.text), |mpi| mpi.word().into()),
    }

    /// Visibility of the job's GPUs.
    Gpu "gpu" {
        argument: Value(c"auto|none"),
        help: c"show the GPUs that Slurm gave, with their driver (default: auto), or none",
        variable: c"CORACLE_CONTAINER_GPU",
        default: Some("auto"),
        site: true,
        repeats: false,
        fixed: true,
        field: one!(gpu, gpu, gpu_word),
    }
}
