//! Reads a key's passphrase: the first line of a file, or from the terminal. Never from an argument, which all users of
//! the host can see.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use coracle::report::{Kind, Refusal, clean};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};

use crate::signals::HeldSignals;

/// Limit of a passphrase, in bytes.
const MOST: usize = 4096;
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const ERASE: [u8; 2] = [8, 127];
const KILL: u8 = 21;

/// Passphrase of the key in the file `whose`: the first line of `file`, or typed on the terminal.
pub fn get(whose: &str, file: Option<&Path>) -> Result<Vec<u8>, Refusal> {
    match file {
        Some(path) => {
            let bytes = super::read_small(path, MOST as u64)?;
            Ok(bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().to_vec())
        }
        None => ask(whose),
    }
}

/// Terminal without echo; dropping it restores the settings.
struct Quiet {
    terminal: File,
    before: Termios,
}

impl Quiet {
    fn new(terminal: File) -> nix::Result<Self> {
        let before = termios::tcgetattr(&terminal)?;
        let mut quiet = before.clone();
        // Without ISIG, Ctrl-C arrives as a character: it must not end the process with these settings.
        quiet.local_flags &= !(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        termios::tcsetattr(&terminal, SetArg::TCSAFLUSH, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
        let _ = self.terminal.write_all(b"\n");
    }
}

fn ask(whose: &str) -> Result<Vec<u8>, Refusal> {
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(|_| {
        Refusal::new(Kind::Usage, whose, "a passphrase protects it, and there is no terminal to ask for that")
            .hint("--passphrase-file names a file that has it, such as /dev/fd/3")
    })?;
    let held = HeldSignals::new()?;
    let typed = listen(terminal, whose, &held);
    held.give_in();
    typed
}

fn listen(mut terminal: File, whose: &str, held: &HeldSignals) -> Result<Vec<u8>, Refusal> {
    let failed = |cause: String| Refusal::new(Kind::System, "/dev/tty", cause);
    let stopped = || Refusal::new(Kind::Usage, whose, "no passphrase was given");
    write!(terminal, "passphrase of {}: ", clean(whose)).map_err(|error| failed(error.to_string()))?;
    let mut quiet = Quiet::new(terminal).map_err(|errno| failed(errno.desc().into()))?;
    let mut typed = Vec::new();
    loop {
        let readable = {
            let mut both =
                [PollFd::new(held.line(), PollFlags::POLLIN), PollFd::new(quiet.terminal.as_fd(), PollFlags::POLLIN)];
            match poll(&mut both, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => return Err(failed(errno.desc().into())),
                Ok(_) if both[0].any() == Some(true) => return Err(stopped()),
                Ok(_) => both[1].any() == Some(true),
            }
        };
        if !readable {
            continue;
        }
        let mut key = [0];
        let count = quiet.terminal.read(&mut key).map_err(|error| failed(error.to_string()))?;
        match key[0] {
            _ if count == 0 => return Err(stopped()),
            INTERRUPT => return Err(stopped()),
            END if typed.is_empty() => return Err(stopped()),
            b'\n' | b'\r' | END => return Ok(typed),
            KILL => typed.clear(),
            key if ERASE.contains(&key) => {
                typed.pop();
            }
            key if typed.len() < MOST => typed.push(key),
            _ => {}
        }
    }
}
