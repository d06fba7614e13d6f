//! Checks the options of a step, and decides how a step without a request runs.
#![forbid(unsafe_code)]

use super::effective::{Fact, Rules, Value};
use crate::config::{Allowed, DefaultImage, OptionKey, YesNo};
use coracle::options::{Id, Naming, Spec};
use coracle::report::{Kind, Refusal};
use coracle::request::Request;

/// Handling of a step without a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bare {
    /// Runs on the node, without a container.
    Outside,
    /// Gets the site's default image.
    Default(Box<Request>),
}

/// Decides how a step without a request runs.
pub fn bare(rules: &Rules) -> Result<Bare, Refusal> {
    let object = "a step without --container";
    match rules.default_image.said().map_err(|missing| missing.refuse(object))? {
        Some(Value { value: DefaultImage::Image(request), .. }) => Ok(Bare::Default(request.clone())),
        Some(Value { value: DefaultImage::None, .. }) | None => outside(rules, object).map(|()| Bare::Outside),
    }
}

/// Checks that a step may run on the node, as `object` requests.
pub fn outside(rules: &Rules, object: &str) -> Result<(), Refusal> {
    match rules.required.said().map_err(|missing| missing.refuse(object))? {
        Some(Value { value: YesNo(true), rule }) => Err(Refusal::new(
            Kind::Policy,
            object,
            format!("the site runs nothing outside of containers ({rule}: yes)"),
        )
        .hint("srun --container=IMAGE runs it in one")),
        Some(Value { value: YesNo(false), .. }) | None => Ok(()),
    }
}

/// Refuses srun's `--task-epilog` if containers are required.
pub fn epilog(rules: &Rules) -> Result<(), Refusal> {
    let object = "--task-epilog";
    let required = rules.required.said().map_err(|missing| {
        let refusal = missing.refuse(object);
        match missing.fact {
            Fact::Job(_) => refusal.hint("say it: srun --partition, --account, --qos; or leave the epilog out"),
            Fact::User | Fact::Group(_) => refusal,
        }
    })?;
    match required {
        Some(Value { value: YesNo(true), rule }) => Err(Refusal::new(
            Kind::Policy,
            object,
            format!("runs on the node, and the site runs nothing outside of containers ({rule}: yes)"),
        )
        .hint("run it at the end of the command instead, and unset SLURM_TASK_EPILOG")),
        Some(Value { value: YesNo(false), .. }) | None => Ok(()),
    }
}

/// Checks the options that the user has set against `user_options`.
pub fn options(rules: &Rules, used: &[Id]) -> Result<(), Refusal> {
    for id in used.iter().copied() {
        let flag = Spec::of(id).map(|spec| spec.flag(Naming::Container)).unwrap_or_default();
        match rules.user_options.said().map_err(|missing| missing.refuse(&flag))? {
            Some(Value { value: Allowed::Only(list), rule }) if !list.contains(&OptionKey(id)) => {
                let cause = format!("the site does not let you use this option ({rule})");
                return Err(Refusal::new(Kind::Policy, flag, cause));
            }
            _ => {}
        }
    }
    Ok(())
}
