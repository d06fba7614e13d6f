//! Times of a repeated work, for tests that print them.

use std::time::{Duration, Instant};

/// The median of `times` runs, and the time that 9 of 10 runs stay below.
pub fn median(times: usize, work: &mut dyn FnMut()) -> (Duration, Duration) {
    let mut taken: Vec<Duration> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            work();
            begun.elapsed()
        })
        .collect();
    taken.sort();
    (taken[times / 2], taken[times * 9 / 10])
}
