//! Reads the strings that are compiled into a program.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;

/// Maximum size of a file that is searched; libmpich.so of Debian has 38 MB.
const MAX_FILE: u64 = 128 << 20;
/// Maximum length of a string: a version, a name, a line of help.
const MAX_TEXT: usize = 256;

/// Content of a whole file, to be searched for NUL-terminated strings.
#[derive(Debug)]
pub struct Texts(Vec<u8>);

impl Texts {
    /// Reads `file`; the result is empty if the file is too long.
    pub fn read(file: &File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        if length > MAX_FILE {
            return Ok(Self(Vec::new()));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = super::fill(file, &mut bytes, 0)?;
        bytes.truncate(read);
        Ok(Self(bytes))
    }

    /// All strings, in the order of the file.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        let printable = |text: &&[u8]| {
            (1..=MAX_TEXT).contains(&text.len()) && text.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b' '..=b'~'))
        };
        self.0.split(|byte| *byte == 0).filter(printable).filter_map(|text| std::str::from_utf8(text).ok())
    }

    /// Word directly after `start`, up to the next space or control character.
    pub fn word_behind(&self, start: &str) -> Option<&str> {
        let at = self.0.windows(start.len()).position(|window| window == start.as_bytes())?;
        let rest = self.0.get(at + start.len()..)?;
        let end = rest.iter().take(MAX_TEXT).position(|byte| !byte.is_ascii_graphic())?;
        std::str::from_utf8(rest.get(..end)?).ok().filter(|word| !word.is_empty())
    }

    /// First string that starts with `start` and is a version of at least three numbers (`4.1.4`, `v5.0.7`,
    /// `4.2.2rc2`), without the `v`.
    pub fn version(&self, start: &str) -> Option<&str> {
        self.all().find_map(|text| {
            let text = text.strip_prefix('v').unwrap_or(text);
            let mut numbers = text.splitn(3, '.');
            let (first, second, third) = (numbers.next()?, numbers.next()?, numbers.next()?);
            let right = text.starts_with(start)
                && (1..=4).contains(&first.len())
                && first.parse::<u32>().is_ok_and(|first| first > 0)
                && second.parse::<u8>().is_ok()
                && third.starts_with(|start: char| start.is_ascii_digit())
                && third.chars().all(|letter| letter.is_ascii_alphanumeric());
            right.then_some(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Texts {
        Texts(words.join("\0").into_bytes())
    }

    #[test]
    fn a_version_is_told_from_other_numbers() {
        let found = of(&["\x7fELF", "\x01", "0.13.99", "5.9v", "v4.1.4", "6.0.0"]);
        assert_eq!(found.version(""), Some("4.1.4"));
        assert_eq!(found.version("6."), Some("6.0.0"));
        assert_eq!(of(&["2.9.0", "4.2.2rc2"]).version("4.2"), Some("4.2.2rc2"));
        assert_eq!(of(&["4.2", "4.2.x", "4.1.4, of", "a4.1.4", "20240.1.1", "v"]).version(""), None);
    }

    #[test]
    fn a_word_is_found_behind_what_stands_before_it() {
        let found = of(&["Y@OpenPMIx 5.0.7a1 (PMIx Standard: 5.1)", "OpenPMIx 9"]);
        assert_eq!(found.word_behind("OpenPMIx "), Some("5.0.7a1"));
        assert_eq!(found.word_behind("MPICH "), None);
        assert_eq!(of(&["OpenPMIx 9"]).word_behind("OpenPMIx "), None);
    }
}
