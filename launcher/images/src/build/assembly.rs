//! Assembles the root file systems of images from their sources.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::Path;

use coracle::report::{Kind, Refusal, clean};

use crate::build::conventions::Conventions;
use crate::build::layer::{self, Applier, Meaning};
use crate::build::root::{self, Root};
use crate::build::unpack;
use crate::build::workshop::{self, Owners, Workshop};
use crate::sources::Source;
use crate::sources::archive::Layer;
use crate::sources::oci::{self, Form};
use crate::sources::registry::{Name, Registries};

/// Directory of the root file system in the workshop.
pub const ROOT: &str = "root";

/// Root file system and metadata that become a file.
#[derive(Debug)]
pub struct Assembly {
    /// Root file system.
    pub root: Root,
    /// Processor of the image, with Rust's name.
    pub architecture: String,
    /// Metadata of the image. `None` if the root file system is a directory of the user: no file is written there.
    pub conventions: Option<Conventions>,
}

/// Assembles a source in the directory `name` of the workshop, which does not exist yet and which it may change.
///
/// This works for sources of a definition file, but not for a definition file itself.
pub fn assemble(
    source: &Source,
    registries: &Registries,
    name: &str,
    workshop: &Workshop,
) -> Result<Assembly, Refusal> {
    match source {
        Source::Directory(path) => copy(path, name, workshop),
        Source::Tar(path) => match oci::of_archive(path) {
            Some(form) => {
                let (typed, prefix) = (path.display(), form.archive_prefix());
                eprintln!(
                    "{}",
                    clean(&format!("coracle: {typed}: it holds an image, and is taken as {prefix}{typed}"))
                );
                let source = match form {
                    Form::Docker => Source::DockerArchive(path.clone()),
                    Form::Layout => Source::LayoutArchive(path.clone(), None),
                };
                assemble(&source, registries, name, workshop)
            }
            None => assemble_tar(path, name, workshop),
        },
        Source::Image(path) => assemble_image(path, name, workshop),
        Source::DockerArchive(path) => {
            assemble_oci(&oci::from_docker_archive(path, &workshop.directory)?, name, workshop)
        }
        Source::Layout(path, tag) => {
            assemble_oci(&oci::from_layout(path, tag.as_deref(), &registries.wanted()?)?, name, workshop)
        }
        Source::LayoutArchive(path, tag) => {
            let image = oci::from_layout_archive(path, tag.as_deref(), &registries.wanted()?, &workshop.directory)?;
            assemble_oci(&image, name, workshop)
        }
        Source::Registry(image) => assemble_registry(&Name::of(image)?, registries, name, workshop),
        Source::Definition(path) => {
            Err(Refusal::new(Kind::Internal, path.display().to_string(), "a definition file is no part of another"))
        }
    }
}

/// Assembles an image of a registry. Its definition then names its source and digest.
pub fn assemble_registry(
    image: &Name,
    registries: &Registries,
    name: &str,
    workshop: &Workshop,
) -> Result<Assembly, Refusal> {
    let fetched = registries.fetch(image)?;
    let mut assembly = assemble_oci(&fetched, name, workshop)?;
    let from = match &fetched.digest {
        Some(digest) if image.digest.is_none() => format!("{image}@{digest}"),
        _ => image.to_string(),
    };
    if let Some(conventions) = &mut assembly.conventions {
        conventions.definition = Some(format!("bootstrap: docker\nfrom: {from}\n"));
        conventions.header = [("bootstrap".into(), "docker".into()), ("from".into(), from)].into();
    }
    Ok(assembly)
}

/// Applies the layers of an image in the directory `name` of the workshop, which does not exist yet.
fn assemble_oci(image: &oci::Image, name: &str, workshop: &Workshop) -> Result<Assembly, Refusal> {
    let config = image.config()?;
    let architecture = config.processor()?;
    let root = fill_root(name, workshop, |applier| {
        (1..).zip(&image.layers).try_for_each(|(number, layer)| {
            let what = format!("layer {number} of {}", image.layers.len());
            layer::apply(layer, &what, Meaning::Changes, applier)
        })
    })?;
    let conventions = Conventions { oci: Some((image.config.clone(), config)), ..Conventions::default() };
    Ok(Assembly { root, architecture, conventions: Some(conventions) })
}

