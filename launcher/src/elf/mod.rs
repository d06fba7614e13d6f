//! Reads shared objects as the loader does (elf(5), ld.so(8)): SONAME, needed libraries, and the versions of symbols
//! that they define and require.
//!
//! Only program headers and what they refer to are read: a stripped file has no section headers, and the loader ignores
//! them. Each number from the file is checked. At most some hundred kilobytes are read of a library that may have fifty
//! megabytes. An unprivileged process reads the files of images.
#![forbid(unsafe_code)]

mod cache;
mod glibc;
mod search;
mod texts;

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use elf::abi::{
    DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_SONAME, DT_STRSZ, DT_STRTAB, DT_VERDEF, DT_VERDEFNUM, DT_VERNEED,
    DT_VERNEEDNUM, EI_NIDENT, EM_386, EM_AARCH64, EM_ARM, EM_LOONGARCH, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64, ET_DYN,
    ET_EXEC, PT_DYNAMIC, PT_INTERP, PT_LOAD, VER_FLG_BASE, VER_FLG_WEAK,
};
use elf::dynamic::DynamicTable;
use elf::endian::{AnyEndian, EndianParse};
use elf::file::{Class, ELF32_EHDR_TAILSIZE, ELF64_EHDR_TAILSIZE, FileHeader, parse_ident};
use elf::gnu_symver::{VerDefIterator, VerNeedIterator};
use elf::parse::ParseAt;
use elf::segment::{ProgramHeader, SegmentTable};

pub use cache::{Cache, Entry};
pub use glibc::is_glibc;
pub use search::{CACHE, Found, Libraries, Root};
pub use texts::Texts;

/// Maximum length of a path (PATH_MAX), and longer than any name or list of directories in practice.
const MAX_TEXT: usize = 4096;
/// Maximum number of names and versions in one file; libc.so.6 has some 60, the largest C++ libraries a few hundred.
const MAX_TEXTS: usize = 4096;
/// Maximum number of program headers; linkers write about ten.
const MAX_SEGMENTS: usize = 256;
/// Maximum size of the dynamic section, or of a table of versions; those of libc.so.6 and libstdc++.so.6 have about
/// 2,000 bytes.
const MAX_TABLE: usize = 64 * 1024;

/// Parsed headers of a shared object or of a dynamically linked program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// Machine of the file.
    pub machine: Machine,
    /// Path of the loader; programs and libc.so.6 have one.
    pub loader: Option<String>,
    /// DT_SONAME.
    pub soname: Option<String>,
    /// Needed libraries, in the order in which the loader searches them for symbols.
    pub needed: Vec<String>,
    /// DT_RPATH as in the file. It is searched before LD_LIBRARY_PATH, and ignored if there is a `run_path`.
    pub old_run_path: Option<String>,
    /// DT_RUNPATH as in the file. It is searched after LD_LIBRARY_PATH.
    pub run_path: Option<String>,
    /// Versions required from other libraries, without optional ones (VER_FLG_WEAK).
    pub wanted: Vec<Wanted>,
    /// Versions of symbols that the library defines. If it defines none, the loader accepts it for all versions.
    pub defined: Vec<String>,
}

/// Versions that one library has to define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// SONAME of the library.
    pub library: String,
    /// Versions of its symbols, in the order of the file.
    pub versions: Vec<String>,
}

/// Machine that a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// `e_machine`
    number: u16,
    /// True for 64 bits, false for 32: x86-64 has both (x32).
    wide: bool,
    big_endian: bool,
}

