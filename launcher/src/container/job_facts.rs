//! Records and reads facts about a job that a step cannot be trusted to state: its partition, account and QOS.
//!
//! In a step, they are in the environment, which the user controls. In slurmd's prolog, they come from the controller.
//! So the plugin `spank_coracle_facts.so` has them recorded there, in a directory that only root can read, and removed
//! in the epilog.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use crate::config::{self, Config};
use crate::env::Pair;
use crate::policy::{self, Facts, Job, Rules};
use coracle::report::Refusal;
use coracle::sys::Identity;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::children::opener::{Account, Opener};
use crate::slurm;

/// Directory of the facts: one file for each job that runs on the node.
const DIRECTORY: &str = "/run/coracle/jobs";
/// Limit on a file of facts, in bytes.
const MAX_LEN: u64 = 4096;
/// Limit on the output of squeue, in bytes: an array has a line for each of its jobs.
const MAX_ANSWER: usize = 16 << 20;
/// Time limit for squeue: the site sets PrologEpilogTimeout (slurm.conf(5)), and a prolog that is killed drains the
/// node.
const PATIENCE: Duration = Duration::from_secs(10);

/// Effective policy of a step, and the user's entries in the node's user database.
pub struct EffectivePolicy {
    /// Entries of the user.
    pub account: Account,
    /// Effective rules.
    pub rules: Rules,
}

/// Looks up the user and resolves the effective policy of a job. `environment` contains the claims of the job.
pub fn resolve_policy(
    opener: &Opener,
    config: &Config,
    identity: &Identity,
    job: Job,
    environment: &[Pair],
) -> Result<EffectivePolicy, Refusal> {
    let (facts, account) = collect_facts(opener, identity, job, claims(environment))?;
    Ok(EffectivePolicy { rules: policy::effective(config, &facts), account })
}

/// Collects the facts of a user who submits a job; its partition, account and QOS are claims at this point.
pub fn collect_submitter_facts(opener: &Opener, identity: &Identity, job: Job) -> Result<Facts, Refusal> {
    collect_facts(opener, identity, job, Job::default()).map(|(facts, _)| facts)
}

fn collect_facts(opener: &Opener, identity: &Identity, job: Job, claims: Job) -> Result<(Facts, Account), Refusal> {
    let groups = groups_of(identity);
    let account = opener.account(&groups)?;
    Ok((user_facts(identity.uid, &groups, &account, job, claims), account))
}

/// Begins the look-up that [`resolve_policy`] needs.
pub fn begin_look_up(opener: &Opener, identity: &Identity) -> Result<(), Refusal> {
    opener.begin_account(&groups_of(identity))
}

/// Groups of a user, the primary one first.
fn groups_of(identity: &Identity) -> Vec<u32> {
    let others = identity.groups.iter().filter(|gid| **gid != identity.gid);
    [identity.gid].iter().chain(others).copied().collect()
}

/// Facts of a user and their job, with names from the user database.
fn user_facts(uid: u32, groups: &[u32], account: &Account, job: Job, claims: Job) -> Facts {
    let user = account.passwd.split(':').next().filter(|name| !name.is_empty()).map(str::to_owned);
    // name:x:gid: (group(5))
    let name_of = |gid: u32| {
        account.groups.iter().find_map(|line| {
            let (name, rest) = line.split_once(":x:")?;
            (rest.split(':').next()?.parse() == Ok(gid)).then(|| name.to_owned())
        })
    };
    let groups = groups.iter().map(|gid| (*gid, name_of(*gid))).collect();
    Facts { uid, user, groups, job, claims }
}

/// Claims of a job about itself.
fn claims(environment: &[Pair]) -> Job {
    let claim = |name: &str| {
        let (_, value) = environment.iter().find(|(known, _)| known == name)?;
        value.to_str().map(str::to_owned)
    };
    Job { partition: claim("SLURM_JOB_PARTITION"), account: claim("SLURM_JOB_ACCOUNT"), qos: claim("SLURM_JOB_QOS") }
}

/// Reads the facts that the prolog recorded of a job of this user.
pub fn read_job_facts(job: u32, uid: u32) -> Job {
    read(&Path::new(DIRECTORY).join(job.to_string()), uid).unwrap_or_default()
}

fn read(path: &Path, uid: u32) -> Option<Job> {
    let mut text = String::new();
    config::open_trusted(path).ok()?.take(MAX_LEN).read_to_string(&mut text).ok()?;
    let of = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned));
    // Slurm reuses job ids.
    if of("uid")?.parse() != Ok(uid) {
        return None;
    }
    Some(Job { partition: of("partition"), account: of("account"), qos: of("qos") })
}

/// Runs `coracle facts write|forget --config PATH`, which slurmd's prolog and epilog start with the job in the
/// environment.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let (job, uid) = (number("SLURM_JOB_ID"), number("SLURM_JOB_UID"));
    let done = match (arguments.as_slice(), job, uid) {
        ([verb, flag, config], Some(job), Some(uid)) if verb == "write" && flag == "--config" => {
            write_down(job, uid, Path::new(config))
        }
        ([verb, ..], Some(job), _) if verb == "forget" => forget(job),
        _ => {
            eprintln!("coracle: facts: started by slurmd's prolog and epilog, not by hand [usage]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("coracle: {DIRECTORY}: {cause} [system]");
            ExitCode::FAILURE
        }
    }
}

