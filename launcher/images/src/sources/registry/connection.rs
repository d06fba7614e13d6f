//! Sends requests to one registry, or one of its mirrors, with the login that it wants (distribution-spec; docker's
//! "Token Authentication Specification").
//!
//! A password goes to its own host, and to the realm that this host names, but never to the target of a redirection.
#![forbid(unsafe_code)]

use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle::report::{Kind, Refusal, clean};
use http_auth::ChallengeParser;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url, redirect};
use serde::Deserialize;

use super::credentials::Credentials;
use super::fault::Fault;

/// Time limit for a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// Limit of the redirections that are followed.
const REDIRECTS: usize = 10;
/// Limit of a token with its document, and of an error text, in bytes.
const LONGEST_TOKEN: u64 = 1 << 20;
const LONGEST_ERROR: u64 = 1 << 16;
/// Length of a registry's text in messages.
const SAID: usize = 200;

/// State of all connections. It has threads, so it must not exist when a process is forked.
pub struct Clients {
    follows: Client,
    stays: Client,
}

impl Clients {
    /// Makes clients that give up after `stall` without a byte.
    pub fn new(stall: Duration) -> Result<Self, Refusal> {
        // If another provider is installed already, it serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self { follows: client(stall, follow())?, stays: client(stall, redirect::Policy::none())? })
    }
}

fn follow() -> redirect::Policy {
    redirect::Policy::custom(|attempt| {
        let from_tls = attempt.previous().last().is_some_and(|previous| previous.scheme() == "https");
        if attempt.previous().len() > REDIRECTS {
            attempt.error("it redirects without an end")
        } else if from_tls && attempt.url().scheme() != "https" {
            attempt.error("it redirects to a place without TLS")
        } else {
            // reqwest removes the authorization header when the host changes.
            attempt.follow()
        }
    })
}

fn client(stall: Duration, policy: redirect::Policy) -> Result<Client, Refusal> {
    Client::builder()
        .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT.min(stall))
        .timeout(stall)
        .redirect(policy)
        .referer(false)
        .build()
        .map_err(|error| Fault::broken("TLS", &error).refusal("coracle"))
}

/// Place of images, with its repository and login.
pub struct Connection<'a> {
    clients: &'a Clients,
    origin: Url,
    label: String,
    repository: String,
    credentials: Option<Credentials>,
    login: Mutex<Option<HeaderValue>>,
}

impl<'a> Connection<'a> {
    /// Makes a connection to `host`, which messages call `label`, for images of `repository`.
    pub fn to(
        clients: &'a Clients,
        label: &str,
        host: &str,
        plain_http: bool,
        repository: String,
        credentials: Option<Credentials>,
    ) -> Result<Self, Fault> {
        let scheme = if plain_http { "http" } else { "https" };
        let origin = Url::parse(&format!("{scheme}://{host}/"))
            .map_err(|error| Fault::new(Kind::Usage, format!("{host}: {error}")))?;
        Ok(Self { clients, origin, label: label.into(), repository, credentials, login: Mutex::new(None) })
    }

    /// Name in messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Requests `path` of the repository once, from byte `from` on.
    pub fn get(&self, path: &str, accept: &str, from: u64) -> Result<Response, Fault> {
        let url = format!("{}v2/{}/{path}", self.origin, self.repository);
        let mut logged_in = false;
        loop {
            let mut request = self.clients.follows.get(&url).header(header::ACCEPT, accept);
            if from > 0 {
                request = request.header(header::RANGE, format!("bytes={from}-"));
            }
            if let Some(login) = self.login().as_ref() {
                request = request.header(header::AUTHORIZATION, login.clone());
            }
            let response = self.send(request)?;
            let status = response.status();
            // The target of a redirection must not make us log in.
            let own = response.url().origin() == self.origin.origin();
            if status == StatusCode::UNAUTHORIZED && own && !logged_in && self.log_in(response.headers())? {
                logged_in = true;
                continue;
            }
            return match status {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(response),
                _ => Err(self.fault(response, path)),
            };
        }
    }

    /// Reads an answer of at most `longest` bytes.
    pub fn read(&self, response: Response, longest: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        let read = response.take(longest + 1).read_to_end(&mut bytes);
        read.map_err(|error| Fault::broken(&self.label, &error))?;
        if bytes.len() as u64 > longest {
            return Err(Fault::new(Kind::Registry, format!("{} answers more than {longest} bytes", self.label)));
        }
        Ok(bytes)
    }

