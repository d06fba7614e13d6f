//! Documentation, checked against the program. The user guide's table of options is made from [`OPTIONS`]:
//! `CORACLE_BLESS=1 cargo test -p coracle-launcher --test readme` renews it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use coracle::options::{Argument, Naming, OPTIONS, Spec};
use coracle_launcher::config::Config;

const BEGIN: &str =
    "<!-- made from src/options/table.rs: CORACLE_BLESS=1 cargo test -p coracle-launcher --test readme -->\n";
const END: &str = "<!-- end -->\n";

fn row(spec: &Spec) -> String {
    let argument = match spec.argument {
        Argument::Value(value) => format!("={}", value.to_string_lossy()),
        Argument::Maybe(value, _) => format!("[={}]", value.to_string_lossy()),
        Argument::Flag(_) => String::new(),
    };
    // GitHub takes a bar for the end of a cell, even in code.
    let name = format!("{}{argument}", spec.flag(Naming::Container)).replace('|', r"\|");
    format!("| `{name}` | {} |\n", spec.help.to_string_lossy().replace('|', r"\|"))
}

#[test]
fn the_user_guide_has_every_option_as_the_table_has_it() {
    let file = top().join("docs/user.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    let rows: String = OPTIONS.iter().map(row).collect();
    let wanted = format!(
        "| option | what it does |\n|---|---|\n\
         | `--container=IMAGE` | Slurm's own option: the image, `step[:ID]` for a container that runs, or `none` |\n{rows}"
    );
    if std::env::var_os("CORACLE_BLESS").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        assert_eq!(
            found, wanted,
            "docs/user.md is stale; CORACLE_BLESS=1 cargo test -p coracle-launcher --test readme renews it"
        );
    }
}

/// Options of pyxis that the documentation names, without their dashes.
const PYXIS: [&str; 9] = [
    "container-image",
    "container-mounts",
    "container-mount-home",
    "no-container-mount-home",
    "container-name",
    "container-save",
    "container-remap-root",
    "no-container-remap-root",
    "container-readonly",
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All pages: path and text.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = ["docs", "docs/admin"].into_iter().flat_map(|name| std::fs::read_dir(top().join(name)).unwrap());
    let docs = docs.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut paths: Vec<_> =
        docs.chain(["README.md", "SECURITY.md", "CONTRIBUTING.md"].map(|name| top().join(name))).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Words of a text that begin with `start`, as far as names of options and variables go.
fn named<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).filter_map(|(at, _)| {
        let before = text[..at].chars().next_back();
        let rest = &text[at..];
        let end = rest.find(|sign: char| !(sign.is_ascii_alphanumeric() || "-_".contains(sign))).unwrap_or(rest.len());
        (!before.is_some_and(|sign| sign.is_ascii_alphanumeric() || "-_".contains(sign))).then_some(&rest[..end])
    })
}

