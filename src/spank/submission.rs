//! Decides the request of srun, sbatch and salloc, component by component.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::component::{Decided, groups, known_to_steps, publish, variable};
use super::inherited::Inherited;
use super::release::resets_container;
use super::{CONTAINER, CONTAINER_GIVEN, ClientCommand, Program, REQUEST, STEPS, container_is_ours};
use crate::env::{Change, INSIDE, OUTER, Record};
use crate::options::{Id, Images, Naming, OPTIONS, OfComponent, RawOptions};
use crate::report::{Kind, Refusal};
use crate::request::{Choice, Error, NODE, Request, Scope};

/// Variables of the loader (ld.so(8)) that would have loaded the image's code into this command, and the variables in
/// which `coracle-inside` has saved them for the tasks.
const ASIDE: [(&CStr, &CStr); 2] =
    [(c"LD_PRELOAD", c"SLURM_CORACLE_LD_PRELOAD"), (c"LD_AUDIT", c"SLURM_CORACLE_LD_AUDIT")];

/// Prefix of the variables in which Slurm repeats the options of sbatch and salloc, by plugin and option, for every
/// command of the job as if they had been typed there (plugstack.c, `spank_process_env_options`). They hold only the
/// last of several values, and "(null)" for none. The request that steps inherit is in [`STEPS`].
const GIVEN: &str = "SLURM_SPANK__SLURM_SPANK_OPTION_coracle_";

/// Options of this command, and the decisions so far.
#[derive(Debug, Default)]
pub struct Submission {
    /// Options of the component that is being read, as given.
    pub options: RawOptions,
    /// Values of `--container` where that is the plugin's option.
    pub images: Images,
    /// Options of the component before: a component without any has the same, as it has the same `--container`.
    before: RawOptions,
    /// Slurm's `--container` of the component before, see [`Self::images_given`].
    image: Option<OsString>,
    inherited: Inherited,
    decided: Vec<Decided>,
    /// Number of times that this command has reached the end of its options.
    calls: u32,
}

impl Submission {
    /// Removes inherited values from the environment before any option is parsed. Values that are there afterwards were
    /// given to this command.
    pub fn begin(command: &impl ClientCommand, naming: Naming) -> Self {
        let inherited = Inherited::take(command);
        OPTIONS
            .iter()
            .flat_map(|spec| [Naming::Container, Naming::Coracle].map(|naming| spec.name_in(naming)))
            .for_each(|name| {
                let name = format!("{GIVEN}{}", name.to_string_lossy().replace('-', "_"));
                CString::new(name).iter().for_each(|name| command.unset_variable(name));
            });
        command.unset_variable(CONTAINER);
        command.unset_variable(CONTAINER_GIVEN);
        for (name, aside) in ASIDE {
            if let Some(value) = command.variable(aside) {
                command.set_variable(name, &value);
                command.unset_variable(aside);
            }
        }
        Self { options: RawOptions::named(naming), inherited, ..Self::default() }
    }

    /// Returns the values of `--container` for the component whose options have just been parsed, on any release.
    ///
    /// srun resets its option where it has to, and then does not copy it to the next component.
    pub fn images_given(&mut self, command: &impl ClientCommand, program: Program) -> Result<OfComponent, Refusal> {
        if container_is_ours(command.release()) {
            return Ok(self.images.component(command.variable(variable_of(program))));
        }
        let given = command.variable(CONTAINER);
        if !resets_container(program, command.release()) {
            return Ok(given.into());
        }
        if given.is_some() && !command.reset_option(c"container") {
            return Err(Refusal::new(
                Kind::Internal,
                "--container",
                "this srun does not let a plugin take the option back",
            ));
        }
        if given.is_some() {
            self.image = given;
        }
        Ok(self.image.clone().into())
    }

    /// Ends the options of the component, or of the components, that this command has reached. Returns their numbers.
    pub fn end_options(&mut self, command: &impl ClientCommand, program: Program) -> Vec<u32> {
        // Slurm sets it only where it is unset: it must be unset for the next component.
        command.unset_variable(CONTAINER);
        let fresh = std::mem::take(&mut self.options);
        self.options = RawOptions::named(fresh.naming());
        if !fresh.is_empty() || self.calls == 0 {
            self.before = fresh;
        }
        let groups = groups(command, program, self.calls);
        self.calls += 1;
        groups
    }

    /// Returns the request of a component, if there is one: that of the command line, else, for a step, that of its
    /// job. `fresh` is the image that was given to this command; `import` makes the file of an image of a registry.
    pub fn choose<'a>(
        &self,
        command: &impl ClientCommand,
        program: Program,
        fresh: Option<&'a OsStr>,
        group: u32,
        directory: &Path,
        import: impl FnOnce(&'a OsStr) -> Result<Cow<'a, OsStr>, Refusal>,
    ) -> Result<Option<Choice>, Refusal> {
        let mut options = self.before.clone();
        let lone = options.lone_flag();
        // salloc starts its shell by an srun that repeats the image, and no other option of salloc.
        let repeated = program == Program::Srun && command.has_option(c"interactive");
        let inherited = match program {
            Program::Srun if fresh.is_none() || repeated => self.inherited.choice(command, group)?,
            _ => None,
        };
        // salloc has read the variables, and its command line has taken precedence over them.
        if !repeated || inherited.is_none() {
            options.fill_from(|name| command.variable(name));
        }
        match (fresh, inherited) {
            (_, Some(Choice::Container(inherited))) if inherited.settings.scope == Some(Scope::Script) && !repeated => {
                if let Some(flag) = lone {
                    command.note(&format!(
                        "{flag}: no effect on a step that {}=script leaves on the node",
                        options.flag(Id::Scope)
                    ));
                }
                Ok(Some(Choice::Host))
            }
            (_, Some(Choice::Container(inherited))) => {
                let mut request = inherited.amend(&options, directory)?;
                request.inherited = true;
                Ok(Some(Choice::Container(Box::new(request))))
            }
            (Some(image), _) => {
                if let Some(flag) = lone.filter(|_| image == NODE) {
                    command.note(&format!("{flag}: no effect with --container={NODE}"));
                }
                let image = import(image)?;
                Ok(Some(Request::parse(&options, &image, directory)?))
            }
            (None, inherited) => match lone {
                Some(flag) => Err(Error::WithoutImage(flag).into()),
                None => Ok(inherited),
            },
        }
    }

