//! `coracle pull`: an image of a registry as one file.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use coracle::report::{Kind, Refusal};
use coracle_orders::Pull;

use crate::draft::{self, Draft, unwritable};
use crate::registry::{Name, Registries};
use crate::{build, workshop};

/// The folder of the root file system in the workshop.
const ROOT: &str = "root";

/// Makes the file that was asked for.
pub fn main(given: &Pull) -> Result<ExitCode, Refusal> {
    if !given.image.starts_with("docker://") {
        return Err(Refusal::new(Kind::Usage, &given.image, "not an image in a registry")
            .hint("docker://[REGISTRY/]REPOSITORY[:TAG|@DIGEST]; coracle build takes files"));
    }
    if given.store.is_some() {
        return Err(Refusal::new(Kind::Internal, "--store", "not there yet"));
    }
    let name = Name::of(&given.image)?;
    let output = given.output.clone().unwrap_or_else(|| PathBuf::from(name.file_name()));
    let registries = Registries::of(&given.access);
    let draft = Draft::of(&output, given.force)?;
    let status = workshop::run(|workshop| {
        let image = registries.fetch(&name)?;
        let assembly = build::assemble_oci(&image, ROOT, workshop)?;
        build::write(assembly, &draft, &given.packing, workshop)
    })?;
    if status == 0 {
        let size = draft.file.metadata().map_err(|error| unwritable(draft.typed(), &error))?.len();
        let digest: String = draft::digest(&draft, 0, size)?.iter().map(|byte| format!("{byte:02x}")).collect();
        draft.publish()?;
        println!("{} sha256:{digest}", output.display());
    }
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(crate::BAD)))
}
