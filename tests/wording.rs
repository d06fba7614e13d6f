//! Wording of the sources: a documentation comment begins with a noun phrase or a verb, and a directory has one name in
//! comments and messages (docs/glossary.md).
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

/// Words that stand in for a noun.
const STAND_INS: [&str; 5] = ["What", "Whether", "Where", "Whose", "How"];
/// Word that no comment and no message has.
const UNUSED: &str = "folder";
/// Stable interfaces that have it: an option of `coracle ls` and of nvidia-ctk, a key of coracle.yaml, a field of the
/// plugin's message. A variable in a message does not show its name.
const INTERFACES: [&str; 6] =
    ["--folder", "folders:", "\"folders\"", "dependencies, folders and env", "script_folder", "{folder"];

/// Files below `directory` with this extension.
fn add_files(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            add_files(&path, extension, found);
        } else if path.extension().is_some_and(|own| own == extension) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for directory in ["src", "launcher", "plugin", "tests", "benches", "fuzz"] {
        add_files(&top.join(directory), "rs", &mut paths);
    }
    assert!(paths.len() > 200, "{} files", paths.len());
    paths
}

/// Text of a line that is a documentation comment.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim)
}

/// Length of the comment or literal at the start of `text`, and true if it is prose: a comment or a string.
fn token(text: &str) -> (usize, bool) {
    if text.starts_with("//") {
        return (text.find('\n').unwrap_or(text.len()), true);
    }
    if let Some(rest) = text.strip_prefix('r') {
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        if let Some(content) = rest[hashes..].strip_prefix('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            return (2 + hashes + content.find(&end).unwrap() + end.len(), true);
        }
    }
    if let Some(content) = text.strip_prefix('"') {
        let mut escaped = false;
        let end = content.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        });
        return (end.unwrap() + 2, true);
    }
    // A quote in single quotes begins no string.
    if let Some(quote) = ["'\"'", "'\\\"'"].into_iter().find(|quote| text.starts_with(quote)) {
        return (quote.len(), false);
    }
    let first = text.chars().next().unwrap().len_utf8();
    (text[first..].find(['/', 'r', '"', '\'']).map_or(text.len(), |next| first + next), false)
}

/// Comments and strings of a source that have the unused word, with the numbers of the lines on which they begin.
fn faults(source: &str) -> Vec<(usize, &str)> {
    let (mut at, mut found) = (0, Vec::new());
    while at < source.len() {
        let (length, prose) = token(&source[at..]);
        let text = &source[at..at + length];
        // Code in backticks names things of the source.
        let words: String = match text.starts_with("//") {
            true => text.split('`').step_by(2).collect(),
            false => text.to_owned(),
        };
        let words = INTERFACES.iter().fold(words, |words, known| words.replace(known, "")).to_lowercase();
        if prose && words.contains(UNUSED) {
            found.push((source[..at].lines().count(), text));
        }
        at += length;
    }
    found
}

#[test]
fn comments_begin_with_a_noun_or_a_verb() {
    let mut found = Vec::new();
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut before = "";
        for (number, line) in text.lines().enumerate() {
            let now = comment(line).unwrap_or_default();
            let first = now.split(' ').next().unwrap_or_default();
            if before.is_empty() && STAND_INS.contains(&first) {
                found.push(format!("{}:{}: {now}", path.display(), number + 1));
            }
            before = now;
        }
    }
    assert!(found.is_empty(), "{} comments begin with a stand-in for a noun:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_directory_has_one_name() {
    assert_eq!(
        faults("let folder = '\"'; // no \"fold\"\nlet a = r#\"a \"folders\"s\"#; /// A\n// `folder` Folders\n"),
        [(2, "// `folder` Folders")]
    );
    let mut found = Vec::new();
    for path in sources().into_iter().filter(|path| !path.ends_with(file!())) {
        let text = std::fs::read_to_string(&path).unwrap();
        found.extend(faults(&text).into_iter().map(|(line, text)| format!("{}:{line}: {text}", path.display())));
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    add_files(&top.join("launcher/cli/src/manual"), "txt", &mut pages);
    add_files(&top.join("docs"), "md", &mut pages);
    pages.retain(|page| !["glossary.md", "configure.md", "mpi.md"].iter().any(|named| page.ends_with(named)));
    assert!(pages.len() > 10, "{} pages", pages.len());
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        found.extend(
            text.lines().filter(|line| line.contains(UNUSED)).map(|line| format!("{}: {line}", page.display())),
        );
    }
    assert!(found.is_empty(), "docs/glossary.md calls it a directory:\n{}", found.join("\n"));
}
