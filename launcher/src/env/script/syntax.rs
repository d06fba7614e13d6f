//! Parses the part of the shell's grammar (POSIX.1-2017, Shell Command Language, 2.2 to 2.10) that needs no shell:
//! words, simple commands, `&&`, `||`, `!` and `if`.
//!
//! If shells disagree, the shell decides: a byte makes the script not plain, unless it is known to mean the same in
//! dash, bash and busybox.
#![forbid(unsafe_code)]

use super::NotPlain;

/// Maximum nesting of `if` and of `${…}`: the parser is recursive, and the script is untrusted.
const MAX_DEPTH: usize = 32;

/// Sequence of commands.
pub(super) type List = Vec<AndOr>;

/// `a && b || c`
pub(super) struct AndOr {
    pub first: Pipeline,
    /// Pipelines that follow: true for those after `&&`, false for those after `||`.
    pub rest: Vec<(bool, Pipeline)>,
}

/// Command, with a flag for a leading `!`.
pub(super) struct Pipeline {
    pub negated: bool,
    pub command: Command,
}

pub(super) enum Command {
    Simple(Vec<Word>),
    /// Conditions with their branches, and `else`.
    If(Vec<(List, List)>, Option<List>),
}

pub(super) struct Word {
    pub line: usize,
    pub parts: Vec<Part>,
}

pub(super) enum Part {
    Literal {
        bytes: Vec<u8>,
        quoted: bool,
    },
    Variable {
        name: Vec<u8>,
        quoted: bool,
        otherwise: Option<(Operator, Word)>,
    },
    /// `$@`, `$?` and similar: permitted in a command that is never run.
    Special(u8),
}

/// Operator between name and word in `${NAME:-word}` (2.6.2).
#[derive(Clone, Copy)]
pub(super) struct Operator {
    /// With a colon: an empty value counts as unset.
    pub colon: bool,
    /// `-`, `=` or `+`.
    pub kind: u8,
}

impl Word {
    /// Text of a word without quotes and expansions.
    pub fn bare(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [Part::Literal { bytes, quoted: false }] => Some(bytes),
            _ => None,
        }
    }

    /// `NAME` of an unquoted `NAME=` at the start of a word, and the offset of the value in the first part.
    pub fn assigned(&self) -> Option<(&[u8], usize)> {
        let Some(Part::Literal { bytes, quoted: false }) = self.parts.first() else { return None };
        let equals = bytes.iter().position(|byte| *byte == b'=')?;
        let name = &bytes[..equals];
        crate::env::names::is_proper(name).then_some((name, equals + 1))
    }
}

/// Parses a whole script.
pub(super) fn parse(text: &[u8]) -> Result<List, NotPlain> {
    let mut parser = Parser { text, at: 0, line: 1, depth: 0 };
    let list = parser.list()?;
    match parser.peek() {
        None => Ok(list),
        Some(_) => Err(parser.not_plain()),
    }
}

