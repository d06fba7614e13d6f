//! gres.conf, and Slurm's numbers of the GPUs of a step.
#![no_main]

use coracle_launcher::devices::{Grant, detects, units};

/// Limit on the units of a node.
const MAX_UNITS: usize = 4096;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let units = units(text.lines(), "n1");
    assert!(units.len() <= MAX_UNITS);
    assert!(units.iter().flat_map(|unit| &unit.files).all(|file| file.starts_with("/dev")));
    let _ = detects(text.lines(), "n1");
    let grant = Grant::from_numbers(text.lines().next().unwrap_or_default());
    let granted = grant.of(&units, None, false);
    assert!(granted.units.iter().all(|unit| unit.is_gpu()));
    assert!(granted.units.len() <= grant.numbers.len(), "more GPUs than Slurm has granted");
});
