//! Runs another program and reads its output. The standard library's code for it would be a tenth of the plugin.

use std::ffi::{CStr, c_char};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Error, Result};

unsafe extern "C" {
    static environ: *const *mut c_char;
}

/// Runs `program`, searched in PATH, with these arguments (the first is its name). It inherits the environment and
/// standard input. Returns its standard output, at most `limit` bytes. EIO if it ended with another status than 0.
pub fn output_of(program: &CStr, arguments: &[&CStr], limit: u64) -> Result<Vec<u8>> {
    let call = || format!("posix_spawnp({program:?})");
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|errno| Error::new("pipe2()", errno))?;
    let mut argv: Vec<*mut c_char> = arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    argv.push(std::ptr::null_mut());
    let mut pid = 0;
    // SAFETY: all-zero bytes are a valid posix_spawn_file_actions_t for its init call, which comes first; the vector
    // of arguments is NULL-terminated and outlives the call, like the environment, which only this thread changes.
    let failed = unsafe {
        let mut actions: libc::posix_spawn_file_actions_t = std::mem::zeroed();
        libc::posix_spawn_file_actions_init(&raw mut actions);
        libc::posix_spawn_file_actions_adddup2(&raw mut actions, write.as_raw_fd(), libc::STDOUT_FILENO);
        let failed = libc::posix_spawnp(
            &raw mut pid,
            program.as_ptr(),
            &raw const actions,
            std::ptr::null(),
            argv.as_ptr(),
            environ.cast(),
        );
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        failed
    };
    drop(write);
    if failed != 0 {
        return Err(Error::new(call(), Errno::from_raw(failed)));
    }
    let mut text = Vec::new();
    let said = File::from(read).take(limit).read_to_end(&mut text);
    let status = waitpid(Pid::from_raw(pid), None).map_err(|errno| Error::new(format!("waitpid({pid})"), errno))?;
    said.map_err(|cause| Error::from_io("read(pipe)", &cause))?;
    match status {
        WaitStatus::Exited(_, 0) => Ok(text),
        _ => Err(Error::new(call(), Errno::EIO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_searched_and_its_words_are_kept_apart() {
        assert_eq!(output_of(c"echo", &[c"echo", c"a b", c"c"], 100).unwrap(), b"a b c\n");
        assert_eq!(output_of(c"echo", &[c"echo", c"abc"], 2).unwrap(), b"ab");
        assert_eq!(output_of(c"false", &[c"false"], 100).unwrap_err().errno(), Errno::EIO);
        assert_eq!(output_of(c"no-such-program", &[c"x"], 100).unwrap_err().errno(), Errno::ENOENT);
    }
}
