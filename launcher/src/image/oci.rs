//! Interprets the configuration of an OCI image (image-spec, config.md).
#![forbid(unsafe_code)]

use std::path::Path;

/// Path of the program that the first word of an Entrypoint or Cmd names, independent of the current directory. A
/// relative path is relative to the image's WorkingDir. A name without a slash is searched for in PATH.
pub fn program_in(working_dir: Option<&str>, program: &str) -> String {
    if program.starts_with('/') || !program.contains('/') {
        return program.to_owned();
    }
    let plain = program.trim_start_matches("./").trim_start_matches('/');
    Path::new("/").join(working_dir.unwrap_or_default()).join(plain).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_program_is_in_the_working_directory() {
        for (directory, program, found) in [
            (Some("/app"), "./start.sh", "/app/start.sh"),
            (Some("/app/"), "bin/start", "/app/bin/start"),
            (Some("/app"), "../start", "/app/../start"),
            (Some("/app"), "././/start", "/app/start"),
            (Some("app"), "./start", "/app/start"),
            (Some(""), "./start", "/start"),
            (None, "./start", "/start"),
            (Some("/app"), "start", "start"),
            (Some("/app"), "/start", "/start"),
            (Some("/app"), "", ""),
        ] {
            assert_eq!(program_in(directory, program), found, "{directory:?} {program:?}");
        }
    }
}