/// Reason why a file cannot be read as a library.
#[derive(Debug)]
pub enum Error {
    /// The file cannot be read.
    Read(io::Error),
    /// The file has no ELF magic.
    NotElf,
    /// An ELF file that is an object file or a core dump.
    Kind(u16),
    /// A statically linked program.
    Static,
    /// A count above its limit.
    TooMany(&'static str),
    /// A structure outside the file, truncated, or not text.
    Damaged(&'static str),
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Self {
        Self::Read(cause)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(cause) => write!(out, "cannot be read: {cause}"),
            Self::NotElf => out.write_str("not an ELF file"),
            Self::Kind(kind) => write!(out, "an ELF file of type {kind}, which is no shared object"),
            Self::Static => out.write_str("an ELF file without a dynamic section, which is no shared object"),
            Self::TooMany(what) => write!(out, "an ELF file with too many {what}"),
            Self::Damaged(what) => write!(out, "a damaged ELF file: {what}"),
        }
    }
}

impl std::error::Error for Error {}

impl Machine {
    /// Machine that this program was compiled for.
    pub fn own() -> Self {
        let number = match std::env::consts::ARCH {
            "x86_64" => EM_X86_64,
            "aarch64" => EM_AARCH64,
            "powerpc64" => EM_PPC64,
            "riscv64" => EM_RISCV,
            "s390x" => EM_S390,
            "loongarch64" => EM_LOONGARCH,
            "x86" => EM_386,
            "arm" => EM_ARM,
            _ => 0,
        };
        Self { number, wide: cfg!(target_pointer_width = "64"), big_endian: cfg!(target_endian = "big") }
    }

    /// Directory of its libraries in Debian and derived distributions (Multi-Arch tuples).
    fn tuple(self) -> Option<&'static str> {
        match (self.number, self.wide, self.big_endian) {
            (EM_X86_64, true, false) => Some("x86_64-linux-gnu"),
            (EM_AARCH64, true, false) => Some("aarch64-linux-gnu"),
            (EM_PPC64, true, false) => Some("powerpc64le-linux-gnu"),
            (EM_RISCV, true, false) => Some("riscv64-linux-gnu"),
            (EM_S390, true, true) => Some("s390x-linux-gnu"),
            (EM_LOONGARCH, true, false) => Some("loongarch64-linux-gnu"),
            (EM_386, false, false) => Some("i386-linux-gnu"),
            _ => None,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            EM_X86_64 if self.wide => out.write_str("x86_64"),
            EM_X86_64 => out.write_str("x32"),
            EM_AARCH64 => out.write_str("aarch64"),
            EM_PPC64 if self.big_endian => out.write_str("ppc64"),
            EM_PPC64 => out.write_str("ppc64le"),
            EM_RISCV => write!(out, "riscv{}", if self.wide { 64 } else { 32 }),
            EM_S390 => out.write_str("s390x"),
            EM_LOONGARCH => out.write_str("loongarch64"),
            EM_386 => out.write_str("i386"),
            EM_ARM => out.write_str("arm"),
            number => write!(out, "machine {number} of {} bits", if self.wide { 64 } else { 32 }),
        }
    }
}

impl Library {
    /// Reads the headers of `file`.
    pub fn read(file: &File) -> Result<Self, Error> {
        let header = header(file)?;
        let machine = Machine {
            number: header.e_machine,
            wide: header.class == Class::ELF64,
            big_endian: header.endianness.is_big(),
        };
        if ![ET_DYN, ET_EXEC].contains(&header.e_type) {
            return Err(Error::Kind(header.e_type));
        }
        let mut reader = Reader::new(file, &header)?;
        reader.find_strings()?;
        let loader = reader.segment(PT_INTERP).map(|segment| segment.p_offset);
        let loader = loader.map(|at| reader.text_at(at)).transpose()?;
        let needed = reader.values(DT_NEEDED).map(|value| reader.text(value)).collect::<Result<Vec<_>, _>>()?;
        let one = |tag| reader.value(tag).map(|value| reader.text(value)).transpose();
        let (soname, old_run_path, run_path) = (one(DT_SONAME)?, one(DT_RPATH)?, one(DT_RUNPATH)?);
        let (wanted, defined) = (reader.wanted()?, reader.defined()?);
        Ok(Self { machine, loader, soname, needed, old_run_path, run_path, wanted, defined })
    }

    /// Newest defined version that starts with `prefix`, such as `GLIBC_`: the one with the highest numbers.
    pub fn newest(&self, prefix: &str) -> Option<&str> {
        newest(self.defined.iter().map(String::as_str), prefix)
    }
}

/// Version with the highest numbers of those that start with `prefix`. Versions without numbers (GLIBC_PRIVATE) are
/// ignored.
pub fn newest<'a>(versions: impl Iterator<Item = &'a str>, prefix: &str) -> Option<&'a str> {
    let numbers = |version: &str| -> Option<Vec<u32>> {
        version.strip_prefix(prefix)?.split('.').map(|number| number.parse().ok()).collect()
    };
    versions.filter_map(|version| Some((numbers(version)?, version))).max().map(|(_, version)| version)
}

