//! Reads the files of a squashfs, alone or in a SIF, as entries of a root file system.
//!
//! `unsquashfs -pf` writes the list of files, and then their contents; it makes no files itself. So an image is
//! unpacked like an archive: with the same limits, and also by users who cannot make files of other owners. The reader
//! that jobs use finds errors of the metadata before.
//!
//! The list has no extended attributes: if the image has some, their loss is reported.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use coracle::report::{Kind as Fault, Refusal};
use coracle::sys;
use coracle_launcher::image::{self, Filesystem};
use coracle_verify::squashfs::{Budget, Superblock, inspect_deep};
use nix::fcntl::OFlag;

use crate::build::layer::{Applier, Meaning};
use crate::sources::archive::{Device, Entry, Kind, Named, Owner, malformed};

/// Line between the list and the contents of the files.
const MARK: &[u8] = b"#\n# START OF DATA - DO NOT MODIFY\n#\n";
/// Limit of a line: a path and a target of a link, with a backslash before each byte.
const LINE: u64 = 32 << 10;
/// Limit of the list.
const LIST: u64 = 2 << 30;

/// Unpacks the image `path` into `applier`; `scratch` is a directory for the messages of unsquashfs.
pub fn unpack(path: &Path, applier: &mut Applier<'_>, scratch: &Path) -> Result<(), Refusal> {
    let named = Named::new(path, "");
    let file: File = sys::open_untrusted(path, OFlag::O_RDONLY)
        .map_err(|error| named.refusal(Fault::of_reading(&error), &error.to_string()))?
        .into();
    let typed = path.display().to_string();
    let found = image::identify(&file, std::env::consts::ARCH).map_err(|error| error.refuse(&typed))?;
    let [layer] = found.layers.as_slice() else {
        return Err(named.refusal(Fault::ImageFormat, "has overlays, which cannot be packed again"));
    };
    if !matches!(layer.filesystem, Filesystem::Squashfs(_)) {
        return Err(named.refusal(Fault::ImageFormat, "holds no squashfs, and nothing else is unpacked"));
    }
    inspect_deep(&file, layer.offset, layer.size, &Budget::default()).map_err(|error| error.refuse(&typed))?;
    let length = file.metadata().map_err(|error| named.refusal(Fault::of_reading(&error), &error.to_string()))?.len();
    let superblock = Superblock::read(&file, layer.offset, layer.size, length).map_err(|error| error.refuse(&typed))?;
    if superblock.has_attributes() {
        eprintln!(
            "coracle: {typed}: extended attributes of its files, such as capabilities, are not kept: unsquashfs lists none"
        );
    }
    applier.begin(named.clone(), Meaning::Tree);
    let said = scratch.join("unsquashfs");
    let mut program = start(&file, layer.offset, &said)?;
    let Some(output) = program.stdout.take() else {
        return Err(Refusal::new(Fault::Internal, "unsquashfs", "says nothing"));
    };
    let done = read(BufReader::with_capacity(1 << 20, output), &named, applier);
    if done.is_err() {
        // The program may not have noticed yet that its output is closed.
        let _ = program.kill();
    }
    let status = program.wait().map_err(|error| Refusal::new(Fault::System, "unsquashfs", error.to_string()))?;
    let said = std::fs::read(&said).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let refusal = match done {
        // The archive is good; writing its files failed.
        Err(refusal) if refusal.kind != Fault::ImageFormat => return Err(refusal),
        Ok(()) if status.success() => return Ok(()),
        done => done.err(),
    };
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_owned());
    match (last, refusal) {
        (Some(last), _) if last.contains("invalid option") || last.contains("-pf") => {
            Err(Refusal::new(Fault::System, "unsquashfs", "is older than 4.5, and cannot say what is in an image"))
        }
        (_, Some(refusal)) => Err(refusal),
        (last, None) => Err(named.refusal(Fault::ImageFormat, &format!("unsquashfs: {}", last.unwrap_or_default()))),
    }
}

