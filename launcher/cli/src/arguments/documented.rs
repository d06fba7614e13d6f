//! Tests the command lines of the documentation with the parser of the program.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use super::CommandLine;

/// Commands that only slurmstepd, slurmd's prolog and epilog, or systemd start.
const INTERNAL: [&str; 5] = ["prepare", "facts", "epilog", "store-service", "help"];

/// README, SECURITY and the pages below docs, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = ["docs", "docs/admin"].into_iter().flat_map(|name| std::fs::read_dir(top.join(name)).unwrap());
    let docs = docs.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let others = ["README.md", "SECURITY.md", "launcher/cli/src/manual/commands.txt"];
    let mut paths: Vec<_> = docs.chain(others.map(|name| top.join(name))).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Words of a line as a shell splits them: without quotes, and up to a comment or the end of the command.
fn words(line: &str) -> Vec<OsString> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, ';' | '|' | '&' | '>') => break,
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take().map(OsString::from)),
            // The brackets of a synopsis enclose optional words.
            (None, '[' | ']') => {}
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word.map(OsString::from));
    words
}

#[test]
fn commands_in_blocks_are_read_as_they_stand() {
    let mut count = 0;
    for (path, text) in pages() {
        for line in text.lines().filter_map(|line| line.strip_prefix("    ")) {
            // In a block with output, a prompt precedes the commands.
            let begins = |at: &usize| *at == 0 || line[..*at] == *"$ " || line[..*at].ends_with("&& ");
            let Some(at) = line.find("coracle ").filter(begins) else { continue };
            let words = words(&line[at..]);
            if words.get(1).is_none_or(|word| INTERNAL.iter().any(|name| word == name)) {
                continue;
            }
            count += 1;
            if let Err(error) = CommandLine::read(words) {
                panic!("{}: {line}\n{error}", path.display());
            }
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn commands_and_options_in_text_exist() {
    let command = CommandLine::command();
    let mut count = 0;
    for (path, text) in pages() {
        for inline in text.split('`').skip(1).step_by(2).filter_map(|inline| inline.strip_prefix("coracle ")) {
            let mut parts = inline.split(|character: char| character.is_whitespace() || "[]|=".contains(character));
            let Some(verb) = parts.by_ref().find(|word| !word.starts_with('-')) else { continue };
            if INTERNAL.contains(&verb) {
                continue;
            }
            count += 1;
            let mut known = command.find_subcommand(verb).unwrap_or_else(|| panic!("{}: {inline}", path.display()));
            for word in parts {
                known = known.find_subcommand(word).unwrap_or(known);
                let is_flag = |name: &str| {
                    let of = |arg: &clap::Arg| {
                        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|all| all.contains(&name))
                    };
                    known.get_arguments().chain(command.get_arguments()).any(of)
                };
                if let Some(name) = word.strip_prefix("--").filter(|name| !matches!(*name, "" | "help")) {
                    assert!(is_flag(name), "{}: `coracle {inline}` has no --{name}", path.display());
                }
            }
        }
    }
    assert!(count > 60, "{count}");
}
