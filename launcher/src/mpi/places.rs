//! Finds directories of images with MPI libraries that the image's loader does not search by default.
//!
//! An unnecessary directory costs one look-up. With a missing one, a program that searches it (DT_RPATH, `module load`)
//! loads the image's library.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::elf::Root;

/// Maximum size of a script that sets variables, in bytes.
const MAX_SCRIPT: usize = 64 * 1024;
/// Directory of scripts that a SIF's tasks source; other images have [`ENVIRONMENT`].
const SCRIPTS: &str = "/.singularity.d/env";
const ENVIRONMENT: &str = "/etc/environment";
/// Directories below which installations have directories of their own, with the number of levels.
const PREFIXES: &[(&str, usize)] = &[
    ("/opt", 3),
    ("/usr/local", 1),
    ("/usr/lib64", 1),
    ("/usr/lib/x86_64-linux-gnu", 1),
    ("/usr/lib/aarch64-linux-gnu", 1),
];
const LIBRARIES: &[&str] = &["lib", "lib64"];
/// Maximum number of directories in a level.
const MAX_DIRECTORIES: usize = 2000;
/// Maximum number of directories that are read in a level.
const MAX_LISTED: usize = 200;

/// Directories in which an image may have MPI libraries, in no particular order.
pub fn directories_of_libraries(image: &Root) -> Vec<PathBuf> {
    let mut found = script_library_paths(image);
    let mut prefixes: Vec<PathBuf> = Vec::new();
    for (top, depth) in PREFIXES {
        let mut level = vec![PathBuf::from(top)];
        for _ in 0..*depth {
            level = level
                .iter()
                .take(MAX_LISTED)
                .flat_map(|directory| image.directories(directory))
                .take(MAX_DIRECTORIES)
                .collect();
            prefixes.extend(level.iter().cloned());
        }
    }
    found.extend(
        prefixes.iter().take(MAX_DIRECTORIES).flat_map(|prefix| LIBRARIES.iter().map(|name| prefix.join(name))),
    );
    found.retain(|directory| image.has_directory(directory));
    found
}

/// Directories that scripts add to LD_LIBRARY_PATH, if the script contains the path literally.
fn script_library_paths(image: &Root) -> Vec<PathBuf> {
    let scripts =
        image.names(Path::new(SCRIPTS)).into_iter().take(MAX_DIRECTORIES).map(|name| Path::new(SCRIPTS).join(name));
    let mut found = Vec::new();
    for file in scripts.chain([ENVIRONMENT.into()]) {
        let Ok(Some(bytes)) = image.bytes(&file, MAX_SCRIPT) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        for line in text.lines().filter(|line| line.contains("LD_LIBRARY_PATH")) {
            let paths = line.split(|letter: char| ":=\"' ;{}".contains(letter));
            found.extend(paths.filter(|path| path.starts_with('/')).map(PathBuf::from));
        }
    }
    found.truncate(MAX_DIRECTORIES);
    found
}
