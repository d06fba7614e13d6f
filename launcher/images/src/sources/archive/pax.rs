//! Reads the records of pax (POSIX, pax, "pax Extended Header"): `LENGTH KEY=VALUE` and a line break, of any bytes.
#![forbid(unsafe_code)]

use std::io;

use super::entry::malformed;
use super::fields::decimal;

/// Prefix of the names of extended attributes.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// Keys that may hold for all entries.
const GLOBAL: [&[u8]; 6] = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"];

/// Keys and values, in order.
#[derive(Debug, Default)]
pub struct Records {
    /// All records.
    pub all: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Records {
    /// Parses records.
    pub fn read(mut bytes: &[u8]) -> io::Result<Self> {
        let mut all = Vec::new();
        let wrong = || malformed("has a pax record that is none");
        while !bytes.is_empty() {
            let blank = bytes.iter().take(8).position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let length = usize::try_from(decimal(&bytes[..blank])?).map_err(|_| wrong())?;
            let record = bytes.get(blank + 1..length).ok_or_else(wrong)?;
            let (b'\n', record) = record.split_last().ok_or_else(wrong)? else { return Err(wrong()) };
            let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0).ok_or_else(wrong)?;
            all.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[length..];
        }
        Ok(Self { all })
    }

    /// Adds records of a global header, which hold for all later entries. Other keys there are ignored.
    pub fn update(&mut self, bytes: &[u8]) -> io::Result<()> {
        for (key, value) in Self::read(bytes)?.all {
            if GLOBAL.contains(&key.as_slice()) {
                self.all.retain(|(known, _)| *known != key);
                self.all.push((key, value));
            }
        }
        Ok(())
    }

    /// Last value of `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.all.iter().rev().find(|(known, _)| known == key.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// Extended attributes.
    pub fn attributes(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let own =
            self.all.iter().filter_map(|(key, value)| Some((key.strip_prefix(ATTRIBUTE)?.to_vec(), value.clone())));
        own.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_any_bytes() {
        let records = Records::read(b"12 path=a\nb\n23 SCHILY.xattr.user.x=\n\xff\n").unwrap_err();
        assert_eq!(records.kind(), io::ErrorKind::InvalidData);
        let records = Records::read(b"12 path=a\nb\n26 SCHILY.xattr.user.x=\n\xff\n").unwrap();
        assert_eq!(records.get("path"), Some(&b"a\nb"[..]));
        assert_eq!(records.attributes(), [(b"user.x".to_vec(), b"\n\xff".to_vec())]);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for bytes in [
            &b"3 a"[..],
            b"99 path=a\n",
            b"9 path=ab\n",
            b"x path=a\n",
            b"5 =a\n",
            b"-1 a=b\n",
            b"0 a=b\n",
            b"path=a\n",
        ] {
            assert!(Records::read(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn global_records_hold_until_they_are_replaced() {
        let mut records = Records::default();
        records.update(b"9 uid=12\n8 gid=7\n").unwrap();
        records.update(b"8 uid=3\n").unwrap();
        assert_eq!((records.get("uid"), records.get("gid")), (Some(&b"3"[..]), Some(&b"7"[..])));
    }
}
