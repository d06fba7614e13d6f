//! Looks up user names and passwords of registries where `podman login` and `docker login` keep them
//! (containers-auth.json(5)).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle::report::{Kind, Refusal, clean};
use coracle_launcher::config::canonical;
use serde::Deserialize;

use crate::sources::json::null_is_default;

/// Limit of a file that is read, in bytes.
const LONGEST: u64 = 4 << 20;
/// Docker's name for Docker Hub in its files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// Prefixes of variables that name a user and a password: Coracle's, and those of Apptainer's users.
const PREFIXES: [&str; 3] = ["CORACLE", "APPTAINER", "SINGULARITY"];
/// User name with which a helper marks a token instead of a password.
const TOKEN: &str = "<token>";

/// Credentials for a registry. They are never printed: the type has no Debug.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User name and password.
    Password(String, String),
    /// Token with which others are requested.
    Token(String),
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    #[serde(deserialize_with = "null_is_default")]
    auths: BTreeMap<String, Option<Entry>>,
    #[serde(deserialize_with = "null_is_default")]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    username: String,
    secret: String,
}

/// Looks up the login for `repository` of `registry`: in the variables, if the user `named` the registry, in the given
/// file, or else in the first of the usual files that has one.
pub fn find(
    given: Option<&Path>,
    registry: &str,
    repository: &str,
    named: bool,
) -> Result<Option<Credentials>, Refusal> {
    if let Some(path) = given {
        let text = read(path)?.ok_or_else(|| unreadable(path, "no such file".into()))?;
        return look(path, &text, registry, repository);
    }
    if let Some(found) = variables().filter(|_| named) {
        return Ok(Some(found));
    }
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = variable("REGISTRY_AUTH_FILE") {
        return read(&path)?.map_or(Ok(None), |text| look(&path, &text, registry, repository));
    }
    for path in places(variable) {
        let found = read(&path).and_then(|text| text.map_or(Ok(None), |text| look(&path, &text, registry, repository)));
        match found {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            // The user has not named this file. A public image needs no login; for others, the registry reports it.
            Err(Refusal { object, cause, .. }) => {
                let path = path.display().to_string();
                let what = if object == path { cause } else { format!("{object}: {cause}") };
                eprintln!(
                    "{}",
                    clean(&format!("coracle: {path}: {what}; going on without what it has for {registry}"))
                );
            }
        }
    }
    Ok(None)
}

fn variables() -> Option<Credentials> {
    let of = |prefix: &str, word: &str| std::env::var(format!("{prefix}_DOCKER_{word}")).ok();
    PREFIXES.iter().find_map(|prefix| {
        let user = of(prefix, "USERNAME").filter(|user| !user.is_empty())?;
        Some(Credentials::Password(user, of(prefix, "PASSWORD")?))
    })
}

fn places(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let home = variable("HOME");
    let below_home = |directory: &str| home.as_ref().map(|home| home.join(directory));
    [
        variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
        variable("XDG_CONFIG_HOME")
            .or_else(|| below_home(".config"))
            .map(|directory| directory.join("containers/auth.json")),
        variable("DOCKER_CONFIG").map(|directory| directory.join("config.json")),
        below_home(".docker/config.json"),
        variable("APPTAINER_CONFIGDIR")
            .or_else(|| below_home(".apptainer"))
            .map(|directory| directory.join("docker-config.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn unreadable(path: &Path, cause: String) -> Refusal {
    Refusal::new(Kind::Usage, path.display().to_string(), cause)
}

/// Text of a file, if it exists.
fn read(path: &Path) -> Result<Option<String>, Refusal> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(unreadable(path, format!("cannot be read: {error}"))),
    };
    let mut text = String::new();
    let read = file.take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| unreadable(path, format!("cannot be read: {error}")))?;
    Ok(Some(text))
}

/// Looks up a login in the text of a file. Messages repeat none of the text.
fn look(path: &Path, text: &str, registry: &str, repository: &str) -> Result<Option<Credentials>, Refusal> {
    let bad = |what: &str| unreadable(path, what.to_owned());
    if text.trim().is_empty() {
        return Ok(None);
    }
    let file: AuthFile = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        bad(&format!("no file of docker login or podman login: line {line}, column {column}"))
    })?;
    if let Some((key, helper)) = file.cred_helpers.iter().find(|(key, _)| host_of(key) == registry) {
        return ask(helper, key);
    }
    let found = keys(registry, repository).into_iter().find_map(|key| {
        let entries = file.auths.iter().filter_map(|(name, entry)| Some((name, entry.as_ref()?)));
        entries.filter(|(name, entry)| plain(name) == key && entry.has_something()).map(|(_, entry)| entry).next()
    });
    if let Some(entry) = found {
        return entry.read().map(Some).ok_or_else(|| bad(&format!("what it has for {registry} cannot be read")));
    }
    match &file.creds_store {
        Some(helper) if !helper.is_empty() => ask(helper, if registry == "docker.io" { DOCKER_HUB } else { registry }),
        _ => Ok(None),
    }
}

/// Keys under which a repository may be stored, the most specific first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let whole = format!("{registry}/{repository}");
    let ends = whole.match_indices('/').map(|(at, _)| at).rev();
    std::iter::once(whole.len()).chain(ends).map(|end| whole[..end].to_owned()).collect()
}

/// Key without the parts that older programs put around hosts.
fn plain(key: &str) -> String {
    let without = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    match without {
        // A URL: only its host counts.
        Some(rest) => canonical(rest.split('/').next().unwrap_or(rest)),
        None => {
            let (host, rest) = key.split_once('/').map_or((key, ""), |(host, rest)| (host, rest));
            let host = canonical(host);
            if matches!(rest, "" | "v1" | "v1/" | "v2" | "v2/") { host } else { format!("{host}/{rest}") }
        }
    }
}

