//! Writes the image file: a SIF of an assembled root file system.
#![forbid(unsafe_code)]

use std::path::Path;

use coracle::report::{Kind, Refusal, clean};
use coracle_launcher::image::fstab;
use coracle_launcher::image::sif::architecture_code;
use coracle_orders::Packing;
use ring::rand::SecureRandom;

use crate::build::assembly::Assembly;
use crate::build::conventions;
use crate::build::draft::{self, Draft};
use crate::build::sif::Layout;
use crate::build::squashfs;
use crate::build::time::{now, source_date_epoch};
use crate::build::workshop::Workshop;

/// Writes the assembled image as a SIF.
pub fn write(mut assembly: Assembly, draft: &Draft, packing: &Packing, workshop: &Workshop) -> Result<(), Refusal> {
    let architecture = architecture_code(&assembly.architecture)
        .ok_or_else(|| Refusal::new(Kind::ImageArch, &assembly.architecture, "no processor that a SIF can name"))?;
    let epoch = source_date_epoch()?;
    let mut layout = Layout { objects: Vec::new(), architecture, time: epoch.unwrap_or_else(now), uuid: [0; 16] };
    if let Some(conventions) = &assembly.conventions {
        layout.objects = conventions::write(&mut assembly.root, conventions)?;
        assembly.root.clamp_times()?;
    }
    if let Some(text) = assembly.root.read(Path::new(fstab::PATH), fstab::LIMIT).ok().flatten() {
        fstab::note(&text).iter().for_each(|note| eprintln!("{}", clean(&format!("coracle: note: {note}"))));
    }
    assembly.root.note_rest()?;
    let size = squashfs::pack(&assembly.root, draft, layout.root_at(), packing, &workshop.directory)?;
    layout.uuid = make_uuid(epoch, draft, layout.root_at(), size)?;
    layout.write(draft, size)
}

/// Makes a random UUID (RFC 9562, version 4), or for a reproducible image one from its root file system (version 8).
/// The UUID does not identify an image: the digest of its bytes does.
fn make_uuid(epoch: Option<i64>, draft: &Draft, at: u64, size: u64) -> Result<[u8; 16], Refusal> {
    let mut uuid = [0; 16];
    let version = if epoch.is_some() {
        let digest = draft::digest(draft, at, size)?;
        // The digits are hexadecimal, and half of them fit a number of this size.
        uuid = u128::from_str_radix(&digest.digits()[..32], 16).unwrap_or_default().to_be_bytes();
        0x80
    } else {
        let filled = ring::rand::SystemRandom::new().fill(&mut uuid);
        filled.map_err(|_| Refusal::new(Kind::System, "getrandom()", "gives no random numbers"))?;
        0x40
    };
    uuid[6] = uuid[6] & 0x0f | version;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}
