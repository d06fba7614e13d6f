//! Replaces `{{ NAME }}` in a definition file by values of %arguments and --build-arg.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use coracle::report::{Kind, Refusal};

use super::parse;

/// Values of --build-arg, with those that were used.
#[derive(Debug)]
pub struct Arguments {
    given: BTreeMap<String, String>,
    used: BTreeSet<String>,
}

impl Arguments {
    /// Parses the values of --build-arg.
    pub fn of(words: &[String]) -> Result<Self, Refusal> {
        let refuse = |word: &str, cause: &str| Refusal::new(Kind::Usage, format!("--build-arg {word}"), cause);
        let mut given = BTreeMap::new();
        for word in words {
            let (name, value) = pair(word).ok_or_else(|| refuse(word, "NAME=VALUE is wanted"))?;
            if value.contains(['\n', '\r']) {
                return Err(refuse(name, "a value has no line breaks"));
            }
            given.insert(name.to_owned(), value.to_owned());
        }
        Ok(Self { given, used: BTreeSet::new() })
    }

    /// Returns the text of a stage, which begins at line `first` of `file`, with values in place of names.
    pub fn fill(&mut self, file: &str, first: usize, text: &str) -> Result<String, Refusal> {
        let defaults = defaults(file, first, text)?;
        let mut out = String::new();
        for (number, line) in (first..).zip(text.split_inclusive('\n')) {
            let mut rest = line;
            while let Some((before, name, behind)) = next(rest) {
                let done = line.len() - rest.len() + before.len();
                out.push_str(before);
                if is_comment(&line[..done]) {
                    out.push_str(&rest[before.len()..rest.len() - behind.len()]);
                } else {
                    let value = self.value(name, &defaults);
                    let value = value.ok_or_else(|| {
                        Refusal::new(Kind::Build, parse::at(file, number), format!("{{{{ {name} }}}} has no value"))
                            .hint(format!(
                                "--build-arg {name}=VALUE gives it one, or a line {name}=VALUE in %arguments"
                            ))
                    })?;
                    out.push_str(&value);
                }
                rest = behind;
            }
            out.push_str(rest);
        }
        Ok(out)
    }

    /// Refuses values that no name uses: they may be misspelt.
    pub fn all_used(&self) -> Result<(), Refusal> {
        match self.given.keys().find(|name| !self.used.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                let cause = format!("the definition has no {{{{ {name} }}}}");
                Err(Refusal::new(Kind::Usage, format!("--build-arg {name}"), cause))
            }
        }
    }

    fn value(&mut self, name: &str, defaults: &BTreeMap<String, String>) -> Option<String> {
        self.used.insert(name.to_owned());
        let found = self.given.get(name).or_else(|| defaults.get(name))?.clone();
        // A value may contain names; they are replaced once.
        let (mut out, mut rest) = (String::new(), found.as_str());
        while let Some((before, inner, behind)) = next(rest) {
            out.push_str(before);
            match self.given.get(inner).or_else(|| defaults.get(inner)) {
                Some(value) => out.push_str(value),
                None => out.push_str(&rest[before.len()..rest.len() - behind.len()]),
            }
            self.used.insert(inner.to_owned());
            rest = behind;
        }
        out.push_str(rest);
        Some(out)
    }
}

/// Values of %arguments in a stage.
fn defaults(file: &str, first: usize, text: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let (mut found, mut inside) = (BTreeMap::new(), false);
    for (number, line) in (first..).zip(text.lines()) {
        let line = line.trim();
        if line.starts_with('%') {
            inside = line.split_whitespace().next().is_some_and(|name| name.eq_ignore_ascii_case("%arguments"));
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let (name, value) = pair(line).ok_or_else(|| {
                Refusal::new(
                    Kind::Build,
                    parse::at(file, number),
                    format!("{line:?}: NAME=VALUE is wanted in %arguments"),
                )
            })?;
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(found)
}

fn pair(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim();
    (!name.is_empty() && name.chars().all(is_letter)).then_some((name, value.trim()))
}

fn is_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Text in front of the next `{{ NAME }}`, the name, and the text behind it.
fn next(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(at) = text[from..].find("{{").map(|at| at + from) {
        let behind = &text[at + 2..];
        if let Some(end) = behind.find("}}") {
            let name = behind[..end].trim();
            if !name.is_empty() && name.chars().all(is_letter) {
                return Some((&text[..at], name, &behind[end + 2..]));
            }
        }
        from = at + 1;
    }
    None
}

/// True if `before`, the text in front on the line, has a `#` other than that of a `#!`; as in Apptainer.
fn is_comment(before: &str) -> bool {
    let mut letters = before.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '#' && letters.peek() != Some(&'!') {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_for_names_but_not_in_comments() {
        let text = "Bootstrap: docker\nFrom: debian:{{ TAG }}\n%arguments\n# a comment\nTAG=12\nDIR = /opt/{{TAG}}\n\
                    %post\n# {{ TAG }} here\nmkdir {{DIR}} {{ DIR }}/{ x } {{ }} {{ a-b }}\n#!{{ TAG }}\n";
        let filled = Arguments::of(&[]).unwrap().fill("d", 1, text).unwrap();
        assert!(filled.contains("From: debian:12\n") && filled.contains("# {{ TAG }} here\n"), "{filled}");
        assert!(
            filled.contains("mkdir /opt/12 /opt/12/{ x } {{ }} {{ a-b }}\n") && filled.contains("#!12\n"),
            "{filled}"
        );
        let mut given = Arguments::of(&["TAG=13=a".into()]).unwrap();
        assert!(given.fill("d", 1, text).unwrap().contains("debian:13=a\n"));
        given.all_used().unwrap();
    }

    #[test]
    fn what_has_no_value_and_what_nothing_wants_are_refused() {
        let mut given = Arguments::of(&["OTHER=1".into()]).unwrap();
        let refused = given.fill("x.def", 4, "a\nb {{ NAME }}\n").unwrap_err();
        assert_eq!(refused.line(), "coracle: x.def:5: {{ NAME }} has no value [build]");
        assert_eq!(
            given.all_used().unwrap_err().line(),
            "coracle: --build-arg OTHER: the definition has no {{ OTHER }} [usage]"
        );
        assert!(Arguments::of(&["novalue".into()]).unwrap_err().cause.contains("NAME=VALUE"));
        assert!(Arguments::of(&["A=b\nc".into()]).unwrap_err().cause.contains("line breaks"));
        let refused = Arguments::of(&[]).unwrap().fill("x", 1, "%arguments\nwrong\n").unwrap_err();
        assert!(refused.line().starts_with("coracle: x:2: \"wrong\""));
    }
}
