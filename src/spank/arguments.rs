//! Reads the arguments of the plugin's line in plugstack.conf.
#![forbid(unsafe_code)]

use std::ffi::CString;

use crate::options::Naming;
use crate::report::{Kind, Refusal};

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
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            launcher: c"/usr/lib/coracle/coracle-launcher".into(),
            config: c"/etc/coracle/coracle.yaml".into(),
            naming: Naming::Container,
            defaults: false,
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
                _ => return Err(wrong("unknown argument")),
            }
        }
        Ok(arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::as_bytes)).map_err(|refusal| refusal.line())
    }

    #[test]
    fn a_line_without_arguments_has_the_paths_of_the_package() {
        let arguments = parse("").unwrap();
        assert_eq!(arguments.launcher.to_str(), Ok("/usr/lib/coracle/coracle-launcher"));
        assert_eq!(arguments.config.to_str(), Ok("/etc/coracle/coracle.yaml"));
        assert_eq!((arguments.naming, arguments.defaults), (Naming::Container, false));
    }

    #[test]
    fn every_argument_has_its_effect() {
        let arguments = parse("launcher=/l config=/c options=long defaults=on").unwrap();
        let wanted =
            Arguments { launcher: c"/l".into(), config: c"/c".into(), naming: Naming::Coracle, defaults: true };
        assert_eq!(arguments, wanted);
    }

    #[test]
    fn the_last_of_two_values_counts() {
        let arguments = parse("defaults=on options=long config=/a defaults=off options=short config=/b").unwrap();
        let wanted = Arguments { config: c"/b".into(), ..Arguments::default() };
        assert_eq!(arguments, wanted);
    }

    #[test]
    fn a_path_is_absolute_and_may_have_an_equals_sign() {
        assert_eq!(parse("config=/a=b").unwrap().config.to_str(), Ok("/a=b"));
        for line in ["config=coracle.yaml", "config=", "launcher=./l"] {
            let wanted = format!("coracle: plugstack.conf: {line}: an absolute path is wanted [config]");
            assert_eq!(parse(line), Err(wanted));
        }
    }

    #[test]
    fn a_word_that_would_have_no_effect_is_refused() {
        for (line, cause) in [
            ("colour=red", "unknown argument"),
            ("Defaults=on", "unknown argument"),
            ("panic=slurm_spank_exit", "unknown argument"),
            ("defaults", "not of the form key=value"),
            ("defaults=yes", "on or off is wanted"),
            ("options=", "short or long is wanted"),
            ("job_facts=prolog", "belongs behind spank_coracle_facts.so, on a line of its own"),
        ] {
            let wanted = format!("coracle: plugstack.conf: {line}: {cause} [config]");
            assert_eq!(parse(&format!("config=/c {line}")), Err(wanted));
        }
    }

    #[test]
    fn a_refused_line_lists_the_arguments() {
        let refusal = Arguments::parse([b"x=1".as_slice()]).unwrap_err();
        let hint = refusal.hint.unwrap();
        for known in ["config=", "launcher=", "options=", "defaults="] {
            assert!(hint.contains(known), "{hint}");
        }
    }

    #[test]
    fn a_nul_in_a_path_is_refused() {
        assert!(Arguments::parse([b"config=/a\0b".as_slice()]).unwrap_err().cause.contains("a NUL in a path"));
    }
}
