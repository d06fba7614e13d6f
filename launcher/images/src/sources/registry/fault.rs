//! Defines faults of a registry, and repeats requests after passing ones.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::time::Duration;

use coracle::report::{Kind, Refusal};

/// Number of tries.
const TRIES: u32 = 5;
/// Wait after the first try. It doubles after each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Limit of the wait that a registry may request.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Reason why a place does not give a blob or manifest.
#[derive(Debug)]
pub struct Fault {
    kind: Kind,
    cause: String,
    hint: Option<String>,
    object: Option<String>,
    again: bool,
    wait: Option<Duration>,
    local: bool,
}

impl Fault {
    /// Makes a permanent fault.
    pub fn new(kind: Kind, cause: impl Into<String>) -> Self {
        Self { kind, cause: cause.into(), hint: None, object: None, again: false, wait: None, local: false }
    }

    /// Makes a fault that may pass by the next try.
    pub fn passing(cause: impl Into<String>) -> Self {
        Self { again: true, ..Self::new(Kind::Registry, cause) }
    }

    /// Makes a fault of this host: no other place could help.
    pub fn here(refusal: Refusal) -> Self {
        let local = Self::new(refusal.kind, refusal.cause);
        Self { object: Some(refusal.object), hint: refusal.hint, local: true, ..local }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the wait that the registry requests.
    #[must_use]
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait;
        self
    }

    /// True if no other place could help.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Text for the note when another place is asked instead.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// Refusal for the user.
    pub fn refusal(self, object: &str) -> Refusal {
        let mut refusal = Refusal::new(self.kind, self.object.as_deref().unwrap_or(object), self.cause);
        refusal.hint = self.hint;
        refusal
    }

    /// Fault of a connection that broke.
    pub fn broken(host: &str, error: &(dyn Error + 'static)) -> Self {
        let root = innermost(error);
        if let Some(error) = root.downcast_ref::<rustls::Error>() {
            return Self::of_tls(host, error);
        }
        let said = root.to_string();
        let refused = root.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
            )
        });
        let unknown = said.starts_with("failed to lookup address");
        let cause = format!("{host} cannot be reached: {said}");
        match refused || unknown {
            true => Self::new(Kind::Registry, cause),
            false => Self::passing(format!("{host}: {said}")),
        }
    }

    fn of_tls(host: &str, error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidMessage(_) => Self::new(Kind::Registry, format!("{host} does not speak TLS"))
                .hint("--plain-http if its network can be trusted, or plain_http: yes for it in coracle.yaml"),
            rustls::Error::InvalidCertificate(why) => {
                Self::new(Kind::Registry, format!("{host} has a certificate that is not accepted: {why}"))
                    .hint("a site's own authority belongs into this machine's certificates, or SSL_CERT_FILE names it")
            }
            other => Self::new(Kind::Registry, format!("{host}: TLS: {other}")),
        }
    }
}

/// A permanent fault of a document that the place has sent.
impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self { hint: refusal.hint, ..Self::new(refusal.kind, refusal.cause) }
    }
}

/// First cause of an error.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    loop {
        // An io::Error hides its inner error from source().
        let hidden = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error = match (hidden, error.source()) {
            (Some(inner), _) => inner,
            (None, Some(inner)) => inner,
            (None, None) => return error,
        };
    }
}

/// Number of tries so far, and the wait before the next one.
#[derive(Debug, Default)]
pub struct Patience {
    tried: u32,
}

impl Patience {
    /// Waits for the next try, if `fault` may pass and tries are left.
    pub fn spend(&mut self, mut fault: Fault) -> Result<(), Fault> {
        self.tried += 1;
        if !fault.again {
            return Err(fault);
        }
        if let Some(wait) = fault.wait.filter(|wait| *wait > LONGEST_WAIT) {
            fault.cause = format!("{}; it says to wait {} s", fault.cause, wait.as_secs());
            return Err(fault);
        }
        if self.tried >= TRIES {
            fault.cause = format!("{} (tried {TRIES} times)", fault.cause);
            return Err(fault);
        }
        std::thread::sleep(fault.wait.unwrap_or(FIRST_WAIT * 2_u32.pow(self.tried - 1)));
        Ok(())
    }

    /// Resets the tries after some progress.
    pub fn renew(&mut self) {
        self.tried = 0;
    }
}

/// Repeats a request until it succeeds or fails with a permanent fault.
pub fn patiently<T>(mut what: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
    let mut patience = Patience::default();
    loop {
        match what() {
            Ok(done) => return Ok(done),
            Err(fault) => patience.spend(fault)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_stays_is_not_tried_again_and_one_that_passes_is() {
        let mut tried = 0;
        let stays = patiently(|| {
            tried += 1;
            Err::<(), _>(Fault::new(Kind::Registry, "no"))
        });
        assert_eq!((stays.unwrap_err().cause(), tried), ("no", 1));
        tried = 0;
        let passes = patiently(|| {
            tried += 1;
            let fault = Fault::passing("busy").after(Some(Duration::ZERO));
            if tried < 3 { Err(fault) } else { Ok(()) }
        });
        assert_eq!((passes.is_ok(), tried), (true, 3));
        let long = patiently(|| Err::<(), _>(Fault::passing("busy").after(Some(Duration::from_secs(3600)))));
        assert_eq!(long.unwrap_err().cause(), "busy; it says to wait 3600 s");
        let ever = patiently(|| Err::<(), _>(Fault::passing("busy").after(Some(Duration::ZERO))));
        assert_eq!(ever.unwrap_err().cause(), "busy (tried 5 times)");
    }
}
