//! Directories of images with MPI libraries that their loader does not know of by itself.
//!
//! A folder too many costs a look-up. One too few, and a program that is told of it (DT_RPATH, `module load`) gets the
//! image's library.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::elf::Root;

/// Size that is read of a file that sets variables.
const MAX_SCRIPT: usize = 64 * 1024;
/// The folder of scripts that a SIF's tasks source, and the file of other images.
const SCRIPTS: &str = "/.singularity.d/env";
const ENVIRONMENT: &str = "/etc/environment";
/// Below each of these, installations have folders of their own: so deep.
const PREFIXES: &[(&str, usize)] = &[
    ("/opt", 3),
    ("/usr/local", 1),
    ("/usr/lib64", 1),
    ("/usr/lib/x86_64-linux-gnu", 1),
    ("/usr/lib/aarch64-linux-gnu", 1),
];
const LIBRARIES: &[&str] = &["lib", "lib64"];
/// More folders than any image has there.
const MAX_FOLDERS: usize = 2000;
/// And of these, so many are looked into on each level.
const MAX_LISTED: usize = 200;

/// Folders in which an image may have MPI libraries, in no particular order.
pub fn folders_of_libraries(image: &Root) -> Vec<PathBuf> {
    let mut found = script_library_paths(image);
    let mut prefixes: Vec<PathBuf> = Vec::new();
    for (top, depth) in PREFIXES {
        let mut level = vec![PathBuf::from(top)];
        for _ in 0..*depth {
            level = level.iter().take(MAX_LISTED).flat_map(|folder| image.folders(folder)).take(MAX_FOLDERS).collect();
            prefixes.extend(level.iter().cloned());
        }
    }
    found.extend(prefixes.iter().take(MAX_FOLDERS).flat_map(|prefix| LIBRARIES.iter().map(|name| prefix.join(name))));
    found.retain(|folder| image.has_folder(folder));
    found
}

/// The folders that scripts put into LD_LIBRARY_PATH, as far as they stand there plainly.
fn script_library_paths(image: &Root) -> Vec<PathBuf> {
    let scripts =
        image.names(Path::new(SCRIPTS)).into_iter().take(MAX_FOLDERS).map(|name| Path::new(SCRIPTS).join(name));
    let mut found = Vec::new();
    for file in scripts.chain([ENVIRONMENT.into()]) {
        let Ok(Some(bytes)) = image.bytes(&file, MAX_SCRIPT) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        for line in text.lines().filter(|line| line.contains("LD_LIBRARY_PATH")) {
            let paths = line.split(|letter: char| ":=\"' ;{}".contains(letter));
            found.extend(paths.filter(|path| path.starts_with('/')).map(PathBuf::from));
        }
    }
    found.truncate(MAX_FOLDERS);
    found
}