fn assemble_tar(path: &Path, name: &str, workshop: &Workshop) -> Result<Assembly, Refusal> {
    let unreadable =
        |error: std::io::Error| Refusal::new(Kind::of_reading(&error), path.display().to_string(), error.to_string());
    let size = path.metadata().map_err(unreadable)?.len();
    let layer = Layer { file: path.to_owned(), offset: 0, size, diff_id: None };
    let root = fill_root(name, workshop, |applier| layer::apply(&layer, "", Meaning::Tree, applier))?;
    Ok(Assembly::for_machine(root))
}

/// Unpacks an image, with its `/.singularity.d`.
fn assemble_image(path: &Path, name: &str, workshop: &Workshop) -> Result<Assembly, Refusal> {
    let root = fill_root(name, workshop, |applier| unpack::unpack(path, applier, &workshop.directory))?;
    Ok(Assembly::for_machine(root))
}

impl Assembly {
    /// Root file system for this host's processor, without metadata.
    fn for_machine(root: Root) -> Self {
        Self { root, architecture: machine_architecture(), conventions: Some(Conventions::default()) }
    }
}

/// Makes a new root file system in the directory `name` of the workshop, filled by `fill`. Prints one note about the
/// attributes of the image that are lost here; programs run without them.
fn fill_root(
    name: &str,
    workshop: &Workshop,
    fill: impl FnOnce(&mut Applier<'_>) -> Result<(), Refusal>,
) -> Result<Root, Refusal> {
    let mut root = Root::create(&workshop.directory.join(name))?;
    let mut applier = Applier::new(&mut root, workshop.owners);
    fill(&mut applier)?;
    let lost = applier.finish()?;
    if !lost.is_empty() {
        let names: Vec<String> = lost.into_iter().take(10).collect();
        eprintln!("coracle: attributes of files that cannot be kept here: {}", names.join(", "));
    }
    Ok(root)
}

/// Copies a directory of the user. Root owns the files in the image, unless root makes it.
fn copy(path: &Path, name: &str, workshop: &Workshop) -> Result<Assembly, Refusal> {
    Root::of(path)?;
    refuse_enclosing(path, workshop)?;
    root::check_readable(path)?;
    let mut root = Root::create(&workshop.directory.join(name))?;
    let kept = if workshop.owners == Owners::All { "all" } else { "mode,timestamps,links" };
    let words =
        [format!("--preserve={kept}"), "--recursive".into(), "--no-dereference".into(), "--reflink=auto".into()];
    let from = path.join(".");
    let mut words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    words.extend([OsStr::new("--"), from.as_os_str(), root.path().as_os_str()]);
    workshop::run_program("cp", "coreutils", &words, |_| {})?;
    root.all_root = workshop.owners != Owners::All;
    Ok(Assembly::for_machine(root))
}

fn machine_architecture() -> String {
    std::env::consts::ARCH.into()
}

/// Refuses a directory that contains the workshop: the workshop would be part of the image.
fn refuse_enclosing(path: &Path, workshop: &Workshop) -> Result<(), Refusal> {
    match path.canonicalize() {
        Ok(whole) if workshop.directory.starts_with(&whole) => {
            let cause = format!("{} is in it, where images are made", workshop.directory.display());
            Err(Refusal::new(Kind::Usage, path.display().to_string(), cause)
                .hint("CORACLE_TMPDIR names another directory for that"))
        }
        _ => Ok(()),
    }
}

/// Uses a directory of the user without a copy.
pub fn borrow(path: &Path, workshop: &Workshop) -> Result<Assembly, Refusal> {
    let mut root = Root::of(path)?;
    refuse_enclosing(path, workshop)?;
    // Only root could have made files there that other users own in the image.
    root.all_root = workshop.owners != Owners::All;
    root::check_readable(path)?;
    root.note_times()?;
    Ok(Assembly { root, architecture: machine_architecture(), conventions: None })
}
