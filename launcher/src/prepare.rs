//! `coracle prepare`: builds the container of one step on one node and hands it to the tasks.
//!
//! Started by the plugin in slurmstepd's init_post_opt hook, while slurmstepd sets up the step, and gone when the
//! last task has its answer. Whatever goes wrong becomes the answer: a task that says hello is never left alone.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coracle::config::{Config, Log, StartTimeout};
use coracle::report::{Kind, Refusal};
use coracle::request::Request;
use coracle::sys::{self, Channel, MountNamespace, Received};
use coracle::view::Surroundings;
use coracle::wire::{Answer, Hello, Here, Start};
use nix::sys::stat::Mode;

use crate::journal::Entry;
use crate::proxy::Proxy;
use crate::stages::{Clock, Container, Loaded, Run};

/// How long the plugin may take to say what it wants: it has already built the message when it starts us.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// How long tasks may take to arrive once slurmstepd has begun. It closes the line when it has no more of them.
const STRAGGLERS: Duration = Duration::from_secs(600);

/// Reads the plugin's arguments and serves its step.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let config = match arguments.as_slice() {
        [flag, path] if flag == "--config" => PathBuf::from(path),
        _ => PathBuf::from(coracle::config::PATH),
    };
    match sanitize().and_then(|channel| first_word(&channel).map(|start| (channel, start))) {
        Ok((channel, Some(start))) => {
            Server { channel, start, config: Err(config) }.serve();
            ExitCode::SUCCESS
        }
        // A person has typed this, or slurmstepd has died.
        Ok((_, None)) | Err(_) => {
            eprintln!("coracle: prepare: started by Slurm's plugin, not by hand [usage]");
            ExitCode::from(2)
        }
    }
}

/// Leaves behind what slurmstepd happened to have: signal choices, working directory, umask, and its immunity
/// against the OOM killer.
fn sanitize() -> sys::Result<Channel> {
    sys::reset_signals()?;
    let channel = Channel::inherit(sys::CHANNEL)?;
    sys::set_undumpable()?;
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    nix::unistd::chdir("/").map_err(|errno| sys::Error::new("chdir(\"/\")", errno))?;
    // Absent where the kernel was built without it; nothing depends on it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    Ok(channel)
}

fn first_word(channel: &Channel) -> sys::Result<Option<Start>> {
    match channel.receive(Instant::now() + FIRST_WORD)? {
        Received::Packet(packet) => Ok(Start::from_bytes(&packet.data).ok()),
        Received::Closed => Ok(None),
    }
}

struct Server {
    channel: Channel,
    start: Start,
    /// The settings once they are read, before that the path of their file.
    config: Result<Config, PathBuf>,
}

/// A container and what it was built from and for: another task may need another.
struct Built {
    loaded: Loaded,
    container: Container,
    base: MountNamespace,
    here: Here,
}

impl Server {
    fn serve(mut self) {
        let mut run = None;
        let outcome = self.begin(&mut run);
        let log = self.config.as_ref().map_or(Log::Auto, |config| config.log);
        let built = match outcome {
            Ok(Some(built)) => Ok(built),
            // slurmstepd gave the step up before there was anything to do.
            Ok(None) => return,
            Err(refusal) => Err(refusal),
        };
        let built = self.answer_all(run.as_mut(), built);
        let loaded = built.as_ref().ok().map(|built| &built.loaded);
        Entry {
            start: &self.start,
            request: run.as_ref().map(|run| &run.request),
            digest: loaded.and_then(|loaded| loaded.opened.digest).map(|digest| digest.to_string()),
            rule: loaded.map(|loaded| loaded.rule.as_str()),
            refusal: built.as_ref().err(),
            clock: run.as_ref().map(|run| &run.clock),
        }
        .write(log);
    }

    /// Everything that can be done before the first task arrives.
    fn begin(&mut self, slot: &mut Option<Run>) -> Result<Option<Built>, Refusal> {
        let clock = Clock::start();
        let path = self.config.as_ref().err().cloned().unwrap_or_default();
        let config = Config::load(&path)?;
        self.config = Ok(config.clone());
        let request = Request::from_env(&self.start.request)?;
        let run = slot.insert(Run { request, config, identity: self.start.identity.clone(), clock });
        let deadline = self.deadline();
        let base = MountNamespace::current().map_err(|error| Refusal::system("the step's namespace", &error))?;
        let proxy = Proxy::start(&self.start.identity, deadline)?;
        let loaded = run.load(&proxy)?;
        // Built for where the step will probably be, while slurmstepd is still on its way there. What is wrong with
        // a guess does not matter.
        let guess = self.start.directory.clone().map(|directory| Here { directory, pmix: None });
        let ahead = guess.as_ref().and_then(|guess| {
            let around = surroundings(guess, &loaded, &self.start);
            run.build(&proxy, &loaded, &around).ok().map(|container| (container, run.wants(&around)))
        });
        let Some(here) = self.where_it_is(deadline)? else { return Ok(None) };
        run.clock.lap("wait");
        let around = surroundings(&here, &loaded, &self.start);
        let container = match ahead {
            Some((container, wants)) if wants == run.wants(&around) => container,
            _ => run.build(&proxy, &loaded, &around)?,
        };
        Ok(Some(Built { loaded, container, base, here }))
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.config.as_ref().map_or(StartTimeout::default(), |config| config.start_timeout).0
    }

