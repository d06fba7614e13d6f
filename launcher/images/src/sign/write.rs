//! Writes the copy of an image with its signatures.
#![forbid(unsafe_code)]

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use coracle::report::{Kind, Refusal};
use coracle_launcher::image::sif::{DATA_SIGNATURE, DESCRIPTOR, GROUP_MASK, HEADER, Header, group_link};

use super::Signature;
use crate::build::draft::Draft;
use crate::output::unwritable;
use crate::show::subject::Subject;
use crate::signals::HeldSignals;

/// Number of bytes that are copied between checks for a signal.
const PART: u64 = 64 << 20;
/// Code of SHA-256, with which the metadata is hashed.
const SHA256: i32 = 1;

/// Refuses an image whose table has no space for `wanted` signatures.
pub fn check_room(subject: &Subject, wanted: usize) -> Result<(), Refusal> {
    let (_, table) = table(subject)?;
    let free = table.chunks_exact(DESCRIPTOR).filter(|slot| slot[4] == 0).count();
    if free < wanted {
        let all = table.len() / DESCRIPTOR;
        let cause = format!("its table has {free} free places of {all}, {wanted} are needed for signatures");
        return Err(Refusal::new(Kind::ImageFormat, &subject.typed, cause)
            .hint("a new image has room: coracle build NEW.sif from what it was made of"));
    }
    Ok(())
}

/// Offset and contents of the table.
fn table(subject: &Subject) -> Result<(u64, Vec<u8>), Refusal> {
    let damaged = |error: coracle_launcher::image::Error| error.refuse(&subject.typed);
    let header = Header::read(&subject.file, subject.length()).map_err(damaged)?;
    let (at, size) = header.table(subject.length()).map_err(damaged)?;
    let mut table = vec![0; usize::try_from(size).unwrap_or(0)];
    let read = subject.file.read_exact_at(&mut table, at);
    read.map_err(|error| damaged(coracle_launcher::image::Error::Read(error)))?;
    Ok((at, table))
}

/// Replaces the image by a copy with `signatures`.
pub fn write(subject: &Subject, place: &Path, signatures: &[Signature]) -> Result<(), Refusal> {
    // An interrupt must leave time to remove the copy.
    let held = HeldSignals::new()?;
    let mut draft = Draft::of(place, true).map_err(|refusal| Refusal { object: subject.typed.clone(), ..refusal })?;
    let failed = |error: std::io::Error| unwritable(&subject.typed, &error);
    let mut source = &subject.file;
    source.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut left = subject.length();
    while left > 0 {
        let copied = std::io::copy(&mut source.take(left.min(PART)), &mut &draft.file).map_err(failed)?;
        if copied == 0 {
            return Err(changed(subject));
        }
        left -= copied;
        if held.pending() {
            drop(draft);
            held.give_in();
            return Err(Refusal::new(Kind::System, &subject.typed, "interrupted: it has no new signature"));
        }
    }
    append(subject, &draft, signatures)?;
    keep_owner(subject, &draft).map_err(failed)?;
    if !is_same(subject, place) {
        return Err(changed(subject));
    }
    draft.publish().map_err(|refusal| Refusal { object: subject.typed.clone(), ..refusal })
}

fn append(subject: &Subject, draft: &Draft, signatures: &[Signature]) -> Result<(), Refusal> {
    let failed = |error: std::io::Error| unwritable(&subject.typed, &error);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let now = now.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0);
    let (table_at, mut table) = table(subject)?;
    let mut end = subject.length();
    let mut used: Vec<u32> = table.chunks_exact(DESCRIPTOR).filter(|slot| slot[4] != 0).map(id).collect();
    for signature in signatures {
        let free = table.chunks_exact_mut(DESCRIPTOR).enumerate().find(|(_, slot)| slot[4] == 0);
        let Some((index, slot)) = free else { return Err(changed(subject)) };
        // As Apptainer counts, unless another object has that number.
        let first = u32::try_from(index + 1).unwrap_or(1);
        let Some(id) = (first..).chain(1..first).find(|id| !used.contains(id)) else { return Err(changed(subject)) };
        used.push(id);
        describe(slot, id, signature, end, now);
        draft.file.write_all_at(&signature.message, end).map_err(failed)?;
        end += signature.message.len() as u64;
    }
    draft.file.write_all_at(&table, table_at).map_err(failed)?;
    let mut header = [0; HEADER];
    draft.file.read_exact_at(&mut header, 0).map_err(failed)?;
    let free = table.chunks_exact(DESCRIPTOR).filter(|slot| slot[4] == 0).count();
    let data_at = header.get(112..120).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let mut put = |at: usize, bytes: [u8; 8]| header[at..at + 8].copy_from_slice(&bytes);
    put(72, now.to_le_bytes());
    put(80, (free as u64).to_le_bytes());
    put(120, end.saturating_sub(data_at).to_le_bytes());
    draft.file.write_all_at(&header, 0).map_err(failed)
}

fn id(slot: &[u8]) -> u32 {
    slot.get(5..9).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn describe(slot: &mut [u8], id: u32, signature: &Signature, at: u64, now: i64) {
    let size = signature.message.len() as u64;
    slot.fill(0);
    let mut put = |from: usize, bytes: &[u8]| slot[from..from + bytes.len()].copy_from_slice(bytes);
    put(0, &DATA_SIGNATURE.to_le_bytes());
    put(4, &[1]);
    put(5, &id.to_le_bytes());
    put(9, &GROUP_MASK.to_le_bytes());
    put(13, &group_link(signature.group).to_le_bytes());
    put(17, &at.to_le_bytes());
    put(25, &size.to_le_bytes());
    put(33, &size.to_le_bytes());
    put(41, &now.to_le_bytes());
    put(49, &now.to_le_bytes());
    put(201, &SHA256.to_le_bytes());
    put(205, &signature.fingerprint);
}

/// Gives the new file the access rights of the old one, and no more.
fn keep_owner(subject: &Subject, draft: &Draft) -> std::io::Result<()> {
    let (old, new) = (&subject.found, draft.file.metadata()?);
    let mut mode = old.mode() & 0o777;
    if old.gid() != new.gid() && std::os::unix::fs::fchown(&draft.file, None, Some(old.gid())).is_err() {
        // The rights of the old group are not for the group of the new file.
        mode &= !0o070;
    }
    if old.uid() != new.uid() {
        // Only root may change the owner (chown(2)); for other users, the file stays theirs.
        let given = std::os::unix::fs::fchown(&draft.file, Some(old.uid()), None);
        if given.is_err() && nix::unistd::geteuid().is_root() {
            return given;
        }
    }
    draft.file.set_permissions(PermissionsExt::from_mode(mode))
}

/// True if the path still names the file that was read.
fn is_same(subject: &Subject, place: &Path) -> bool {
    let what = |found: &std::fs::Metadata| {
        (found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec())
    };
    place.symlink_metadata().is_ok_and(|now| what(&now) == what(&subject.found))
}

fn changed(subject: &Subject) -> Refusal {
    Refusal::new(Kind::System, &subject.typed, "somebody has changed it while it was being signed")
}
