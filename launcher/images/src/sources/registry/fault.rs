//! Faults of a registry, and those that are worth another try.
#![forbid(unsafe_code)]

use std::error::Error;
use std::io;
use std::time::Duration;

use coracle::report::{Kind, Refusal};

/// Number of tries.
const TRIES: u32 = 5;
/// Wait after the first try; after each further one it is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest time that a registry may have us wait.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a place does not give something out.
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
    /// One that stays.
    pub fn new(kind: Kind, cause: impl Into<String>) -> Self {
        Self { kind, cause: cause.into(), hint: None, object: None, again: false, wait: None, local: false }
    }

    /// One that may have passed at the next try.
    pub fn passing(cause: impl Into<String>) -> Self {
        Self { again: true, ..Self::new(Kind::Registry, cause) }
    }

    /// One of this machine's: no other place could help.
    pub fn here(refusal: Refusal) -> Self {
        let local = Self::new(refusal.kind, refusal.cause);
        Self { object: Some(refusal.object), hint: refusal.hint, local: true, ..local }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, when the registry has said how long to wait.
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

    /// Something that was sent or received broke.
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

/// The first cause of an error.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    loop {
        // An error of io hides what it has been made of from source().
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
    /// Waits until it may be tried again, if `fault` may pass and there have not been too many.
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

    /// It did go on for a while.
    pub fn renew(&mut self) {
        self.tried = 0;
    }
}

/// Tries something until it works or a fault stays.
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
