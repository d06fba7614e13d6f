//! Handles heterogeneous jobs: each component has a request of its own, and all of them travel in one environment.
//!
//! Variables carry the number of their component, as in Slurm's own `SLURM_JOB_ID_HET_GROUP_1`. If all components
//! agree, there is only the plain variable.
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use coracle::options::RawOptions;
use coracle::report::{Kind, Refusal};
use coracle::request::{Choice, NODE, Request, Scope};
use coracle::sys;

use crate::face::{self, Context};
use crate::slurm;
use crate::submit::{REQUEST, STEPS};

/// Maximum number of components of a heterogeneous job (slurm.h, MAX_HET_JOB_COMPS).
pub const MAX_COMPONENTS: u32 = 128;

/// Decision for one component.
pub struct Decided {
    /// Number of the component; 0 for a job that is not heterogeneous.
    pub group: u32,
    /// The request, or [`NODE`]; `None` without a request.
    pub form: Option<String>,
}

/// Returns the variable `name` of one component.
pub fn of_group(name: &CStr, group: u32) -> CString {
    let text = format!("{}_HET_GROUP_{group}", name.to_string_lossy());
    CString::new(text).unwrap_or_default()
}

/// Returns Slurm's two names for the job id of a component; srun of 22.05 still has the older one.
pub fn id_names(group: u32) -> [String; 2] {
    ["HET", "PACK"].map(|word| format!("SLURM_JOB_ID_{word}_GROUP_{group}"))
}

fn variable(name: &str) -> Option<OsString> {
    CString::new(name).ok().and_then(|name| sys::get_env(&name))
}

fn is_het() -> bool {
    variable("SLURM_HET_SIZE").is_some_and(|size| size.to_str().and_then(|size| size.parse().ok()) > Some(1))
}

/// Returns the components of this command when it ends its options for the time number `call`.
pub fn groups(context: Context, call: u32) -> Vec<u32> {
    // An srun outside of a job makes a heterogeneous job of the components between its colons.
    if context == Context::Allocator || !is_het() {
        return vec![call];
    }
    // srun(1), --het-group: numbers and ranges, or the component that srun has reached. Without it, the first component
    // for the first command, and so on.
    let text = slurm::option_value(c"het-group").and_then(|text| text.into_string().ok()).unwrap_or_default();
    let mut groups = Vec::new();
    for part in text.split(',').map(|part| part.trim_matches(['[', ']'])) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            groups.extend(first..=last.min(MAX_COMPONENTS));
        }
    }
    if groups.is_empty() { vec![call] } else { groups }
}

/// Writes the decisions into the environment, under each of `names`.
pub fn publish(decided: &[Decided], names: &[&CStr]) -> Result<(), Refusal> {
    let full = || Refusal::new(Kind::System, "--container", "no memory for the environment");
    let set = |name: &CStr, form: Option<&str>| match form {
        Some(form) => sys::set_env(name, OsStr::new(form)).then_some(()).ok_or_else(full),
        None => {
            sys::unset_env(name);
            Ok(())
        }
    };
    let last = decided.last().and_then(|decided| decided.form.as_deref());
    // A controller without a record of images cannot be asked for one, see [`of_controller`].
    let agreed = (decided.len() == 1 || !face::container_is_ours())
        && decided.iter().all(|decided| decided.form.as_deref() == last);
    for name in names {
        // sbatch copies the environment after each component, so the plain variable must hold that component's own
        // request.
        set(name, last)?;
        for decided in decided.iter().filter(|_| !agreed) {
            set(&of_group(name, decided.group), Some(decided.form.as_deref().unwrap_or(NOTHING)))?;
        }
    }
    Ok(())
}

/// Refuses a batch job whose script could not know that another component has an image. The script has the environment
/// of the first component, which is made before the options of the others are read.
pub fn known_to_steps(decided: &[Decided]) -> Result<(), Refusal> {
    let (Some((first, others)), true) = (decided.split_first(), face::container_is_ours()) else { return Ok(()) };
    let image = |decided: &Decided| match Choice::from_env(OsStr::new(decided.form.as_deref().unwrap_or(NODE))) {
        Ok(Choice::Container(request)) => Some(request),
        _ => None,
    };
    let Some(other) = others.iter().find(|other| image(other).is_some()) else { return Ok(()) };
    match image(first).is_some_and(|request| request.settings.scope != Some(Scope::Script)) {
        true => Ok(()),
        false => Err(Refusal::new(
            Kind::Usage,
            "--container",
            format!(
                "component {} has it, and the first one, which has the script, has none for its steps",
                other.group
            ),
        )
        .hint("name the image in the script, at its own srun commands: this release of Slurm does not record it")),
    }
}

