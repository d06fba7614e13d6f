//! Measures the duration of the phases of a run.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Duration of each phase of a run. All phases share it by reference.
pub struct Clock {
    last: Cell<Instant>,
    laps: RefCell<Vec<(&'static str, Duration)>>,
    builds: Cell<u32>,
}

impl Clock {
    /// Starts the first phase.
    pub fn start() -> Self {
        Self { last: Cell::new(Instant::now()), laps: RefCell::default(), builds: Cell::new(0) }
    }

    /// Ends the phase `name`. The times of repeated phases are added.
    pub fn lap(&self, name: &'static str) {
        let now = Instant::now();
        let took = now - self.last.replace(now);
        let mut laps = self.laps.borrow_mut();
        match laps.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += took,
            None => laps.push((name, took)),
        }
    }

    /// Ends the phase that built a container.
    pub fn built(&self) {
        self.lap("build");
        self.builds.set(self.builds.get() + 1);
    }

    /// Number of containers that were built: one, unless a guess was wrong.
    pub fn builds(&self) -> u32 {
        self.builds.get()
    }

    /// Adds a phase that was measured separately.
    pub fn add(&self, name: &'static str, took: Duration) {
        self.laps.borrow_mut().push((name, took));
    }

    /// Duration of each phase, in microseconds.
    pub fn microseconds(&self) -> BTreeMap<String, u64> {
        let number = |took: &Duration| u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.laps.borrow().iter().map(|(name, took)| ((*name).to_owned(), number(took))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_phase_is_one_sum() {
        let clock = Clock::start();
        clock.lap("plan");
        clock.built();
        clock.lap("plan");
        clock.built();
        clock.add("record", Duration::from_micros(7));
        let found = clock.microseconds();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["build", "plan", "record"]);
        assert_eq!(found["record"], 7);
        assert_eq!(clock.builds(), 2);
    }
}
