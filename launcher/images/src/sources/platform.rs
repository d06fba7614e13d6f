//! Selects processors by OCI's names: Go's, with variants of some (image-spec, image-index.md).
#![forbid(unsafe_code)]

use std::fmt;

use serde::Deserialize;

use crate::sources::json::null_is_default;

/// Platform of an image in an index.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Processor.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// Operating system; only linux runs here.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// Variant of the processor.
    #[serde(default)]
    pub variant: Option<String>,
}

/// Processor of the wanted image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    architecture: String,
    variant: Option<String>,
}

impl Processor {
    /// Parses `amd64`, `arm64/v8`, or a name of the kernel. The default is this host's processor.
    pub fn of(typed: Option<&str>) -> Result<Self, String> {
        let text = typed.unwrap_or(std::env::consts::ARCH);
        let (word, variant) = text.split_once('/').map_or((text, None), |(word, variant)| (word, Some(variant)));
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_word(word) || !variant.is_none_or(is_word) {
            return Err(format!("{text:?} is no processor, such as amd64 or arm64/v8"));
        }
        let architecture = match word {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" | "i386" | "i686" => "386",
            // Rust has one name for both byte orders; Linux on these processors is little-endian today.
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            word => word,
        };
        Ok(Self { architecture: architecture.into(), variant: variant.map(str::to_owned) })
    }

    /// True if an image with `architecture` in its configuration fits.
    pub fn is(&self, architecture: &str) -> bool {
        architecture == self.architecture
    }

    /// Index of the first of the best platforms.
    pub fn choose(&self, offered: &[Option<Platform>]) -> Option<usize> {
        let fitting = |variant: Option<&str>| {
            offered.iter().position(|platform| {
                platform.as_ref().is_some_and(|platform| {
                    platform.is_linux()
                        && platform.architecture == self.architecture
                        && platform.variant.as_deref().filter(|variant| !variant.is_empty()) == variant
                })
            })
        };
        // Variants that run where a variant, or none, is named: the best first.
        let order: &[Option<&str>] = match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", None | Some("v8")) => &[Some("v8"), None],
            ("amd64", None | Some("v1")) => &[None, Some("v1")],
            ("arm", None | Some("v7")) => &[Some("v7"), None, Some("v6"), Some("v5")],
            ("arm", Some("v6")) => &[Some("v6"), Some("v5")],
            (_, None) => &[None],
            (_, variant) => return fitting(variant),
        };
        order.iter().find_map(|variant| fitting(*variant))
    }
}

impl Platform {
    /// True if Linux may be the operating system.
    fn is_linux(&self) -> bool {
        matches!(self.os.as_str(), "linux" | "")
    }

    /// True if it names no processor.
    pub fn is_silent(&self) -> bool {
        self.architecture.is_empty() && self.is_linux()
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(out, "/{variant}"))
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_linux() {
            write!(out, "{}/", self.os)?;
        }
        out.write_str(&self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(out, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Option<Platform> {
        let mut words = text.split('/').map(str::to_owned);
        Some(Platform { os: words.next()?, architecture: words.next()?, variant: words.next() })
    }

    #[test]
    fn the_platform_that_fits_best_is_chosen() {
        let offered: Vec<_> = [
            "windows/amd64",
            "linux/amd64/v3",
            "linux/arm64",
            "linux/amd64",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
            "linux/ppc64le",
            "unknown/unknown",
        ]
        .map(platform)
        .into();
        for (wanted, place) in [
            ("amd64", Some(3)),
            ("x86_64", Some(3)),
            ("amd64/v3", Some(1)),
            ("amd64/v4", None),
            ("aarch64", Some(6)),
            ("arm64/v8", Some(6)),
            ("arm64/v9", None),
            ("arm", Some(5)),
            ("arm/v6", Some(4)),
            ("arm/v5", None),
            ("ppc64le", Some(7)),
            ("s390x", None),
            ("unknown", None),
        ] {
            assert_eq!(Processor::of(Some(wanted)).unwrap().choose(&offered), place, "{wanted}");
        }
        assert_eq!(Processor::of(Some("arm64/v8")).unwrap().choose(&[None, platform("linux/arm64")]), Some(1));
        assert!(Processor::of(Some("")).is_err() && Processor::of(Some("a/b/c")).is_err());
    }
}
