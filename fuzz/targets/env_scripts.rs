//! Environment scripts of an image.
#![no_main]

use coracle_launcher::env::script::{self, NotPlain};
use coracle_launcher::env::{Environment, Pair, Rules, names};

const FILE: &str = "/.singularity.d/env/90-environment.sh";
/// Limit on a string of execve(2).
const MAX_VALUE: usize = 128 * 1024;

fn start() -> Environment {
    let host = [("PATH", "/usr/bin:/bin"), ("HOST", "of host"), ("EMPTY", ""), ("STAR", "*")];
    let host = host.map(|(name, value)| (name.into(), value.into()));
    Environment::start(&host, &Rules { already_inside: true, ..Rules::default() })
}

/// Variables of the environment, and those of the shell alone.
fn state(environment: &Environment) -> (Vec<Pair>, Vec<u8>) {
    (environment.exported(), environment.shell_prelude())
}

fn evaluate(environment: &mut Environment, text: &[u8]) -> Result<(), NotPlain> {
    script::evaluate(FILE, text, environment)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut environment = start();
    let before = state(&environment);
    match evaluate(&mut environment, bytes) {
        Err(_) => assert_eq!(state(&environment), before, "a part of a refused script was applied"),
        Ok(()) => {
            let after = state(&environment);
            for (name, value) in &after.0 {
                let (name, value) = (name.as_encoded_bytes(), value.as_encoded_bytes());
                assert!(names::is_proper(name) && !value.contains(&0) && name.len() + value.len() < MAX_VALUE);
            }
            // The shell gets the same variables.
            evaluate(&mut environment, &after.1).expect("the prelude is plain");
            assert_eq!(state(&environment), after);
        }
    }
    // Two files mean the same as one file with the text of both.
    let Some(nul) = bytes.iter().position(|byte| *byte == 0) else { return };
    let (first, second) = (&bytes[..nul], &bytes[nul + 1..]);
    let mut two = start();
    if evaluate(&mut two, first).is_ok() && evaluate(&mut two, second).is_ok() {
        let mut one = start();
        evaluate(&mut one, &[first, b"\n", second].concat()).expect("both parts are plain");
        assert_eq!(state(&one), state(&two));
    }
});
