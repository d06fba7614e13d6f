//! Writes shared objects that say what a test wants, and nothing else: no code, no section headers.

/// Contents of the file.
#[derive(Clone, Copy, Default)]
pub struct Says<'a> {
    /// DT_SONAME; nothing, if it is empty.
    pub soname: &'a str,
    /// DT_NEEDED
    pub needed: &'a [&'a str],
    /// DT_RPATH; nothing, if it is empty.
    pub old_run_path: &'a str,
    /// DT_RUNPATH; nothing, if it is empty.
    pub run_path: &'a str,
    /// Libraries and versions that it wants of them.
    pub wanted: &'a [(&'a str, &'a [&'a str])],
    /// Versions that it defines.
    pub defined: &'a [&'a str],
}

/// Address at which the file is mapped, so that addresses are no offsets.
pub const ADDRESS: u64 = 0x40_0000;
const HEADERS: usize = 64 + 2 * 56;

#[derive(Default)]
struct Strings(Vec<u8>);

impl Strings {
    fn add(&mut self, text: &str) -> u32 {
        let at = self.0.len();
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
        u32::try_from(at).unwrap()
    }
}

/// The machine that this was compiled for (elf.h).
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// A little-endian ELF file of 64 bits.
pub fn library(says: &Says<'_>) -> Vec<u8> {
    let mut strings = Strings(vec![0]);
    let mut dynamic: Vec<(u64, u64)> = Vec::new();
    for needed in says.needed {
        dynamic.push((1, strings.add(needed).into()));
    }
    for (tag, text) in [(14, says.soname), (15, says.old_run_path), (29, says.run_path)] {
        if !text.is_empty() {
            dynamic.push((tag, strings.add(text).into()));
        }
    }
    let need = needs(says.wanted, &mut strings);
    let have = definitions(says.soname, says.defined, &mut strings);
    // In front of the strings there is what has a length of its own.
    let entries = dynamic.len() + 7;
    let need_at = (HEADERS + entries * 16) as u64;
    let have_at = need_at + need.len() as u64;
    let strings_at = have_at + have.len() as u64;
    dynamic.extend([(5, ADDRESS + strings_at), (10, strings.0.len() as u64)]);
    if !says.wanted.is_empty() {
        dynamic.extend([(0x6fff_fffe, ADDRESS + need_at), (0x6fff_ffff, says.wanted.len() as u64)]);
    }
    if !says.defined.is_empty() {
        dynamic.extend([(0x6fff_fffc, ADDRESS + have_at), (0x6fff_fffd, says.defined.len() as u64 + 1)]);
    }
    dynamic.resize(entries, (0, 0));

    let mut out = b"\x7fELF\x02\x01\x01".to_vec();
    out.resize(16, 0);
    for half in [3_u16, MACHINE] {
        out.extend(half.to_le_bytes());
    }
    out.extend(1_u32.to_le_bytes());
    for long in [0_u64, 64, 0] {
        out.extend(long.to_le_bytes());
    }
    out.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 2, 64, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    let length = strings_at + strings.0.len() as u64;
    for (kind, at, length) in [(1_u32, 0, length), (2, HEADERS as u64, entries as u64 * 16)] {
        out.extend(kind.to_le_bytes());
        out.extend(4_u32.to_le_bytes());
        for long in [at, ADDRESS + at, ADDRESS + at, length, length, 8] {
            out.extend(long.to_le_bytes());
        }
    }
    for (tag, value) in dynamic {
        out.extend(tag.to_le_bytes());
        out.extend(value.to_le_bytes());
    }
    [out, need, have, strings.0].concat()
}

fn needs(wanted: &[(&str, &[&str])], strings: &mut Strings) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, (library, versions)) in wanted.iter().enumerate() {
        let count = u16::try_from(versions.len()).unwrap();
        let next = if index + 1 == wanted.len() { 0 } else { 16 + 16 * u32::from(count) };
        for half in [1, count] {
            out.extend(half.to_le_bytes());
        }
        for word in [strings.add(library), 16, next] {
            out.extend(word.to_le_bytes());
        }
        for (index, version) in versions.iter().enumerate() {
            // A version in brackets is one that it can do without.
            let weak = version.starts_with('(');
            out.extend(0_u32.to_le_bytes());
            for half in [if weak { 2_u16 } else { 0 }, 2] {
                out.extend(half.to_le_bytes());
            }
            let next = if index + 1 == versions.len() { 0_u32 } else { 16 };
            for word in [strings.add(version.trim_matches(['(', ')'])), next] {
                out.extend(word.to_le_bytes());
            }
        }
    }
    out
}

fn definitions(soname: &str, versions: &[&str], strings: &mut Strings) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, name) in [soname].iter().chain(versions).enumerate().filter(|_| !versions.is_empty()) {
        let number = u16::try_from(index).unwrap() + 1;
        let base = u16::from(index == 0);
        for half in [1, base, number, 1] {
            out.extend(half.to_le_bytes());
        }
        let next = if index == versions.len() { 0_u32 } else { 28 };
        for word in [0, 20, next, strings.add(name), 0] {
            out.extend(word.to_le_bytes());
        }
    }
    out
}
