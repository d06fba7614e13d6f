//! Evaluates `/.singularity.d/env/*.sh` without a shell.
//!
//! An image's environment scripts are nearly always plain: assignments, `export`, `unset`, and an `if` that tests a
//! variable. [`evaluate`] performs these as the shell does (POSIX.1-2017, Shell Command Language). For anything else it
//! returns [`NotPlain`], before it applies anything of that file. A command that is never reached, as in the scripts
//! for apps in every Apptainer image, only has to be parsable.
//!
//! The scripts are sourced into one shell. Therefore the first file that is not plain and all later ones are left to
//! the image's shell, in one process. It starts with [`Environment::exported`] and [`Environment::shell_prelude`];
//! [`Environment::take_over`] takes the variables that it exports in the end.
#![forbid(unsafe_code)]

mod syntax;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use super::{Environment, Origin, names};
use syntax::{AndOr, Command, List, Operator, Part, Pipeline, Word};

/// Maximum size of a script, in bytes.
pub const MAX_SCRIPT: usize = 1024 * 1024;
/// Maximum size of a value, in bytes: execve(2) takes no longer string (MAX_ARG_STRLEN).
const MAX_VALUE: usize = 128 * 1024;
/// Maximum number of bytes that all scripts of an image may read and produce. `A=$A$A` doubles with every line.
const MAX_WORK: usize = 16 * 1024 * 1024;

/// Script that needs a shell, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotPlain {
    /// Line number, from 1.
    pub line: usize,
    /// Text of the line, cut to 80 bytes.
    pub text: String,
}

impl NotPlain {
    fn new(line: usize, text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(&text[..text.len().min(80)]);
        Self { line, text: text.trim().to_owned() }
    }
}

impl fmt::Display for NotPlain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {} needs a shell: {}", self.line, self.text)
    }
}

/// Applies the script `text`; `file` is its name for [`Origin::Image`].
///
/// # Errors
///
/// [`NotPlain`] if it needs a shell; the variables of `environment` are unchanged then.
pub fn evaluate(file: &str, text: &[u8], environment: &mut Environment) -> Result<(), NotPlain> {
    if text.len() > MAX_SCRIPT {
        return Err(NotPlain { line: 1, text: format!("longer than {MAX_SCRIPT} bytes") });
    }
    let begun = environment.work.saturating_add(text.len());
    if begun > MAX_WORK {
        return Err(NotPlain { line: 1, text: format!("the scripts up to this one have more than {MAX_WORK} bytes") });
    }
    let list = syntax::parse(text)?;
    let mut shell = Shell { environment, touched: BTreeMap::new(), work: begun };
    let outcome = shell.list(&list);
    let (touched, work) = (shell.touched, shell.work);
    environment.work = work;
    outcome?;
    let origin = Origin::Image(Arc::from(file));
    for (name, slot) in touched {
        environment.set_shell_variable(OsStr::from_bytes(&name), slot, &origin);
    }
    Ok(())
}

/// Variable in the shell that sources the scripts.
#[derive(Clone, Default)]
struct ShellVariable {
    value: Option<Vec<u8>>,
    exported: bool,
}

impl Environment {
    fn shell_variable(&self, name: &OsStr) -> ShellVariable {
        if let Some(variable) = self.variables.get(name) {
            return ShellVariable { value: Some(variable.value.as_bytes().to_vec()), exported: true };
        }
        match self.shell.get(name) {
            Some(Some(value)) => ShellVariable { value: Some(value.as_bytes().to_vec()), exported: false },
            Some(None) => ShellVariable { value: None, exported: true },
            None => ShellVariable::default(),
        }
    }

    fn set_shell_variable(&mut self, name: &OsStr, variable: ShellVariable, origin: &Origin) {
        self.shell.remove(name);
        let value = variable.value.map(OsString::from_vec);
        match (value, variable.exported) {
            (Some(value), true) => self.set(name, value, origin),
            (value, exported) => {
                self.variables.remove(name);
                if exported || value.is_some() {
                    self.shell.insert(name.to_owned(), value);
                }
            }
        }
    }

    /// Shell commands that set what the previous scripts left in the shell without exporting it. They unset a `PS1`
    /// that the environment does not have: dash and busybox set one of their own, bash does not. A script that tests
    /// for it gets the same answer as from [`evaluate`].
    pub fn shell_prelude(&self) -> Vec<u8> {
        let mut text =
            if self.variables.contains_key(OsStr::new("PS1")) { Vec::new() } else { b"unset PS1\n".to_vec() };
        for (name, value) in &self.shell {
            match value {
                Some(value) => {
                    text.extend_from_slice(name.as_bytes());
                    text.extend_from_slice(b"='");
                    for byte in value.as_bytes() {
                        match byte {
                            b'\'' => text.extend_from_slice(b"'\\''"),
                            byte => text.push(*byte),
                        }
                    }
                    text.push(b'\'');
                }
                None => {
                    text.extend_from_slice(b"export ");
                    text.extend_from_slice(name.as_bytes());
                }
            }
            text.push(b'\n');
        }
        text
    }
}

