//! Reads the fields of a tar file's header.
#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;

use super::entry::{Pieces, Time, malformed};

/// Header, or another block.
pub struct Block(pub [u8; 512]);

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const TIME: Range<usize> = 136..148;
const SUM: Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..263;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
/// Prefix in star's format: it is shorter, and ends before two times.
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_MAGIC: Range<usize> = 508..512;
/// Fields of sparse files in GNU's old format: four pieces, a flag for more pieces in the next block, and the length.
const PIECES: Range<usize> = 386..482;
const MORE: usize = 482;
const WHOLE: Range<usize> = 483..495;
/// Pieces of such a block: 21.
const MORE_PIECES: Range<usize> = 0..504;
const STILL_MORE: usize = 504;

impl Block {
    /// True for the blocks at the end of an archive.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// Compares the sum of the bytes with the checksum field.
    pub fn check(&self) -> io::Result<()> {
        let said = unsigned(&self.0[SUM]).map_err(|_| malformed("is no tar file, or a damaged one"))?;
        let bytes = || self.0.iter().enumerate().map(|(at, byte)| if SUM.contains(&at) { b' ' } else { *byte });
        let sum: u64 = bytes().map(u64::from).sum();
        // Some programs have added signed bytes.
        let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
        if said == sum || i64::try_from(said) == Ok(signed) {
            return Ok(());
        }
        Err(malformed("is no tar file, or a damaged one"))
    }

    /// Type of the entry.
    pub fn flag(&self) -> u8 {
        self.0[FLAG]
    }

    /// Name of the entry.
    pub fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[NAME]);
        let prefix = match (&self.0[MAGIC], &self.0[STAR_MAGIC]) {
            (b"ustar\0", b"tar\0") => until_nul(&self.0[STAR_PREFIX]),
            (b"ustar\0", _) => until_nul(&self.0[PREFIX]),
            _ => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Target of the link.
    pub fn link(&self) -> Vec<u8> {
        until_nul(&self.0[LINK]).to_vec()
    }

    /// Number of bytes behind the header.
    pub fn size(&self) -> io::Result<u64> {
        unsigned(&self.0[SIZE])
    }

    /// User id.
    pub fn uid(&self) -> io::Result<u64> {
        unsigned(&self.0[UID])
    }

    /// Group id.
    pub fn gid(&self) -> io::Result<u64> {
        unsigned(&self.0[GID])
    }

    /// Permission bits. Some programs write the file type in front of them.
    pub fn mode(&self) -> io::Result<u32> {
        u32::try_from(unsigned(&self.0[MODE])? & 0o7777).map_err(|_| malformed("has a mode that is none"))
    }

    /// Time of the last change.
    pub fn time(&self) -> io::Result<Time> {
        number(&self.0[TIME])
    }

    /// Major and minor number.
    pub fn device(&self) -> io::Result<(u32, u32)> {
        // Range of the kernel (include/linux/kdev_t.h).
        let part = |range: Range<usize>, bits: u32| -> io::Result<u32> {
            let number = unsigned(&self.0[range])?;
            let small = u32::try_from(number).ok().filter(|number| *number < 1 << bits);
            small.ok_or_else(|| malformed(format!("has the device number {number}")))
        };
        Ok((part(MAJOR, 12)?, part(MINOR, 20)?))
    }

    /// Fields of a sparse file in GNU's old format: its pieces, its length, and true if more pieces follow.
    pub fn sparse(&self) -> io::Result<(Pieces, u64, bool)> {
        let mut pieces = Vec::new();
        read_pieces(&self.0[PIECES], &mut pieces)?;
        Ok((pieces, unsigned(&self.0[WHOLE])?, self.0[MORE] != 0))
    }

    /// Adds the pieces of a block that has only pieces. Returns true if more follow.
    pub fn more_sparse(&self, pieces: &mut Pieces) -> io::Result<bool> {
        read_pieces(&self.0[MORE_PIECES], pieces)?;
        Ok(self.0[STILL_MORE] != 0)
    }
}

fn read_pieces(bytes: &[u8], pieces: &mut Pieces) -> io::Result<()> {
    for piece in bytes.chunks_exact(24) {
        if piece[0] == 0 {
            break;
        }
        pieces.push((unsigned(&piece[..12])?, unsigned(&piece[12..])?));
    }
    Ok(())
}

/// Bytes of a field before its first NUL.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Number in octal digits, or in GNU's binary form.
fn number(field: &[u8]) -> io::Result<i64> {
    let wrong = || malformed("has a header with a number that is none");
    let (first, rest) = field.split_first().ok_or_else(wrong)?;
    if first & 0x80 != 0 {
        // Two's complement; the first bit is the flag of this form.
        let start = if first & 0x40 != 0 { -1_i64 << 6 } else { 0 };
        let mut value = start | i64::from(first & 0x3f);
        for byte in rest {
            value = value.checked_mul(256).ok_or_else(wrong)? | i64::from(*byte);
        }
        return Ok(value);
    }
    let text = until_nul(field).trim_ascii();
    let mut value = 0_i64;
    for byte in text {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 8).ok_or_else(wrong)?;
        value = value.checked_mul(8).ok_or_else(wrong)? | i64::from(digit);
    }
    Ok(value)
}

fn unsigned(field: &[u8]) -> io::Result<u64> {
    u64::try_from(number(field)?).map_err(|_| malformed("has a header with a negative number"))
}

/// Number in decimal digits.
pub fn decimal(text: &[u8]) -> io::Result<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = text.and_then(|text| text.parse::<u64>().ok()).filter(|number| *number < 1 << 62);
    number.ok_or_else(|| malformed("has a record with a number that is none"))
}

/// Time in seconds. A fraction is rounded down, as in POSIX.
pub fn time(text: &[u8]) -> io::Result<Time> {
    let wrong = || malformed("has a record with a time that is none");
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = whole.parse::<i64>().map_err(|_| wrong())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let before = whole.starts_with('-') && fraction.bytes().any(|byte| byte != b'0');
    seconds.checked_sub(i64::from(before)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        let of = |field: &[u8]| number(field).ok();
        assert_eq!(of(b"0000644\0"), Some(0o644));
        assert_eq!(of(b"    644 "), Some(0o644));
        assert_eq!(of(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(of(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]), Some(258));
        assert_eq!(of(&[0xff; 12]), Some(-1));
        assert_eq!(of(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(of(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2]), None);
        assert_eq!(of(b"0000648\0"), None);
        assert_eq!(of(b"-1\0\0\0\0\0\0"), None);
        assert!(unsigned(&[0xff; 12]).is_err());
    }

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        let of = |text: &str| time(text.as_bytes()).ok();
        assert_eq!(of("1700000000.123456789"), Some(1_700_000_000));
        assert_eq!(of("-1.5"), Some(-2));
        assert_eq!(of("-1.0"), Some(-1));
        assert_eq!(of("253402300800"), Some(253_402_300_800));
        assert_eq!([of(""), of("1e5"), of("1.x"), of("-9223372036854775808.1")], [None; 4]);
    }
}
