//! Variables that are meant for an option and have no effect.
#![forbid(unsafe_code)]

use super::OPTIONS;

/// The beginning of the names of all of our variables, and of those that stand for options.
const OURS: &str = "CORACLE_";
const STANDS_FOR_OPTION: &str = "CORACLE_CONTAINER";

/// What to tell about a variable of the submitter's environment, if its name was meant for one of an option.
pub fn note_of_variable(name: &str) -> Option<String> {
    let rest = name.strip_prefix(OURS)?;
    let known = || OPTIONS.iter().filter_map(|spec| Some((spec.variable?.to_str().ok()?, spec)));
    if known().any(|(variable, _)| variable == name) {
        return None;
    }
    let beyond = name.strip_prefix(STANDS_FOR_OPTION).map(|rest| rest.trim_start_matches('_'));
    let near = known().filter(|(variable, _)| {
        let key = variable.strip_prefix(STANDS_FOR_OPTION).unwrap_or_default().trim_start_matches('_');
        distance(variable, name) <= 2
            || rest == key
            || beyond.is_some_and(|beyond| beyond.starts_with(key) || beyond.ends_with(key))
    });
    let meant = near.min_by_key(|(variable, _)| distance(variable, name)).map(|(variable, _)| variable);
    let meant = match meant {
        Some(variable) => variable,
        None if name == STANDS_FOR_OPTION => "SRUN_CONTAINER, SBATCH_CONTAINER or SALLOC_CONTAINER",
        None => {
            beyond?;
            return Some(format!("{name}: no such variable, so it has no effect"));
        }
    };
    Some(format!("{name}: no such variable, so it has no effect; {meant} is meant?"))
}

/// The number of letters to change, add or remove (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.bytes().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (cell, wanted) in row.iter_mut().skip(1).zip(other.bytes()) {
            let here = (*cell + 1).min(left + 1).min(diagonal + usize::from(letter != wanted));
            diagonal = std::mem::replace(cell, here);
            left = here;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_variable_is_told_of_with_the_one_that_is_meant() {
        for (name, meant) in [
            ("CORACLE_CONTAINER_BNID", "CORACLE_CONTAINER_BIND"),
            ("CORACLE_CONATINER_BIND", "CORACLE_CONTAINER_BIND"),
            ("CORACLE_CONTAINER_BINDS", "CORACLE_CONTAINER_BIND"),
            ("CORACLE_CONTAINER_BINDPATH", "CORACLE_CONTAINER_BIND"),
            ("CORACLE_BIND", "CORACLE_CONTAINER_BIND"),
            ("CORACLE_GPU", "CORACLE_CONTAINER_GPU"),
            ("CORACLE_CONTAINER_NO_HOME", "CORACLE_CONTAINER_HOME"),
            ("CORACLE_CONTAINER_CLEANENV", "CORACLE_CONTAINER_CLEAN_ENV"),
            ("CORACLE_CONTAINER_WRITABLE_TMPFS", "CORACLE_CONTAINER_WRITABLE"),
            ("CORACLE_CONTAINER", "SRUN_CONTAINER, SBATCH_CONTAINER or SALLOC_CONTAINER"),
        ] {
            let wanted = format!("{name}: no such variable, so it has no effect; {meant} is meant?");
            assert_eq!(note_of_variable(name).as_deref(), Some(wanted.as_str()));
        }
        let wanted = "CORACLE_CONTAINER_COLOUR: no such variable, so it has no effect";
        assert_eq!(note_of_variable("CORACLE_CONTAINER_COLOUR").as_deref(), Some(wanted));
    }

    #[test]
    fn nothing_is_said_of_what_is_right_or_not_ours() {
        let right = OPTIONS.iter().filter_map(|spec| spec.variable).map(|name| name.to_str().unwrap());
        let others = ["CORACLE_HOME_DIR", "CORACLE_ROOT", "CORACLE_VERSION", "PATH", "CONTAINER_BIND", "CORACLE_", ""];
        for name in right.chain(others) {
            assert_eq!(note_of_variable(name), None, "{name}");
        }
    }
}
