//! Encodes the difference between two environments for the messages between launcher and plugin.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Maximum length of a message in bytes. execve(2) takes at most 6 MiB of arguments and environment together.
const MAX_LEN: usize = 6 * 1024 * 1024;

/// Change of one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets the variable to this value.
    Set(OsString, OsString),
    /// Removes the variable.
    Unset(OsString),
    /// Removes these words from the variable's list, which commas separate.
    Without(OsString, OsString),
    /// Replaces each word of the variable's list that is in this list by its position in this list, from 0.
    Numbered(OsString, OsString),
}

impl Change {
    /// Returns the name of the variable.
    pub fn name(&self) -> &OsStr {
        match self {
            Self::Set(name, _) | Self::Unset(name) | Self::Without(name, _) | Self::Numbered(name, _) => name,
        }
    }

    /// Returns the new value of a variable with this list; `None` if it stays.
    pub fn of_list(&self, list: &OsStr) -> Option<OsString> {
        match self {
            Self::Without(_, words) => without(list, words),
            Self::Numbered(_, words) => numbered(list, words),
            Self::Set(..) | Self::Unset(_) => None,
        }
    }

    /// Writes `+NAME=VALUE`, `-NAME`, `~NAME=WORD,WORD` or `#NAME=WORD,WORD` for each, with a NUL behind. Leaves out
    /// what no environment can hold: a NUL, an empty name, or one with a `=`.
    pub fn to_bytes(changes: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for change in changes {
            match change {
                Self::Set(name, value) | Self::Without(name, value) | Self::Numbered(name, value)
                    if is_name(name.as_bytes()) && !value.as_bytes().contains(&0) =>
                {
                    bytes.push(match change {
                        Self::Without(..) => b'~',
                        Self::Numbered(..) => b'#',
                        _ => b'+',
                    });
                    bytes.extend_from_slice(name.as_bytes());
                    bytes.push(b'=');
                    bytes.extend_from_slice(value.as_bytes());
                    bytes.push(0);
                }
                Self::Unset(name) if is_name(name.as_bytes()) => {
                    bytes.push(b'-');
                    bytes.extend_from_slice(name.as_bytes());
                    bytes.push(0);
                }
                _ => {}
            }
        }
        bytes
    }

    /// Reads [`Change::to_bytes`]; `None` if a single record has another form, or all are longer than 6 MiB.
    pub fn from_bytes(bytes: &[u8]) -> Option<Vec<Self>> {
        if bytes.is_empty() {
            return Some(Vec::new());
        }
        if bytes.len() > MAX_LEN {
            return None;
        }
        bytes.strip_suffix(&[0])?.split(|byte| *byte == 0).map(Self::read).collect()
    }

    fn read(record: &[u8]) -> Option<Self> {
        let (kind, rest) = record.split_first()?;
        let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        match kind {
            b'+' | b'~' | b'#' => {
                let equals = rest.iter().position(|byte| *byte == b'=')?;
                let (name, value) = (rest.get(..equals)?, rest.get(equals.checked_add(1)?..)?);
                let change = match kind {
                    b'~' => Self::Without,
                    b'#' => Self::Numbered,
                    _ => Self::Set,
                };
                is_name(name).then(|| change(owned(name), owned(value)))
            }
            b'-' => is_name(rest).then(|| Self::Unset(owned(rest))),
            _ => None,
        }
    }
}

fn words(list: &OsStr) -> impl Iterator<Item = &[u8]> {
    list.as_bytes().split(|byte| *byte == b',')
}

/// Returns the words of `list` with numbers for those that are in `known`.
fn numbered(list: &OsStr, known: &OsStr) -> Option<OsString> {
    let place = |word: &[u8]| words(known).position(|other| other == word);
    let new = words(list).map(|word| place(word).map_or_else(|| word.to_vec(), |place| place.to_string().into_bytes()));
    Some(OsString::from_vec(new.collect::<Vec<_>>().join(&b',')))
}

