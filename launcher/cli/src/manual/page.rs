//! Makes pages, or parts of them, that clap does not make: coracle-container(7), coracle.yaml(5), and the examples,
//! files and statuses of commands.
#![forbid(unsafe_code)]

use clap_mangen::roff::{Roff, bold, italic, roman};
use coracle::options::{Argument, Naming, OPTIONS, Spec};

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
/// Example settings of a site, with every key.
const SETTINGS: &str = include_str!("../../../../slurm-conf-examples/coracle.yaml");
const SETTINGS_BEFORE: &str = "# NAME
coracle.yaml - what a site's containers may be and what they show
# DESCRIPTION
The launcher reads this file anew for every step. It must belong to root and be writable by nobody else, and so must every
directory above it; otherwise, or when anything in it is wrong, no container starts. coracle config check says what is wrong,
and which line decides for a user and job. A key that is not known is an error.

Keys that stand behind a # below are left out or have their default unless a site says them.
# KEYS
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

/// Text of coracle.yaml(5), in roff(7): the comments of the example.
pub fn settings() -> String {
    let mut page = begun("coracle.yaml", "5", SETTINGS_BEFORE);
    // The first paragraphs describe the file itself.
    let example = SETTINGS.replace('…', "...");
    let blocks = example.split("\n\n").skip_while(|block| !block.contains("\nuser_images:"));
    for block in blocks {
        page.control("PP", []);
        let mut keys = false;
        for line in block.lines() {
            // Below a key in comments, its subkeys are in comments, too.
            let is_key = !line.starts_with("# ") || keys && line.starts_with("#  ");
            if is_key != keys {
                page.control(if is_key { "EX" } else { "EE" }, []);
            }
            keys = is_key;
            let text = line.trim_start_matches("# ");
            if !is_key && text.starts_with(' ') {
                page.control("br", []);
            }
            page.text([roman(if is_key { format!("    {line}") } else { text.trim_start().to_owned() })]);
        }
        if keys {
            page.control("EE", []);
        }
    }
    add(&mut page, SETTINGS_BEHIND);
    page.render()
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
