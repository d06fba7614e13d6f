//! Runs other programs of the host, with a time limit, and reads their output.
#![forbid(unsafe_code)]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Time limit of a program. A client command whose controller does not answer takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Limit of the output that is read, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// Output of a program.
pub struct Answer {
    /// True if the program ended with status 0.
    pub success: bool,
    /// Standard output and standard error.
    pub text: String,
}

/// Runs a program without input. `None` if it cannot be started or does not end in time.
pub fn ask(program: &Path, arguments: &[&str]) -> Option<Answer> {
    let (reader, writer) = std::io::pipe().ok()?;
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stdout(writer.try_clone().ok()?).stderr(writer);
    let mut child = command.spawn().ok()?;
    // Closes the parent's copies of the write end.
    drop(command);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = reader.take(MAX_LEN).read_to_end(&mut text);
        let _ = sender.send(text);
    });
    let text = receiver.recv_timeout(PATIENCE);
    if text.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().ok()?;
    Some(Answer { success: status.success(), text: String::from_utf8_lossy(&text.ok()?).into_owned() })
}

/// Names of the running processes (proc_pid_comm(5)).
pub fn running() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    numbers
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok())
        .map(|name| name.trim_end().to_owned())
        .collect()
}