/// Words that end a list or begin a compound command, if they are in the place of a command's name.
const CLOSING: [&[u8]; 4] = [b"then", b"elif", b"else", b"fi"];
const FOREIGN: [&[u8]; 14] = [
    b"case",
    b"for",
    b"while",
    b"until",
    b"do",
    b"done",
    b"esac",
    b"select",
    b"function",
    b"time",
    b"coproc",
    b"in",
    b"[[",
    b"]]",
];

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn second(&self) -> Option<u8> {
        self.text.get(self.at.saturating_add(1)).copied()
    }

    fn advance(&mut self) {
        if self.peek() == Some(b'\n') {
            self.line = self.line.saturating_add(1);
        }
        self.at = self.at.saturating_add(1);
    }

    fn next(&mut self) -> Result<u8, NotPlain> {
        let byte = self.peek().filter(|byte| *byte != 0).ok_or_else(|| self.not_plain())?;
        self.advance();
        Ok(byte)
    }

    /// Error for the current line.
    fn not_plain(&self) -> NotPlain {
        let at = self.at.min(self.text.len());
        let start = self.text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let end = self.text[at..].iter().position(|byte| *byte == b'\n').map_or(self.text.len(), |more| at + more);
        NotPlain::new(self.line, &self.text[start..end])
    }

    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, NotPlain>) -> Result<T, NotPlain> {
        if self.depth >= MAX_DEPTH {
            return Err(self.not_plain());
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn skip_blanks(&mut self) {
        loop {
            match (self.peek(), self.second()) {
                (Some(b' ' | b'\t'), _) => self.advance(),
                (Some(b'\\'), Some(b'\n')) => {
                    self.advance();
                    self.advance();
                }
                (Some(b'#'), _) => {
                    while self.peek().is_some_and(|byte| byte != b'\n') {
                        self.advance();
                    }
                }
                _ => return,
            }
        }
    }

    fn skip_lines(&mut self) {
        self.skip_blanks();
        while self.peek() == Some(b'\n') {
            self.advance();
            self.skip_blanks();
        }
    }

    /// Next bare word, without consuming it.
    fn upcoming(&self) -> &[u8] {
        let rest = &self.text[self.at.min(self.text.len())..];
        let end = rest.iter().position(|byte| b" \t\n;&|\\".contains(byte)).unwrap_or(rest.len());
        &rest[..end]
    }

    fn list(&mut self) -> Result<List, NotPlain> {
        let mut list = List::new();
        loop {
            self.skip_lines();
            if self.peek().is_none() || CLOSING.contains(&self.upcoming()) {
                return Ok(list);
            }
            list.push(self.and_or()?);
            match self.peek() {
                None => return Ok(list),
                Some(b'\n') => self.advance(),
                Some(b';') if self.second() != Some(b';') => self.advance(),
                Some(_) => return Err(self.not_plain()),
            }
        }
    }

    fn and_or(&mut self) -> Result<AndOr, NotPlain> {
        let first = self.pipeline()?;
        let mut rest = Vec::new();
        loop {
            match (self.peek(), self.second()) {
                (Some(b'&'), Some(b'&')) | (Some(b'|'), Some(b'|')) => {
                    let after_success = self.peek() == Some(b'&');
                    self.advance();
                    self.advance();
                    self.skip_lines();
                    rest.push((after_success, self.pipeline()?));
                }
                _ => return Ok(AndOr { first, rest }),
            }
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, NotPlain> {
        let negated = self.upcoming() == b"!";
        if negated {
            self.advance();
            self.skip_blanks();
        }
        let command = if self.upcoming() == b"if" { self.nested(Self::conditional)? } else { self.simple()? };
        self.skip_blanks();
        Ok(Pipeline { negated, command })
    }

    /// True if the keyword is next; consumes it.
    fn keyword(&mut self, word: &[u8]) -> bool {
        let here = self.upcoming() == word;
        if here {
            self.at = self.at.saturating_add(word.len());
        }
        here
    }

    fn conditional(&mut self) -> Result<Command, NotPlain> {
        let mut arms = Vec::new();
        while self.keyword(if arms.is_empty() { b"if" } else { b"elif" }) {
            let condition = self.list()?;
            if condition.is_empty() || !self.keyword(b"then") {
                return Err(self.not_plain());
            }
            let body = self.list()?;
            if body.is_empty() {
                return Err(self.not_plain());
            }
            arms.push((condition, body));
        }
        let otherwise = if self.keyword(b"else") { Some(self.list()?) } else { None };
        if otherwise.as_ref().is_some_and(Vec::is_empty) || !self.keyword(b"fi") {
            return Err(self.not_plain());
        }
        Ok(Command::If(arms, otherwise))
    }

    fn simple(&mut self) -> Result<Command, NotPlain> {
        let next = self.upcoming();
        if FOREIGN.contains(&next) || CLOSING.contains(&next) || next == b"!" {
            return Err(self.not_plain());
        }
        let mut words = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                None | Some(b'\n' | b';' | b'&' | b'|') if words.is_empty() => return Err(self.not_plain()),
                None | Some(b'\n' | b';' | b'&' | b'|') => return Ok(Command::Simple(words)),
                Some(_) => words.push(self.word()?),
            }
        }
    }

    fn word(&mut self) -> Result<Word, NotPlain> {
        let line = self.line;
        let mut parts = Vec::new();
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' => break,
                _ => self.piece(&mut parts)?,
            }
        }
        let bracket = |part: &Part| match part {
            Part::Literal { bytes, quoted: false } => bytes.contains(&b'[') || bytes.contains(&b']'),
            _ => false,
        };
        let word = Word { line, parts };
        let is_test = word.bare().is_some_and(|text| text == b"[" || text == b"]");
        if !is_test && word.parts.iter().any(bracket) {
            return Err(self.not_plain());
        }
        Ok(word)
    }

    /// Reads one piece of an unquoted word.
    fn piece(&mut self, parts: &mut Vec<Part>) -> Result<(), NotPlain> {
        match self.next()? {
            b'\'' => {
                let mut bytes = Vec::new();
                loop {
                    match self.next()? {
                        b'\'' => break,
                        byte => bytes.push(byte),
                    }
                }
                parts.push(Part::Literal { bytes, quoted: true });
            }
            b'"' => self.double_quoted(parts, false)?,
            b'\\' => match self.next()? {
                b'\n' => {}
                byte => parts.push(Part::Literal { bytes: vec![byte], quoted: true }),
            },
            b'$' => self.dollar(parts, false)?,
            byte if byte.is_ascii_alphanumeric() || b"_-+.,/:@%=^#![]".contains(&byte) => push(parts, byte, false),
            _ => return Err(self.not_plain()),
        }
        Ok(())
    }

    /// Reads up to the closing quote. `inner`: in quotes within a quoted `${…}`, where bash and dash treat a backslash
    /// before an ordinary character differently.
    fn double_quoted(&mut self, parts: &mut Vec<Part>, inner: bool) -> Result<(), NotPlain> {
        parts.push(Part::Literal { bytes: Vec::new(), quoted: true });
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'`' => return Err(self.not_plain()),
                b'\\' => match self.next()? {
                    b'\n' => {}
                    byte @ (b'$' | b'`' | b'"' | b'\\') => push(parts, byte, true),
                    _ if inner => return Err(self.not_plain()),
                    byte => {
                        push(parts, b'\\', true);
                        push(parts, byte, true);
                    }
                },
                b'$' => self.dollar(parts, true)?,
                byte => push(parts, byte, true),
            }
        }
    }

    /// Reads the text after a `$`.
    fn dollar(&mut self, parts: &mut Vec<Part>, quoted: bool) -> Result<(), NotPlain> {
        match self.peek() {
            Some(byte) if byte.is_ascii_alphabetic() || byte == b'_' => {
                let name = self.name();
                // A continuation line would continue the name.
                if self.peek() == Some(b'\\') && self.second() == Some(b'\n') {
                    return Err(self.not_plain());
                }
                parts.push(Part::Variable { name, quoted, otherwise: None });
            }
            Some(b'{') => {
                self.advance();
                let part = self.nested(|parser| parser.braced(quoted))?;
                parts.push(part);
            }
            Some(byte) if byte.is_ascii_digit() || b"@*#?-!$".contains(&byte) => {
                self.advance();
                parts.push(Part::Special(byte));
            }
            Some(b'(' | b'`' | b'\\' | b'[') | None => return Err(self.not_plain()),
            Some(_) if quoted => push(parts, b'$', true),
            Some(_) => return Err(self.not_plain()),
        }
        Ok(())
    }

    fn name(&mut self) -> Vec<u8> {
        let mut name = Vec::new();
        while let Some(byte) = self.peek().filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            name.push(byte);
            self.advance();
        }
        name
    }

    /// Reads `NAME}` or `NAME:-word}`.
    fn braced(&mut self, quoted: bool) -> Result<Part, NotPlain> {
        let name = self.name();
        if !crate::env::names::is_proper(&name) {
            return Err(self.not_plain());
        }
        let mut byte = self.next()?;
        if byte == b'}' {
            return Ok(Part::Variable { name, quoted, otherwise: None });
        }
        let colon = byte == b':';
        if colon {
            byte = self.next()?;
        }
        if !matches!(byte, b'-' | b'=' | b'+') {
            return Err(self.not_plain());
        }
        let mut word = Word { line: self.line, parts: Vec::new() };
        while self.peek() != Some(b'}') {
            if quoted { self.piece_in_quotes(&mut word.parts)? } else { self.piece(&mut word.parts)? }
        }
        self.advance();
        Ok(Part::Variable { name, quoted, otherwise: Some((Operator { colon, kind: byte }, word)) })
    }

    /// Reads one piece of the word in a quoted `${NAME:-word}`.
    fn piece_in_quotes(&mut self, parts: &mut Vec<Part>) -> Result<(), NotPlain> {
        match self.next()? {
            b'"' => self.double_quoted(parts, true)?,
            // bash takes a single quote as a quote here, dash does not.
            b'`' | b'\'' => return Err(self.not_plain()),
            b'\\' => match self.next()? {
                b'\n' => {}
                byte @ (b'$' | b'`' | b'"' | b'\\' | b'}') => push(parts, byte, true),
                byte => {
                    push(parts, b'\\', true);
                    push(parts, byte, true);
                }
            },
            b'$' => self.dollar(parts, true)?,
            byte => push(parts, byte, true),
        }
        Ok(())
    }
}

/// Appends a byte to the last literal, or starts one.
fn push(parts: &mut Vec<Part>, byte: u8, quoted: bool) {
    match parts.last_mut() {
        Some(Part::Literal { bytes, quoted: before }) if *before == quoted => bytes.push(byte),
        _ => parts.push(Part::Literal { bytes: vec![byte], quoted }),
    }
}