/// ELF header of the file.
fn header(file: &File) -> Result<FileHeader<AnyEndian>, Error> {
    let mut bytes = [0; EI_NIDENT + ELF64_EHDR_TAILSIZE];
    let length = fill(file, &mut bytes, 0)?;
    let (start, rest) = bytes.split_at(EI_NIDENT);
    if length < bytes.len().min(EI_NIDENT + ELF32_EHDR_TAILSIZE) {
        return Err(Error::NotElf);
    }
    let start = parse_ident::<AnyEndian>(start).map_err(|_| Error::NotElf)?;
    FileHeader::parse_tail(start, rest).map_err(|_| Error::NotElf)
}

/// Fills `bytes` from `at` on, up to the end of the file.
fn fill(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        // Offsets above 2^63 - 1 are past the end of any file.
        let Some(place) = at.checked_add(done as u64).filter(|place| i64::try_from(*place).is_ok()) else { break };
        match file.read_at(rest, place) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(done)
}

/// Reader that translates addresses into file offsets.
struct Reader<'a> {
    file: &'a File,
    endian: AnyEndian,
    class: Class,
    segments: Vec<ProgramHeader>,
    /// Tags and values of the dynamic section.
    dynamic: Vec<(i64, u64)>,
    /// File offset of the string table, and its length in bytes.
    strings: (u64, u64),
}

impl<'a> Reader<'a> {
    fn new(file: &'a File, header: &FileHeader<AnyEndian>) -> Result<Self, Error> {
        let (endian, class) = (header.endianness, header.class);
        let (size, count) = (ProgramHeader::size_for(class), usize::from(header.e_phnum));
        if usize::from(header.e_phentsize) != size {
            return Err(if count == 0 { Error::Static } else { Error::Damaged("the size of its program headers") });
        }
        if count > MAX_SEGMENTS {
            return Err(Error::TooMany("program headers"));
        }
        let mut bytes = vec![0; size * count];
        if fill(file, &mut bytes, header.e_phoff)? < bytes.len() {
            return Err(Error::Damaged("its program headers are cut"));
        }
        let segments: Vec<ProgramHeader> = SegmentTable::new(endian, class, &bytes).iter().collect();
        let mut reader = Self { file, endian, class, segments, dynamic: Vec::new(), strings: (0, 0) };
        let dynamic = reader.segment(PT_DYNAMIC).ok_or(Error::Static)?;
        let length = usize::try_from(dynamic.p_filesz).ok().filter(|length| *length <= MAX_TABLE);
        let mut bytes = vec![0; length.ok_or(Error::TooMany("dynamic entries"))?];
        if fill(file, &mut bytes, dynamic.p_offset)? < bytes.len() {
            return Err(Error::Damaged("its dynamic section is cut"));
        }
        let entries = DynamicTable::new(endian, class, &bytes);
        reader.dynamic =
            entries.iter().take_while(|entry| entry.d_tag != DT_NULL).map(|one| (one.d_tag, one.d_val())).collect();
        if reader.values(DT_NEEDED).count() > MAX_TEXTS {
            return Err(Error::TooMany("needed libraries"));
        }
        Ok(reader)
    }

    fn segment(&self, kind: u32) -> Option<&ProgramHeader> {
        self.segments.iter().find(|segment| segment.p_type == kind)
    }

    fn values(&self, tag: i64) -> impl Iterator<Item = u64> {
        self.dynamic.iter().filter(move |entry| entry.0 == tag).map(|entry| entry.1)
    }

    /// Of several entries with the same tag, the loader takes the last (elf_get_dynamic_info).
    fn value(&self, tag: i64) -> Option<u64> {
        self.values(tag).last()
    }

    fn find_strings(&mut self) -> Result<(), Error> {
        let (place, rest) = match self.value(DT_STRTAB) {
            Some(address) => self.place(address).ok_or(Error::Damaged("its strings lie outside of it"))?,
            None => return Err(Error::Damaged("it has no strings")),
        };
        let length = self.value(DT_STRSZ).ok_or(Error::Damaged("its strings have no length"))?;
        self.strings = (place, length.min(rest));
        Ok(())
    }

