//! Splits lists on a command line: a backslash makes a separator part of an item.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Returns the items between separators that no backslash precedes. Keeps the backslashes, for [`unescaped`].
pub(super) fn split(text: &OsStr, separator: u8) -> Vec<OsString> {
    let mut items = vec![Vec::new()];
    let mut escaped = false;
    for byte in text.as_bytes() {
        if *byte == separator && !escaped {
            items.push(Vec::new());
        } else if let Some(item) = items.last_mut() {
            item.push(*byte);
        }
        escaped = *byte == b'\\' && !escaped;
    }
    items.into_iter().map(OsString::from_vec).collect()
}

/// Returns the item without the backslashes in front of `special` bytes and of other backslashes. A backslash in front
/// of any other byte stands for itself.
pub(super) fn unescaped(item: &OsStr, special: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(item.len());
    let mut bytes = item.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let next = bytes.peek().copied().filter(|next| byte == b'\\' && (*next == b'\\' || special.contains(next)));
        out.push(next.unwrap_or(byte));
        if next.is_some() {
            bytes.next();
        }
    }
    OsString::from_vec(out)
}

/// Returns the item with a backslash in front of each `special` byte and each backslash: the inverse of [`unescaped`].
pub(super) fn escaped(item: &OsStr, special: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(item.len());
    for byte in item.as_bytes() {
        if *byte == b'\\' || special.contains(byte) {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    OsString::from_vec(out)
}
