//! Documentation of coracle.yaml, made from the table of its keys ([`coracle_launcher::config::keys`]): the example file,
//! the installed file, and the tables of docs/admin. `CORACLE_BLESS=1 cargo test -p coracle-launcher --test keys` renews them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use coracle_launcher::config::keys::{ABOUT, Key, SECTIONS, Unset, Value, description, form, top};

/// Start of a part of a page that is made from the table: the name of the part stands behind it.
const BEGIN: &str = "<!-- keys of coracle.yaml, made by CORACLE_BLESS=1 cargo test -p coracle-launcher --test keys: ";
const END: &str = "<!-- end -->\n";
/// Part of a page with [`ABOUT`].
const FILE: &str = "file";

/// Width of the example's lines.
const WIDTH: usize = 120;

const INSTALLED: &str = "As installed it makes no choice: only images of the store run. A site sets `image_paths` \
    (directories whose images are trusted), or `user_images` and `directories` for all other images.";
const INSTALLED_END: &str = "coracle.yaml in PREFIX/share/doc/coracle/slurm-conf-examples has every key; `coracle config \
    check` reports errors.";

fn top_of_tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compares a file with `wanted`, or renews it.
fn compare(path: &Path, wanted: &str) {
    if std::env::var_os("CORACLE_BLESS").is_some() {
        std::fs::write(path, wanted).unwrap();
    } else {
        let found = std::fs::read_to_string(path).unwrap();
        let stale = found.lines().zip(wanted.lines()).find(|(found, wanted)| found != wanted);
        let path = path.display();
        assert!(
            found == wanted,
            "{path} is stale; CORACLE_BLESS=1 cargo test -p coracle-launcher --test keys renews it: {stale:?}"
        );
    }
}

/// Adds comment lines with these words; the first begins with `first`, the others with as many blanks.
fn comment(out: &mut String, first: &str, text: &str) {
    let mut line = format!("# {first}");
    let indent = line.chars().count();
    let mut length = indent;
    for word in text.split_whitespace() {
        if length + 1 + word.chars().count() > WIDTH && length > indent {
            writeln!(out, "{}", line.trim_end()).unwrap();
            line = format!("#{}", " ".repeat(indent - 1));
            length = indent;
        }
        if length > indent {
            line.push(' ');
            length += 1;
        }
        line += word;
        length += word.chars().count();
    }
    writeln!(out, "{}", line.trim_end()).unwrap();
}

/// Adds comment lines for pairs of a name and a text, one below the other.
fn list<'a>(out: &mut String, pairs: impl Iterator<Item = (&'a str, String)> + Clone) {
    let width = pairs.clone().map(|(name, _)| name.len()).max().unwrap_or_default();
    pairs.for_each(|(name, text)| comment(out, &format!("  {name:width$}  "), &text));
}

/// Sentence that names a page of docs/admin.
fn see(page: &str) -> String {
    if page.is_empty() { String::new() } else { format!(" See docs/admin/{page}.") }
}

/// Description of a key below another one, with the meanings of words.
fn line(key: &Key) -> String {
    let meanings: Vec<String> = key.words().iter().map(|(word, meaning)| format!("`{word}`: {meaning}")).collect();
    if meanings.is_empty() { description(key) } else { format!("{} {}.", description(key), meanings.join("; ")) }
}

fn example_of(out: &mut String, key: &Key) {
    comment(out, "", &format!("{}{}", description(key), see(key.page)));
    list(out, key.words().iter().map(|(word, meaning)| (*word, (*meaning).to_owned())));
    list(out, key.keys().iter().map(|key| (key.name, line(key))));
    writeln!(out, "{}", key.example).unwrap();
}

fn example() -> String {
    let mut out = String::new();
    comment(&mut out, "", "/etc/coracle/coracle.yaml: site policy, and contents of containers.");
    comment(&mut out, "", ABOUT);
    out += "#\n";
    comment(
        &mut out,
        "",
        "An example of a site, with every key. The installed file has `version: 1` only. A key behind a # is not set.",
    );
    for section in SECTIONS {
        if section.keys.len() > 1 {
            write!(out, "\n# --- {} ---\n", section.title).unwrap();
        }
        if !section.text.is_empty() {
            out += "#\n";
            comment(&mut out, "", &format!("{}{}", section.text, see(section.page)));
        }
        for key in section.keys {
            out.push('\n');
            example_of(&mut out, key);
        }
    }
    out
}

