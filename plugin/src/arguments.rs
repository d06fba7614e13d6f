//! Reads the arguments of the plugin's line in plugstack.conf.
#![forbid(unsafe_code)]

use std::ffi::CString;

use coracle::options::Naming;
use coracle::report::{Kind, Refusal};

/// Paths of the launcher and the site's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// `launcher=PATH`
    pub launcher: CString,
    /// `config=PATH`
    pub config: CString,
    /// `options=long`: another plugin has the names that begin with `--container-`.
    pub naming: Naming,
    /// `defaults=on`: the launcher is also asked about steps without a container.
    pub defaults: bool,
    /// `panic=HOOK`, for tests of a panic.
    #[cfg(feature = "inject-panic")]
    pub panic: String,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            launcher: c"/usr/lib/coracle/coracle-launcher".into(),
            config: c"/etc/coracle/coracle.yaml".into(),
            naming: Naming::Container,
            defaults: false,
            #[cfg(feature = "inject-panic")]
            panic: String::new(),
        }
    }
}

impl Arguments {
    /// Reads `key=value` words. An unknown word is an error, since it may be a rule that would have no effect.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, Refusal> {
        let mut arguments = Self::default();
        for word in words {
            let wrong = |cause: &str| {
                Refusal::new(Kind::Config, format!("plugstack.conf: {}", String::from_utf8_lossy(word)), cause)
                    .hint("known arguments: config=PATH launcher=PATH options=short|long defaults=on|off")
            };
            let at = word.iter().position(|byte| *byte == b'=').ok_or_else(|| wrong("not of the form key=value"))?;
            let (key, value) = (&word[..at], &word[at + 1..]);
            let path = || match value {
                [b'/', ..] => CString::new(value).map_err(|_| wrong("a NUL in a path")),
                _ => Err(wrong("an absolute path is wanted")),
            };
            match key {
                b"launcher" => arguments.launcher = path()?,
                b"config" => arguments.config = path()?,
                b"options" => {
                    arguments.naming = match value {
                        b"short" => Naming::Container,
                        b"long" => Naming::Coracle,
                        _ => return Err(wrong("short or long is wanted")),
                    }
                }
                b"defaults" => {
                    arguments.defaults = match value {
                        b"on" => true,
                        b"off" => false,
                        _ => return Err(wrong("on or off is wanted")),
                    }
                }
                b"job_facts" => return Err(wrong("belongs behind spank_coracle_facts.so, on a line of its own")),
                #[cfg(feature = "inject-panic")]
                b"panic" => arguments.panic = String::from_utf8_lossy(value).into_owned(),
                _ => return Err(wrong("unknown argument")),
            }
        }
        Ok(arguments)
    }
}
