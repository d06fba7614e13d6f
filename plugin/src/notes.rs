//! Prints notes of srun, sbatch and salloc, which refuse nothing.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use coracle::configless;
use coracle::request::ImageRef;
use coracle::spank::{configless_note, image_note, variable_notes};
use coracle::sys;

use crate::slurm;

/// Maximum number of bytes that are read of one of Slurm's configuration files.
const MAX_CONF: u64 = 1 << 20;

/// Names that have had a note, for the commands of the job: each command would repeat the note.
const NOTED: &CStr = c"SLURM_CORACLE_NOTED";

/// Prints a note on each variable that is meant for an option and is none, once for a job and all commands in it.
pub fn of_variables() {
    let (notes, noted) =
        variable_notes(std::env::vars_os().map(|(name, _)| name), sys::get_env(NOTED).unwrap_or_default());
    notes.iter().for_each(|note| slurm::note(note));
    if !notes.is_empty() {
        sys::set_env(NOTED, &noted);
    }
}

/// Prints a note on an image that the submitting command cannot open.
pub fn of_image(image: &ImageRef, error: &sys::Error) {
    slurm::note(&image_note(image, error.errno().desc()));
}

/// Prints a note outside of jobs that nodes without a configuration of their own will not load the plugin.
pub fn of_configless() {
    if sys::get_env(c"SLURM_JOB_ID").is_some() {
        return;
    }
    let slurm_conf = sys::get_env(c"SLURM_CONF").map(Into::into).or_else(|| slurm::conf_path(c"slurm.conf"));
    let Some((slurm_conf, plugstack)) = slurm_conf.zip(slurm::conf_path(c"plugstack.conf")) else { return };
    let lacks = text(&slurm_conf)
        .zip(text(&plugstack))
        .is_some_and(|(slurm_conf, plugstack)| configless::lacks_line(&slurm_conf, &plugstack));
    if lacks {
        slurm::note(&configless_note(&plugstack));
    }
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_CONF).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
