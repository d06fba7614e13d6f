//! Writes notes of srun, sbatch and salloc, which refuse nothing.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::env::INSIDE;
use crate::options::note_of_variable;
use crate::request::ImageRef;

/// Returns a note on each variable in `names` that is meant for an option and is none, and `noted` with these names
/// behind it. A name that `noted` has gets no note: each command of the job would repeat it.
pub fn variable_notes(names: impl IntoIterator<Item = OsString>, noted: OsString) -> (Vec<String>, OsString) {
    let (mut notes, mut noted) = (Vec::new(), noted);
    for name in names {
        let Some(name) = name.to_str().filter(|name| !INSIDE.contains(name)) else { continue };
        let Some(text) = note_of_variable(name) else { continue };
        if !noted.as_bytes().split(|byte| *byte == b',').any(|known| known == name.as_bytes()) {
            notes.push(text);
            noted.push(",");
            noted.push(name);
        }
    }
    (notes, noted)
}

/// Returns a note on an image that the submitting command cannot open; `cause` is the kernel's answer.
pub fn image_note(image: &ImageRef, cause: &str) -> String {
    format!("{image}: {}, as seen from here; the job fails unless its nodes have it", cause.to_ascii_lowercase())
}

/// Returns a note that nodes without a configuration of their own will not load the plugin.
pub fn configless_note(plugstack: &Path) -> String {
    let file = OsStr::to_string_lossy(plugstack.as_os_str());
    format!(
        "{file}: loads this plugin by an include, and a configless controller hands nodes that file only: the job may run \
         outside of its image; the site's admin has to put the line into the file itself"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(names: &[&str], noted: &str) -> (Vec<String>, OsString) {
        variable_notes(names.iter().map(OsString::from), noted.into())
    }

    #[test]
    fn a_mistyped_variable_has_one_note_in_a_job() {
        let (first, noted) = notes(&["PATH", "CORACLE_CONTAINER_BNID", "CORACLE_CONTAINER_BIND"], "");
        assert_eq!(first.len(), 1);
        assert!(first[0].starts_with("CORACLE_CONTAINER_BNID: no such variable"), "{first:?}");
        assert_eq!(noted, ",CORACLE_CONTAINER_BNID");
        assert_eq!(notes(&["CORACLE_CONTAINER_BNID"], noted.to_str().unwrap()), (vec![], noted));
    }

    #[test]
    fn a_new_mistyped_variable_is_added_to_those_before() {
        let (new, noted) = notes(&["CORACLE_CONTAINER_BNID", "CORACLE_BIND"], ",CORACLE_CONTAINER_BNID");
        assert!(new.len() == 1 && new[0].starts_with("CORACLE_BIND: "), "{new:?}");
        assert_eq!(noted, ",CORACLE_CONTAINER_BNID,CORACLE_BIND");
    }

    #[test]
    fn a_longer_name_in_the_list_does_not_stand_for_its_beginning() {
        assert_eq!(notes(&["CORACLE_CONTAINER_BNID"], ",CORACLE_CONTAINER_BNIDS").0.len(), 1);
    }

    #[test]
    fn the_variables_that_describe_a_container_have_no_note() {
        assert_eq!(notes(&INSIDE, ""), (vec![], OsString::new()));
    }

    #[test]
    fn an_image_that_is_not_here_is_named_as_typed_and_with_the_cause() {
        let image = ImageRef { path: "/home/alice/a.sif".into(), typed: "a.sif".into() };
        let wanted = "a.sif: no such file or directory, as seen from here; the job fails unless its nodes have it";
        assert_eq!(image_note(&image, "No such file or directory"), wanted);
    }

    #[test]
    fn the_note_on_an_include_names_the_file() {
        let note = configless_note(Path::new("/etc/slurm/plugstack.conf"));
        assert!(note.starts_with("/etc/slurm/plugstack.conf: loads this plugin by an include, and"), "{note}");
    }
}
