//! Sources the environment scripts of an image: plain ones here, others in the image's shell.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::env::{Environment, script};
use coracle::report::{Kind, Refusal};
use coracle::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag};

use super::{Inputs, Programs, SHELL, parse_pairs, system};

/// Environment scripts of a SIF.
const SCRIPTS: &str = "/.singularity.d/env";

/// Finds the environment scripts, in the order in which they are sourced; nothing if the image has no directory for
/// them.
pub(super) fn find_scripts() -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(SCRIPTS).ok()?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.as_os_str().as_bytes().ends_with(b".sh") && path.is_file())
        .collect();
    files.sort();
    Some(files)
}

/// Content of a file of the image; nothing if it is longer than the limit on scripts.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).ok()?;
    let mut text = Vec::new();
    let limit = script::MAX_SCRIPT as u64;
    let length = file.take(limit + 1).read_to_end(&mut text).ok()? as u64;
    (length <= limit).then_some(text)
}

/// Sources the scripts: plain ones here, and the rest in the image's shell, from the first one that is not plain. False
/// if it is too early for the shell.
pub(super) fn source_scripts(
    inputs: &Inputs<'_>,
    programs: Programs,
    files: &[PathBuf],
    environment: &mut Environment,
    helper: &File,
    notes: &mut Vec<String>,
) -> Result<bool, Refusal> {
    let mut rest = files.iter();
    while let Some(file) = rest.as_slice().first() {
        let name = file.to_string_lossy();
        let text = read(file)
            .ok_or_else(|| Refusal::new(Kind::ImageFormat, &inputs.shown, format!("its {name} cannot be read")))?;
        match script::evaluate(&name, &text, environment) {
            Ok(()) => {}
            Err(_) if Path::new(SHELL).exists() => {
                if programs == Programs::TooEarly {
                    return Ok(false);
                }
                return run_in_shell(inputs, rest.as_slice(), environment, helper).map(|()| true);
            }
            Err(fault) => notes.push(format!(
                "{}: {name}: line {}: {:?} is not a plain export, and the image has no {SHELL} to run it: \
                 what this file sets is missing",
                inputs.shown, fault.line, fault.text
            )),
        }
        rest.next();
    }
    Ok(true)
}

/// Sources `files` in the image's own shell and takes over its environment.
fn run_in_shell(
    inputs: &Inputs<'_>,
    files: &[PathBuf],
    environment: &mut Environment,
    helper: &File,
) -> Result<(), Refusal> {
    let failed = |cause: String| Refusal::new(Kind::ImageFormat, &inputs.shown, cause);
    let names: Vec<_> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let exported = nix::sys::memfd::memfd_create(c"environment", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .map_err(|errno| system(sys::Error::new("memfd_create()", errno)))?;
    let mut exported = File::from(exported);
    nix::fcntl::fcntl(helper, FcntlArg::F_SETFD(FdFlag::empty()))
        .map_err(|errno| system(sys::Error::new("fcntl(F_SETFD)", errno)))?;
    // The output of scripts is no output of a task.
    let mut script = environment.shell_prelude();
    script.extend_from_slice(b"\nexec 3>&1 >/dev/null 2>&1\nfor CORACLE_FILE do . \"$CORACLE_FILE\"; done\n");
    script.extend_from_slice(format!("exec /proc/self/fd/{} environment >&3\n", helper.as_raw_fd()).as_bytes());
    let output = exported.try_clone().map_err(|cause| system(sys::Error::from_io("dup()", &cause)))?;
    let status = Command::new(SHELL)
        .arg("-c")
        .arg(OsString::from_vec(script))
        .arg(SHELL)
        .args(files)
        .env_clear()
        .envs(environment.exported())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null())
        .status()
        .map_err(|cause| match cause.raw_os_error().map(Errno::from_raw) {
            // Errors of this process and its limits, not of the image.
            Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE) => {
                system(sys::Error::from_io(format!("execve({SHELL:?})"), &cause))
            }
            _ => failed(format!("its {SHELL} cannot be started: {cause}")),
        })?;
    let mut bytes = Vec::new();
    exported
        .rewind()
        .and_then(|()| exported.read_to_end(&mut bytes))
        .map_err(|cause| system(sys::Error::from_io("read(memfd)", &cause)))?;
    if !status.success() || bytes.last() != Some(&0) {
        let how = match status.code() {
            Some(code) => format!("ended the shell with status {code}"),
            None => format!("ended the shell: {status}"),
        };
        return Err(failed(format!("its environment scripts ({}) {how}", names.join(" "))));
    }
    environment.take_over(&parse_pairs(&bytes), names.first().map_or(SCRIPTS, String::as_str));
    Ok(())
}