fn start(file: &File, offset: u64, said: &Path) -> Result<Child, Refusal> {
    let refuse = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            Refusal::new(Fault::System, "unsquashfs", "not found").hint("it is in the package squashfs-tools")
        }
        _ => Refusal::new(Fault::System, "unsquashfs", error.to_string()),
    };
    let said = File::create(said).map_err(refuse)?;
    // A path of the open descriptor, independent of the first letter of its name.
    let path = OsString::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    Command::new("unsquashfs")
        .args(["-no-progress", "-no-xattrs", "-offset", &offset.to_string(), "-pf", "/dev/stdout"].map(OsStr::new))
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(said)
        .spawn()
        .map_err(refuse)
}

/// File with contents in the second part, and the number of bytes before it there.
struct Content {
    entry: Entry,
    at: u64,
}

fn read(mut input: impl BufRead, named: &Named, applier: &mut Applier<'_>) -> Result<(), Refusal> {
    let wrong = |error: io::Error| named.refuse(&error);
    let (mut contents, mut links, mut left) = (Vec::new(), Vec::new(), LIST);
    let mut after_link = false;
    while let Some(line) = line(&mut input).map_err(wrong)? {
        left = left
            .checked_sub(line.name.len() as u64 + line.rest.len() as u64 + 64)
            .ok_or_else(|| wrong(malformed("has too many files")))?;
        // The target of a link ends with the line, and may have a line break in it: its rest would be taken for the
        // start of the next name.
        if after_link && line.name.contains(&b'\n') {
            return Err(wrong(malformed("has a line break in a link, or in the name that follows one")));
        }
        let (entry, at) = entry(line).map_err(wrong)?;
        after_link = matches!(entry.kind, Kind::Link(_) | Kind::Symlink(_));
        match entry.kind {
            Kind::File => contents.push(Content { entry, at }),
            Kind::Link(_) => links.push(entry),
            _ => applier.entry(&entry, &mut io::empty())?,
        }
    }
    let mut done = 0;
    for Content { entry, at } in contents {
        if at != done {
            return Err(wrong(malformed("has files in another order than their list")));
        }
        applier.entry(&entry, &mut input)?;
        done += entry.size;
    }
    links.iter().try_for_each(|entry| applier.entry(entry, &mut io::empty()))
}

/// Name, and its fields.
struct Line {
    name: Vec<u8>,
    rest: Vec<u8>,
}

/// Next line; `None` at the end of the list. Names may contain line breaks, and end at the first blank without a
/// backslash before it.
fn line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let mut name = Vec::new();
    let mut limited = input.take(LINE);
    while !matches!(name.as_slice(), [.., b' ']) || is_escaped(&name) {
        let before = name.len();
        limited.read_until(b' ', &mut name)?;
        if name == MARK {
            return Ok(None);
        }
        if name.len() == before {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // The mark begins like a name.
        if MARK.starts_with(&name) {
            let mut rest = vec![0; MARK.len() - name.len()];
            limited.read_exact(&mut rest)?;
            if MARK.ends_with(&rest) {
                return Ok(None);
            }
            return Err(malformed("has a name that cannot be told from the end of the list"));
        }
    }
    name.pop();
    let mut rest = Vec::new();
    limited.read_until(b'\n', &mut rest)?;
    if rest.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Line { name: plain(&name), rest }))
}

/// True if a backslash that is not itself escaped precedes the final blank.
fn is_escaped(name: &[u8]) -> bool {
    name[..name.len() - 1].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Name without the backslashes.
fn plain(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next().unwrap_or(byte) } else { *byte });
    }
    plain
}

