//! Finds the end of Coracle's own options in the command lines of `exec`, `run` and `shell`.
//!
//! As in Apptainer and docker, all words behind the image belong to the image. clap reads options between two
//! positional arguments, so it gets a `--` in front of the first one.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// Subcommands that start words of an image.
const STARTING: [&str; 3] = ["exec", "run", "shell"];

/// Returns the whole command line `words` with a `--` in front of the image. Command lines of other subcommands stay as
/// they are.
pub fn separated(command: &mut Command, mut words: Vec<OsString>) -> Vec<OsString> {
    command.build();
    // No option of the program itself takes a value.
    let verb = words.iter().skip(1).position(|word| !is_option(word)).map(|at| at + 1);
    let started = verb.filter(|at| STARTING.iter().any(|known| words.get(*at).is_some_and(|word| word == known)));
    let Some((at, verb)) = started.and_then(|at| Some((at, command.find_subcommand(words.get(at)?)?))) else {
        return words;
    };
    let mut next = at + 1;
    while let Some(word) = words.get(next) {
        if word == "--" {
            return words;
        }
        if !is_option(word) {
            words.insert(next, "--".into());
            return words;
        }
        next += if takes_next(verb, word) { 2 } else { 1 };
    }
    words
}

/// True for a command line of `exec`, `run` or `shell`.
pub fn starts(words: &[OsString]) -> bool {
    let verb = words.iter().skip(1).find(|word| !is_option(word));
    verb.is_some_and(|verb| STARTING.iter().any(|known| verb == known))
}

fn is_option(word: &OsStr) -> bool {
    word.len() > 1 && word.as_encoded_bytes().starts_with(b"-")
}

/// True if the value of the option in `word` is the next word.
fn takes_next(verb: &Command, word: &OsStr) -> bool {
    let takes =
        |arg: &Arg| arg.get_action().takes_values() && arg.get_num_args().is_none_or(|values| values.min_values() > 0);
    let Some(word) = word.to_str() else { return false };
    if let Some(name) = word.strip_prefix("--") {
        let long = |arg: &&Arg| {
            arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        };
        return verb.get_arguments().find(long).is_some_and(takes);
    }
    let mut letters = word.chars().skip(1);
    while let Some(letter) = letters.next() {
        let short = |arg: &&Arg| {
            arg.get_short() == Some(letter)
                || arg.get_all_short_aliases().is_some_and(|aliases| aliases.contains(&letter))
        };
        if verb.get_arguments().find(short).is_some_and(takes) {
            // The rest of the word behind the letter is the value.
            return letters.next().is_none();
        }
    }
    false
}