    /// File offset of the address, and the number of bytes of its segment that follow.
    fn place(&self, address: u64) -> Option<(u64, u64)> {
        self.segments.iter().filter(|segment| segment.p_type == PT_LOAD).find_map(|segment| {
            let within = address.checked_sub(segment.p_vaddr)?;
            let rest = segment.p_filesz.checked_sub(within).filter(|rest| *rest > 0)?;
            Some((segment.p_offset.checked_add(within)?, rest))
        })
    }

    /// String at `offset` of the string table.
    fn text(&self, offset: u64) -> Result<String, Error> {
        let (place, length) = self.strings;
        let inside = (offset < length).then(|| place.checked_add(offset)).flatten();
        self.text_at(inside.ok_or(Error::Damaged("a string lies outside of its strings"))?)
    }

    /// NUL-terminated string at `place` in the file.
    fn text_at(&self, place: u64) -> Result<String, Error> {
        let mut bytes = [0; MAX_TEXT];
        // Most strings are short, and the next page may have to be decompressed.
        for length in [64, MAX_TEXT] {
            let part = bytes.get_mut(..length).unwrap_or_default();
            let count = fill(self.file, part, place)?;
            let text = part.get(..count).and_then(|part| part.split_inclusive(|byte| *byte == 0).next());
            if let Some(text) = text.and_then(|text| text.strip_suffix(&[0])) {
                let text = str::from_utf8(text).map_err(|_| Error::Damaged("a string is no text"))?;
                return Ok(text.to_owned());
            }
        }
        Err(Error::Damaged("a string does not end"))
    }

    /// Bytes of a table of versions, and the number of its entries.
    fn table(&self, at: i64, number: i64) -> Result<Option<(Vec<u8>, u64)>, Error> {
        let Some(address) = self.value(at) else { return Ok(None) };
        let outside = Error::Damaged("its versions lie outside of it");
        let (place, rest) = self.place(address).ok_or(outside)?;
        let count = self.value(number).unwrap_or(0);
        if count > MAX_TEXTS as u64 {
            return Err(Error::TooMany("versions"));
        }
        let mut bytes = vec![0; usize::try_from(rest).unwrap_or(MAX_TABLE).min(MAX_TABLE)];
        let length = fill(self.file, &mut bytes, place)?;
        bytes.truncate(length);
        Ok(Some((bytes, count)))
    }

    fn wanted(&self) -> Result<Vec<Wanted>, Error> {
        let Some((bytes, count)) = self.table(DT_VERNEED, DT_VERNEEDNUM)? else { return Ok(Vec::new()) };
        let mut wanted = Vec::new();
        let mut seen = (0, 0);
        for (need, names) in VerNeedIterator::new(self.endian, self.class, count, 0, &bytes) {
            let mut versions = Vec::new();
            let expected = usize::from(need.vn_cnt);
            let before = seen.1;
            for name in names {
                seen.1 += 1;
                if seen.1 > MAX_TEXTS {
                    return Err(Error::TooMany("versions"));
                }
                if name.vna_flags & VER_FLG_WEAK == 0 {
                    versions.push(self.text(name.vna_name.into())?);
                }
            }
            if seen.1 - before < expected {
                return Err(CUT);
            }
            seen.0 += 1;
            wanted.push(Wanted { library: self.text(need.vn_file.into())?, versions });
        }
        if seen.0 == count { Ok(wanted) } else { Err(CUT) }
    }

    fn defined(&self) -> Result<Vec<String>, Error> {
        let Some((bytes, count)) = self.table(DT_VERDEF, DT_VERDEFNUM)? else { return Ok(Vec::new()) };
        let mut defined = Vec::new();
        let mut seen = 0;
        for (version, mut names) in VerDefIterator::new(self.endian, self.class, count, 0, &bytes) {
            seen += 1;
            // The first name is the version's own, the others are its predecessors.
            let name = names.next().ok_or(CUT)?;
            if version.vd_flags & VER_FLG_BASE == 0 {
                defined.push(self.text(name.vda_name.into())?);
            }
        }
        if seen == count { Ok(defined) } else { Err(CUT) }
    }
}

const CUT: Error = Error::Damaged("its versions are cut");

#[cfg(test)]
#[path = "../../../tests/images/elf_writer.rs"]
pub(crate) mod elf_writer;
#[cfg(test)]
mod tests;