#[test]
fn options_and_variables_of_the_documentation_exist() {
    let flags: BTreeSet<String> = OPTIONS
        .iter()
        .flat_map(|spec| [Naming::Container, Naming::Coracle].map(|naming| spec.flag(naming)))
        .chain(["--container".to_owned()])
        .collect();
    let variables: BTreeSet<&str> =
        OPTIONS.iter().filter_map(|spec| spec.variable.map(|name| name.to_str().unwrap())).collect();
    let mut count = 0;
    for (path, text) in pages() {
        for start in ["--container", "--no-container", "--coracle-", "--no-coracle-"] {
            for flag in named(&text, start).filter(|flag| !flag.ends_with('-')) {
                let known = flags.contains(flag) || PYXIS.contains(&flag.trim_start_matches('-'));
                assert!(known, "{}: there is no option {flag}", path.display());
                count += 1;
            }
        }
        for variable in named(&text, "CORACLE_CONTAINER_").filter(|name| !name.ends_with('_')) {
            assert!(variables.contains(variable), "{}: there is no variable {variable}", path.display());
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

/// Blocks of code: the number of the first line, and the text.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut last = None;
    for (number, line) in text.lines().enumerate() {
        let Some(code) = line.strip_prefix("    ") else { continue };
        match blocks.last_mut() {
            Some((_, block)) if last == Some(number) => *block += &format!("{code}\n"),
            _ => blocks.push((number + 1, format!("{code}\n"))),
        }
        last = Some(number + 1);
    }
    blocks
}

#[test]
fn settings_of_the_documentation_are_read() {
    let mut count = 0;
    for (path, text) in pages() {
        for (line, block) in blocks(&text) {
            let first = block.lines().next().unwrap_or_default();
            let key = first.split_once(':').map_or("", |(key, _)| key);
            let is_settings = first.len() == key.len() + 1 || first[key.len()..].starts_with(": [");
            if key.is_empty() || !is_settings || !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                continue;
            }
            count += 1;
            let place = format!("{}:{line}", path.display());
            if let Err(error) = Config::parse(Path::new(&place), &format!("version: 1\n{block}")) {
                panic!("{}", coracle::report::Refusal::from(error));
            }
        }
    }
    assert!(count >= 7, "{count}");
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign)).collect::<String>().replace(' ', "-")
}

/// The README is for somebody who has never heard of Coracle; the rest is in docs.
#[test]
fn the_readme_has_at_most_a_hundred_lines() {
    let text = std::fs::read_to_string(top().join("README.md")).unwrap();
    assert!(text.lines().count() <= 100, "README.md has {} lines", text.lines().count());
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    for (path, text) in pages() {
        for (_, rest) in text.match_indices("](").map(|(at, _)| text.split_at(at + 2)) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") {
                continue;
            }
            let (file, part) = target.split_once('#').map_or((target, None), |(file, part)| (file, Some(part)));
            let found = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(found.exists(), "{}: {target} leads nowhere", path.display());
            let Some(part) = part else { continue };
            let headings = std::fs::read_to_string(&found).unwrap();
            let mut headings = headings.lines().filter(|line| line.starts_with('#'));
            assert!(
                headings.any(|line| anchor(line.trim_start_matches('#')) == part),
                "{}: {target} has no such heading",
                path.display()
            );
        }
    }
}

#[test]
fn files_that_the_documentation_names_exist() {
    let mut count = 0;
    for (path, text) in pages() {
        let ends = |sign: char| sign.is_whitespace() || "`(),;:|".contains(sign);
        for word in text.split(ends).map(|word| word.trim_end_matches('.')) {
            let first = word.split('/').next().unwrap_or_default();
            if !["tests", "src", "launcher", "plugin", "docs", "benches", "examples", "slurm-conf-examples"]
                .contains(&first)
                || !word.contains('/')
                || word.contains(['*', '[', '…', '<', '$'])
            {
                continue;
            }
            count += 1;
            assert!(top().join(word).exists(), "{}: there is no {word}", path.display());
        }
    }
    assert!(count > 30, "{count}");
}

/// Adds the text of all sources below `directory`.
fn add_sources(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add_sources(&path, text);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            *text += &std::fs::read_to_string(path).unwrap();
        }
    }
}

#[test]
fn messages_that_troubleshooting_names_are_in_the_sources() {
    let page = std::fs::read_to_string(top().join("docs/admin/troubleshoot.md")).unwrap();
    let (_, rest) = page.split_once("## Messages of Coracle\n").unwrap();
    let (rows, _) = rest.split_once("\n## ").unwrap();
    let mut sources = String::new();
    for directory in ["src", "plugin/src", "launcher"] {
        add_sources(&top().join(directory), &mut sources);
    }
    // serde's own.
    sources += "unknown field";
    let mut count = 0;
    for row in rows.lines().filter_map(|line| line.strip_prefix("| `")) {
        let message = row.split('`').next().unwrap();
        count += 1;
        assert!(sources.contains(message), "{message}: nothing says that");
    }
    assert!(count > 15, "{count}");
}
