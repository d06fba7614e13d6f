//! Parses names of images in registries, as docker does: the defaults are Docker Hub, `library/` and `latest`.
#![forbid(unsafe_code)]

use std::fmt;

use coracle::report::{Kind, Refusal};
use coracle_launcher::config::{canonical, is_host, is_repository};

use crate::sources::digest::Digest;

const DOCKER_HUB: &str = "docker.io";
/// Host of Docker Hub's registry.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// Image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Host of the registry, and maybe a port; `docker.io` for all names of Docker Hub.
    pub registry: String,
    /// Repository, with `library/`.
    pub repository: String,
    /// Tag, if there is no digest: a digest replaces it.
    pub tag: Option<String>,
    /// Digest of the manifest or index.
    pub digest: Option<Digest>,
    typed: String,
}

impl Name {
    /// Parses `[docker://][REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
    pub fn of(typed: &str) -> Result<Self, Refusal> {
        let text = typed.strip_prefix("docker://").unwrap_or(typed);
        let typed = format!("docker://{text}");
        let refuse = |cause: String| Refusal::new(Kind::Usage, &typed, cause);
        // An @ with a slash behind it is that of a URL, and a login precedes it.
        if let Some((_, rest)) = text.split_once('@').filter(|(_, rest)| rest.contains('/')) {
            let shown = format!("docker://…@{rest}");
            return Err(Refusal::new(Kind::Usage, shown, "no user or password belongs into the name of an image")
                .hint(format!("docker login or podman login keeps them; the image is docker://{rest}")));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(&refuse)?)),
            None => (text, None),
        };
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last..].split_once(':') {
            // A colon before the last slash belongs to a port, not to a tag.
            Some((word, tag)) => (&rest[..last + word.len()], Some(tag)),
            None => (rest, None),
        };
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':', '[']) || host == "localhost" => (canonical(host), rest),
            _ => (DOCKER_HUB.into(), name),
        };
        if !is_host(&registry) {
            return Err(refuse(format!("{registry:?} is no registry's host")));
        }
        let library = registry == DOCKER_HUB && !repository.contains('/') && !repository.is_empty();
        let repository = if library { format!("library/{repository}") } else { repository.to_owned() };
        if !is_repository(&repository) {
            let small = repository.to_ascii_lowercase();
            let refusal = refuse(if repository.is_empty() {
                "the name of a repository is missing".into()
            } else {
                format!("{repository:?} is no name of a repository")
            });
            let only_case = small != repository && is_repository(&small);
            return Err(if only_case { refusal.hint("they are in lower case") } else { refusal });
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(refuse(format!("{tag:?} is no tag: up to 128 letters, digits, _, . and -")));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry, repository, tag, digest, typed })
    }

    /// Name as the user typed it, with `docker://`.
    pub fn typed(&self) -> &str {
        &self.typed
    }

    /// Reference for requests: the digest, or else the tag.
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }

    /// Host of the registry.
    pub fn host(&self) -> &str {
        if self.registry == DOCKER_HUB { DOCKER_HUB_HOST } else { &self.registry }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(out, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// True for a tag (distribution-spec, "Pulling manifests").
fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_whole_as_docker_has_them() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        for (typed, whole) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("docker://alpine:3.20", "docker.io/library/alpine:3.20"),
            ("biocontainers/samtools:1", "docker.io/biocontainers/samtools:1"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("ghcr.io/a/b/c:x-1", "ghcr.io/a/b/c:x-1"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
            ("Registry.Site.it:5000/a", "registry.site.it:5000/a:latest"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            (&format!("a@{digest}"), &format!("docker.io/library/a@{digest}")),
            (&format!("x.y/a:t@{digest}"), &format!("x.y/a:t@{digest}")),
        ] {
            let name = Name::of(typed).unwrap();
            assert_eq!(name.to_string(), whole, "{typed}");
        }
        assert_eq!(Name::of("alpine").unwrap().host(), "registry-1.docker.io");
        assert_eq!(Name::of(&format!("a:t@{digest}")).unwrap().wanted(), digest);
    }

    #[test]
    fn what_is_no_name_is_refused_and_why() {
        for (typed, cause) in [
            ("", "repository is missing"),
            ("ghcr.io/", "repository is missing"),
            ("Alpine", "is no name of a repository"),
            ("a/../b", "is no name of a repository"),
            ("user:word@ghcr.io/a", "no user or password belongs into the name of an image"),
            ("docker://user@ghcr.io/a:1", "no user or password belongs into the name of an image"),
            ("ghcr.io/a@latest", "is no digest"),
            ("ghcr.io:x/a", "is no registry's host"),
            ("a:", "is no tag"),
            ("a:-b", "is no tag"),
            ("a:b c", "is no tag"),
            ("a@sha1:00", "\"sha1\" are not known"),
            ("a@sha256:00", "has 64 digits"),
            ("a?x=1", "is no name of a repository"),
            ("//a", "is no name of a repository"),
        ] {
            let refusal = Name::of(typed).unwrap_err();
            assert!(refusal.kind == Kind::Usage && refusal.cause.contains(cause), "{typed}: {refusal}");
        }
        let login = Name::of("docker://user:secret@ghcr.io/a:1").unwrap_err();
        let wanted = "docker login or podman login keeps them; the image is docker://ghcr.io/a:1";
        assert_eq!((login.hint.as_deref(), login.to_string().contains("secret")), (Some(wanted), false));
        assert!(Name::of("Alpine").unwrap_err().hint.unwrap().contains("lower case"));
    }
}