/// Returns the words of `list` without `gone`; `None` if no word is left, or none is removed.
fn without(list: &OsStr, gone: &OsStr) -> Option<OsString> {
    let left: Vec<&[u8]> = words(list).filter(|word| !words(gone).any(|other| other == *word)).collect();
    let left = left.join(&b',');
    (!left.is_empty() && left.len() < list.len()).then(|| OsString::from_vec(left))
}

/// True if setenv(3) accepts the name.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'=') && !name.contains(&0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_damaged_message_is_refused_as_a_whole() {
        for bytes in
            [b"+A=1".as_slice(), b"\0", b"+=1\0", b"+A\0", b"-A=1\0", b"-\0", b"A=1\0", b"+A=1\0\0", b"+A=1\0?"]
        {
            assert_eq!(Change::from_bytes(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(Change::from_bytes(&vec![b'-'; MAX_LEN + 1]), None);
    }

    #[test]
    fn words_go_from_a_list_unless_nothing_would_be_left() {
        let left = |list: &str, words: &str| without(list.as_ref(), words.as_ref());
        assert_eq!(left("munge,native", "munge"), Some("native".into()));
        assert_eq!(left("shmem2,ds21,hash", "ds21,shmem2,ds12"), Some("hash".into()));
        for (list, words) in [("munge", "munge"), ("native", "munge"), ("munged,native", "munge"), ("", "munge")] {
            assert_eq!(left(list, words), None, "{list}");
        }
        let change = Change::Without("LIST".into(), "a,b".into());
        assert_eq!(Change::from_bytes(b"~LIST=a,b\0"), Some(vec![change.clone()]));
        assert_eq!(Change::to_bytes(&[change]), b"~LIST=a,b\0");
    }

    #[test]
    fn numbers_of_a_node_become_those_of_what_is_seen_of_it() {
        let change = Change::Numbered("CUDA_VISIBLE_DEVICES".into(), "2,5,7".into());
        assert_eq!(Change::from_bytes(b"#CUDA_VISIBLE_DEVICES=2,5,7\0"), Some(vec![change.clone()]));
        assert_eq!(Change::to_bytes(std::slice::from_ref(&change)), b"#CUDA_VISIBLE_DEVICES=2,5,7\0");
        for (before, after) in
            [("2,5,7", "0,1,2"), ("7", "2"), ("5,2", "1,0"), ("MIG-1,GPU-2", "MIG-1,GPU-2"), ("", "")]
        {
            assert_eq!(change.of_list(before.as_ref()), Some(after.into()), "{before}");
        }
    }

    #[test]
    fn what_no_environment_holds_is_left_out() {
        let changes = [
            Change::Set("A\0".into(), "1".into()),
            Change::Set("A".into(), "1\0+B=2".into()),
            Change::Unset("A=B".into()),
            Change::Unset("".into()),
            Change::Set("BASH_FUNC_x%%".into(), "() { :\n}".into()),
        ];
        assert_eq!(Change::from_bytes(&Change::to_bytes(&changes)), Some(changes[4..].to_vec()));
    }

    proptest! {
        #[test]
        fn changes_survive_the_journey(pairs in prop::collection::vec(("[^=\\x00]{1,9}", prop::option::of("[^\\x00]{0,30}")), 0..9)) {
            let changes: Vec<Change> = pairs.into_iter().map(|(name, value)| match value {
                Some(value) => Change::Set(name.into(), value.into()),
                None => Change::Unset(name.into()),
            }).collect();
            prop_assert_eq!(Change::from_bytes(&Change::to_bytes(&changes)), Some(changes));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(prop::sample::select(b"+-=A\0\xff".as_slice()), 0..40)) {
            if let Some(changes) = Change::from_bytes(&bytes) {
                prop_assert_eq!(Change::to_bytes(&changes), bytes);
            }
        }
    }
}
