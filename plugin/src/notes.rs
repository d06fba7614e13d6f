//! Notes of srun, sbatch and salloc, which refuse nothing.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;

use coracle::env::INSIDE;
use coracle::options::note_of_variable;
use coracle::request::ImageRef;
use coracle::sys;

use crate::face;

/// The names that a note has been made of, for the commands of the job: each would say it again.
const NOTED: &CStr = c"SLURM_CORACLE_NOTED";

/// Tells of each variable that is meant for an option and is none, once for a job and what runs in it.
pub fn of_variables() {
    let mut noted = sys::get_env(NOTED).unwrap_or_default();
    let before = noted.len();
    for (name, _) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| !INSIDE.contains(name)) else { continue };
        let Some(text) = note_of_variable(name) else { continue };
        if !noted.as_bytes().split(|byte| *byte == b',').any(|known| known == name.as_bytes()) {
            face::note(&text);
            noted.push(",");
            noted.push(name);
        }
    }
    if noted.len() > before {
        sys::set_env(NOTED, &noted);
    }
}

/// Tells of an image that the submitting command does not see.
pub fn of_image(image: &ImageRef, error: &sys::Error) {
    let cause = error.errno().desc().to_ascii_lowercase();
    face::note(&format!("{image}: {cause}, as seen from here; the job fails unless its nodes have it"));
}
