//! One line for each step and node: who ran what, and whether it was allowed. Behind it, if the site wants that, the
//! plan that was carried out, a line each.
#![forbid(unsafe_code)]

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use coracle::config::Log;
use coracle::plan::Plan;
use coracle::report::{Refusal, clean};
use coracle::request::{Request, step_name};
use coracle::wire::Start;

use crate::stages::Clock;

/// The journal's own socket (systemd-journald.service(8), "Native Journal Protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";
/// syslog's (syslog(3)).
const SYSLOG: &str = "/dev/log";
/// How long a logger may take with one line.
const PATIENCE: Duration = Duration::from_millis(200);
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
    /// What was done, if that is to be logged.
    pub plan: Option<&'a Plan>,
}

impl<'a> Entry<'a> {
    /// What is known before anything was done.
    pub fn of(start: &'a Start, request: Option<&'a Request>) -> Self {
        Self { start, request, digest: None, rule: None, refusal: None, answered: 0, clock: None, plan: None }
    }

    /// What tells this step on this node from all others.
    fn place(&self) -> Vec<(&'static str, String)> {
        let node = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        vec![("job", self.start.job.to_string()), ("step", step_name(self.start.step)), ("node", node)]
    }

    fn fields(&self) -> Vec<(&'static str, String)> {
        let image = self.request.map_or("-".into(), |request| match request.image() {
            Some(image) => image.path.display().to_string(),
            None => request.what.to_string(),
        });
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let mut fields = self.place();
        fields.extend([
            ("uid", self.start.identity.uid.to_string()),
            ("image", format!("{:?}", clean(&image))),
            ("digest", or_dash(self.digest.clone())),
            ("rule", or_dash(self.rule.map(str::to_owned))),
            ("verdict", self.verdict().to_owned()),
        ]);
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

    /// The lines of the plan, each with its place in front.
    fn plan(&self) -> Vec<Vec<(&'static str, String)>> {
        let text = self.plan.map(ToString::to_string).unwrap_or_default();
        let line = |line: &str| self.place().into_iter().chain([("plan", format!("{:?}", clean(line)))]).collect();
        text.lines().map(line).collect()
    }

    /// Writes it where the site wants it. A log that is not there stops no job.
    pub fn write(&self, log: Log) {
        let journal = Path::new(JOURNAL).exists();
        for fields in std::iter::once(self.fields()).chain(self.plan()) {
            let sent = match log {
                Log::None => Ok(()),
                Log::Journal => to_journal(&fields),
                Log::Auto if journal => to_journal(&fields),
                Log::Auto | Log::Syslog => to_syslog(&fields),
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

fn line(fields: &[(&'static str, String)]) -> String {
    let words: Vec<String> = fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
    words.join(" ")
}

fn to_journal(fields: &[(&'static str, String)]) -> std::io::Result<()> {
    let mut message = format!("PRIORITY=6\nSYSLOG_IDENTIFIER=coracle\nMESSAGE={}\n", line(fields));
    for (key, value) in fields {
        message.push_str(&format!("CORACLE_{}={value}\n", key.to_uppercase()));
    }
    send(JOURNAL, message.as_bytes())
}

fn to_syslog(fields: &[(&'static str, String)]) -> std::io::Result<()> {
    send(SYSLOG, format!("<{PRIORITY}>coracle[{}]: {}", std::process::id(), line(fields)).as_bytes())
}

fn send(socket: &str, message: &[u8]) -> std::io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    // A socket takes ten datagrams as a rule (net.unix.max_dgram_qlen), and a plan has more lines; but a logger that does
    // not read must not keep us.
    datagram.set_write_timeout(Some(PATIENCE))?;
    datagram.send_to(message, socket).map(drop)
}
