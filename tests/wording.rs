//! Comments of the sources: a documentation comment begins with a noun phrase or a verb.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

/// Words that stand in for a noun.
const STAND_INS: [&str; 5] = ["What", "Whether", "Where", "Whose", "How"];
/// Number of comments that may begin with one of these.
const MOST: usize = 20;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Text of a line that is a documentation comment.
fn comment(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim)
}

#[test]
fn comments_begin_with_a_noun_or_a_verb() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    for folder in ["src", "launcher", "plugin", "tests", "benches", "fuzz"] {
        sources(&top.join(folder), &mut paths);
    }
    let mut found = Vec::new();
    for path in &paths {
        let text = std::fs::read_to_string(path).unwrap();
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
    assert!(paths.len() > 200, "{} files", paths.len());
    assert!(found.len() <= MOST, "{} comments begin with a stand-in for a noun:\n{}", found.len(), found.join("\n"));
}
