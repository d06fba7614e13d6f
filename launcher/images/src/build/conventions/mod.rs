//! Writes the conventions of Apptainer's runtime and of Coracle into an image: `/.singularity.d`, and the data objects
//! beside the root file system in a SIF.
//!
//! The result does not depend on the time if SOURCE_DATE_EPOCH is set.
#![forbid(unsafe_code)]

mod date;
mod labels;
mod metadata;
mod scripts;

use std::collections::BTreeMap;
use std::path::Path;

use coracle::report::{Kind, Refusal};
use coracle_launcher::image::sif::{DATA_DEFINITION, DATA_JSON, METADATA, OCI_CONFIG};

use crate::build::root::Root;
use crate::build::sif::Object;
use crate::sources::oci;

pub use labels::from_lines as labels_from_lines;
pub use scripts::environment as oci_environment;

/// Path of the definition file in an image.
const DEFINITION: &str = "/.singularity.d/Singularity";
/// Directory of the definition files of the images that this one was made from.
const HISTORY: &str = "/.singularity.d/bootstrap_history";
/// `%environment`
pub const ENVIRONMENT: &str = "/.singularity.d/env/90-environment.sh";
/// Script of an OCI image's environment.
const OCI_ENVIRONMENT: &str = "/.singularity.d/env/10-docker2singularity.sh";
const RUNSCRIPT: &str = "/.singularity.d/runscript";
const STARTSCRIPT: &str = "/.singularity.d/startscript";
/// `%test`
pub const TEST: &str = "/.singularity.d/test";
const HELP: &str = "/.singularity.d/runscript.help";
const LABELS: &str = "/.singularity.d/labels.json";
/// Limit of the length of these files, in bytes.
const LIMIT: u64 = 1 << 20;
/// Mode of programs.
const PROGRAM: u32 = 0o755;
const PLAIN: u32 = 0o644;

/// Directories that a container needs, and their permissions if the image sets none.
const DIRECTORIES: [(&str, u32); 12] = [
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/proc", 0o755),
    ("/root", 0o700),
    ("/sys", 0o755),
    ("/tmp", 0o1777),
    ("/var", 0o755),
    ("/var/tmp", 0o1777),
    ("/.singularity.d", 0o755),
    ("/.singularity.d/env", 0o755),
    ("/.singularity.d/libs", 0o755),
];
/// Directories among them that all users can read, with any permissions of the image.
const OURS: [&str; 3] = ["/.singularity.d", "/.singularity.d/env", "/.singularity.d/libs"];
/// Files over which runtimes bind: runtimes make none in an image.
const EMPTY_FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];
const LINKS: [(&str, &str); 6] = [
    ("/.exec", ".singularity.d/actions/exec"),
    ("/.run", ".singularity.d/actions/run"),
    ("/.shell", ".singularity.d/actions/shell"),
    ("/.test", ".singularity.d/actions/test"),
    ("/environment", ".singularity.d/env/90-environment.sh"),
    ("/singularity", ".singularity.d/runscript"),
];

/// Metadata to write into an image. Missing fields stay as they are in the image.
#[derive(Debug, Default)]
pub struct Conventions {
    /// Configuration of an OCI image: its bytes, and its fields.
    pub oci: Option<(Vec<u8>, oci::Config)>,
    /// `%environment`
    pub environment: Option<String>,
    /// `%runscript` as a complete script with its interpreter line.
    pub runscript: Option<String>,
    /// `%startscript`, likewise.
    pub startscript: Option<String>,
    /// `%test`, likewise.
    pub test: Option<String>,
    /// `%help`
    pub help: Option<String>,
    /// `%labels`. They replace labels of the base image.
    pub labels: BTreeMap<String, String>,
    /// Text of the definition file.
    pub definition: Option<String>,
    /// Header of the definition file, by key in lower case.
    pub header: BTreeMap<String, String>,
    /// Variables of the apps.
    pub apps: Option<String>,
    /// Processor of the image, with Rust's name, if it is not this host's.
    pub architecture: Option<String>,
}

