//! Parses definition files in the syntax of Apptainer and Singularity: a header and sections for each stage.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use coracle::report::{Kind, Refusal};

/// Keys of a header that have an effect here.
const KEYS: [&str; 11] = [
    "bootstrap",
    "from",
    "stage",
    "registry",
    "namespace",
    "includecmd",
    "osversion",
    "mirrorurl",
    "include",
    "updateurl",
    "fingerprints",
];
/// Sections of a definition, except %files and those of apps.
const SECTIONS: [&str; 10] =
    ["arguments", "environment", "help", "labels", "post", "pre", "runscript", "setup", "startscript", "test"];
/// Sections of apps.
const APP_SECTIONS: [&str; 8] =
    ["appenv", "appfiles", "apphelp", "appinstall", "applabels", "apprun", "appstart", "apptest"];

/// Text of a section, and its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Section {
    /// Number of its first line, from 1 on.
    pub line: usize,
    /// Words behind its name.
    pub arguments: String,
    /// Its lines, each with a line break.
    pub text: String,
}

impl Section {
    /// True if the section has no content.
    pub fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }

    /// Complete script with its interpreter line: that of the text, or /bin/sh, with the arguments.
    pub fn script(&self) -> String {
        let arguments = without_comment(&self.arguments).trim();
        let (first, rest) = match self.text.trim_start().split_once('\n') {
            Some((first, rest)) if first.starts_with("#!") => (first.trim_end(), rest),
            _ => ("#!/bin/sh", self.text.as_str()),
        };
        let blank = if arguments.is_empty() { "" } else { " " };
        format!("{first}{blank}{arguments}\n\n{rest}")
    }
}

/// Line of %files: source and target of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Number of the line.
    pub line: usize,
    /// Pattern of the source.
    pub from: String,
    /// Target; the path of the source if the line has none.
    pub to: Option<String>,
}

/// %files section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Number of its line.
    pub line: usize,
    /// Stage from which it copies; `None` for the host.
    pub stage: Option<String>,
    /// Its lines.
    pub list: Vec<Transfer>,
}

/// App (SCIF, the Scientific Filesystem).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct App {
    /// Name of the app.
    pub name: String,
    /// Its sections, by their names: appenv, appfiles …
    pub sections: BTreeMap<String, Section>,
}

/// Stage of a definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stage {
    /// Number of its first line.
    pub line: usize,
    /// Its header, by key in lower case, with the number of the line.
    pub header: BTreeMap<String, (usize, String)>,
    /// Its sections, by their names in lower case.
    pub sections: BTreeMap<String, Section>,
    /// Its %files sections.
    pub files: Vec<Files>,
    /// Its apps, in the order of their first section.
    pub apps: Vec<App>,
}

impl Stage {
    /// Value of `key` in the header.
    pub fn header(&self, key: &str) -> Option<&str> {
        self.header.get(key).map(|(_, value)| value.as_str())
    }

    /// Section `name`, if it has content.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.get(name).filter(|section| !section.is_empty())
    }
}

/// Place in a file, as `file:line`.
pub fn at(file: &str, line: usize) -> String {
    format!("{file}:{line}")
}

fn refuse(file: &str, line: usize, cause: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Build, at(file, line), cause)
}

/// Splits a definition into the texts of its stages, each with the number of its first line. A line that starts with
/// `Bootstrap:` starts a stage.
pub fn stages(text: &str) -> Vec<(usize, &str)> {
    let mut begins = Vec::new();
    let mut offset = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("bootstrap:")) {
            // Other keys may precede the first one. A section that does is not left out: its stage has no header.
            begins.push(if begins.is_empty() { (1, 0) } else { (number + 1, offset) });
        }
        offset += line.len();
    }
    if begins.is_empty() {
        begins.push((1, 0));
    }
    let ends = begins.iter().skip(1).map(|(_, at)| *at).chain([text.len()]);
    begins.iter().zip(ends).map(|((line, from), to)| (*line, &text[*from..to])).collect()
}

/// Parses the stage in `text`, which begins at line `first` of `file`.
pub fn stage(file: &str, first: usize, text: &str) -> Result<Stage, Refusal> {
    let mut stage = Stage { line: first, ..Stage::default() };
    let mut lines = (first..).zip(text.lines()).peekable();
    let mut head = Vec::new();
    while let Some((number, line)) = lines.next_if(|(_, line)| !line.trim_start().starts_with('%')) {
        head.push((number, line));
    }
    header(file, &head, &mut stage)?;
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        let (name, arguments) = line[1..].split_once(char::is_whitespace).unwrap_or((&line[1..], ""));
        let mut section = Section { line: number, arguments: arguments.trim().to_owned(), text: String::new() };
        let mut body = Vec::new();
        while let Some((number, line)) = lines.next_if(|(_, line)| !line.trim_start().starts_with('%')) {
            section.text.push_str(line);
            section.text.push('\n');
            body.push((number, line));
        }
        add(file, &name.to_ascii_lowercase(), section, &body, &mut stage)?;
    }
    Ok(stage)
}

