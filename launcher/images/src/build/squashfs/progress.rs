//! Shows the progress of mksquashfs, as a bar on a terminal.
//!
//! mksquashfs counts blocks for a terminal four times a second, and otherwise prints hardly anything (squashfs-tools,
//! progressbar.c). It gets a pseudoterminal that is read here: so it prints nothing itself, and needs no option that
//! only some releases have.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::process::{Command, Stdio};

use coracle::report::{Refusal, clean};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::pty::{OpenptyResult, Winsize, openpty};

/// Size of the terminal that mksquashfs sees: it prints no bar that does not fit.
const SIZE: Winsize = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
/// Length of the kept text: several times that of the longest bar.
const KEPT: usize = 1024;

/// Runs `work` with the settings of a command whose progress is shown under `name`. Shows nothing if `silent`, if
/// standard error is no terminal, or without a pseudoterminal. The work is done in any case.
pub fn shown<T>(
    name: &str,
    silent: bool,
    work: impl FnOnce(&dyn Fn(&mut Command)) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    if silent || !std::io::stderr().is_terminal() {
        return work(&|_| {});
    }
    let Ok(OpenptyResult { master, slave }) = openpty(&SIZE, None) else { return work(&|_| {}) };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = "packing {prefix} [{wide_bar}] {percent}% {eta}";
    bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(clean(name));
    let done = std::thread::scope(|scope| {
        let (bar, master) = (&bar, File::from(master));
        scope.spawn(move || follow(master, bar));
        // The slave is closed with the command: then the thread has read all output.
        let slave = slave;
        work(&|command| {
            if let Ok(copy) = slave.try_clone() {
                command.stdout(Stdio::from(copy));
            }
        })
    });
    bar.finish_and_clear();
    done
}

/// Reads the output of mksquashfs until it ends, which a pseudoterminal reports as an error.
fn follow(mut terminal: File, bar: &ProgressBar) {
    let (mut text, mut part) = (Vec::new(), [0; KEPT]);
    while let Ok(count @ 1..) = terminal.read(&mut part) {
        text.extend_from_slice(&part[..count]);
        if let Some((done, total)) = counted(&text) {
            bar.set_length(total);
            bar.set_position(done);
        }
        text.drain(..text.len().saturating_sub(KEPT));
    }
}

/// Last count in `text`, which has bars such as `[=====|    ] 123/456  27%`: blocks done, and all blocks.
fn counted(text: &[u8]) -> Option<(u64, u64)> {
    let text = String::from_utf8_lossy(text);
    text.rsplit(']').find_map(|behind| {
        let (word, _) = behind.strip_prefix(' ')?.trim_start().split_once(' ')?;
        let (done, total) = word.split_once('/')?;
        let (done, total) = (done.parse().ok()?, total.parse().ok()?);
        (done <= total && total > 0).then_some((done, total))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_count_is_read() {
        assert_eq!(counted(b"\r[==-     ]  12/100  12%\r[===/    ]  30/100  30%"), Some((30, 100)));
        assert_eq!(counted(b"\r[==-     ]  12/100  12%\r[===/    ]  30/1"), Some((12, 100)));
        assert_eq!(counted(b"\r[=|] 758/758 100%\r\n"), Some((758, 758)));
        for text in [&b""[..], b"\r[    ", b"] 0/0 0%", b"] 5/3 1%", b"] x/y z", b"Parallel mksquashfs: [1] 2"] {
            assert_eq!(counted(text), None, "{}", String::from_utf8_lossy(text));
        }
    }
}