fn host_of(key: &str) -> String {
    plain(key).split('/').next().unwrap_or_default().to_owned()
}

impl Entry {
    fn has_something(&self) -> bool {
        [&self.auth, &self.identitytoken, &self.username]
            .iter()
            .any(|part| part.as_ref().is_some_and(|text| !text.is_empty()))
    }

    fn read(&self) -> Option<Credentials> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Some(Credentials::Token(token.clone()));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
            let (user, password) = text.split_once(':')?;
            // Some programs have padded it.
            return Some(Credentials::Password(user.into(), password.trim_end_matches('\0').into()));
        }
        Some(Credentials::Password(self.username.clone()?, self.password.clone()?))
    }
}

/// Runs a docker credential helper: `docker-credential-NAME get`, with the registry on its standard input.
fn ask(helper: &str, key: &str) -> Result<Option<Credentials>, Refusal> {
    let name = format!("docker-credential-{helper}");
    let refuse = |cause: String| Refusal::new(Kind::System, &name, cause);
    if helper.is_empty() || helper.contains('/') {
        return Err(refuse("not the name of a program".into()));
    }
    let mut command = Command::new(&name);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => refuse("there is no such program".into()),
        _ => refuse(error.to_string()),
    })?;
    if let Some(mut input) = child.stdin.take() {
        // The helper may answer before it has read its input.
        let _ = input.write_all(key.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| refuse(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        return match said.contains("credentials not found") {
            true => Ok(None),
            false => Err(refuse(format!("{}, asked about {key}", output.status))),
        };
    }
    // Not the parser's message, which could repeat the secret.
    let given: Given =
        serde_json::from_slice(&output.stdout).map_err(|_| refuse("its answer cannot be read".into()))?;
    Ok(match given {
        Given { username, secret } if username.is_empty() && secret.is_empty() => None,
        Given { username, secret } if username == TOKEN => Some(Credentials::Token(secret)),
        Given { username, secret } => Some(Credentials::Password(username, secret)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, registry: &str, repository: &str) -> Option<(String, String)> {
        match look(Path::new("auth.json"), text, registry, repository).unwrap_or_else(|refusal| panic!("{refusal}")) {
            Some(Credentials::Password(user, password)) => Some((user, password)),
            Some(Credentials::Token(token)) => Some((TOKEN.into(), token)),
            None => None,
        }
    }

    fn auth(user: &str) -> String {
        format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(format!("{user}:pass:word")))
    }

    #[test]
    fn the_most_particular_key_counts_and_no_other_hosts() {
        let text = format!(
            r#"{{"auths":{{"ghcr.io":{},"ghcr.io/a":{},"ghcr.io/a/b":{},"https://index.docker.io/v1/":{},
            "http://old:5000/v2/":{},"empty.org":{{}},"token.org":{{"identitytoken":"x","auth":"{}"}}}}}}"#,
            auth("host"),
            auth("group"),
            auth("repository"),
            auth("hub"),
            auth("old"),
            STANDARD.encode("<token>:"),
        );
        let user = |registry: &str, repository: &str| of(&text, registry, repository).map(|(user, _)| user);
        assert_eq!(of(&text, "ghcr.io", "x"), Some(("host".into(), "pass:word".into())));
        assert_eq!(user("ghcr.io", "a/c").as_deref(), Some("group"));
        assert_eq!(user("ghcr.io", "ab").as_deref(), Some("host"));
        assert_eq!(user("ghcr.io", "a/b").as_deref(), Some("repository"));
        assert_eq!(user("docker.io", "library/alpine").as_deref(), Some("hub"));
        assert_eq!(user("old:5000", "a").as_deref(), Some("old"));
        assert_eq!(user("token.org", "a").as_deref(), Some(TOKEN));
        for other in ["ghcr.io:443", "old", "evil.ghcr.io", "ghcr.io.evil", "empty.org"] {
            assert_eq!(user(other, "a/b"), None, "{other}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_refused_without_its_contents() {
        let secret = r#"{"auths":{"a.org":{"auth":["hunter2"]}}}"#;
        let wrong = r#"{"auths":{"a.org":{"auth":"hunter2!"}}}"#;
        for text in [secret, wrong] {
            let refusal = look(Path::new("auth.json"), text, "a.org", "b").err().unwrap();
            assert!(refusal.kind == Kind::Usage && !refusal.to_string().contains("hunter2"), "{refusal}");
        }
        let helper = r#"{"credHelpers":{"a.org":"../../bin/sh"}}"#;
        let refusal = look(Path::new("auth.json"), helper, "a.org", "b").err().unwrap();
        assert!(refusal.cause.contains("not the name of a program"), "{refusal}");
    }

    #[test]
    fn the_usual_places_are_looked_at_in_order() {
        let of = |pairs: &[(&str, &str)]| -> Vec<String> {
            let value = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
            places(value).iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(
            of(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r"), ("DOCKER_CONFIG", "/d")]),
            [
                "/r/containers/auth.json",
                "/h/.config/containers/auth.json",
                "/d/config.json",
                "/h/.docker/config.json",
                "/h/.apptainer/docker-config.json"
            ]
        );
        assert_eq!(of(&[("APPTAINER_CONFIGDIR", "/a")]), ["/a/docker-config.json"]);
    }

    #[test]
    fn nulls_and_empty_files_say_nothing() {
        let texts = ["", " \n", "{}", r#"{"auths":null,"credHelpers":null,"credsStore":null}"#, r#"{"credsStore":""}"#];
        for text in texts.iter().chain(&[r#"{"auths":{"a.org":null}}"#]) {
            assert_eq!(of(text, "a.org", "b"), None, "{text}");
        }
    }
}
