//! Shows the progress of a copy: a bar on a terminal, a few lines elsewhere.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use coracle::report::clean;
use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between lines about the same copy in a log.
const LINES: Duration = Duration::from_secs(10);

/// Progress for a user who waits.
pub struct Progress {
    name: String,
    bar: Option<ProgressBar>,
    told: Instant,
}

impl Progress {
    /// Starts the progress of the image `name`.
    pub fn of(name: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = "{prefix} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(clean(name));
            bar
        });
        Self { name: clean(name), bar, told: Instant::now() }
    }

    /// Shows `done` of `total` bytes.
    pub fn bytes(&mut self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        } else if self.told.elapsed() >= LINES {
            self.told = Instant::now();
            eprintln!("{}: {} of {}", self.name, BinaryBytes(done), BinaryBytes(total));
        }
    }

    /// Shows the current phase.
    pub fn phase(&self, what: &'static str) {
        match &self.bar {
            Some(bar) => bar.set_message(what),
            None => eprintln!("{}: {what}", self.name),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
