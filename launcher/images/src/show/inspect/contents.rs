//! Reads the files below `/.singularity.d`, which Apptainer's runtime and Coracle's use.
#![forbid(unsafe_code)]

use coracle_launcher::image::Error;
use coracle_verify::squashfs::{Files, Node};
use serde::Serialize;
use serde_json::Value;

use super::Texts;

/// Limit of a text that is shown, in bytes.
pub const LIMIT: u64 = 1 << 20;
/// Limit of the scripts of the environment, of labels and of apps that are shown.
const MOST: usize = 256;
const LABELS: &str = "/.singularity.d/labels.json";
const ENVIRONMENT: &str = "/.singularity.d/env";
const APPS: &str = "/scif/apps";

/// Metadata of an image beside its programs.
#[derive(Debug, Default, Serialize)]
pub struct Contents {
    /// Labels, as the image's author wrote them.
    pub labels: Texts,
    /// Scripts that set the environment, by path, in the order in which they run.
    pub environment: Texts,
    /// Script that `run` starts.
    pub runscript: Option<String>,
    /// Script that an instance starts.
    pub startscript: Option<String>,
    /// Script that tests the image.
    pub test: Option<String>,
    /// Help text.
    pub help: Option<String>,
    /// Definition file of the image.
    pub definition: Option<String>,
    /// Names of apps (%apprun).
    pub apps: Vec<String>,
}

impl Contents {
    /// Reads the metadata from a root file system. Parts that cannot be shown are noted; an error is damage.
    pub fn read(files: &mut Files<'_>, notes: &mut Vec<String>) -> Result<Self, Error> {
        let mut read = |path: &str| text(files, path, notes);
        let (runscript, startscript) = (read("/.singularity.d/runscript")?, read("/.singularity.d/startscript")?);
        let (test, help) = (read("/.singularity.d/test")?, read("/.singularity.d/runscript.help")?);
        let (definition, labels) = (read("/.singularity.d/Singularity")?, read(LABELS)?);
        let mut contents = Self { runscript, startscript, test, help, definition, ..Self::default() };
        if let Some(labels) = labels {
            match serde_json::from_str(&labels) {
                Ok(Value::Object(labels)) => contents.labels = texts(&labels, "labels", notes),
                Ok(_) => notes.push(format!("{LABELS} is no JSON object")),
                Err(error) => notes.push(format!("{LABELS} is no JSON: {error}")),
            }
        }
        for name in names(files, ENVIRONMENT, notes)? {
            let path = format!("{ENVIRONMENT}/{name}");
            if let Some(script) = text(files, &path, notes)? {
                contents.environment.insert(path, script);
            }
        }
        contents.apps = names(files, APPS, notes)?;
        Ok(contents)
    }

    /// Reads the metadata from the document that Apptainer put beside the root file system.
    pub fn of_metadata(bytes: &[u8], notes: &mut Vec<String>) -> Self {
        let document: Value = match serde_json::from_slice(bytes) {
            Ok(document) => document,
            Err(error) => {
                notes.push(format!("{} is no JSON: {error}", super::METADATA));
                return Self::default();
            }
        };
        let said = document.pointer("/data/attributes");
        let get = |name: &str| said.and_then(|said| said.get(name));
        let text = |name: &str| get(name).and_then(Value::as_str).map(str::to_owned);
        let map = |name: &str, notes: &mut Vec<String>| {
            get(name).and_then(Value::as_object).map(|map| texts(map, name, notes)).unwrap_or_default()
        };
        Self {
            labels: map("labels", notes),
            environment: map("environment", notes),
            runscript: text("runscript"),
            startscript: text("startscript"),
            test: text("test"),
            help: text("helpfile"),
            definition: text("deffile"),
            apps: Vec::new(),
        }
    }
}

fn texts(map: &serde_json::Map<String, Value>, what: &str, notes: &mut Vec<String>) -> Texts {
    if map.len() > MOST {
        notes.push(format!("of {} {what}, {MOST} are shown", map.len()));
    }
    let said = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    map.iter().take(MOST).map(|(name, value)| (name.clone(), said(value))).collect()
}

fn text(files: &mut Files<'_>, path: &str, notes: &mut Vec<String>) -> Result<Option<String>, Error> {
    match files.look(path, LIMIT)? {
        None => {}
        Some(Node::File(bytes)) => return Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Some(Node::Long(size)) => notes.push(format!("{path} has {size} bytes, which are not shown")),
        Some(Node::Link) => notes.push(format!("{path} is a symbolic link, which is not followed")),
        Some(Node::Directory(_) | Node::Special) => notes.push(format!("{path} is no regular file")),
    }
    Ok(None)
}

/// Names in a directory that are text. Empty if it does not exist.
fn names(files: &mut Files<'_>, path: &str, notes: &mut Vec<String>) -> Result<Vec<String>, Error> {
    let Some(Node::Directory(names)) = files.look(path, 0)? else { return Ok(Vec::new()) };
    if names.len() > MOST {
        notes.push(format!("of the names in {path}, {MOST} are shown"));
    }
    Ok(names.into_iter().filter_map(|name| String::from_utf8(name).ok()).take(MOST).collect())
}
