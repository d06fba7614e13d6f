//! Writes one record for each step and node, started or refused: the user, the image, the node, the image rule, and the
//! parts of the node in the container.
//!
//! The record of a start is appended to the site's file before the first task gets its answer, so it exists even if the
//! node or the launcher fails in the next moment. The log line, which may block, and the record for the user follow
//! when all tasks have their answers. All other records are written then, too.
#![forbid(unsafe_code)]

mod comment;
mod file;
pub mod journal;
pub mod metrics;
pub mod own;
pub mod record;

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{self, Audit, Config, Log, Metrics};
use crate::plan::Plan;
use crate::view::{Origin, Source, TIME_ZONE};
use coracle::report::{Refusal, clean};
use coracle::request::{Digest, PRIVATE, Request, Settings, step_name};
use coracle::wire::Start;

use crate::children::opener::Opener;
use crate::container::clock::Clock;

pub use comment::Comment;
pub use file::hold;
pub use record::{Bind, Record, Verdict};

/// Time limit for the user's name from the user database, once no task waits for the launcher.
const NAMING: Duration = Duration::from_secs(2);

/// Facts about a step for its record.
#[derive(Default)]
pub struct Entry<'a> {
    /// User's name on the node; it is looked up if it is missing.
    pub user: Option<&'a str>,
    /// Path of the image's file.
    pub path: Option<PathBuf>,
    /// Digest of the file.
    pub digest: Option<Digest>,
    /// Signers of the image.
    pub signers: Option<Vec<String>>,
    /// Step that was joined.
    pub joins: Option<u32>,
    /// Image rule that allowed it.
    pub rule: Option<&'a str>,
    /// Options in effect, and the site's settings.
    pub settings: Option<(&'a Settings, &'a Config)>,
    /// Refusal, if it was refused.
    pub refusal: Option<&'a Refusal>,
    /// Plan that was applied.
    pub plan: Option<&'a Plan>,
    /// Duration of each phase.
    pub clock: Option<&'a Clock>,
}

/// Records of a step on a node: their common fields and their destinations.
pub struct Trail<'a> {
    start: &'a Start,
    log: Log,
    log_plan: bool,
    audit: Audit,
    metrics: Metrics,
    common: Record,
    /// Result of appending the start record to the file; nothing before the first try.
    kept: Option<Result<(), Refusal>>,
}

impl<'a> Trail<'a> {
    /// Collects the common fields. If the request or the settings cannot be read, the other fields are still recorded;
    /// without settings, only the log's destination is known.
    pub fn of(start: &'a Start, request: Option<&Request>, config: Result<&Config, &config::Error>) -> Self {
        let config = config.ok();
        let node = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
        let common = Record {
            job: start.job,
            step: step_name(start.step),
            node: node.unwrap_or_default(),
            uid: start.identity.uid,
            image: request.map(|request| request.what.to_string()),
            path: request.and_then(Request::image).map(|image| image.path.to_string_lossy().into_owned()),
            options: request.map(|request| options(&request.settings, config)).unwrap_or_default(),
            nodes: start.nodes,
            tasks: start.tasks,
            ..Record::default()
        };
        Self {
            start,
            log: config.map_or(Log::Auto, |config| config.log),
            log_plan: config.is_some_and(|config| config.log_plan.0),
            audit: config.map(|config| config.audit.clone()).unwrap_or_default(),
            metrics: config.map(|config| config.metrics.clone()).unwrap_or_default(),
            common,
            kept: None,
        }
    }

    /// Appends the record of a container before tasks get it. After an error, they must not get it.
    pub fn begin(&mut self, entry: &Entry<'_>) -> Result<(), Refusal> {
        let record = self.record(entry, Verdict::Started);
        let kept = self.keep(&record);
        self.kept = Some(kept.clone());
        match kept {
            Err(refusal) if self.audit.required => {
                Err(refusal
                    .hint("no container starts on this node without its record (audit.required in coracle.yaml)"))
            }
            _ => Ok(()),
        }
    }

    /// Writes the record of a finished step, of which `entered` tasks entered the container. A missing log does not
    /// stop a job.
    pub fn end(mut self, entry: &Entry<'_>, entered: u32) {
        let verdict = Verdict::of(entry.refusal.is_some(), entered, self.start.tasks);
        self.conclude(entry, verdict, Some(entered));
    }

