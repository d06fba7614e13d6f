//! `coracle prepare`: builds the container of one step on one node and hands it to the tasks.
//!
//! The plugin starts it in slurmstepd's init_post_opt hook, while slurmstepd sets up the step. It ends when the last
//! task has its answer. Any error becomes the answer, so that each task that sends a greeting gets one.
#![forbid(unsafe_code)]

mod ahead;
mod devices;
pub mod epilog;
pub mod join;
mod mode;
mod session;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::env::Pair;
use coracle::report::{Kind, Refusal};
use coracle::request::Choice;
use coracle::sys::{self, Channel, MountNamespace, Packet, Received};
use coracle::wire::{Answer, Hello, Here, Malformed, Start};
use nix::sys::stat::Mode;

use crate::container::environment::{self, StartedStep};
use crate::records::{Comment, Entry, Trail};
use ahead::ImageStep;
use mode::{EffectiveRequest, Source, StepMode};
use session::Session;

/// Time limit for the plugin to send its request: the message is ready when the plugin starts the launcher.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Limit on the environment of a job, in bytes: slurmctld accepts no longer one.
const MAX_ENVIRONMENT: usize = 16 << 20;
/// Time limit for tasks to arrive after the start of slurmstepd. slurmstepd closes the channel when it has no more
/// tasks.
const STRAGGLERS: Duration = Duration::from_secs(600);

/// Reads the plugin's arguments and serves its step.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let config = match arguments.as_slice() {
        [flag, path] if flag == "--config" => PathBuf::from(path),
        _ => PathBuf::from(crate::config::PATH),
    };
    match sanitize().and_then(|channel| receive_start(&channel).map(|start| (channel, start))) {
        Ok((channel, Some(Ok((start, environment))))) => {
            // By then, the descriptors of the container and the channel to slurmstepd are closed.
            let comment = Server { channel, start, environment, path: config }.serve();
            comment.iter().for_each(Comment::set);
            ExitCode::SUCCESS
        }
        Ok((channel, Some(Err(malformed)))) => {
            refuse_unread(&channel, malformed.into());
            ExitCode::SUCCESS
        }
        // A user started this command, or slurmstepd has died.
        Ok((_, None)) | Err(_) => {
            eprintln!("coracle: prepare: started by Slurm's plugin, not by hand [usage]");
            ExitCode::from(2)
        }
    }
}

/// Resets what slurmstepd may have set: signal dispositions, working directory, umask, and its exemption from the OOM
/// killer.
fn sanitize() -> sys::Result<Channel> {
    sys::reset_signals()?;
    let channel = Channel::of_parent()?;
    sys::set_undumpable()?;
    // slurmstepd has the user's groups by now, and files that the launcher creates would get them.
    let root = nix::unistd::Gid::from_raw(0);
    nix::unistd::setgroups(&[]).map_err(|errno| sys::Error::new("setgroups([])", errno))?;
    nix::unistd::setresgid(root, root, root).map_err(|errno| sys::Error::new("setresgid(0)", errno))?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    nix::unistd::chdir("/").map_err(|errno| sys::Error::new("chdir(\"/\")", errno))?;
    // The file does not exist if the kernel was built without it; nothing depends on it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    Ok(channel)
}

/// Step and environment of the job; an error if the plugin has another version.
type StartMessage = Result<(Start, Vec<Pair>), Malformed>;

fn receive_start(channel: &Channel) -> sys::Result<Option<StartMessage>> {
    let Received::Packet(Packet { data, fds, .. }) = channel.receive(Instant::now() + FIRST_WORD)? else {
        return Ok(None);
    };
    let start = match Start::from_bytes(&data) {
        Ok(start) => start,
        Err(malformed) => return Ok(Some(Err(malformed))),
    };
    let Some(environment) = fds.first() else { return Ok(None) };
    Ok(Some(Ok((start, environment::parse_pairs(&sys::read_whole(environment, MAX_ENVIRONMENT)?)))))
}

/// Tells each task that the plugin has another version. The step is unknown here, so there is no record.
fn refuse_unread(channel: &Channel, refusal: Refusal) {
    let (answer, end) = (Answer::Refused(refusal).to_bytes(), Instant::now() + STRAGGLERS);
    while let Ok(Received::Packet(packet)) = channel.receive(end) {
        let greeting = Hello::from_bytes(&packet.data).is_ok();
        if greeting && channel.send(&answer, &[], Instant::now() + FIRST_WORD).is_err() {
            return;
        }
    }
}

struct Server {
    channel: Channel,
    start: Start,
    environment: Vec<Pair>,
    /// Path of coracle.yaml.
    path: PathBuf,
}