/// Writes the metadata into `root` and returns the data objects beside it.
pub fn write(root: &mut Root, conventions: &Conventions) -> Result<Vec<Object>, Refusal> {
    furnish(root)?;
    let put = |root: &mut Root, path: &str, mode, text: &str| root.write(Path::new(path), mode, text.as_bytes());
    if let Some((_, config)) = &conventions.oci {
        put(root, OCI_ENVIRONMENT, PROGRAM, &scripts::environment(config.config.env.as_deref().unwrap_or_default()))?;
        if let Some(text) = scripts::runscript(&config.config) {
            put(root, RUNSCRIPT, PROGRAM, &text)?;
        }
    }
    if let Some(text) = &conventions.environment {
        // Appended once, behind the text of the base image.
        let text = format!("\n{text}\n");
        let there = root.read(Path::new(ENVIRONMENT), LIMIT)?.unwrap_or_default();
        if !there.ends_with(text.as_bytes()) {
            root.write(Path::new(ENVIRONMENT), PROGRAM, &[there, text.into_bytes()].concat())?;
        }
    }
    if let Some(text) = &conventions.apps {
        put(root, "/.singularity.d/env/94-appsbase.sh", PROGRAM, text)?;
        put(root, "/.singularity.d/env/95-apps.sh", PROGRAM, scripts::APPS)?;
    }
    for (path, mode, text) in [
        (RUNSCRIPT, PROGRAM, &conventions.runscript),
        (STARTSCRIPT, PROGRAM, &conventions.startscript),
        (TEST, PROGRAM, &conventions.test),
        (HELP, PLAIN, &conventions.help),
    ] {
        if let Some(text) = text {
            put(root, path, mode, text)?;
        }
    }
    let labels = labels::of(root, conventions)?;
    root.write(Path::new(LABELS), PLAIN, &json(&labels, LABELS)?)?;
    if let Some(text) = &conventions.definition {
        keep_old_definition(root, text)?;
        put(root, DEFINITION, PLAIN, text)?;
    }
    objects(root, conventions, labels)
}

/// Adds the files and directories that runtimes expect in any image, if they are missing.
pub fn furnish(root: &mut Root) -> Result<(), Refusal> {
    for (path, mode) in DIRECTORIES {
        root.provide_directory(Path::new(path), mode)?;
    }
    for path in OURS {
        root.open_to_all(Path::new(path))?;
    }
    for path in EMPTY_FILES {
        root.provide_file(Path::new(path), PLAIN, b"")?;
    }
    for (path, target) in LINKS {
        root.provide_link(Path::new(path), Path::new(target))?;
    }
    for (path, text) in scripts::ALWAYS {
        root.provide_file(Path::new(path), PROGRAM, text.as_bytes())?;
    }
    Ok(())
}

/// Keeps the old definition under a number, as Apptainer does.
fn keep_old_definition(root: &mut Root, new: &str) -> Result<(), Refusal> {
    let there = root.read(Path::new(DEFINITION), LIMIT)?;
    if there.is_none_or(|old| old == new.as_bytes()) {
        return Ok(());
    }
    let number = root.names(Path::new(HISTORY))?.len();
    root.rename(Path::new(DEFINITION), &Path::new(HISTORY).join(format!("Apptainer{number}")))
}

/// Data objects in Apptainer's order: the definition file, which has no name, then the others by name.
fn objects(root: &Root, conventions: &Conventions, labels: BTreeMap<String, String>) -> Result<Vec<Object>, Refusal> {
    let object = |datatype, name: &str, bytes| Object { datatype, name: name.to_owned(), bytes, extra: Vec::new() };
    let mut objects = Vec::new();
    // An image that is only packed again is still what its definition says.
    let definition = match root.read(Path::new(DEFINITION), LIMIT) {
        Ok(text) => text.and_then(|text| String::from_utf8(text).ok()),
        // The file of an image from another program need not be a definition.
        Err(refusal) if refusal.kind == Kind::ImageFormat => None,
        Err(refusal) => return Err(refusal),
    };
    if let Some(text) = &definition {
        objects.push(object(DATA_DEFINITION, "", text.clone().into_bytes()));
    }
    let metadata = metadata::of(root, definition.as_deref(), labels)?;
    objects.push(object(DATA_JSON, METADATA, json(&metadata, METADATA)?));
    if let Some((bytes, _)) = &conventions.oci {
        let broken = |cause: &str| Refusal::new(Kind::ImageFormat, "the configuration of the OCI image", cause);
        let whole: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| broken(&error.to_string()))?;
        // As in Apptainer: the settings with which a container runs, not the history of the image.
        let inner =
            whole.get("config").filter(|inner| inner.is_object()).cloned().unwrap_or_else(|| serde_json::json!({}));
        objects.push(object(DATA_JSON, OCI_CONFIG, json(&inner, OCI_CONFIG)?));
    }
    Ok(objects)
}

