//! Runs `coracle exec --job`: the short form of the srun that joins a step's container. Slurm and the node decide who
//! may join which container.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use coracle::options::{Argument, Naming, OPTIONS, RawOptions};
use coracle::report::{Kind, Refusal};

use crate::arguments::Exec;

/// Paths of srun if it is not in PATH.
const PLACES: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/opt/slurm/bin", "/opt/slurm/current/bin"];

/// Becomes that srun.
pub fn main(given: &Exec) -> Result<ExitCode, Refusal> {
    let job = given.job.as_deref().unwrap_or_default();
    let command: Vec<OsString> = given.image.iter().chain(&given.command).cloned().collect();
    if command.is_empty() {
        return Err(Refusal::new(Kind::Usage, "exec", "the command is missing").hint("coracle exec --job JOB COMMAND…"));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let srun = std::env::split_paths(&path)
        .chain(PLACES.iter().map(PathBuf::from))
        .map(|directory| directory.join("srun"))
        .find(|file| file.is_absolute() && is_program(file))
        .ok_or_else(|| Refusal::new(Kind::System, "srun", "not found on this node").hint("is Slurm in PATH?"))?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let node = given.node.clone().or_else(|| node_of(&srun.with_file_name("scontrol"), job));
    let words = words(job, node.as_deref(), terminal, &given.common.options.0)?;
    let cause = Command::new(&srun).args(words).args(command).exec();
    Err(Refusal::new(Kind::System, srun.display().to_string(), cause.to_string()))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Node on which the container of `JOB[.STEP]` is expected: the first one of the step, or that of the job script. From
/// 24.11 on, srun puts a step of one node on any node of the job. `None` if the controller does not say.
fn node_of(scontrol: &Path, job: &str) -> Option<String> {
    let ask = |words: &[&str]| {
        let said = Command::new(scontrol).args(words).output().ok().filter(|said| said.status.success())?;
        String::from_utf8(said.stdout).ok()
    };
    let value = |text: &str, key: &str| {
        let found = text.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)).map(str::to_owned);
        found.filter(|value| !value.is_empty() && value != "(null)")
    };
    let list = match job.split_once('.') {
        Some((_, step)) if step != "batch" => value(&ask(&["--oneliner", "show", "step", job])?, "NodeList=")?,
        _ => {
            let number = job.split('.').next().unwrap_or(job);
            let text = ask(&["--oneliner", "show", "job", number])?;
            value(&text, "BatchHost=").or_else(|| value(&text, "NodeList="))?
        }
    };
    ask(&["show", "hostnames", &list])?.lines().next().map(str::to_owned)
}

/// Words in front of the command. With `--overlap`, the step shares the resources of the job's other steps.
fn words(job: &str, node: Option<&str>, terminal: bool, raw: &RawOptions) -> Result<Vec<OsString>, Refusal> {
    let wrong = || {
        Refusal::new(Kind::Usage, job, "not a job: JOB or JOB.STEP is wanted")
            .hint("STEP is a number, batch or interactive; squeue --steps shows what runs")
    };
    let (number, step) = job.split_once('.').map_or((job, None), |(number, step)| (number, Some(step)));
    // Also of an array job: 7_3.
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_job = number.split_once('_').map_or_else(|| digits(number), |(job, task)| digits(job) && digits(task));
    if !is_job || step.is_some_and(|step| !digits(step) && step != "batch" && step != "interactive") {
        return Err(wrong());
    }
    let container = step.map_or_else(|| "step".to_owned(), |step| format!("step:{step}"));
    let mut words: Vec<OsString> = [
        format!("--jobid={number}"),
        "--overlap".into(),
        "--nodes=1".into(),
        "--ntasks=1".into(),
        format!("--container={container}"),
    ]
    .map(OsString::from)
    .into();
    words.extend(node.map(|node| format!("--nodelist={node}").into()));
    words.extend(terminal.then(|| "--pty".into()));
    words.extend(as_given_to_srun(raw));
    words.push("--".into());
    Ok(words)
}

/// Options with their prefix.
fn as_given_to_srun(raw: &RawOptions) -> Vec<OsString> {
    let mut words = Vec::new();
    for spec in OPTIONS {
        for value in raw.values(spec.id) {
            let flag = spec.flag(Naming::Container);
            match spec.argument {
                Argument::Flag(implied) if value == implied => words.push(flag.into()),
                Argument::Flag(_) => {}
                Argument::Maybe(_, implied) if value == implied => words.push(flag.into()),
                Argument::Maybe(..) | Argument::Value(_) => {
                    let mut word = OsString::from(format!("{flag}="));
                    word.push(value);
                    words.push(word);
                }
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle::options::{Id, Spec};

    #[test]
    fn a_job_and_its_step_become_the_words_of_srun() {
        let srun = |job, node, terminal| {
            let words = words(job, node, terminal, &RawOptions::default()).unwrap();
            words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
        };
        let common = "--overlap --nodes=1 --ntasks=1";
        assert_eq!(srun("7", None, false), format!("--jobid=7 {common} --container=step --"));
        assert_eq!(
            srun("7.0", Some("n2"), true),
            format!("--jobid=7 {common} --container=step:0 --nodelist=n2 --pty --")
        );
        assert_eq!(srun("7_3.batch", None, false), format!("--jobid=7_3 {common} --container=step:batch --"));
    }

    #[test]
    fn what_is_no_job_is_refused() {
        for job in ["", "x", "7.", "7.x", "7.extern", "-1", "7_", "7 8", "7.0.1", "+7"] {
            let line = words(job, None, false, &RawOptions::default()).unwrap_err().line();
            assert_eq!(line, format!("coracle: {job}: not a job: JOB or JOB.STEP is wanted [usage]"));
        }
    }

    #[test]
    fn options_get_their_prefix_back() {
        let mut raw = RawOptions::default();
        for (id, value) in [(Id::Env, "A=1"), (Id::CleanEnv, "yes"), (Id::Home, "no"), (Id::Writable, "yes")] {
            raw.take(Spec::of(id).unwrap(), value.into());
        }
        let wanted = ["--no-container-home", "--container-env=A=1", "--container-clean-env", "--container-writable"];
        assert_eq!(as_given_to_srun(&raw), wanted);
    }
}
