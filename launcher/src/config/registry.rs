//! `registries:` of coracle.yaml: access to registries of images.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::values::YesOrNo;

/// Registry of image names that have no host.
const DOCKER_HUB: &str = "docker.io";
/// Other hosts of the same registry.
const DOCKER_HUB_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];

/// Site settings for registries, by host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Registries(BTreeMap<Host, Registry>);

impl Registries {
    /// Settings for the registry at `host`.
    pub fn get(&self, host: &str) -> Option<&Registry> {
        self.0.get(&Host(canonical(host)))
    }
}

/// Site settings for one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Registry {
    plain_http: YesOrNo,
    /// Mirrors, asked before the registry, in this order.
    pub mirrors: Vec<Mirror>,
}

impl Registry {
    /// True if the registry is accessed by HTTP without TLS.
    pub fn plain_http(&self) -> bool {
        self.plain_http.0
    }
}

/// Host with an optional port: `registry.site.org:5000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Host(String);

impl TryFrom<String> for Host {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match is_host(&text) {
            true => Ok(Self(canonical(&text))),
            false => Err(format!("{text:?} is no host of a registry, such as docker.io or registry.site.org:5000")),
        }
    }
}

/// Mirror of a registry: `https://mirror.site.org[:PORT][/PREFIX]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mirror {
    /// True if the mirror is accessed by HTTP without TLS.
    pub plain_http: bool,
    /// Host with an optional port.
    pub host: String,
    /// Prefix of repository names on the mirror, without a final slash; often empty.
    pub prefix: String,
}

impl TryFrom<String> for Mirror {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let refuse = || format!("{text:?} is no address of a mirror, such as https://mirror.site.org");
        let (plain_http, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(refuse()),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        if !is_host(host) || !(prefix.is_empty() || is_repository(prefix)) {
            return Err(refuse());
        }
        Ok(Self { plain_http, host: host.to_ascii_lowercase(), prefix: prefix.into() })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.plain_http { "http" } else { "https" };
        write!(out, "{scheme}://{}", self.host)?;
        if !self.prefix.is_empty() {
            write!(out, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

/// Canonical host of a registry that may have several.
pub fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    if DOCKER_HUB_ALIASES.contains(&host.as_str()) { DOCKER_HUB.into() } else { host }
}

/// True if `text` is a host name or address, with an optional port.
pub fn is_host(text: &str) -> bool {
    // An address has colons of its own only in brackets (RFC 3986, 3.2.2).
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok()
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// True if `text` is the name of a repository (distribution-spec, "Pulling manifests"): words of lower-case letters and
/// digits, with single dots, one or two underscores, or hyphens inside, and slashes between.
pub fn is_repository(text: &str) -> bool {
    let is_part = |part: &str| {
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = part.as_bytes();
        let ends = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
        let between = bytes.split(plain).filter(|gap| !gap.is_empty());
        ends && between
            .into_iter()
            .all(|gap| matches!(gap, b"." | b"_" | b"__") || gap.iter().all(|byte| *byte == b'-'))
    };
    text.len() <= 255 && text.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_repositories_are_told_from_what_is_none() {
        for good in ["docker.io", "localhost:5000", "10.0.0.1", "A.example:443", "[::1]:5000", "[fe80::1]", "x"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "a b", "user@host", "a..b", "-a", "a:0", "a:65536", "a:+5", "a:", "a/b", "[::1", "[x]", "a:1:2"]
        {
            assert!(!is_host(bad), "{bad}");
        }
        for good in ["a", "library/alpine", "a.b/c_d/e__f/g--h", "1/2"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", "A", "a//b", "/a", "a/", "..", "a/../b", "a..b", "a___b", "a.-b", "-a", "a%2fb", "é"] {
            assert!(!is_repository(bad), "{bad}");
        }
    }

    #[test]
    fn mirrors_are_addresses_without_secrets() {
        let of = |text: &str| Mirror::try_from(text.to_owned());
        let mirror = of("https://Mirror.site.org:8443/hub/").unwrap();
        assert_eq!((mirror.plain_http, &*mirror.host, &*mirror.prefix), (false, "mirror.site.org:8443", "hub"));
        assert_eq!(mirror.to_string(), "https://mirror.site.org:8443/hub");
        assert!(of("http://10.0.0.1:5000").unwrap().plain_http);
        for bad in ["mirror.site.org", "ftp://a", "https://user:word@a", "https://", "https://a/?x", "https://a/../b"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