fn json(value: &impl serde::Serialize, what: &str) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(|error| Refusal::new(Kind::Internal, what, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Root) {
        let top = tempfile::tempdir().unwrap();
        let root = Root::create(&top.path().join("root")).unwrap();
        (top, root)
    }

    #[test]
    fn what_an_image_has_stays_and_links_lead_nowhere() {
        let (top, mut root) = tree();
        let outside = top.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::os::unix::fs::symlink(outside.join("hosts"), root.path().join("environment")).unwrap();
        std::os::unix::fs::symlink("/usr/home", root.path().join("home")).unwrap();
        root.write(Path::new("/etc/hosts"), 0o600, b"mine").unwrap();
        std::fs::create_dir(root.path().join(".singularity.d")).unwrap();
        std::os::unix::fs::symlink(outside.join("labels"), root.path().join(".singularity.d/labels.json")).unwrap();
        write(&mut root, &Conventions::default()).unwrap();
        assert_eq!(root.read(Path::new("/etc/hosts"), 10).unwrap().unwrap(), b"mine");
        assert_eq!(std::fs::read_link(root.path().join("home")).unwrap(), Path::new("/usr/home"));
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        assert!(root.path().join(".singularity.d/labels.json").symlink_metadata().unwrap().is_file());
        let mode = |name: &str| {
            use std::os::unix::fs::PermissionsExt;
            root.path().join(name).metadata().unwrap().permissions().mode() & 0o7777
        };
        assert_eq!((mode("tmp"), mode("var/tmp"), mode("root"), mode("proc")), (0o1777, 0o1777, 0o700, 0o755));
        // No runscript is invented: a runtime reports an image without one in its own words.
        assert!(!root.path().join(".singularity.d/runscript").exists());
    }

    #[test]
    fn the_environment_of_a_second_image_is_put_behind_that_of_the_first_and_its_definition_is_kept() {
        let (_top, mut root) = tree();
        let say = |text: &str| Conventions {
            environment: Some(format!("export A={text}")),
            definition: Some(format!("# {text}\n")),
            labels: [("who".to_owned(), text.to_owned())].into(),
            ..Conventions::default()
        };
        write(&mut root, &say("first")).unwrap();
        write(&mut root, &say("second")).unwrap();
        // A text that was written twice is there once.
        let objects = write(&mut root, &say("second")).unwrap();
        let read = |path: &str| String::from_utf8(root.read(Path::new(path), LIMIT).unwrap().unwrap()).unwrap();
        let environment = read(ENVIRONMENT);
        assert!(environment.find("A=first").unwrap() < environment.find("A=second").unwrap(), "{environment}");
        assert_eq!(environment.matches("A=second").count(), 1);
        assert_eq!(root.names(Path::new(HISTORY)).unwrap().len(), 1);
        assert_eq!(read(DEFINITION), "# second\n");
        assert_eq!(read(&format!("{HISTORY}/Apptainer0")), "# first\n");
        assert!(read(LABELS).contains(r#""who":"second""#));
        assert_eq!((objects[0].datatype, objects[0].bytes.as_slice()), (DATA_DEFINITION, &b"# second\n"[..]));
        assert_eq!(objects[1].name, "inspect-metadata.json");
        let metadata: serde_json::Value = serde_json::from_slice(&objects[1].bytes).unwrap();
        let attributes = &metadata["data"]["attributes"];
        assert_eq!(attributes["deffile"], "# second");
        assert_eq!(attributes["labels"]["who"], "second");
        assert!(attributes["environment"][ENVIRONMENT].as_str().unwrap().ends_with("export A=second"));
        assert_eq!(metadata["type"], "container");
    }

    #[test]
    fn an_image_that_is_packed_again_keeps_its_definition() {
        let (_top, mut root) = tree();
        let first = Conventions { definition: Some("# it\n".into()), ..Conventions::default() };
        write(&mut root, &first).unwrap();
        let objects = write(&mut root, &Conventions::default()).unwrap();
        assert_eq!((objects[0].datatype, objects[0].bytes.as_slice()), (DATA_DEFINITION, &b"# it\n"[..]));
        assert!(root.names(Path::new(HISTORY)).unwrap().is_empty());
        root.write(Path::new(DEFINITION), PLAIN, b"\xff").unwrap();
        assert_eq!(write(&mut root, &Conventions::default()).unwrap()[0].datatype, DATA_JSON);
    }

    #[test]
    fn an_oci_configuration_stands_beside_as_apptainer_has_it() {
        let (_top, mut root) = tree();
        let text = br#"{"architecture":"arm64","config":{"Env":["A=b"],"Cmd":["x"],"Labels":{"l":"v"}},"history":[]}"#;
        let config = serde_json::from_slice(text).unwrap();
        let conventions = Conventions { oci: Some((text.to_vec(), config)), ..Conventions::default() };
        let objects = write(&mut root, &conventions).unwrap();
        let last = objects.last().unwrap();
        assert_eq!((last.datatype, last.name.as_str()), (DATA_JSON, "oci-config.json"));
        assert_eq!(last.bytes, br#"{"Cmd":["x"],"Env":["A=b"],"Labels":{"l":"v"}}"#);
        let labels = root.read(Path::new(LABELS), LIMIT).unwrap().unwrap();
        let labels: BTreeMap<String, String> = serde_json::from_slice(&labels).unwrap();
        assert_eq!((labels["l"].as_str(), labels["org.label-schema.build-arch"].as_str()), ("v", "arm64"));
    }
}
