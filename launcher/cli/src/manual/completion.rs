//! Makes bash completions for Coracle's options of srun, sbatch and salloc.
#![forbid(unsafe_code)]

use coracle::options::{Argument, Id, Naming, OPTIONS, Spec};

const SCRIPT: &str = include_str!("slurm_coracle.bash");
/// Line of the script that the table replaces.
const PLACE: &str = "\t# the table of options\n";

/// File for bash.
pub fn slurms() -> String {
    let image = ("--container=".to_owned(), "image".to_owned());
    let entries: String = std::iter::once(image)
        .chain(OPTIONS.iter().flat_map(entries))
        .map(|(word, kind)| format!("\t['{word}']='{kind}'\n"))
        .collect();
    SCRIPT.replacen(PLACE, &entries, 1)
}

/// Completions for an option, and for its value.
fn entries(spec: &Spec) -> Vec<(String, String)> {
    let flag = spec.flag(Naming::Container);
    let alone = (flag.clone(), "flag".to_owned());
    match spec.argument {
        Argument::Flag(_) => vec![alone],
        Argument::Value(value) => vec![(flag + "=", kind(spec.id, &value.to_string_lossy()))],
        Argument::Maybe(value, _) => vec![alone, (flag + "=", kind(spec.id, &value.to_string_lossy()))],
    }
}

/// Kind of the values, as the script names it.
fn kind(id: Id, value: &str) -> String {
    match id {
        Id::Bind => "binds".to_owned(),
        Id::Overlay => "directory".to_owned(),
        Id::Env => "variables".to_owned(),
        Id::Scope | Id::Gpu => format!("words {}", value.replace('|', " ")),
        _ => "any".to_owned(),
    }
}
