//! Makes pages, or parts of them, that clap does not make: coracle-container(7), coracle.yaml(5), and the examples,
//! files and statuses of commands.
#![forbid(unsafe_code)]

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use coracle::options::{Argument, Naming, OPTIONS, Spec};
use coracle_launcher::config::keys::{ABOUT, Key, SECTIONS, description};

/// Foot and head of every page.
pub const SOURCE: &str = concat!("coracle ", env!("CARGO_PKG_VERSION"));
pub const MANUAL: &str = "Coracle";

/// Text of the page before and behind the options. A heading starts with `#`, a term of a list with `:`, an example
/// with four spaces; everything else is a paragraph.
const BEFORE: &str = include_str!("before.txt");
const BEHIND: &str = include_str!("behind.txt");

/// Sections of the pages of commands, each command behind a line that starts with `##`.
const COMMANDS: &str = include_str!("commands.txt");
/// Details of options, each option behind a line that starts with `##`.
const OPTION_DETAILS: &str = include_str!("options.txt");
/// Parts of coracle.yaml(5) before the keys, in the same form.
const SETTINGS_BEFORE: &str = "# NAME
coracle.yaml - site policy, and contents of containers
# DESCRIPTION
";
const SETTINGS_CHECK: &str = "
coracle config check reports errors, and shows which line decides for a user and job.

In the examples of the keys, a key behind a # is not set.
";
const SETTINGS_BEHIND: &str = "# FILES
: /etc/coracle/coracle.yaml
The file, unless config=PATH in plugstack.conf says another.
# SEE ALSO
coracle-config-check(1), coracle-doctor(1), coracle-container(7)
";

/// Sections of a command's page, in roff(7); `None` if it has none.
pub fn command(name: &str) -> String {
    let of = |text: &'static str| text.split_once('\n').filter(|(known, _)| *known == name).map(|(_, text)| text);
    let mut page = Roff::new();
    if let Some(text) = COMMANDS.split("## ").find_map(of) {
        add(&mut page, text);
    }
    page.render()
}

/// Details of an option on one line, if it has any.
pub fn more(spec: &Spec) -> Option<String> {
    let name = spec.name.to_str().unwrap_or_default();
    let (_, text) =
        OPTION_DETAILS.split("## ").filter_map(|section| section.split_once('\n')).find(|(known, _)| *known == name)?;
    Some(text.trim_end().replace('\n', " "))
}

/// Text of coracle.yaml(5), in roff(7): every key with its example.
pub fn settings() -> String {
    let mut page = begun("coracle.yaml", "5", SETTINGS_BEFORE);
    page.text(inline(ABOUT));
    add(&mut page, SETTINGS_CHECK);
    for section in SECTIONS {
        page.control("SH", [section.title.to_uppercase().as_str()]);
        if !section.text.is_empty() {
            page.text(inline(section.text));
        }
        for key in section.keys {
            add_key(&mut page, key);
            page.control("IP", []).control("EX", []);
            for line in key.example.lines() {
                page.text([roman(line)]);
            }
            page.control("EE", []);
        }
    }
    add(&mut page, SETTINGS_BEHIND);
    page.render()
}

/// Adds a key with its words and the keys below it.
fn add_key(page: &mut Roff, key: &Key) {
    page.control("TP", []).text([bold(key.name)]).text(inline(&description(key)));
    let (words, keys) = (key.words(), key.keys());
    if words.is_empty() && keys.is_empty() {
        return;
    }
    page.control("RS", []);
    for (word, meaning) in words {
        page.control("TP", []).text([bold(*word)]).text(inline(meaning));
    }
    keys.iter().for_each(|key| add_key(page, key));
    page.control("RE", []);
}

/// Text with names in backquotes, which are bold.
fn inline(text: &str) -> Vec<Inline> {
    let text = text.replace('…', "...");
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(index, part)| if index % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

/// Text of coracle-container(7), in roff(7).
pub fn container() -> String {
    let mut page = begun("coracle-container", "7", BEFORE);
    page.control("SH", ["OPTIONS"]);
    OPTIONS.iter().for_each(|spec| add_option(&mut page, spec));
    add(&mut page, BEHIND);
    page.render()
}

/// Begins a page of a section with its first text.
fn begun(name: &str, section: &str, text: &str) -> Roff {
    let mut page = Roff::new();
    page.control("TH", [name, section, "", SOURCE, MANUAL]);
    // Automatic hyphens at line ends could be read as part of an option.
    page.control("nr", ["HY", "0"]);
    add(&mut page, text);
    page
}

fn add(page: &mut Roff, text: &str) {
    let mut example = false;
    for line in text.lines() {
        let is_example = line.starts_with("    ");
        if is_example != example {
            page.control(if is_example { "EX" } else { "EE" }, []);
        }
        example = is_example;
        if let Some(heading) = line.strip_prefix("# ") {
            page.control("SH", [heading]);
        } else if let Some(name) = line.strip_prefix(": ") {
            page.control("TP", []).text([bold(name)]);
        } else if line.is_empty() {
            page.control("PP", []);
        } else {
            page.text([roman(line)]);
        }
    }
    if example {
        page.control("EE", []);
    }
}

fn add_option(page: &mut Roff, spec: &Spec) {
    let mut name = vec![bold(spec.flag(Naming::Container))];
    match spec.argument {
        Argument::Value(value) => name.extend([roman("="), italic(value.to_string_lossy())]),
        Argument::Maybe(value, _) => name.extend([roman("[="), italic(value.to_string_lossy()), roman("]")]),
        Argument::Flag(_) => {}
    }
    page.control("TP", []).text(name).text([roman(sentence(&spec.help.to_string_lossy()))]);
    if let Some(more) = more(spec) {
        page.text([roman(more)]);
    }
    let mut also = Vec::new();
    also.extend(spec.variable.map(|variable| format!("variable {}", variable.to_string_lossy())));
    also.extend(spec.site.then(|| format!("key options.{} in coracle.yaml", spec.key)));
    // For an option that only says no, its counterpart that says yes shows the default.
    also.extend(spec.default.filter(|_| spec.variable.is_some()).map(|default| format!("default {default}")));
    page.control("br", []).text([roman(sentence(&also.join("; ")))]);
}

/// Line of help as a sentence.
pub fn sentence(line: &str) -> String {
    let mut letters = line.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).chain(['.']).collect()).unwrap_or_default()
}
