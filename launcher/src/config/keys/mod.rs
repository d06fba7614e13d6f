//! Table of the keys of coracle.yaml, in the order of the documentation.
//!
//! coracle.yaml(5), the tables of docs/admin and the example file are made from it. Tests compare it with the parser:
//! each structure has the keys of the table, each default is the parser's, and the limits of each value are its own.
#![forbid(unsafe_code)]

mod containers;
mod images;
mod records;
mod rules;

use std::fmt;

/// Requirements of the file itself.
pub const ABOUT: &str = "The file and every directory above it must belong to root and be writable by no other user. It is \
    read for each step, without a restart. With an unknown key, a wrong type or a broken line no container starts; the error that \
    users see names the file.";

/// Part of the documentation with the keys of one subject.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Heading.
    pub title: &'static str,
    /// Sentences that hold for all of its keys.
    pub text: &'static str,
    /// Page below docs/admin with more, or nothing.
    pub page: &'static str,
    /// Its keys, which stand at the top level of the file.
    pub keys: &'static [Key],
}

/// All keys.
pub const SECTIONS: &[Section] = &[
    section(
        "Format",
        &[Key::new("version", Value::Number(1, 1), Unset::Refused, "Format of the file.").example("version: 1")],
    ),
    section("Images", images::KEYS),
    Section { title: "Rules", text: rules::TEXT, page: "trust.md#rules", keys: rules::KEYS },
    section("Containers", containers::KEYS),
    section("Starts and records", records::KEYS),
];

const fn section(title: &'static str, keys: &'static [Key]) -> Section {
    Section { title, text: "", page: "", keys }
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Values that it can have.
    pub value: Value,
    /// Word that stands in place of such a value, or nothing.
    pub or: &'static str,
    /// Meaning of a file without the key.
    pub unset: Unset,
    /// Scopes that can have it.
    pub scopes: Scopes,
    /// Meaning and reason: sentences with names in backquotes.
    pub text: &'static str,
    /// Page below docs/admin with more, or nothing.
    pub page: &'static str,
    /// Lines of the example file, of a key of the top level; a comment sign stands before those that choose nothing.
    pub example: &'static str,
}

/// Values of a key.
#[derive(Debug, Clone, Copy)]
pub enum Value {
    /// One of these words, each with its meaning.
    Words(&'static [(&'static str, &'static str)]),
    /// Yes or no.
    YesNo,
    /// Number from the first to the second.
    Number(u64, u64),
    /// Number of bytes: `50g`.
    Size,
    /// Absolute path.
    Path,
    /// Text of this form.
    Text(&'static str),
    /// List of texts of this form.
    List(&'static str),
    /// Keys with values.
    Keys(&'static [Key]),
    /// List whose items have these keys.
    Items(&'static [Key]),
    /// Names of this kind, each with these keys.
    Named(&'static str, &'static [Key]),
    /// Names of this kind, each with keys of a rule: those of [`Scopes::Each`].
    Rules(&'static str),
    /// Names of the options that a site may set (`site` of [`coracle::options::OPTIONS`]), with their values.
    Options,
}

/// Meaning of a file without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unset {
    /// The same as with this value, in YAML.
    Value(&'static str),
    /// The same as with a value that depends on the node, as these words describe it.
    Found(&'static str),
    /// There is no value.
    Nothing,
    /// An error.
    Refused,
}

/// Scopes that can have a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scopes {
    /// The top level only.
    Top,
    /// The top level, and the rule of each scope.
    Each,
}

impl Key {
    const fn new(name: &'static str, value: Value, unset: Unset, text: &'static str) -> Self {
        Self { name, value, or: "", unset, scopes: Scopes::Top, text, page: "", example: "" }
    }

    /// Key of a rule, which a scope without it takes from a wider one.
    const fn rule(name: &'static str, value: Value, text: &'static str) -> Self {
        Self { scopes: Scopes::Each, ..Self::new(name, value, Unset::Nothing, text) }
    }

    const fn or(self, or: &'static str) -> Self {
        Self { or, ..self }
    }

    const fn page(self, page: &'static str) -> Self {
        Self { page, ..self }
    }

    const fn example(self, example: &'static str) -> Self {
        Self { example, ..self }
    }

    /// Words of which it has one, each with its meaning.
    pub fn words(&self) -> &'static [(&'static str, &'static str)] {
        if let Value::Words(words) = self.value { words } else { &[] }
    }

    /// Keys below it.
    pub fn keys(&self) -> &'static [Key] {
        match self.value {
            Value::Keys(keys) | Value::Items(keys) | Value::Named(_, keys) => keys,
            _ => &[],
        }
    }
}

/// All keys of the top level.
pub fn top() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// Keys of a rule.
pub fn of_rules() -> impl Iterator<Item = &'static Key> {
    top().filter(|key| key.scopes == Scopes::Each)
}

/// Values of a key in words, with names in backquotes: "`1` to `45`".
pub fn form(key: &Key) -> String {
    let names = |keys: &[Key]| keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
    let form = match key.value {
        Value::Words(words) => {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
            match words.split_last() {
                Some((last, first)) if !first.is_empty() => format!("{} or {last}", first.join(", ")),
                _ => words.concat(),
            }
        }
        Value::YesNo => "`yes` or `no`".into(),
        Value::Number(least, most) if least == most => format!("`{least}`"),
        Value::Number(least, most) => format!("`{least}` to `{most}`"),
        Value::Size => "number of bytes, such as `50g`".into(),
        Value::Path => "absolute path".into(),
        Value::Text(form) => format!("`{form}`"),
        Value::List(form) => format!("`[{form}, …]`"),
        Value::Keys(keys) => format!("`{{{}}}`", names(keys)),
        Value::Items(keys) => format!("`[{{{}}}, …]`", names(keys)),
        Value::Named(name, keys) => format!("`{{{name}: {{{}}}}}`", names(keys)),
        Value::Rules(name) => format!("`{{{name}: RULE}}`"),
        Value::Options => "`{OPTION: VALUE}`".into(),
    };
    if key.or.is_empty() { form } else { format!("{form}, or `{}`", key.or) }
}

/// Meaning, values and default of a key as sentences, without the words and keys that [`Key::words`] and [`Key::keys`]
/// give.
pub fn description(key: &Key) -> String {
    let mut text = key.text.to_owned();
    let listed = matches!(key.value, Value::Words(_) | Value::Rules(_)) || !key.keys().is_empty();
    if !listed {
        text += &format!(" Value: {}.", form(key));
    }
    if !matches!(key.unset, Unset::Nothing | Unset::Refused | Unset::Value("{}" | "[]")) {
        text += &format!(" Default: {}.", key.unset);
    }
    text
}

impl fmt::Display for Unset {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(out, "`{value}`"),
            Self::Found(words) => out.write_str(words),
            Self::Nothing => out.write_str("none"),
            Self::Refused => out.write_str("required"),
        }
    }
}

#[cfg(test)]
mod tests;
