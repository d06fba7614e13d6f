//! Measures the duration of the phases of a run.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Duration of each phase of a run.
pub struct Clock {
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
    builds: u32,
}

impl Clock {
    /// Starts the first phase.
    pub fn start() -> Self {
        Self { last: Instant::now(), laps: Vec::new(), builds: 0 }
    }

    /// Ends the phase `name`. The times of repeated phases are added.
    pub fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        let took = now - self.last;
        self.last = now;
        match self.laps.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += took,
            None => self.laps.push((name, took)),
        }
    }

    /// Ends the phase that built a container.
    pub fn built(&mut self) {
        self.lap("build");
        self.builds += 1;
    }

    /// Number of containers that were built: one, unless a guess was wrong.
    pub fn builds(&self) -> u32 {
        self.builds
    }

    /// Adds a phase that was measured separately.
    pub fn add(&mut self, name: &'static str, took: Duration) {
        self.laps.push((name, took));
    }

    /// Duration of each phase, in microseconds.
    pub fn microseconds(&self) -> BTreeMap<String, u64> {
        let number = |took: &Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.laps.iter().map(|(name, took)| ((*name).to_owned(), number(took))).collect()
    }
}