impl Server {
    /// Answers the step's tasks and writes their records. The comment that is returned remains to be set.
    fn serve(self) -> Option<Comment> {
        let config = Config::load(&self.path);
        let asked = self.parse_request();
        let wish = match &asked {
            Ok(Some(Choice::Container(request))) => Some((**request).clone()),
            _ => None,
        };
        let effective = match &config {
            Ok(config) => asked.and_then(|choice| self.resolve_request(choice, config)),
            // The error is reported below.
            Err(_) => Ok(None),
        };
        let request = match &effective {
            Ok(Some(EffectiveRequest { request, default: true, .. })) => Some(request.clone()),
            _ => wish,
        };
        let mut trail = Trail::of(&self.start, request.as_ref(), config.as_ref());
        let mode = match config {
            Err(error) => Err(error.into()),
            Ok(config) => effective.and_then(|effective| match effective {
                Some(effective) => self.choose_mode(effective, config),
                None => Ok(StepMode::NoContainer),
            }),
        };
        let (request, source) = match mode {
            Ok(StepMode::Container(request, source)) => (request, source),
            Ok(StepMode::HostByScope) => {
                match environment::host_changes(&self.environment) {
                    Ok(changes) => {
                        self.leave(&changes);
                        trail.outside();
                    }
                    Err(refusal) => self.refuse_all(&refusal, trail),
                }
                return None;
            }
            Ok(StepMode::NoContainer) => {
                match environment::no_changes() {
                    Ok(changes) => self.leave(&changes),
                    Err(refusal) => self.refuse_all(&refusal, trail),
                }
                return None;
            }
            Err(refusal) => {
                self.refuse_all(&refusal, trail);
                return None;
            }
        };
        let session = Session::new(&self, *request);
        let (built, entered) = match &source {
            Source::Image { image, pmix, steps } => {
                let step = ImageStep { session: &session, image, pmix: pmix.as_deref() };
                session.answer_all(&mut trail, step.begin(), Some(step), steps.as_ref())
            }
            Source::Step(step) => session.answer_all(&mut trail, session.join(*step), None, None),
        };
        let entry = session.entry(built.as_ref());
        let comment = entry.path.as_deref().filter(|_| entered > 0);
        let comment = comment.and_then(|path| Comment::of(&self.start, path, entry.digest, &session.context.config));
        trail.end(&entry, entered);
        comment
    }

    /// Runs the tasks on the node.
    fn leave(&self, changes: &OwnedFd) {
        self.each_task(|_, _, _| self.answer(&Answer::Outside, &[changes.as_fd()]));
    }

    /// The step after slurmstepd has sent its location: it is in the control groups of its job by then.
    fn started(&self) -> StartedStep<'_> {
        StartedStep { line: &self.channel, daemon: self.start.daemon }
    }

    fn receive_location(&self, deadline: Instant) -> Result<Here, Refusal> {
        match self.channel.receive(deadline) {
            Ok(Received::Packet(packet)) => Ok(Here::from_bytes(&packet.data)?),
            Ok(Received::Closed) => Err(Refusal::new(Kind::System, "slurmstepd", "gave the step up")),
            Err(error) if error.errno() == nix::errno::Errno::ETIMEDOUT => {
                Err(Refusal::new(Kind::Timeout, "slurmstepd", "did not set up the step in time"))
            }
            Err(error) => Err(Refusal::system("slurmstepd", &error)),
        }
    }

    fn refuse_all(&self, refusal: &Refusal, trail: Trail<'_>) {
        self.each_task(|_, _, _| Err(refusal.clone()));
        trail.end(&Entry { refusal: Some(refusal), ..Entry::default() }, 0);
    }

    /// Waits for each task of this node; a task whose greeting ends with a refusal receives it.
    fn each_task(&self, mut greet: impl FnMut(Hello, Option<MountNamespace>, Option<u32>) -> Result<(), Refusal>) {
        let end = Instant::now() + STRAGGLERS;
        let mut greeted = 0;
        while greeted < self.start.tasks {
            let Ok(Received::Packet(packet)) = self.channel.receive(end) else { return };
            // A location of the step that arrives after the launcher stopped waiting for it.
            let Ok(hello) = Hello::from_bytes(&packet.data) else { continue };
            greeted += 1;
            let task = packet.fds.into_iter().next().map(MountNamespace::from_fd);
            if let Err(refusal) = greet(hello, task, packet.sender)
                && self.answer(&Answer::Refused(refusal), &[]).is_err()
            {
                return;
            }
        }
    }

    fn answer(&self, answer: &Answer, fds: &[BorrowedFd<'_>]) -> Result<(), Refusal> {
        let deadline = Instant::now() + FIRST_WORD;
        self.channel.send(&answer.to_bytes(), fds, deadline).map_err(|error| Refusal::system("a task", &error))
    }
}
