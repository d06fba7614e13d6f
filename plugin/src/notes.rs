//! Prints notes of srun, sbatch and salloc, which refuse nothing.
#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use coracle::configless;
use coracle::env::INSIDE;
use coracle::options::note_of_variable;
use coracle::request::ImageRef;
use coracle::sys;

use crate::face;
use crate::slurm;

/// Maximum number of bytes that are read of one of Slurm's configuration files.
const MAX_CONF: u64 = 1 << 20;

/// Names that have had a note, for the commands of the job: each command would repeat the note.
const NOTED: &CStr = c"SLURM_CORACLE_NOTED";

/// Prints a note on each variable that is meant for an option and is none, once for a job and all commands in it.
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

/// Prints a note on an image that the submitting command cannot open.
pub fn of_image(image: &ImageRef, error: &sys::Error) {
    let cause = error.errno().desc().to_ascii_lowercase();
    face::note(&format!("{image}: {cause}, as seen from here; the job fails unless its nodes have it"));
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
        face::note(&format!(
            "{}: loads this plugin by an include, and a configless controller hands nodes that file only: the job may run \
             outside of its image; the site's admin has to put the line into the file itself",
            plugstack.display()
        ));
    }
}

fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_CONF).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
