//! Reads the entry point of an image, and the configuration that an OCI image has brought into its SIF.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::env::Pair;
use crate::image::oci::program_in;
use crate::image::sif::{self, DATA_JSON, OCI_CONFIG};
use coracle::report::{Kind, Refusal};
use coracle::request::escape::unescape;

use super::{SHELL, garbled};

/// Runscript of a SIF.
const RUNSCRIPT: &str = "/.singularity.d/runscript";
/// Entry point that enroot writes.
const ENROOT_RC: &str = "/etc/rc";
/// Variable with the words of the entry point for `coracle-inside`.
pub(super) const ENTRYPOINT: &str = "SLURM_CORACLE_ENTRYPOINT";

/// Removes the words of the image's entry point from an environment that was made for it.
pub fn take_entrypoint(environment: &mut Vec<Pair>) -> Result<Vec<OsString>, Refusal> {
    let at = environment.iter().position(|(name, _)| name == ENTRYPOINT).ok_or_else(garbled)?;
    let (_, text) = environment.swap_remove(at);
    let text = text.into_string().map_err(|_| garbled())?;
    text.split(' ').map(|word| unescape(word).map_err(Refusal::from)).collect()
}

/// Configuration of an OCI image (image-spec, config.md).
#[derive(Debug, Default)]
pub(super) struct OciConfig {
    pub(super) env: Vec<String>,
    entrypoint: Vec<String>,
    working_dir: Option<String>,
}

/// Configuration among a SIF's data objects, if there is one.
pub(super) fn oci_config(file: &File, shown: &str) -> Result<Option<OciConfig>, Refusal> {
    let broken = |cause: String| Refusal::new(Kind::ImageFormat, shown, format!("its {OCI_CONFIG} {cause}"));
    // A truncated file is an error of the image, any other error one of the file system.
    let unread = |cause: std::io::Error| match cause.kind() {
        std::io::ErrorKind::UnexpectedEof => broken(format!("cannot be read: {cause}")),
        _ => Refusal::new(Kind::ImageUnreadable, shown, format!("its {OCI_CONFIG} cannot be read: {cause}")),
    };
    let length = file.metadata().map_err(unread)?.len();
    let found = sif::object(file, length, DATA_JSON, OCI_CONFIG).map_err(|error| error.refuse(shown))?;
    let Some((offset, size)) = found else { return Ok(None) };
    let mut text = vec![0; usize::try_from(size).map_err(|_| broken("is too long".into()))?];
    file.read_exact_at(&mut text, offset).map_err(unread)?;
    parse_config(&text).map(Some).map_err(|error| broken(format!("is no JSON of an OCI image: {error}")))
}

/// Parses the configuration alone, as Apptainer writes it, or that of the whole image with it under `config`.
fn parse_config(text: &[u8]) -> Result<OciConfig, String> {
    let value: serde_json::Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let config = value.get("config").filter(|inner| inner.is_object()).unwrap_or(&value);
    let list = |name: &str| match config.get(name) {
        // Go writes an empty list as null.
        None | Some(serde_json::Value::Null) => Ok(Vec::new()),
        Some(list) => {
            let words = list.as_array().map(|list| list.iter().map(|word| word.as_str().map(str::to_owned)).collect());
            words.flatten().ok_or_else(|| format!("{name} is no list of strings"))
        }
    };
    match config.is_object() {
        true => Ok(OciConfig {
            env: list("Env")?,
            entrypoint: list("Entrypoint")?,
            working_dir: config.get("WorkingDir").and_then(serde_json::Value::as_str).map(str::to_owned),
        }),
        false => Err("not an object".into()),
    }
}

/// Words of the image's entry point, if it has one.
pub(super) fn entrypoint(config: Option<OciConfig>) -> Option<Vec<String>> {
    let config = config.filter(|config| !config.entrypoint.is_empty());
    // An image without a shell cannot run a script.
    if Path::new(RUNSCRIPT).exists() && (config.is_none() || Path::new(SHELL).exists()) {
        return Some(vec![RUNSCRIPT.to_owned()]);
    }
    if let Some(OciConfig { mut entrypoint, working_dir, .. }) = config {
        if let Some(program) = entrypoint.first_mut() {
            *program = program_in(working_dir.as_deref(), program);
        }
        return Some(entrypoint);
    }
    Path::new(ENROOT_RC).is_file().then(|| vec![SHELL.to_owned(), ENROOT_RC.to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oci_configuration_is_read_alone_or_within_its_image() {
        for text in [
            r#"{"Env":["A=1","B=x y"],"Entrypoint":["/bin/echo","entry"],"Cmd":["c"],"User":"1000"}"#,
            r#"{"architecture":"amd64","config":{"Env":["A=1","B=x y"],"Entrypoint":["/bin/echo","entry"]}}"#,
        ] {
            let config = parse_config(text.as_bytes()).unwrap();
            assert_eq!(config.env, ["A=1", "B=x y"]);
            assert_eq!(entrypoint(Some(config)), Some(vec!["/bin/echo".to_owned(), "entry".to_owned()]));
        }
        let relative = br#"{"Entrypoint":["./start.sh","./x"],"WorkingDir":"/app"}"#;
        let words = entrypoint(Some(parse_config(relative).unwrap()));
        assert_eq!(words, Some(vec!["/app/start.sh".to_owned(), "./x".to_owned()]));
        let empty = parse_config(br#"{"Env":null,"Entrypoint":null}"#).unwrap();
        assert!(empty.env.is_empty() && empty.entrypoint.is_empty());
        for wrong in ["", "[]", r#"{"Env":"A=1"}"#, r#"{"config":{"Entrypoint":[1]}}"#] {
            assert!(parse_config(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
