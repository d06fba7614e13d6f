//! Collects the labels of an image: those of its base, of the build, and of the user.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;

use coracle::report::{Kind, Refusal};

use super::{Conventions, HELP, LABELS, LIMIT, date};
use crate::build::root::Root;
use crate::build::time;

/// Labels as in %labels: a name and its value on each line.
pub fn from_lines(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        })
        .collect()
}

/// All labels. Later ones in this order win: those of the base image, of the OCI configuration, of the build, and of
/// the user.
pub fn of(root: &Root, conventions: &Conventions) -> Result<BTreeMap<String, String>, Refusal> {
    let mut labels = found(root)?;
    let mut architecture = conventions.architecture.as_deref().unwrap_or(std::env::consts::ARCH);
    if let Some((_, config)) = &conventions.oci {
        labels.extend(config.config.labels.clone().unwrap_or_default());
        architecture = &config.architecture;
    }
    let mut put = |name: &str, value: String| labels.insert(format!("org.label-schema.{name}"), value);
    put("schema-version", "1.0".into());
    put("build-date", date::text(time::creation()?));
    put("build-arch", go_name(architecture).into());
    put("usage.coracle.version", env!("CARGO_PKG_VERSION").into());
    for (key, value) in &conventions.header {
        put(&format!("usage.singularity.deffile.{key}"), value.clone());
    }
    if conventions.help.is_some() {
        put("usage", HELP.into());
        put("usage.apptainer.runscript.help", HELP.into());
    }
    labels.extend(conventions.labels.clone());
    Ok(labels)
}

fn found(root: &Root) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(text) = root.read(Path::new(LABELS), LIMIT)? else { return Ok(BTreeMap::new()) };
    serde_json::from_slice(&text)
        .map_err(|error| Refusal::new(Kind::ImageFormat, LABELS, format!("of the image: no labels: {error}")))
}

/// Name of a processor in Go, and so in Apptainer.
fn go_name(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_a_name_and_the_rest() {
        let labels = from_lines("\n  Author  Jane Doe  \n# not this\nVersion\tv1\nEmpty\nVersion v2\n");
        let wanted = [("Author", "Jane Doe"), ("Empty", ""), ("Version", "v2")];
        assert_eq!(labels, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }
}
