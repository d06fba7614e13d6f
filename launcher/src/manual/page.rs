//! coracle-container(7): what srun, sbatch and salloc know of containers.
#![forbid(unsafe_code)]

use clap_mangen::roff::{Roff, bold, italic, roman};
use coracle::options::{Argument, Naming, OPTIONS, Spec};

/// Foot and head of every page.
pub const SOURCE: &str = concat!("coracle ", env!("CARGO_PKG_VERSION"));
pub const MANUAL: &str = "Coracle";

/// Text of the page before and behind the options: a heading starts with `#`, a term of a list with `:`, an example
/// with four spaces, and everything else is a paragraph.
const BEFORE: &str = include_str!("before.txt");
const BEHIND: &str = include_str!("behind.txt");

/// The page, in roff(7).
pub fn container() -> String {
    let mut page = Roff::new();
    page.control("TH", ["coracle-container", "7", "", SOURCE, MANUAL]);
    // A hyphen at the end of a line would be taken for one of an option's.
    page.control("nr", ["HY", "0"]);
    add(&mut page, BEFORE);
    page.control("SH", ["OPTIONS"]);
    OPTIONS.iter().for_each(|spec| add_option(&mut page, spec));
    add(&mut page, BEHIND);
    page.render()
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
    if !spec.more.is_empty() {
        page.text([roman(spec.more)]);
    }
    let mut also = Vec::new();
    also.extend(spec.variable.map(|variable| format!("variable {}", variable.to_string_lossy())));
    also.extend(spec.site.then(|| format!("key options.{} in coracle.yaml", spec.key)));
    // Of an option that only says no, the default stands with the one that says yes.
    also.extend(spec.default.filter(|_| spec.variable.is_some()).map(|default| format!("default {default}")));
    page.control("br", []).text([roman(sentence(&also.join("; ")))]);
}

/// A line of help as a sentence.
pub fn sentence(line: &str) -> String {
    let mut letters = line.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).chain(['.']).collect()).unwrap_or_default()
}