/// Name and value.
type Assignment = (Vec<u8>, Vec<u8>);

struct Shell<'a> {
    environment: &'a Environment,
    /// Variables that the script has changed.
    touched: BTreeMap<Vec<u8>, ShellVariable>,
    work: usize,
}

impl Shell<'_> {
    fn list(&mut self, list: &List) -> Result<bool, NotPlain> {
        let mut status = true;
        for item in list {
            status = self.and_or(item)?;
        }
        Ok(status)
    }

    fn and_or(&mut self, item: &AndOr) -> Result<bool, NotPlain> {
        let mut status = self.pipeline(&item.first)?;
        for (after_success, pipeline) in &item.rest {
            if status == *after_success {
                status = self.pipeline(pipeline)?;
            }
        }
        Ok(status)
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<bool, NotPlain> {
        let status = match &pipeline.command {
            Command::Simple(words) => self.simple(words)?,
            Command::If(arms, otherwise) => self.conditional(arms, otherwise.as_ref())?,
        };
        Ok(status != pipeline.negated)
    }

    fn conditional(&mut self, arms: &[(List, List)], otherwise: Option<&List>) -> Result<bool, NotPlain> {
        for (condition, body) in arms {
            if self.list(condition)? {
                return self.list(body);
            }
        }
        otherwise.map_or(Ok(true), |body| self.list(body))
    }

    fn simple(&mut self, words: &[Word]) -> Result<bool, NotPlain> {
        let Some(command) = words.first() else { return Ok(true) };
        if command.assigned().is_some() {
            for word in words {
                // An assignment in front of a command applies to that command only.
                let (name, value) = self.assignment(word, false)?.ok_or_else(|| refuse(word))?;
                self.set(word, &name, value)?;
            }
            return Ok(true);
        }
        let arguments = &words[1..];
        match command.bare().ok_or_else(|| refuse(command))? {
            b":" | b"true" => {
                for word in arguments {
                    self.expand(&word.parts, word, false)?;
                }
                Ok(true)
            }
            b"false" if arguments.is_empty() => Ok(false),
            b"export" => self.export(command, arguments),
            b"unset" => self.unset(command, arguments),
            b"test" => self.test(command, arguments),
            b"[" => match arguments.split_last() {
                Some((last, arguments)) if last.bare() == Some(b"]") => self.test(command, arguments),
                _ => Err(refuse(command)),
            },
            _ => Err(refuse(command)),
        }
    }

    fn export(&mut self, command: &Word, arguments: &[Word]) -> Result<bool, NotPlain> {
        if arguments.is_empty() {
            return Err(refuse(command));
        }
        // All words are expanded before the first export.
        let mut exports = Vec::with_capacity(arguments.len());
        for word in arguments {
            exports.push(match self.assignment(word, true)? {
                Some((name, value)) => (word, name, Some(value)),
                None => (word, plain_name(word)?, None),
            });
        }
        for (word, name, value) in exports {
            let mut slot = self.slot(word, &name)?;
            slot.exported = true;
            slot.value = value.or(slot.value);
            self.touched.insert(name, slot);
        }
        Ok(true)
    }

    fn unset(&mut self, command: &Word, arguments: &[Word]) -> Result<bool, NotPlain> {
        let arguments = match arguments {
            [flag, rest @ ..] if flag.bare() == Some(b"-v") => rest,
            arguments => arguments,
        };
        if arguments.is_empty() {
            return Err(refuse(command));
        }
        for word in arguments {
            let name = plain_name(word)?;
            self.check(word, &name)?;
            self.touched.insert(name, ShellVariable::default());
        }
        Ok(true)
    }

    /// test(1) by its number of operands, as in POSIX; string tests only.
    fn test(&mut self, command: &Word, arguments: &[Word]) -> Result<bool, NotPlain> {
        let mut values = Vec::with_capacity(arguments.len());
        for word in arguments {
            let value = self.expand(&word.parts, word, true)?;
            // An unquoted empty expansion is no operand.
            let quoted = |part: &Part| matches!(part, Part::Literal { .. } | Part::Variable { quoted: true, .. });
            if value.is_empty() && !word.parts.iter().any(quoted) {
                return Err(refuse(word));
            }
            values.push(value);
        }
        let mut values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let negated = values.len() > 1 && values[0] == b"!" && !(values.len() == 3 && is_comparison(values[1]));
        if negated {
            values.remove(0);
        }
        let status = match values.as_slice() {
            [value] => !value.is_empty(),
            [b"-n", value] => !value.is_empty(),
            [b"-z", value] => value.is_empty(),
            [left, b"=", right] => left == right,
            [left, b"!=", right] => left != right,
            _ => return Err(refuse(command)),
        };
        Ok(status != negated)
    }

    /// Name and value of `NAME=word`, if `word` has this form. `argument`: `word` is an argument of a command, whose
    /// value some shells split into fields.
    fn assignment(&mut self, word: &Word, argument: bool) -> Result<Option<Assignment>, NotPlain> {
        let Some((name, start)) = word.assigned() else { return Ok(None) };
        let name = name.to_vec();
        let mut value = match word.parts.first() {
            Some(Part::Literal { bytes, .. }) => bytes[start..].to_vec(),
            _ => Vec::new(),
        };
        self.spend(name.len() + value.len(), word)?;
        value.extend(self.expand(&word.parts[1..], word, argument)?);
        if value.len() + name.len() >= MAX_VALUE {
            return Err(refuse(word));
        }
        Ok(Some((name, value)))
    }

    fn expand(&mut self, parts: &[Part], word: &Word, argument: bool) -> Result<Vec<u8>, NotPlain> {
        let mut value = Vec::new();
        for part in parts {
            match part {
                Part::Literal { bytes, .. } => value.extend_from_slice(bytes),
                Part::Variable { name, quoted, otherwise } => {
                    let expanded = self.variable(name, otherwise.as_ref(), word)?;
                    // The shell would split this value into fields or match it with file names.
                    if argument && !quoted && expanded.iter().any(|byte| b" \t\n*?[\\".contains(byte)) {
                        return Err(refuse(word));
                    }
                    value.extend(expanded);
                }
                Part::Special(_) => return Err(refuse(word)),
            }
            if value.len() >= MAX_VALUE {
                return Err(refuse(word));
            }
        }
        self.spend(value.len(), word)?;
        Ok(value)
    }

    fn spend(&mut self, bytes: usize, word: &Word) -> Result<(), NotPlain> {
        self.work = self.work.saturating_add(bytes);
        if self.work > MAX_WORK { Err(refuse(word)) } else { Ok(()) }
    }

    fn variable(
        &mut self,
        name: &[u8],
        otherwise: Option<&(Operator, Word)>,
        word: &Word,
    ) -> Result<Vec<u8>, NotPlain> {
        let value = self.slot(word, name)?.value;
        let Some((operator, alternative)) = otherwise else { return Ok(value.unwrap_or_default()) };
        let missing = value.as_ref().is_none_or(|value| operator.colon && value.is_empty());
        match (operator.kind, missing) {
            (b'+', true) => Ok(Vec::new()),
            (b'+', false) => self.expand(&alternative.parts, alternative, false),
            (_, false) => Ok(value.unwrap_or_default()),
            (kind, true) => {
                let fallback = self.expand(&alternative.parts, alternative, false)?;
                if kind == b'=' {
                    self.set(word, name, fallback.clone())?;
                }
                Ok(fallback)
            }
        }
    }

    fn set(&mut self, word: &Word, name: &[u8], value: Vec<u8>) -> Result<(), NotPlain> {
        let mut slot = self.slot(word, name)?;
        slot.value = Some(value);
        self.touched.insert(name.to_vec(), slot);
        Ok(())
    }

    fn slot(&self, word: &Word, name: &[u8]) -> Result<ShellVariable, NotPlain> {
        self.check(word, name)?;
        Ok(match self.touched.get(name) {
            Some(slot) => slot.clone(),
            None => self.environment.shell_variable(OsStr::from_bytes(name)),
        })
    }

    /// Refuses variables that the shell itself sets or watches: their values are not in any environment.
    fn check(&self, word: &Word, name: &[u8]) -> Result<(), NotPlain> {
        if names::is_the_shells(name) { Err(refuse(word)) } else { Ok(()) }
    }
}

fn is_comparison(operator: &[u8]) -> bool {
    matches!(operator, b"=" | b"!=")
}

fn plain_name(word: &Word) -> Result<Vec<u8>, NotPlain> {
    word.bare().filter(|name| names::is_proper(name)).map(<[u8]>::to_vec).ok_or_else(|| refuse(word))
}

fn refuse(word: &Word) -> NotPlain {
    let mut text = Vec::new();
    for part in &word.parts {
        match part {
            Part::Literal { bytes, .. } => text.extend_from_slice(bytes),
            Part::Variable { name, .. } => {
                text.push(b'$');
                text.extend_from_slice(name);
            }
            Part::Special(byte) => text.extend([b'$', *byte]),
        }
    }
    NotPlain::new(word.line, &text)
}