#[test]
fn the_example_has_every_key_as_the_table_has_it() {
    compare(&top_of_tree().join("slurm-conf-examples/coracle.yaml"), &example());
}

#[test]
fn the_installed_file_makes_no_choice() {
    let mut out = String::new();
    comment(&mut out, "", "/etc/coracle/coracle.yaml: site policy, and contents of containers.");
    comment(&mut out, "", ABOUT);
    out += "#\n";
    comment(&mut out, "", INSTALLED);
    out += "#\n";
    let key = top().find(|key| key.name == "user_images").unwrap();
    let choice = |word: &str| format!("user_images: {word}");
    let choices: Vec<String> = key.words().iter().map(|(word, _)| choice(word)).collect();
    list(
        &mut out,
        choices.iter().zip(key.words()).map(|(choice, (_, meaning))| (choice.as_str(), (*meaning).to_owned())),
    );
    out += "#\n";
    comment(&mut out, "", INSTALLED_END);
    out += "\nversion: 1\n";
    compare(&top_of_tree().join("packaging/coracle.yaml"), &out);
}

/// Link from a page of docs/admin.
fn link(to: &str, page: &str) -> String {
    let (file, part) = to.split_once('#').map_or((to, ""), |(file, part)| (file, part));
    match part {
        "" if file == page || file.is_empty() => String::new(),
        "" => format!(" See [{file}]({to})."),
        part if file == page => format!(" See [below](#{part})."),
        _ => format!(" See [{file}]({to})."),
    }
}

fn row(key: &Key, page: &str) -> String {
    let meanings: Vec<String> = key.words().iter().map(|(word, meaning)| format!("`{word}`: {meaning}")).collect();
    let meanings = if meanings.is_empty() { String::new() } else { format!(" {}.", meanings.join("; ")) };
    let unset = match (key.unset, key.value) {
        (Unset::Value("{}"), Value::Keys(_)) => "see its keys".to_owned(),
        (Unset::Value("{}"), _) => "none".to_owned(),
        (unset, _) => unset.to_string(),
    };
    let form = form(key);
    let cells = format!("{form} | {unset} | {}{meanings}{}", key.text, link(key.page, page));
    format!("| `{}` | {cells} |\n", key.name)
}

fn table<'a>(keys: impl Iterator<Item = &'a Key>, page: &str) -> String {
    let rows: String = keys.map(|key| row(key, page)).collect();
    format!("| key | value | default | meaning |\n|---|---|---|---|\n{rows}")
}

/// Text of a part: [`FILE`], a section, or the keys below one of the top level.
fn part(name: &str, page: &str) -> Option<String> {
    if name == FILE {
        return Some(format!("{}\n", wrapped(ABOUT)));
    }
    if let Some(section) = SECTIONS.iter().find(|section| section.title == name) {
        let text = if section.text.is_empty() { String::new() } else { format!("{}\n\n", wrapped(section.text)) };
        return Some(text + &table(section.keys.iter(), page));
    }
    let keys = top().find(|key| key.name == name)?.keys();
    (!keys.is_empty()).then(|| table(keys.iter(), page))
}

/// Paragraph with lines as long as those of the pages.
fn wrapped(text: &str) -> String {
    let mut out = String::new();
    comment(&mut out, "", text);
    out.lines().map(|line| line.trim_start_matches("# ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_pages_have_every_key_as_the_table_has_it() {
    let mut made = BTreeSet::new();
    for entry in std::fs::read_dir(top_of_tree().join("docs/admin")).unwrap() {
        let path = entry.unwrap().path();
        let page = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut parts = text.split(BEGIN);
        let mut wanted = parts.next().unwrap().to_owned();
        for rest in parts {
            let (name, rest) = rest.split_once(" -->\n").unwrap();
            let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("{page}: {name}: no end"));
            let part = part(name, &page).unwrap_or_else(|| panic!("{page}: there are no keys {name}"));
            made.insert(name.to_owned());
            write!(wanted, "{BEGIN}{name} -->\n{part}{END}{after}").unwrap();
        }
        compare(&path, &wanted);
    }
    let sections = SECTIONS.iter().map(|section| section.title);
    let parents = top().filter(|key| !key.keys().is_empty()).map(|key| key.name);
    let missing: Vec<&str> = sections.chain(parents).chain([FILE]).filter(|name| !made.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/admin: no page has the keys of {missing:?}");
}