    fn where_it_is(&self, deadline: Instant) -> Result<Option<Here>, Refusal> {
        match self.channel.receive(deadline) {
            Ok(Received::Packet(packet)) => Ok(Some(Here::from_bytes(&packet.data)?)),
            Ok(Received::Closed) => Ok(None),
            Err(error) if error.errno() == nix::errno::Errno::ETIMEDOUT => {
                Err(Refusal::new(Kind::Timeout, "slurmstepd", "did not set up the step in time"))
            }
            Err(error) => Err(Refusal::system("slurmstepd", &error)),
        }
    }

    /// Answers every task. All of them are answered even when one is gone: a socket that is closed while a
    /// greeting lies unread resets the tasks that still wait (unix(7)).
    fn answer_all(&self, mut run: Option<&mut Run>, mut built: Result<Built, Refusal>) -> Result<Built, Refusal> {
        let end = Instant::now() + STRAGGLERS;
        let mut answered = 0;
        while answered < self.start.tasks {
            let Ok(Received::Packet(packet)) = self.channel.receive(end) else { break };
            let Ok(hello) = Hello::from_bytes(&packet.data) else { continue };
            if let (Some(run), Some(task)) = (run.as_deref_mut(), packet.fds.into_iter().next()) {
                built = built.and_then(|built| self.fit(run, built, MountNamespace::from_fd(task), hello.pmix));
            }
            let sent = match &built {
                Ok(built) => {
                    let digest = built.loaded.opened.digest;
                    self.channel.send(&Answer::Enter { digest }.to_bytes(), &[built.container.namespace.as_fd()])
                }
                Err(refusal) => self.channel.send(&Answer::Refused(refusal.clone()).to_bytes(), &[]),
            };
            answered += 1;
            if sent.is_err() {
                break;
            }
        }
        built
    }

    /// Builds again where a task turns out to live in another mount namespace than slurmstepd
    /// (job_container/tmpfs), or its PMIx server was not known before.
    fn fit(&self, run: &mut Run, built: Built, task: MountNamespace, pmix: Option<PathBuf>) -> Result<Built, Refusal> {
        let system = |error: sys::Error| Refusal::system("the task's namespace", &error);
        let same = built.base.is(&task).map_err(system)? && (pmix.is_none() || pmix == built.here.pmix);
        if same {
            return Ok(built);
        }
        let own = MountNamespace::current().map_err(system)?;
        sys::enter_mount_namespace(&task).map_err(system)?;
        let again = (|| {
            let proxy = Proxy::start(&self.start.identity, self.deadline())?;
            let here = Here { directory: built.here.directory, pmix: pmix.or(built.here.pmix) };
            // The path may lead to another file there: to one that sbcast left in the job's own /tmp.
            let same = still_the_same(&proxy, run, &built.loaded)?;
            let loaded = if same { built.loaded } else { run.load(&proxy)? };
            let container = run.build(&proxy, &loaded, &surroundings(&here, &loaded, &self.start))?;
            Ok(Built { loaded, container, base: task, here })
        })();
        sys::enter_mount_namespace(&own).map_err(system)?;
        again
    }
}

fn surroundings<'a>(here: &'a Here, loaded: &'a Loaded, start: &'a Start) -> Surroundings<'a> {
    Surroundings {
        directory: &here.directory,
        home: loaded.account.home.as_deref(),
        script_folder: start.script_folder.as_deref(),
        pmix: here.pmix.as_deref(),
    }
}

/// True when the image's path leads to the very file that was loaded, unchanged.
fn still_the_same(proxy: &Proxy, run: &Run, loaded: &Loaded) -> Result<bool, Refusal> {
    let path: &Path = &run.request.image.path;
    let Ok(found) = proxy.open_source(path)? else { return Ok(false) };
    let stat = |fd: &OwnedFd| nix::sys::stat::fstat(fd).ok();
    let loaded = nix::sys::stat::fstat(&loaded.opened.file).ok();
    let key = |stat: Option<nix::sys::stat::FileStat>| {
        stat.map(|stat| (stat.st_dev, stat.st_ino, stat.st_size, stat.st_ctime, stat.st_ctime_nsec))
    };
    Ok(key(stat(&found)).is_some() && key(stat(&found)) == key(loaded))
}
