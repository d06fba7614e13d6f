//! Hooks of a specification, by their purpose.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::spec::Hook;

/// The programs whose work is known. What they are given to run with does not matter: they are not run.
const PROGRAMS: [&str; 3] = ["nvidia-ctk", "nvidia-ctk-hook", "nvidia-cdi-hook"];

/// Purpose of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The links that it would make.
    Links(Vec<Link>),
    /// Work that the folder of libraries does, or the step's control group, or that is only for Slurm to say.
    Needless,
    /// CUDA's libraries of the image instead of the driver's.
    Compatibility,
}

/// A link that a hook would make.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Link {
    /// Target of the link.
    pub(super) target: PathBuf,
    /// Path of the link.
    pub(super) path: PathBuf,
}

impl Meaning {
    /// Purpose of `hook`; nothing, if that is not known.
    pub(super) fn of(hook: &Hook) -> Option<Self> {
        let program = hook.path.file_name()?.to_str()?;
        PROGRAMS.contains(&program).then_some(())?;
        // The first one is what the program is called.
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

/// `--link TARGET::LINK …`
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
