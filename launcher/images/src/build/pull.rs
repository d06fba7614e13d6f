//! Runs `coracle pull`: makes one file from an image of a registry.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use coracle::report::{Kind, Refusal};
use coracle_orders::{Pull, file_name};

use crate::build::draft::{self, Draft};
use crate::build::workshop;
use crate::build::workshop::Workshop;
use crate::build::{assembly, image};
use crate::output::{self, unwritable};
use crate::sources::registry::{Name, Registries};

/// Makes the requested file.
pub fn main(given: &Pull) -> Result<ExitCode, Refusal> {
    let name = name(given)?;
    let path = given.output.clone().unwrap_or_else(|| PathBuf::from(file_name(&given.image)));
    if given.descriptor.is_none() {
        draft::check_name(&path)?;
    }
    let registries = Registries::of(&given.access, given.packing.silent);
    let draft = || match given.descriptor {
        Some(descriptor) => Draft::inherited(descriptor, name.typed()),
        None => Draft::of(&path, given.force),
    };
    let work = |workshop: &Workshop, draft: &Draft| {
        let assembly = assembly::assemble_registry(&name, &registries, assembly::ROOT, workshop)?;
        image::write(assembly, draft, &given.packing, workshop)
    };
    workshop::make(draft, work, |draft| {
        if given.packing.silent && !given.json && given.descriptor.is_none() {
            return Ok(());
        }
        let size = draft.file.metadata().map_err(|error| unwritable(draft.typed(), &error))?.len();
        let digest = draft::digest(draft, 0, size)?;
        if given.json {
            return output::made(&path, &digest.to_string(), size);
        }
        output::print(format!("{} {digest}\n", path.display()).as_bytes())
    })
}

/// Prints the digest of the manifest that a pull would take.
pub fn resolve(given: &Pull) -> Result<ExitCode, Refusal> {
    println!("{}", Registries::of(&given.access, true).resolve(&name(given)?)?);
    Ok(ExitCode::SUCCESS)
}

fn name(given: &Pull) -> Result<Name, Refusal> {
    if !given.image.starts_with("docker://") {
        return Err(Refusal::new(Kind::Usage, &given.image, "not an image in a registry")
            .hint("docker://[REGISTRY/]REPOSITORY[:TAG|@DIGEST]; coracle build takes files"));
    }
    Name::of(&given.image)
}
