//! Starts a command of the node's Slurm with the loader and the libraries of the node.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::{Failure, describe};

/// Slurm commands for users that need no other host than the controller.
pub const COMMANDS: &[&str] = &[
    "sacct", "sacctmgr", "salloc", "sattach", "sbatch", "sbcast", "scancel", "scontrol", "scrontab", "sdiag", "sinfo",
    "sprio", "squeue", "sreport", "srun", "sshare", "sstat", "strigger",
];

/// File with the start of the commands; the launcher writes it when it builds the container.
const LAUNCH: &str = "/run/coracle/slurm/launch";

/// Variables that would load code of the image into the node's client, and the names under which they are saved. The
/// plugin in srun, sbatch and salloc restores them, because the tasks of these commands are to have them.
const ASIDE: [(&str, &str); 2] = [("LD_PRELOAD", "SLURM_CORACLE_LD_PRELOAD"), ("LD_AUDIT", "SLURM_CORACLE_LD_AUDIT")];

/// Start of the node's commands.
#[derive(Debug, Default, PartialEq, Eq)]
struct Launch {
    /// The node's loader (ld.so(8)).
    loader: String,
    /// Search path of its libraries, in the loader's own notation.
    library_path: String,
    /// Directory of the commands.
    bin: String,
    /// True if the loader knows `--argv0` (glibc 2.33).
    argv0: bool,
}

impl Launch {
    fn parse(text: &str) -> Result<Self, String> {
        let mut launch = Self::default();
        for line in text.lines() {
            let (key, value) = line.split_once('=').ok_or_else(|| format!("no line of ours: {line:?}"))?;
            match key {
                "loader" => value.clone_into(&mut launch.loader),
                "library_path" => value.clone_into(&mut launch.library_path),
                "bin" => value.clone_into(&mut launch.bin),
                "argv0" => launch.argv0 = value == "yes",
                _ => return Err(format!("unknown key {key:?}")),
            }
        }
        for (key, value) in [("loader", &launch.loader), ("library_path", &launch.library_path), ("bin", &launch.bin)] {
            if value.is_empty() {
                return Err(format!("lacks the key {key:?}"));
            }
        }
        Ok(launch)
    }

    /// Returns the loader's command line for `name`.
    fn command(&self, name: &OsStr, arguments: &[OsString]) -> Command {
        let mut program = OsString::from(&self.bin);
        program.push("/");
        program.push(name);
        let mut command = Command::new(&self.loader);
        // The cache is the image's and lists other libraries.
        command.arg("--inhibit-cache").arg("--library-path").arg(&self.library_path);
        if self.argv0 {
            command.arg("--argv0").arg(name);
        }
        command.arg(program).args(arguments);
        command
    }
}

/// Becomes the Slurm command `name`; returns only with the reason of a failure.
pub fn start(name: &OsStr, arguments: &[OsString]) -> Failure {
    let text = match fs::read_to_string(LAUNCH) {
        Ok(text) => text,
        Err(error) => return Failure::system(LAUNCH, describe(&error)),
    };
    let launch = match Launch::parse(&text) {
        Ok(launch) => launch,
        Err(cause) => return Failure::system(LAUNCH, cause),
    };
    let mut command = launch.command(name, arguments);
    for (ours, aside) in ASIDE {
        match std::env::var_os(ours) {
            Some(value) => command.env_remove(ours).env(aside, value),
            None => command.env_remove(aside),
        };
    }
    let error = command.exec();
    Failure { status: crate::REFUSED, ..Failure::exec(launch.loader.as_ref(), &error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "loader=/h/ld.so\nlibrary_path=/h/lib:/h/lib64\nbin=/h/usr/bin\nargv0=yes\n";

    fn words(command: &Command) -> Vec<&str> {
        std::iter::once(command.get_program()).chain(command.get_args()).filter_map(OsStr::to_str).collect()
    }

    #[test]
    fn the_loader_gets_its_libraries_and_the_name_that_was_called() {
        let arguments = ["-n1".into(), "a b".into()];
        let launch = Launch::parse(TEXT).unwrap();
        assert_eq!(
            words(&launch.command(OsStr::new("srun"), &arguments)),
            [
                "/h/ld.so",
                "--inhibit-cache",
                "--library-path",
                "/h/lib:/h/lib64",
                "--argv0",
                "srun",
                "/h/usr/bin/srun",
                "-n1",
                "a b"
            ]
        );
    }

    #[test]
    fn an_older_loader_is_not_told_the_name() {
        let launch = Launch::parse(&TEXT.replace("argv0=yes\n", "")).unwrap();
        let command = launch.command(OsStr::new("srun"), &[]);
        assert_eq!(
            words(&command),
            ["/h/ld.so", "--inhibit-cache", "--library-path", "/h/lib:/h/lib64", "/h/usr/bin/srun"]
        );
    }

    #[test]
    fn what_is_wrong_with_the_file_is_said() {
        for (text, wanted) in [
            ("", "lacks the key \"loader\""),
            ("loader=/l\nlibrary_path=/a\n", "lacks the key \"bin\""),
            ("loader=/l\nrubbish\n", "no line of ours: \"rubbish\""),
            ("loads=/l\n", "unknown key \"loads\""),
        ] {
            assert_eq!(Launch::parse(text).unwrap_err(), wanted);
        }
    }
}