fn header(file: &str, lines: &[(usize, &str)], stage: &mut Stage) -> Result<(), Refusal> {
    let mut open: Option<(usize, String, String)> = None;
    for (number, line) in lines {
        let line = without_comment(line).trim();
        if line.is_empty() && open.is_none() {
            continue;
        }
        let (first, key, mut value) = match open.take() {
            Some((first, key, value)) => (first, key, format!("{value}{line}")),
            None => {
                let (key, value) = line.split_once(':').ok_or_else(|| {
                    refuse(file, *number, format!("{line:?} is no line of a header, such as From: debian"))
                })?;
                (*number, key.trim().to_ascii_lowercase(), value.trim().to_owned())
            }
        };
        if value.ends_with('\\') {
            value.pop();
            open = Some((first, key, value));
            continue;
        }
        if !KEYS.contains(&key.as_str()) {
            let cause = format!("no header has {key:?} here: {} are known", KEYS.join(", "));
            return Err(refuse(file, first, cause));
        }
        if stage.header.insert(key.clone(), (first, value)).is_some() {
            return Err(refuse(file, first, format!("{key} is there twice")));
        }
    }
    match open {
        Some((first, key, _)) => {
            Err(refuse(file, first, format!("{key} goes on with a \\ on a line that is not there")))
        }
        None => Ok(()),
    }
}

fn add(file: &str, name: &str, section: Section, body: &[(usize, &str)], stage: &mut Stage) -> Result<(), Refusal> {
    let line = section.line;
    if name == "files" {
        let list = body.iter().filter_map(|(number, line)| transfer(file, *number, line).transpose());
        let words: Vec<&str> = without_comment(&section.arguments).split_whitespace().collect();
        let from = match words[..] {
            [] => None,
            [from, name] if from.eq_ignore_ascii_case("from") => Some(name.to_owned()),
            _ => return Err(refuse(file, line, "%files alone, or %files from STAGE, is wanted")),
        };
        stage.files.push(Files { line, stage: from, list: list.collect::<Result<_, _>>()? });
        return Ok(());
    }
    if APP_SECTIONS.contains(&name) {
        let app = without_comment(&section.arguments).trim();
        // The name becomes a directory and part of shell scripts.
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.+".contains(letter);
        if app.is_empty() || app.starts_with('.') || !app.chars().all(plain) {
            let cause = format!("%{name} is followed by the name of an app: of letters, digits, and _ - . +");
            return Err(refuse(file, line, cause));
        }
        let app = app.to_owned();
        let at = match stage.apps.iter().position(|known| known.name == app) {
            Some(at) => at,
            None => {
                stage.apps.push(App { name: app, ..App::default() });
                stage.apps.len() - 1
            }
        };
        if let Some(found) = stage.apps.get_mut(at) {
            join(&mut found.sections, name, section);
        }
        return Ok(());
    }
    if !SECTIONS.contains(&name) {
        let known = SECTIONS.iter().chain(["files"].iter()).chain(&APP_SECTIONS);
        let known: Vec<String> = known.map(|known| format!("%{known}")).collect();
        let cause = format!("there is no section %{name}: {} are known", known.join(", "));
        return Err(refuse(file, line, cause).hint("a line that begins with % begins a section, also within a script"));
    }
    join(&mut stage.sections, name, section);
    Ok(())
}

/// Appends a section to an earlier one with the same name.
fn join(sections: &mut BTreeMap<String, Section>, name: &str, section: Section) {
    match sections.get_mut(name) {
        Some(known) => {
            known.text.push_str(&section.text);
            if !section.arguments.is_empty() {
                known.arguments = section.arguments;
            }
        }
        None => {
            sections.insert(name.to_owned(), section);
        }
    }
}

/// Parses a line of %files. `None` if it is empty or a comment.
pub fn transfer(file: &str, number: usize, line: &str) -> Result<Option<Transfer>, Refusal> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let words = words(line).ok_or_else(|| refuse(file, number, format!("a quotation mark is missing in {line:?}")))?;
    let (from, to) = match &words[..] {
        [from] => (from, None),
        [from, to] => (from, Some(to.clone())),
        _ => {
            return Err(refuse(
                file,
                number,
                format!("{line:?} is more than two names: put those with blanks into \"\""),
            ));
        }
    };
    Ok(Some(Transfer { line: number, from: from.clone(), to }))
}

/// Words of a line, some maybe in quotation marks. A word that starts with # starts a comment.
fn words(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match quote {
            Some(mark) if letter == mark => quote = None,
            Some(_) => word.get_or_insert_default().push(letter),
            None if letter == '"' || letter == '\'' => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter.is_whitespace() => words.extend(word.take()),
            None if letter == '#' && word.is_none() => break,
            None => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// Text in front of a `#`.
pub fn without_comment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(before, _)| before)
}