/// Entry of a line; for a file, with the place of its contents.
fn entry(line: Line) -> io::Result<(Entry, u64)> {
    let wrong = || malformed("is listed by unsquashfs in a way that is not known here");
    if let Some(target) = line.rest.strip_prefix(b"L ") {
        let entry = Entry { path: line.name, kind: Kind::Link(plain(target)), ..Entry::directory(0, 0) };
        return Ok((entry, 0));
    }
    let mut fields = line.rest.splitn(6, |byte| *byte == b' ');
    let mut word = || fields.next().and_then(|field| std::str::from_utf8(field).ok()).ok_or_else(wrong);
    let kind = word()?;
    let time = word()?.parse().map_err(|_| wrong())?;
    let mode = u32::from_str_radix(word()?, 8).map_err(|_| wrong())? & 0o7777;
    let mut id = || word()?.parse().map_err(|_| wrong());
    let owner = Owner { uid: id()?, gid: id()? };
    let last = fields.next().unwrap_or_default();
    let numbers: Vec<u64> = last
        .split(|byte| *byte == b' ')
        .filter_map(|field| std::str::from_utf8(field).ok().and_then(|text| text.parse().ok()))
        .collect();
    let (mut size, mut at) = (0, 0);
    let kind = match (kind, last, numbers.as_slice()) {
        ("D", ..) => Kind::Directory,
        ("S", target, _) => Kind::Symlink(target.to_vec()),
        ("I", b"s", _) => Kind::Socket,
        ("I", ..) => Kind::Fifo,
        ("R", _, [length, begin, ..]) => {
            (size, at) = (*length, *begin);
            Kind::File
        }
        ("B" | "C", _, [major, minor]) => {
            // For minor numbers above 255, unsquashfs shows their higher bits with the major number.
            let (high, major) = (major >> 12 << 8, major & 0xfff);
            let small = |number: u64| u32::try_from(number).map_err(|_| wrong());
            Kind::Device(Device { block: kind == "B", major: small(major)?, minor: small(minor | high)? })
        }
        _ => return Err(wrong()),
    };
    let entry = Entry { path: line.name, kind, owner, size, stored: size, ..Entry::directory(mode, time) };
    Ok((entry, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::root::Root;
    use crate::build::workshop::Owners;

    #[test]
    fn what_mksquashfs_packs_is_unpacked_with_owners_devices_and_odd_names() {
        let top = tempfile::tempdir().unwrap();
        let tree = top.path().join("tree");
        std::fs::create_dir_all(tree.join("d e")).unwrap();
        let names = ["#", "a b", "q\"q", "back\\slash\\", "line\nbreak", "# START", "d e/\\ x", "tab\t"];
        for name in names {
            std::fs::write(tree.join(name), name).unwrap();
        }
        std::fs::hard_link(tree.join("a b"), tree.join("z\\ link")).unwrap();
        std::os::unix::fs::symlink("to \\ \"there", tree.join("symlink")).unwrap();
        let packed = top.path().join("packed");
        let words = ["-quiet", "-no-progress", "-p", "disk b 660 3 6 8 300", "-p", "\"a b\" m 4711 5 70000"];
        let done = Command::new("mksquashfs").arg(&tree).arg(&packed).args(words).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let mut root = Root::create(&top.path().join("root")).unwrap();
        let mut applier = Applier::new(&mut root, Owners::Own);
        unpack(&packed, &mut applier, top.path()).unwrap();
        applier.finish().unwrap();
        for name in names {
            assert_eq!(std::fs::read_to_string(root.path().join(name)).unwrap(), name);
        }
        use std::os::unix::fs::MetadataExt;
        let inode = |name: &str| root.path().join(name).metadata().unwrap().ino();
        assert_eq!(inode("a b"), inode("z\\ link"));
        assert_eq!(root.path().join("symlink").read_link().unwrap().as_os_str(), "to \\ \"there");
        let noted = String::from_utf8(root.ledger.definitions(|_, _, _| true).lines).unwrap();
        assert!(noted.contains("\"disk\" b 660 3 6 8 300\n"), "{noted}");
        assert!(noted.contains("\"a b\" m 4711 5 70000\n") && noted.contains("\"z\\\\ link\" m 4711"), "{noted}");
    }

    #[test]
    fn a_list_that_is_cut_off_or_odd_is_refused() {
        let of = |text: &[u8]| line(&mut &text[..]).and_then(|line| line.map(entry).transpose()).map(|_| ());
        assert!(of(b"a R 1 644 0 0 5 0 0\n").is_ok());
        assert!(of(MARK).is_ok());
        for text in [
            &b""[..],
            b"a",
            b"a R 1 644 0 0 5 0 0",
            b"a R 1 644 0 0 x\n",
            b"a R 1 9 0 0 5 0 0\n",
            b"a X 1 644 0 0\n",
            b"a R 1 644 -1 0 5 0\n",
            b"#\n# START R 1",
        ] {
            assert!(of(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        assert!(of(&[b'a'; 100_000]).is_err());
    }
}