    /// Writes the record of a step that stays on the node.
    pub fn outside(mut self) {
        self.conclude(&Entry::default(), Verdict::Outside, None);
    }

    fn conclude(&mut self, entry: &Entry<'_>, verdict: Verdict, entered: Option<u32>) {
        let record = Record { entered, ..self.record(entry, verdict) };
        let known = matches!(self.kept, Some(Ok(()))) && verdict == Verdict::Started;
        let fault = match &self.kept {
            _ if known => None,
            // The first error may have been temporary.
            _ => self.keep(&record).err(),
        };
        let own = own::append(&self.audit.users, &record);
        let counted = self.metrics.file.as_ref().map_or(Ok(()), |file| metrics::count(&file.0, &record));
        let fault = fault.or(own.err()).or(counted.err());
        journal::write(self.log, &record, fault.as_ref(), entry.plan.filter(|_| self.log_plan));
    }

    fn keep(&self, record: &Record) -> Result<(), Refusal> {
        self.audit.file.as_ref().map_or(Ok(()), |file| file::append(&file.0, &record.to_line()))
    }

    fn record(&mut self, entry: &Entry<'_>, verdict: Verdict) -> Record {
        if self.common.user.is_none() {
            let known = entry.user.map(str::to_owned);
            self.common.user = known.or_else(|| name(self.start));
        }
        let common = self.common.clone();
        Record {
            time: humantime::format_rfc3339_micros(SystemTime::now()).to_string(),
            path: entry.path.as_ref().map(|path| path.to_string_lossy().into_owned()).or(common.path),
            digest: entry.digest.map(|digest| digest.to_string()),
            signers: entry.signers.clone(),
            joins: entry.joins.map(step_name),
            rule: entry.rule.map(str::to_owned),
            verdict,
            kind: entry.refusal.map(|refusal| refusal.kind.word().to_owned()),
            cause: entry.refusal.map(|refusal| clean(&format!("{}: {}", refusal.object, refusal.cause))),
            options: entry.settings.map_or(common.options, |(settings, config)| options(settings, Some(config))),
            binds: entry.plan.map(binds).unwrap_or_default(),
            devices: entry.plan.map(devices).unwrap_or_default(),
            builds: entry.clock.map(Clock::builds).filter(|builds| *builds > 1),
            microseconds: entry.clock.map(Clock::microseconds).unwrap_or_default(),
            ..common
        }
    }
}

/// Name of the job's user on the node.
fn name(start: &Start) -> Option<String> {
    let opener = Opener::start(&start.identity, Instant::now() + NAMING).ok()?;
    opener.account(&[]).ok()?.name().map(str::to_owned)
}

fn options(settings: &Settings, config: Option<&Config>) -> std::collections::BTreeMap<String, String> {
    let sites = config.map(|config| config.options.0.env.as_slice()).unwrap_or_default();
    settings.summary(sites).into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Binds of the container, without the image, devices, driver files and the kernel's file systems that every container
/// has.
fn binds(plan: &Plan) -> Vec<Bind> {
    let shown = plan.mounts.iter().filter(|mount| {
        let drivers = mount.origin == Origin::Driver && mount.place.starts_with(PRIVATE);
        !drivers && !matches!(mount.origin, Origin::Kernel | Origin::Device)
    });
    let bind = shown.filter_map(|mount| {
        let source = match &mount.source {
            Source::Node(path) | Source::Late(path) => path.to_string_lossy().into_owned(),
            Source::TimeZone => TIME_ZONE.to_owned(),
            Source::Memory(_) => "tmpfs".to_owned(),
            Source::Passwd | Source::Group | Source::Made(_) | Source::Links(_) => return None,
        };
        Some(Bind {
            source,
            target: mount.place.to_string_lossy().into_owned(),
            access: if mount.attributes.read_only { "ro" } else { "rw" }.to_owned(),
            origin: mount.origin.word().to_owned(),
        })
    });
    bind.collect()
}

/// Mount points on which device nodes open.
fn devices(plan: &Plan) -> Vec<String> {
    let open = plan.mounts.iter().filter(|mount| !mount.attributes.no_dev);
    open.map(|mount| mount.place.to_string_lossy().into_owned()).collect()
}