    fn login(&self) -> MutexGuard<'_, Option<HeaderValue>> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, request: RequestBuilder) -> Result<Response, Fault> {
        request.send().map_err(|error| {
            if error.is_timeout() {
                return Fault::passing(format!("{} does not answer", self.label));
            }
            if error.is_redirect() {
                return Fault::new(Kind::Registry, format!("{}: {}", self.label, root(&error)));
            }
            Fault::broken(&self.label, &error)
        })
    }

    /// Gets the login that the registry wants. Returns `false` if there is none.
    fn log_in(&self, headers: &HeaderMap) -> Result<bool, Fault> {
        let mut basic = false;
        for value in headers.get_all(header::WWW_AUTHENTICATE) {
            for challenge in ChallengeParser::new(value.to_str().unwrap_or_default()).map_while(Result::ok) {
                let parameter = |name: &str| {
                    let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let realm = parameter("realm").unwrap_or_default();
                    let token = self.token(&realm, parameter("service").as_deref())?;
                    *self.login() = Some(secret(format!("Bearer {token}"))?);
                    return Ok(true);
                }
                basic |= challenge.scheme.eq_ignore_ascii_case("basic");
            }
        }
        match &self.credentials {
            Some(Credentials::Password(user, password)) if basic => {
                let fresh = Some(secret(basic_auth(user, password))?);
                let mut login = self.login();
                let same = *login == fresh;
                *login = fresh;
                Ok(!same)
            }
            _ => Ok(false),
        }
    }

    /// Requests a token from the realm that the registry names.
    fn token(&self, realm: &str, service: Option<&str>) -> Result<String, Fault> {
        let no_realm = || Fault::new(Kind::Registry, format!("{} wants a token from {realm:?}", self.label));
        let mut url = Url::parse(realm).map_err(|_| no_realm())?;
        // A password that came over TLS is sent only over TLS.
        if !(url.scheme() == "https" || url.scheme() == "http" && self.origin.scheme() == "http") {
            return Err(no_realm().hint("it would get your password without TLS"));
        }
        let scope = format!("repository:{}:pull", self.repository);
        let mut pairs = vec![("scope", scope.as_str())];
        pairs.extend(service.map(|service| ("service", service)));
        // Credentials are for the realm, not for the target of a redirection.
        let request = match &self.credentials {
            Some(Credentials::Token(token)) => {
                pairs.extend([("grant_type", "refresh_token"), ("client_id", "coracle"), ("refresh_token", token)]);
                let mut form = url.clone();
                form.query_pairs_mut().clear().extend_pairs(pairs);
                let body = form.query().unwrap_or_default().to_owned();
                self.clients
                    .stays
                    .post(url)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(body)
            }
            Some(Credentials::Password(user, password)) => {
                url.query_pairs_mut().extend_pairs(pairs);
                self.clients.stays.get(url).header(header::AUTHORIZATION, secret(basic_auth(user, password))?)
            }
            None => {
                url.query_pairs_mut().extend_pairs(pairs);
                self.clients.follows.get(url)
            }
        };
        let response = self.send(request)?;
        if response.status() != StatusCode::OK {
            return Err(self.fault(response, "token"));
        }
        let bytes = self.read(response, LONGEST_TOKEN)?;
        let bad = || Fault::new(Kind::Registry, format!("{} has no token for us", self.label));
        let answer: Token = serde_json::from_slice(&bytes).map_err(|_| bad())?;
        [answer.token, answer.access_token].into_iter().flatten().find(|token| !token.is_empty()).ok_or_else(bad)
    }

    /// Fault of an unexpected answer.
    fn fault(&self, response: Response, path: &str) -> Fault {
        let (status, host) = (response.status(), &self.label);
        let wait =
            response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let wait = wait.map(Duration::from_secs);
        let elsewhere = response.url().origin() != self.origin.origin() && path != "token";
        let said = said(response);
        let registry = |cause: String| Fault::new(Kind::Registry, format!("{cause}{said}"));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if elsewhere => {
                registry(format!("{host} redirects to a place that does not give it out ({})", status.as_u16()))
            }
            StatusCode::UNAUTHORIZED if self.credentials.is_some() => {
                registry(format!("{host} does not let you have it, or does not know this user and password (401)"))
                    .hint(format!("podman login {host} or docker login {host}, or there is no such image"))
            }
            StatusCode::UNAUTHORIZED => registry(format!("{host} wants a login, or has no such image (401)"))
                .hint(format!("podman login {host} or docker login {host}, if the name is right")),
            StatusCode::FORBIDDEN => registry(format!("{host} does not let you have it (403)"))
                .hint(format!("podman login {host} or docker login {host}, if the name is right")),
            StatusCode::NOT_FOUND if path.starts_with("manifests/") => {
                registry(format!("{host} has no such image (404)"))
            }
            StatusCode::NOT_FOUND => registry(format!("{host} lacks a part of the image (404)")),
            StatusCode::TOO_MANY_REQUESTS => {
                let fault = Fault::passing(format!("{host} limits how much you may ask for (429){said}")).after(wait);
                match self.credentials {
                    Some(_) => fault,
                    None => fault.hint(format!("podman login {host} or docker login {host} may give you more")),
                }
            }
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                Fault::passing(format!("{host} has trouble ({}){said}", status.as_u16())).after(wait)
            }
            status => registry(format!("{host} answers {}", status.as_u16())),
        }
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Errors of a registry (distribution-spec, "Error Codes").
#[derive(Deserialize)]
struct Errors {
    errors: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Registry's own text about an error, if there is one.
fn said(response: Response) -> String {
    let mut bytes = Vec::new();
    let _ = response.take(LONGEST_ERROR).read_to_end(&mut bytes);
    let first = serde_json::from_slice(&bytes).ok().and_then(|errors: Errors| errors.errors.into_iter().next());
    let text = first.map(|problem| if problem.message.is_empty() { problem.code } else { problem.message });
    text.filter(|text| !text.is_empty()).map_or(String::new(), |text| {
        let text = clean(&text);
        format!(": {}", &text[..text.floor_char_boundary(SAID)])
    })
}

fn basic_auth(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn secret(text: String) -> Result<HeaderValue, Fault> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Fault::new(Kind::Registry, "the login has characters that cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}