    /// Records the decision for a component.
    pub fn decide(&mut self, group: u32, choice: Option<&Choice>) {
        self.decided.push(Decided { group, form: choice.map(Choice::to_env) });
    }

    /// Writes the decisions into the environment of the job or step.
    pub fn publish(&self, command: &impl ClientCommand, program: Program) -> Result<(), Refusal> {
        if program == Program::Sbatch {
            known_to_steps(command, &self.decided)?;
        }
        // salloc runs its command on this host: an srun in it is a step of the job like any other.
        let names = if program == Program::Srun { &[REQUEST][..] } else { &[REQUEST, STEPS] };
        publish(command, &self.decided, names)?;
        // salloc's own shell stays on this host; the steps that it starts run this code again.
        let on_node = |decided: &Decided| decided.form.as_deref().is_none_or(|form| form == NODE);
        if program != Program::Salloc && self.decided.iter().all(on_node) {
            leave_container(command);
        }
        Ok(())
    }
}

/// Returns the variable that stands for `--container` in the environment of srun, sbatch or salloc, as Slurm has it
/// since 21.08. Not SLURM_CONTAINER: that one gives the container of a job, and every command in the job inherits it.
fn variable_of(program: Program) -> &'static CStr {
    match program {
        Program::Srun => c"SRUN_CONTAINER",
        Program::Salloc => c"SALLOC_CONTAINER",
        Program::Sbatch => c"SBATCH_CONTAINER",
    }
}

/// Returns the value of the variable of one component, where Slurm does not read it itself. Only srun has such
/// variables (opt.c, `_opt_env`).
pub fn variable_of_component(command: &impl ClientCommand, program: Program, group: u32) -> Option<OsString> {
    if program != Program::Srun || !container_is_ours(command.release()) {
        return None;
    }
    ["HET", "PACK"].iter().find_map(|word| variable(command, &format!("SRUN_CONTAINER_{word}_GROUP_{group}")))
}

/// Restores the environment of the node, before a container changed it, for a command whose job runs on the node.
fn leave_container(command: &impl ClientCommand) {
    let name = |name: &OsStr| CString::new(name.as_bytes()).ok();
    let outer = variable(command, OUTER);
    let Some(record) = outer.and_then(|text| Record::from_env(&text)) else { return };
    for change in record.undo(|variable| name(variable).and_then(|name| command.variable(&name))) {
        match (name(change.name()), change) {
            (Some(name), Change::Set(_, value)) => {
                command.set_variable(&name, &value);
            }
            (Some(name), Change::Unset(_)) => command.unset_variable(&name),
            (None, _) | (Some(_), Change::Without(..) | Change::Numbered(..)) => {}
        }
    }
    INSIDE.iter().chain([&OUTER]).filter_map(|ours| name(ours.as_ref())).for_each(|ours| command.unset_variable(&ours));
}

/// Refuses a file with the job's environment beside an image: the whole environment comes from that file, so the
/// request would be lost, and the job would run on the node.
pub fn refuse_export_file(
    command: &impl ClientCommand,
    program: Program,
    image: Option<&OsStr>,
) -> Result<(), Refusal> {
    if program != Program::Srun && image.is_some_and(|image| image != NODE) && command.has_option(c"export-file") {
        return Err(Refusal::new(Kind::Usage, "--export-file", "cannot be used together with --container")
            .hint("put what is in the file into the script, or use --export"));
    }
    Ok(())
}

/// Refuses an entry point for the commands of `--multi-prog`, which are in a file.
pub fn refuse_entrypoint_of_programs(command: &impl ClientCommand, request: &Request) -> Result<(), Refusal> {
    if request.settings.entrypoint == Some(true) && command.has_option(c"multi-prog") {
        return Err(Refusal::new(Kind::Usage, "--container-entrypoint", "cannot be used together with --multi-prog")
            .hint("name the entry point in the file of programs"));
    }
    Ok(())
}

/// Option of Slurm that selects rules of the site, and the variable that has its value inside of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobFact {
    /// --partition
    Partition,
    /// --account
    Account,
    /// --qos
    Qos,
}

impl JobFact {
    /// Returns the value for this command; empty if it is not known. A step of a job runs where its job runs, whatever
    /// other options say.
    pub fn value(self, command: &impl ClientCommand) -> CString {
        let (option, variable) = match self {
            Self::Partition => (c"partition", c"SLURM_JOB_PARTITION"),
            Self::Account => (c"account", c"SLURM_JOB_ACCOUNT"),
            Self::Qos => (c"qos", c"SLURM_JOB_QOS"),
        };
        let in_job = command.variable(c"SLURM_JOB_ID").is_some();
        let value = if in_job { command.variable(variable) } else { command.option(option) };
        value.and_then(|value| CString::new(value.as_bytes()).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "submission_tests.rs"]
mod tests;
