//! Interprets the hooks of a specification by their purpose.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::spec::Hook;

/// Programs whose purpose is known. Their environment does not matter: they are not run.
const PROGRAMS: [&str; 3] = ["nvidia-ctk", "nvidia-ctk-hook", "nvidia-cdi-hook"];

/// Purpose of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Links that the hook would create.
    Links(Vec<Link>),
    /// No action needed: the directory of libraries or the step's control group does this work, or only Slurm may do
    /// it.
    Needless,
    /// Use of the image's CUDA libraries instead of the driver's.
    Compatibility,
}

/// Link that a hook would create.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    /// Target of the link.
    pub(super) target: PathBuf,
    /// Path of the link.
    pub(super) path: PathBuf,
}

impl Meaning {
    /// Purpose of `hook`, if it is known.
    pub(super) fn of(hook: &Hook) -> Option<Self> {
        let program = hook.path.file_name()?.to_str()?;
        PROGRAMS.contains(&program).then_some(())?;
        // The first argument is the name of the program.
        let mut words = hook.args.iter().map(String::as_str).skip(1).peekable();
        if program == "nvidia-ctk" {
            words.next_if_eq(&"hook")?;
        }
        match words.next()? {
            "create-symlinks" => links(words).map(Self::Links),
            "update-ldcache" | "chmod" | "disable-device-node-modification" | "update-application-profile" => {
                Some(Self::Needless)
            }
            "enable-cuda-compat" => Some(Self::Compatibility),
            _ => None,
        }
    }
}

/// Parses `--link TARGET::LINK …`.
fn links<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Vec<Link>> {
    let mut links = Vec::new();
    while let Some(word) = words.next() {
        let pair = match word {
            "--link" => words.next()?,
            other => other.strip_prefix("--link=")?,
        };
        let (target, path) = pair.split_once("::")?;
        links.push(Link { target: Path::new(target).to_owned(), path: Path::new(path).to_owned() });
    }
    Some(links)
}
