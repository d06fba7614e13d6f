//! Finds variables that are meant for an option and have no effect.
#![forbid(unsafe_code)]

use std::ffi::CStr;

use super::OPTIONS;

/// Start of the names of all variables of Coracle, and of those that stand for options.
const OURS: &str = "CORACLE_";
const STANDS_FOR_OPTION: &str = "CORACLE_CONTAINER";

/// Returns a note on a variable of the user's environment if its name resembles that of an option's variable. Plain
/// loops over bytes keep the code small, because all of it is in the plugin.
pub fn note_of_variable(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    let rest = bytes.strip_prefix(OURS.as_bytes())?;
    let known = || OPTIONS.iter().filter_map(|spec| spec.variable);
    if known().any(|variable| variable.to_bytes() == bytes) {
        return None;
    }
    let beyond = bytes.strip_prefix(STANDS_FOR_OPTION.as_bytes());
    let has_key = |variable: &&CStr| {
        let key = variable.to_bytes().strip_prefix(STANDS_FOR_OPTION.as_bytes()).unwrap_or_default();
        key.strip_prefix(b"_") == Some(rest)
            || beyond.is_some_and(|beyond| beyond.starts_with(key) || beyond.ends_with(key))
    };
    let meant = known().find(|variable| is_near(variable.to_bytes(), bytes)).or_else(|| known().find(has_key));
    let meant = match meant {
        Some(variable) => variable.to_str().unwrap_or_default(),
        None if name == STANDS_FOR_OPTION => "SRUN_CONTAINER, SBATCH_CONTAINER or SALLOC_CONTAINER",
        None => {
            beyond?;
            return Some([name, ": no such variable, so it has no effect"].concat());
        }
    };
    Some([name, ": no such variable, so it has no effect; ", meant, " is meant?"].concat())
}

/// True if the names differ in at most two adjacent letters.
fn is_near(one: &[u8], other: &[u8]) -> bool {
    let same = |(one, other): &(&u8, &u8)| one == other;
    let front = one.iter().zip(other).take_while(same).count();
    let back = one.iter().rev().zip(other.iter().rev()).take_while(same).count();
    front + back + 2 >= one.len().max(other.len())
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
