//! Packs the root file system of an image with mksquashfs.
#![forbid(unsafe_code)]

mod progress;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use coracle::report::{Kind, Refusal};
use coracle_orders::{Compression, Packing};

use crate::build::draft::Draft;
use crate::build::root::{Definitions, Root};
use crate::build::workshop::run_program;
use crate::output::unwritable;
use crate::sources::archive::Owner;

/// Package of the program in Debian and others.
const PACKAGE: &str = "squashfs-tools";
/// zstd level, of 22: higher ones make a file little smaller and take far longer (docs/packing.md).
const ZSTD_LEVEL: u32 = 9;
/// Bits of a mode that are not permissions.
const TYPE: u32 = !0o7777;
/// Offset of a squashfs' length (Documentation/filesystems/squashfs.rst, the superblock's bytes_used).
const BYTES_USED: u64 = 40;

/// Limit of a command line: Linux takes 2 MiB, environment included (execve(2)).
const MOST_WORDS: usize = 1 << 20;
/// Alignment of a squashfs' length.
const PADDED: u64 = 4096;

/// Packs `root` into `draft` from byte `offset` on. Returns the length in bytes.
///
/// The same tree gives the same bytes for any number of processors; with SOURCE_DATE_EPOCH also at another time.
pub fn pack(root: &Root, draft: &Draft, offset: u64, packing: &Packing, scratch: &Path) -> Result<u64, Refusal> {
    let definitions = scratch.join("definitions");
    let Definitions { lines, words: named, root: top, root_time } =
        root.ledger.definitions(|path, owner, mode| differs(root, path, owner, mode));
    if named.iter().map(|word| word.len() + 16).sum::<usize>() > MOST_WORDS {
        let cause = "too many names with line breaks of files that are not root's";
        return Err(Refusal::new(Kind::ImageFormat, root.path().display().to_string(), cause));
    }
    std::fs::write(&definitions, lines).map_err(|error| unwritable(&definitions.display().to_string(), &error))?;
    let mut words: Vec<OsString> = vec![root.path().into(), draft.path().into()];
    let mut add = |text: &str| words.extend(text.split(' ').map(OsString::from));
    add(&format!(
        "-noappend -quiet -exit-on-error -no-exports -no-recovery -offset {offset} -comp {} -b {}",
        packing.compression, packing.block_size.0
    ));
    let usual = (packing.compression == Compression::Zstd).then_some(ZSTD_LEVEL);
    if let Some(level) = packing.level.or(usual) {
        match packing.compression {
            Compression::Zstd | Compression::Gzip | Compression::Lzo => add(&format!("-Xcompression-level {level}")),
            Compression::Lz4 | Compression::Xz => {
                let cause = format!("{} has no levels", packing.compression);
                return Err(Refusal::new(Kind::Usage, "--level", cause));
            }
        }
    }
    if let Some(processors) = packing.processors {
        add(&format!("-processors {processors}"));
    }
    // Attributes of this host's file system, such as SELinux labels, do not belong to an image.
    add(if root.has_attributes { "-xattrs" } else { "-no-xattrs" });
    if root.all_root {
        add("-all-root");
    }
    if let Some((Owner { uid, gid }, mode)) = top {
        add(&format!("-root-mode {mode:o} -root-uid {uid} -root-gid {gid}"));
    }
    if let Some(time) = root_time {
        add(&format!("-root-time {time}"));
    }
    words.extend(["-pf".into(), definitions.into_os_string()]);
    words.extend(named.into_iter().flat_map(|word| ["-p".into(), word]));
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    let packed =
        progress::shown(draft.typed(), packing.silent, |show| run_program("mksquashfs", PACKAGE, &words, show));
    packed.map_err(|refusal| {
        let of_file =
            ["Could not open ", "Failed to read ", "Cannot stat "].iter().any(|text| refusal.cause.contains(text));
        if of_file && refusal.hint.is_none() {
            refusal
                .hint("an image has all of a directory or is not made: its files must be readable, and stay, meanwhile")
        } else {
            refusal
        }
    })?;
    let length = length_of(&draft.file, offset).map_err(|error| unwritable(draft.typed(), &error))?;
    // The kernel reads whole sectors, and mksquashfs fills up to here.
    Ok(length.next_multiple_of(PADDED))
}

fn length_of(file: &File, offset: u64) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, offset + BYTES_USED)?;
    Ok(u64::from_le_bytes(bytes))
}

/// True if owner or mode of a file on disk differ from the image's.
fn differs(root: &Root, path: &Path, owner: Owner, mode: u32) -> bool {
    // Joined as it is: a link on the way would be one of the image, and has an entry of its own.
    let Ok(found) = root.path().join(path).symlink_metadata() else { return false };
    (found.uid(), found.gid()) != (owner.uid, owner.gid)
        || (!found.is_symlink() && found.mode() & !TYPE != mode & !TYPE)
}
