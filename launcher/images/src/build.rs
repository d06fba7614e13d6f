//! `coracle build`: one file from whatever there is.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use coracle::report::{Kind, Refusal, clean};
use coracle_launcher::image::fstab;
use coracle_launcher::image::sif::architecture_code;
use coracle_orders::{Build, Packing};
use ring::rand::SecureRandom;

use crate::conventions::{self, Conventions};
use crate::definition::Definition;
use crate::draft::{self, Draft};
use crate::layer::{self, Applier, Layer, Meaning};
use crate::oci::{self, Form};
use crate::output::{self, unwritable};
use crate::registry::{Name, Registries};
use crate::root::{self, Root};
use crate::sif::Layout;
use crate::source::Source;
use crate::squashfs;
use crate::unpack;
use crate::workshop::{self, Owners, Workshop};

/// The folder of the root file system in the workshop.
pub const ROOT: &str = "root";

/// Parts of an image that become a file.
#[derive(Debug)]
pub struct Assembly {
    /// The root file system.
    pub root: Root,
    /// The processor it is for, as Rust calls it.
    pub architecture: String,
    /// Metadata of the image. Nothing, if the root file system is a folder of somebody's, who wants it as it
    /// is: nothing is written there.
    pub conventions: Option<Conventions>,
}

/// Makes the file that was asked for.
pub fn main(given: &Build) -> Result<ExitCode, Refusal> {
    check_names(given)?;
    let source = Source::of(&given.source).map_err(|refusal| swapped(given, refusal))?;
    if let (Some(word), false) = (given.arguments.first(), matches!(source, Source::Definition(_))) {
        let cause = format!("{} is no definition file, which alone has {{{{ NAME }}}}", given.source.display());
        return Err(Refusal::new(Kind::Usage, format!("--build-arg {word}"), cause));
    }
    let registries = Registries::of(&given.access, given.packing.silent);
    let draft = || Draft::of(&given.output, given.force);
    let work = |workshop: &Workshop, draft: &Draft| {
        let assembly = match &source {
            Source::Folder(path) => borrow(path, workshop)?,
            Source::Definition(path) => {
                Definition::read(path, &given.arguments)?.assemble(given, &registries, workshop)?
            }
            source => assemble(source, &registries, ROOT, workshop)?,
        };
        write(assembly, draft, &given.packing, workshop)
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
        output::print(format!("{} {digest} {}\n", clean(draft.typed()), size(bytes)).as_bytes())
    })
}

/// Refuses an output that would be something else than it is called, or the source itself.
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

/// A refusal of a missing source that may be the output, named in the wrong place.
fn swapped(given: &Build, refusal: Refusal) -> Refusal {
    if refusal.kind == Kind::ImageMissing && refusal.hint.is_none() && draft::is_definition(&given.output) {
        return refusal.hint(draft::ORDER);
    }
    refusal
}

