//! One line for each step and node: who ran what, and whether it was allowed.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use coracle::config::Log;
use coracle::report::{Refusal, clean};
use coracle::request::{Request, step_name};
use coracle::wire::Start;

use crate::stages::Clock;

/// The journal's own socket (systemd-journald.service(8), "Native Journal Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// syslog's (syslog(3)).
const SYSLOG: &str = "/dev/log";
/// Facility daemon, severity informational (RFC 5424, 6.2.1).
const PRIORITY: &str = "30";

/// What is known of a step when it is written down.
pub struct Entry<'a> {
    /// The step.
    pub start: &'a Start,
    /// The request, if it could be read.
    pub request: Option<&'a Request>,
    /// The digest, if it was computed.
    pub digest: Option<String>,
    /// The rule that allowed it.
    pub rule: Option<&'a str>,
    /// Why it was refused, if it was.
    pub refusal: Option<&'a Refusal>,
    /// How many tasks have been let in.
    pub answered: u32,
    /// How long each phase took.
    pub clock: Option<&'a Clock>,
}

impl<'a> Entry<'a> {
    /// What is known before anything was done.
    pub fn of(start: &'a Start, request: Option<&'a Request>) -> Self {
        Self { start, request, digest: None, rule: None, refusal: None, answered: 0, clock: None }
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let node = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let image = self.request.map_or("-".into(), |request| match request.image() {
            Some(image) => image.path.display().to_string(),
            None => request.what.to_string(),
        });
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let mut fields = vec![
            ("job", self.start.job.to_string()),
            ("step", step_name(self.start.step)),
            ("node", node),
            ("uid", self.start.identity.uid.to_string()),
            ("image", format!("{:?}", clean(&image))),
            ("digest", or_dash(self.digest.clone())),
            ("rule", or_dash(self.rule.map(str::to_owned))),
            ("verdict", self.verdict().to_owned()),
        ];
        if let Some(refusal) = self.refusal {
            fields.push(("cause", format!("{:?}", refusal.line())));
        }
        for (phase, milliseconds) in self.clock.map(Clock::milliseconds).unwrap_or_default() {
            fields.push((phase, format!("{milliseconds}ms")));
        }
        fields
    }

    fn verdict(&self) -> &'static str {
        match (self.refusal, self.answered) {
            (Some(_), _) => "refused",
            // The step was ended before any task came.
            (None, 0) => "abandoned",
            (None, _) => "started",
        }
    }

    /// Writes it where the site wants it. A log that is not there stops no job.
    pub fn write(&self, log: Log) {
        let journal = Path::new(JOURNAL).exists();
        let _ = match log {
            Log::None => Ok(()),
            Log::Journal => self.to_journal(),
            Log::Auto if journal => self.to_journal(),
            Log::Auto | Log::Syslog => self.to_syslog(),
        };
    }

    fn line(&self) -> String {
        let words: Vec<String> = self.fields().iter().map(|(key, value)| format!("{key}={value}")).collect();
        words.join(" ")
    }

    fn to_journal(&self) -> std::io::Result<()> {
        let mut message = format!("PRIORITY=6\nSYSLOG_IDENTIFIER=coracle\nMESSAGE={}\n", self.line());
        for (key, value) in self.fields() {
            message.push_str(&format!("CORACLE_{}={value}\n", key.to_uppercase()));
        }
        send(JOURNAL, message.as_bytes())
    }

    fn to_syslog(&self) -> std::io::Result<()> {
        send(SYSLOG, format!("<{PRIORITY}>coracle[{}]: {}", std::process::id(), self.line()).as_bytes())
    }
}

fn send(socket: &str, message: &[u8]) -> std::io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    // A logger that does not read must not hold up a job.
    datagram.set_nonblocking(true)?;
    datagram.send_to(message, socket).map(drop)
}