/// Value of a component without a request where another one has a request.
pub const NOTHING: &str = "nothing";

/// Request that the job has for its steps.
#[derive(Default)]
pub struct Inherited {
    plain: Option<OsString>,
    groups: Vec<(u32, OsString)>,
}

impl Inherited {
    /// Takes the request out of this process' environment.
    pub fn take() -> Self {
        let mut inherited = Self { plain: sys::get_env(STEPS), groups: Vec::new() };
        for name in [REQUEST, STEPS] {
            sys::unset_env(name);
        }
        for group in 0..MAX_COMPONENTS {
            if let Some(form) = sys::get_env(&of_group(STEPS, group)) {
                inherited.groups.push((group, form));
            }
            for name in [REQUEST, STEPS] {
                sys::unset_env(&of_group(name, group));
            }
        }
        inherited
    }

    /// Returns the request that a step of this component inherits from its job.
    pub fn choice(&self, group: u32) -> Result<Option<Choice>, Refusal> {
        let read = |form: &OsStr| {
            let named = |refusal: Refusal| Refusal { object: STEPS.to_string_lossy().into_owned(), ..refusal };
            Choice::from_env(form).map(Some).map_err(|error| named(error.into()))
        };
        let own = self.groups.iter().find(|(known, _)| *known == group);
        match (own, &self.plain, group) {
            (Some((_, form)), _, _) if form == NOTHING => Ok(None),
            (Some((_, form)), _, _) => read(form),
            // sbatch gives each component its own environment, and the script has that of the first component.
            (None, plain, group @ 1..) if is_het() && variable("SLURM_JOB_ID").is_some() => {
                match plain.as_deref().map(read).transpose()?.flatten() {
                    Some(_) if face::container_is_ours() => {
                        Err(unknown(group, "this release of Slurm does not record its image")
                            .hint("give the step --container=IMAGE, or --container=none"))
                    }
                    // See [`known_to_steps`].
                    None if face::container_is_ours() => Ok(None),
                    plain => of_controller(group, plain),
                }
            }
            (None, Some(form), _) => read(form),
            (None, None, _) => Ok(None),
        }
    }
}

fn unknown(group: u32, cause: &str) -> Refusal {
    Refusal::new(Kind::System, format!("component {group} of the job"), cause)
}

/// More than scontrol prints about any job, in bytes.
const MAX_SAID: u64 = 1 << 20;

/// Returns the controller's record of a component's image; all of `first`, the request of the first component, if it is
/// the same image.
fn of_controller(group: u32, first: Option<Choice>) -> Result<Option<Choice>, Refusal> {
    let unknown = |cause: &str| unknown(group, cause);
    let id = id_names(group).iter().find_map(|name| variable(name));
    let id = id.and_then(|id| CString::new(id.as_bytes()).ok()).ok_or_else(|| unknown("its job id is not known"))?;
    let words = [c"scontrol", c"--oneliner", c"show", c"job", &id];
    let said = sys::output_of(words[0], &words, MAX_SAID);
    let said = said.map_err(|error| unknown(&format!("scontrol does not say which image it has: {error}")))?;
    let text = String::from_utf8_lossy(&said);
    let image = text.split_once(" Container=").map(|(_, rest)| rest.split(" ").next().unwrap_or(rest).trim_end());
    let Some(image) = image.filter(|image| !image.is_empty() && *image != "(null)") else { return Ok(None) };
    if image == NODE {
        return Ok(Some(Choice::Host));
    }
    if let Some(Choice::Container(first)) = first
        && first.image().is_some_and(|known| known.typed == image)
    {
        return Ok(Some(Choice::Container(first)));
    }
    let directory = variable("SLURM_SUBMIT_DIR").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    Ok(Some(Request::parse(&RawOptions::default(), OsStr::new(image), &directory)?))
}