/// A number of bytes as people read it.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut tenths, mut unit) = (bytes.saturating_mul(10) / 1024, 0);
    while tenths >= 10 * 1024 && unit + 1 < UNITS.len() {
        (tenths, unit) = (tenths / 1024, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Puts a source together, in the folder `name` of the workshop, which is not there yet and is its own to change.
///
/// Sources of a definition file can be put together so; a definition file itself cannot.
pub fn assemble(
    source: &Source,
    registries: &Registries,
    name: &str,
    workshop: &Workshop,
) -> Result<Assembly, Refusal> {
    match source {
        Source::Folder(path) => copy(path, name, workshop),
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
        Source::DockerArchive(path) => assemble_oci(&oci::from_docker_archive(path, &workshop.folder)?, name, workshop),
        Source::Layout(path, tag) => {
            assemble_oci(&oci::from_layout(path, tag.as_deref(), &registries.wanted()?)?, name, workshop)
        }
        Source::LayoutArchive(path, tag) => {
            let image = oci::from_layout_archive(path, tag.as_deref(), &registries.wanted()?, &workshop.folder)?;
            assemble_oci(&image, name, workshop)
        }
        Source::Registry(image) => assemble_registry(&Name::of(image)?, registries, name, workshop),
        Source::Definition(path) => {
            Err(Refusal::new(Kind::Internal, path.display().to_string(), "a definition file is no part of another"))
        }
    }
}

/// Puts an image of a registry together, which says from then on where it is from, and which one it was.
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

/// Applies the layers of an image onto each other, in the folder `name` of the workshop, which is not there yet.
fn assemble_oci(image: &oci::Image, name: &str, workshop: &Workshop) -> Result<Assembly, Refusal> {
    let config = image.config()?;
    let architecture = config.processor()?;
    let root = filled(name, workshop, |applier| {
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
    let root = filled(name, workshop, |applier| layer::apply(&layer, "", Meaning::Tree, applier))?;
    Ok(Assembly::own(root))
}

/// Unpacks an image; what `/.singularity.d` says in it is still there.
fn assemble_image(path: &Path, name: &str, workshop: &Workshop) -> Result<Assembly, Refusal> {
    let root = filled(name, workshop, |applier| unpack::unpack(path, applier, &workshop.folder))?;
    Ok(Assembly::own(root))
}

impl Assembly {
    /// A root file system for this machine, of which nothing is to be said.
    fn own(root: Root) -> Self {
        Self { root, architecture: own(), conventions: Some(Conventions::default()) }
    }
}

/// A new root file system in the folder `name` of the workshop, filled by `fill`. Says once what is lost here of the
/// image: nothing that programs need in order to run.
fn filled(
    name: &str,
    workshop: &Workshop,
    fill: impl FnOnce(&mut Applier<'_>) -> Result<(), Refusal>,
) -> Result<Root, Refusal> {
    let mut root = Root::create(&workshop.folder.join(name))?;
    let mut applier = Applier::new(&mut root, workshop.owners);
    fill(&mut applier)?;
    let lost = applier.finish()?;
    if !lost.is_empty() {
        let names: Vec<String> = lost.into_iter().take(10).collect();
        eprintln!("coracle: attributes of files that cannot be kept here: {}", names.join(", "));
    }
    Ok(root)
}

/// A folder of somebody's, copied: its files are root's, unless root makes the image.
fn copy(path: &Path, name: &str, workshop: &Workshop) -> Result<Assembly, Refusal> {
    Root::of(path)?;
    apart(path, workshop)?;
    root::check_readable(path)?;
    let mut root = Root::create(&workshop.folder.join(name))?;
    let kept = if workshop.owners == Owners::All { "all" } else { "mode,timestamps,links" };
    let words =
        [format!("--preserve={kept}"), "--recursive".into(), "--no-dereference".into(), "--reflink=auto".into()];
    let from = path.join(".");
    let mut words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    words.extend([OsStr::new("--"), from.as_os_str(), root.path().as_os_str()]);
    workshop::run_program("cp", "coreutils", &words, |_| {})?;
    root.all_root = workshop.owners != Owners::All;
    Ok(Assembly::own(root))
}

fn own() -> String {
    std::env::consts::ARCH.into()
}

/// Refuses a folder that has the workshop in it: that would be a part of the image.
fn apart(path: &Path, workshop: &Workshop) -> Result<(), Refusal> {
    match path.canonicalize() {
        Ok(whole) if workshop.folder.starts_with(&whole) => {
            let cause = format!("{} is in it, where images are made", workshop.folder.display());
            Err(Refusal::new(Kind::Usage, path.display().to_string(), cause)
                .hint("CORACLE_TMPDIR names another folder for that"))
        }
        _ => Ok(()),
    }
}

/// Takes a folder of somebody's as it is.
fn borrow(path: &Path, workshop: &Workshop) -> Result<Assembly, Refusal> {
    let mut root = Root::of(path)?;
    apart(path, workshop)?;
    // Nobody but root could have made files there for others to have in the image.
    root.all_root = workshop.owners != Owners::All;
    root::check_readable(path)?;
    root.note_times()?;
    Ok(Assembly { root, architecture: own(), conventions: None })
}

/// Writes what was put together as a SIF.
pub fn write(mut assembly: Assembly, draft: &Draft, packing: &Packing, workshop: &Workshop) -> Result<(), Refusal> {
    let architecture = architecture_code(&assembly.architecture)
        .ok_or_else(|| Refusal::new(Kind::ImageArch, &assembly.architecture, "no processor that a SIF can name"))?;
    let epoch = epoch()?;
    let mut layout = Layout { objects: Vec::new(), architecture, time: epoch.unwrap_or_else(now), uuid: [0; 16] };
    if let Some(conventions) = &assembly.conventions {
        layout.objects = conventions::write(&mut assembly.root, conventions)?;
        assembly.root.clamp_times()?;
    }
    if let Some(text) = assembly.root.read(Path::new(fstab::PATH), fstab::LIMIT).ok().flatten() {
        fstab::note(&text).iter().for_each(|note| eprintln!("{}", clean(&format!("coracle: note: {note}"))));
    }
    assembly.root.note_rest()?;
    let size = squashfs::pack(&assembly.root, draft, layout.root_at(), packing, &workshop.folder)?;
    layout.uuid = uuid(epoch, draft, layout.root_at(), size)?;
    layout.write(draft, size)
}

/// When an image is made that is made now: in seconds since 1970.
pub fn time() -> Result<i64, Refusal> {
    Ok(epoch()?.unwrap_or_else(now))
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

/// The time that everything is to have (reproducible-builds.org, SOURCE_DATE_EPOCH), in seconds.
fn epoch() -> Result<Option<i64>, Refusal> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let number = text.to_str().and_then(|text| text.parse::<u32>().ok());
    let refuse =
        || Refusal::new(Kind::Usage, "SOURCE_DATE_EPOCH", format!("{text:?} is no number of seconds since 1970"));
    number.map(|number| Some(i64::from(number))).ok_or_else(refuse)
}

/// A random one (RFC 9562, version 4), or where the same image is to be made again one that follows from its root file
/// system (version 8). Nobody may take it for the image's identity: that is the digest of its bytes.
fn uuid(epoch: Option<i64>, draft: &Draft, at: u64, size: u64) -> Result<[u8; 16], Refusal> {
    let mut uuid = [0; 16];
    let version = if epoch.is_some() {
        let digest = draft::digest(draft, at, size)?;
        // Digits they are: the half of them is a number of this size.
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
