//! `coracle epilog`: reports if a step may have its user's TaskEpilog. srun's plugin asks before the step is submitted.
//!
//! slurmstepd runs that program on the node, outside any container, and calls no hook for it. So a step with
//! `required: yes` must not request it. The answer only serves an srun that asks; it does not stop a user who starts
//! another srun.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::policy::{self, Facts, Job, Rules};
use coracle::report::Refusal;
use coracle::wire::Answer;

use crate::children::opener::Opener;
use crate::container::job_facts;
use crate::container::local;

/// Time limit for the user database.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `coracle epilog CONFIG PARTITION ACCOUNT QOS` as the submitting user; an unknown value is empty.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let [config, facts @ ..] = arguments.as_slice() else { return usage() };
    let [partition, account, qos] = facts else { return usage() };
    let known = |fact: &OsString| fact.to_str().filter(|fact| !fact.is_empty()).map(str::to_owned);
    let job = Job { partition: known(partition), account: known(account), qos: known(qos) };
    let written = std::io::stdout().write_all(&answer(judge(Path::new(config), job)));
    written.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Answer for an srun in a container of a job with these rules, in the format of [`coracle::wire::EPILOG`].
pub fn text(rules: Option<&Rules>) -> String {
    String::from_utf8_lossy(&answer(rules.map_or(Ok(()), policy::epilog))).into_owned()
}

fn answer(verdict: Result<(), Refusal>) -> Vec<u8> {
    verdict.map_or_else(Answer::Refused, |()| Answer::Outside).to_bytes()
}

fn usage() -> ExitCode {
    eprintln!("coracle: epilog: started by Slurm's plugin, not by hand [usage]");
    ExitCode::from(2)
}

fn judge(path: &Path, job: Job) -> Result<(), Refusal> {
    let config = Config::load(path)?;
    if !config.any_rule(|rule| rule.required.is_some()) {
        return Ok(());
    }
    let (identity, _) = local::resolve_identity(None)?;
    let opener = Opener::start(&identity, Instant::now() + PATIENCE)?;
    let facts = job_facts::collect_submitter_facts(&opener, &identity, job)?;
    each_partition(facts).into_iter().try_for_each(|facts| policy::epilog(&policy::effective(&config, &facts)))
}

/// One copy of the job's facts for each partition in which the job may start (`--partition=a,b`).
fn each_partition(facts: Facts) -> Vec<Facts> {
    let Some(list) = facts.job.partition.clone() else { return vec![facts] };
    let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    names
        .map(|name| Facts { job: Job { partition: Some(name.to_owned()), ..facts.job.clone() }, ..facts.clone() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_of_a_list_is_judged() {
        let in_partition = |partition: Option<&str>| Facts {
            job: Job { partition: partition.map(str::to_owned), ..Job::none() },
            ..Facts::default()
        };
        let partitions = |partition| {
            each_partition(in_partition(partition)).into_iter().map(|facts| facts.job.partition).collect::<Vec<_>>()
        };
        assert_eq!(partitions(None), [None]);
        assert_eq!(partitions(Some("a")), [Some("a".to_owned())]);
        assert_eq!(partitions(Some("a,b,")), [Some("a".to_owned()), Some("b".to_owned())]);
    }
}
