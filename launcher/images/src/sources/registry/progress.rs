//! Shows the progress of a download: a bar on a terminal, a line now and then elsewhere.
#![forbid(unsafe_code)]

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use coracle::report::clean;
use indicatif::{BinaryBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between lines about the same download in a log.
const LINES: Duration = Duration::from_secs(10);

/// Progress of all parts of an image together.
pub struct Progress {
    name: String,
    total: u64,
    done: AtomicU64,
    bar: Option<ProgressBar>,
    told: Mutex<Instant>,
    silent: bool,
}

impl Progress {
    /// Starts the progress of `total` bytes of the image `name`. Only notes are printed if `silent`.
    pub fn of(name: &str, total: u64, silent: bool) -> Self {
        let bar = (!silent && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = "{prefix} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(clean(name));
            bar
        });
        Self { name: clean(name), total, done: AtomicU64::new(0), bar, told: Mutex::new(Instant::now()), silent }
    }

    /// Adds bytes that were in the cache.
    pub fn found(&self, bytes: u64) {
        self.add(bytes);
        if let Some(bar) = &self.bar {
            // They do not count for the estimated speed.
            bar.reset_eta();
        }
    }

    /// Adds received bytes.
    pub fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.silent => {}
            None => self.tell(done),
        }
    }

    /// Removes bytes that must be received again.
    pub fn lose(&self, bytes: u64) {
        let done = self.done.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }

    /// Prints a note.
    pub fn note(&self, text: &str) {
        let line = clean(&format!("coracle: {}: {text}", self.name));
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    fn tell(&self, done: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= LINES {
            *told = Instant::now();
            eprintln!("{}: {} of {}", self.name, BinaryBytes(done), BinaryBytes(self.total));
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
