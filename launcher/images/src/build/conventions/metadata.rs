//! Collects the data that `apptainer inspect` shows. They lie beside the root file system, where they are read without
//! starting a container (pkg/inspect of github.com/apptainer/apptainer).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;

use coracle::report::{Kind, Refusal};
use serde::Serialize;

use super::{HELP, LIMIT, RUNSCRIPT, STARTSCRIPT, TEST};
use crate::build::root::Root;

const SCRIPTS: &str = "/.singularity.d/env";
const APPS: &str = "/scif/apps";

#[derive(Debug, Serialize)]
pub struct Metadata {
    data: Data,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct Data {
    attributes: Attributes,
}

#[derive(Debug, Default, Serialize)]
struct Attributes {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    apps: BTreeMap<String, Attributes>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runscript: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    helpfile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deffile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    startscript: Option<String>,
}

/// Collects the metadata from the present state of the image.
pub fn of(root: &Root, definition: Option<&str>, labels: BTreeMap<String, String>) -> Result<Metadata, Refusal> {
    let attributes = Attributes {
        apps: apps(root)?,
        environment: environment(root, SCRIPTS)?,
        labels,
        runscript: text(root, RUNSCRIPT)?,
        test: text(root, TEST)?,
        helpfile: text(root, HELP)?,
        deffile: definition.map(trimmed),
        startscript: text(root, STARTSCRIPT)?,
    };
    Ok(Metadata { data: Data { attributes }, kind: "container" })
}

fn apps(root: &Root) -> Result<BTreeMap<String, Attributes>, Refusal> {
    let mut apps = BTreeMap::new();
    for name in root.names(Path::new(APPS))? {
        let Some(name) = name.to_str() else { continue };
        let directory = format!("{APPS}/{name}/scif");
        let file = |name: &str| format!("{directory}/{name}");
        let labels = text(root, &file("labels.json"))?;
        let labels = labels.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let app = Attributes {
            environment: environment(root, &file("env"))?,
            labels,
            runscript: text(root, &file("runscript"))?,
            test: text(root, &file("test"))?,
            helpfile: text(root, &file("runscript.help"))?,
            startscript: text(root, &file("startscript"))?,
            ..Attributes::default()
        };
        apps.insert(name.to_owned(), app);
    }
    Ok(apps)
}

/// Scripts that Apptainer shows as the image's own: those of an image, and of an OCI image.
fn environment(root: &Root, directory: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let mut scripts = BTreeMap::new();
    for name in root.names(Path::new(directory))? {
        let Some(name) = name.to_str() else { continue };
        let of_oci = name.starts_with("10-docker") && name.ends_with(".sh");
        if of_oci || (name.starts_with('9') && name.ends_with("-environment.sh")) {
            let path = format!("{directory}/{name}");
            if let Some(text) = text(root, &path)? {
                scripts.insert(path, text);
            }
        }
    }
    Ok(scripts)
}

/// Text of a file of the image. `None` if it does not exist or is too long to be shown.
fn text(root: &Root, path: &str) -> Result<Option<String>, Refusal> {
    match root.read(Path::new(path), LIMIT) {
        Ok(bytes) => Ok(bytes.map(|bytes| trimmed(&String::from_utf8_lossy(&bytes)))),
        Err(refusal) if refusal.kind == Kind::ImageFormat => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

fn trimmed(text: &str) -> String {
    text.trim_end_matches('\n').to_owned()
}