fn places(job: u32) -> (PathBuf, PathBuf) {
    let directory = Path::new(DIRECTORY);
    (directory.join(job.to_string()), directory.join(format!("{job}.new")))
}

fn forget(job: u32) -> io::Result<()> {
    let (place, new) = places(job);
    [new, place].iter().map(fs::remove_file).try_for_each(|removed| match removed {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    })
}

fn write_down(job: u32, uid: u32, path: &Path) -> io::Result<()> {
    // First, remove the facts of another job that had this id.
    forget(job)?;
    let directory = Path::new(DIRECTORY);
    config::make_private_directory(directory)?;
    let config = Config::load(path).unwrap_or_default();
    let facts = query_facts(job, &config);
    let mut text = format!("uid={uid}\n");
    for (key, fact) in [("partition", facts.partition), ("account", facts.account), ("qos", facts.qos)] {
        if let Some(fact) = fact.filter(|fact| !fact.contains(char::is_control)) {
            text += &format!("{key}={fact}\n");
        }
    }
    let (place, new) = places(job);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(new, place)
}

/// Takes the facts that the controller sent to slurmd, and asks squeue for the others that rules need.
fn query_facts(job: u32, config: &Config) -> Job {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let mut facts = Job {
        partition: variable("SLURM_JOB_PARTITION"),
        account: variable("SLURM_JOB_ACCOUNT"),
        qos: variable("SLURM_JOB_QOS"),
    };
    let wanted = |known: &Option<String>, scope: &config::Scope| known.is_none() && !scope.0.is_empty();
    let asks = wanted(&facts.partition, &config.partitions)
        || wanted(&facts.account, &config.accounts)
        || wanted(&facts.qos, &config.qos);
    if let Some(answer) = asks.then(|| run_squeue(job, config)).flatten() {
        facts.partition = facts.partition.or(answer.partition);
        facts.account = facts.account.or(answer.account);
        facts.qos = facts.qos.or(answer.qos);
    }
    facts
}

/// Asks the controller with squeue, which prints only the requested fields. A line of scontrol contains the job's name,
/// which may be any text.
fn run_squeue(job: u32, config: &Config) -> Option<Job> {
    let squeue = slurm::command(&config.slurm_client, "squeue")?;
    let conf = std::env::var_os("SLURM_CONF").map(|path| ("SLURM_CONF", path));
    let mut child = Command::new(squeue)
        .args(["--noheader", "--states=all", "--format=%A|%P|%a|%q", &format!("--jobs={job}")])
        .env_clear()
        .envs(conf)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let text = read_until(child.stdout.take()?, Instant::now() + PATIENCE);
    // A squeue that is not finished by now is late, and one that is finished is about to end.
    let _ = child.kill();
    let _ = child.wait();
    let text = text?;
    // A job array has a line for each of its jobs.
    text.lines().find_map(|line| parse_squeue_line(line, job))
}

/// Text that is written into a pipe until it is closed; nothing if that takes too long.
fn read_until(mut pipe: ChildStdout, end: Instant) -> Option<String> {
    let (mut text, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        let left = end.checked_duration_since(Instant::now())?;
        let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        if nix::poll::poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], patience).ok()? == 0 {
            return None;
        }
        match pipe.read(&mut buffer).ok()? {
            0 => return String::from_utf8(text).ok(),
            count if text.len() < MAX_ANSWER => text.extend_from_slice(buffer.get(..count)?),
            _ => return None,
        }
    }
}

/// Parses `JOB|PARTITION|ACCOUNT|QOS`.
fn parse_squeue_line(line: &str, job: u32) -> Option<Job> {
    let fields: Vec<&str> = line.trim().split('|').collect();
    let [id, partition, account, qos] = fields.as_slice() else { return None };
    let none = ["N/A", "(null)", "(none)"];
    let text = |text: &str| Some(if none.contains(&text) { "" } else { text }.to_owned());
    (id.parse() == Ok(job)).then(|| Job { partition: text(partition), account: text(account), qos: text(qos) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controllers_line_is_read_by_its_job() {
        assert_eq!(parse_squeue_line("8|gpu|physics|high", 7), None);
        let job = Job { partition: Some("gpu".into()), account: Some(String::new()), qos: Some(String::new()) };
        assert_eq!(parse_squeue_line("7|gpu|(null)|N/A", 7), Some(job));
        assert_eq!(parse_squeue_line("7|gpu|a|b|c", 7), None);
    }

    #[test]
    fn users_and_groups_are_named_by_the_user_database() {
        let account = Account {
            passwd: "alice:x:2001:2001::/home/alice:/bin/sh".into(),
            home: None,
            groups: vec!["alice:x:2001:".into(), "proj:x:3001:".into()],
        };
        let facts = user_facts(2001, &[2001, 3001, 3002], &account, Job::none(), Job::default());
        assert_eq!(facts.user.as_deref(), Some("alice"));
        let names: Vec<_> = facts.groups.iter().map(|(gid, name)| (*gid, name.as_deref())).collect();
        assert_eq!(names, [(2001, Some("alice")), (3001, Some("proj")), (3002, None)]);
        assert_eq!(user_facts(2001, &[], &Account::default(), Job::none(), Job::default()).user, None);
    }

    #[test]
    fn nobody_elses_file_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7");
        fs::write(&path, "uid=2001\npartition=gpu\n").unwrap();
        // Other users can write its parent directories.
        assert_eq!(read(&path, 2001), None);
    }
}
