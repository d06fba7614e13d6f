//! Runs `coracle build`: makes one file from any source.
#![forbid(unsafe_code)]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use coracle::report::{Kind, Refusal, clean};
use coracle_orders::Build;

use crate::build::assembly::{ROOT, assemble, borrow};
use crate::build::definition::Definition;
use crate::build::draft::{self, Draft};
use crate::build::image;
use crate::build::workshop::{self, Workshop};
use crate::output::{self, unwritable};
use crate::sources::Source;
use crate::sources::registry::Registries;

/// Makes the requested file.
pub fn main(given: &Build) -> Result<ExitCode, Refusal> {
    check_names(given)?;
    let source = Source::of(&given.source).map_err(|refusal| hint_at_swapped(given, refusal))?;
    if let (Some(word), false) = (given.arguments.first(), matches!(source, Source::Definition(_))) {
        let cause = format!("{} is no definition file, which alone has {{{{ NAME }}}}", given.source.display());
        return Err(Refusal::new(Kind::Usage, format!("--build-arg {word}"), cause));
    }
    let registries = Registries::of(&given.access, given.packing.silent);
    let draft = || Draft::of(&given.output, given.force);
    let work = |workshop: &Workshop, draft: &Draft| {
        let assembly = match &source {
            Source::Directory(path) => borrow(path, workshop)?,
            Source::Definition(path) => {
                Definition::read(path, &given.arguments)?.assemble(given, &registries, workshop)?
            }
            source => assemble(source, &registries, ROOT, workshop)?,
        };
        image::write(assembly, draft, &given.packing, workshop)
    };
    workshop::make(draft, work, |draft| {
        if given.packing.silent && !given.json {
            return Ok(());
        }
        let bytes = draft.file.metadata().map_err(|error| unwritable(draft.typed(), &error))?.len();
        let digest = draft::digest(draft, 0, bytes)?;
        if given.json {
            return output::made(&given.output, &digest.to_string(), bytes);
        }
        output::print(format!("{} {digest} {}\n", clean(draft.typed()), format_size(bytes)).as_bytes())
    })
}

/// Refuses an output whose name is that of another format, or of the source itself.
fn check_names(given: &Build) -> Result<(), Refusal> {
    let refuse = |cause: &str| Refusal::new(Kind::Usage, given.output.display().to_string(), cause);
    if given.sandbox {
        let cause = "no directory is made here: an image is one file";
        return Err(Refusal::new(Kind::Usage, "--sandbox", cause)
            .hint("leave it out, and name the file IMAGE.sif; exec --writable changes files for as long as it runs"));
    }
    draft::check_name(&given.output)?;
    match (given.output.metadata(), Path::new(&given.source).metadata()) {
        (Ok(one), Ok(other)) if (one.dev(), one.ino()) == (other.dev(), other.ino()) => {
            Err(refuse("it is the source, too").hint("give the new image another name"))
        }
        _ => Ok(()),
    }
}

/// Adds a hint to the refusal of a missing source: it may be the output in the wrong place.
fn hint_at_swapped(given: &Build, refusal: Refusal) -> Refusal {
    if refusal.kind == Kind::ImageMissing && refusal.hint.is_none() && draft::is_definition(&given.output) {
        return refusal.hint(draft::ORDER);
    }
    refusal
}

/// Formats a number of bytes with a unit.
fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut tenths, mut unit) = (bytes.saturating_mul(10) / 1024, 0);
    while tenths >= 10 * 1024 && unit + 1 < UNITS.len() {
        (tenths, unit) = (tenths / 1024, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}
