//! coracle.yaml.
#![no_main]

use std::path::Path;

use coracle_launcher::config::Config;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = Config::parse(Path::new("/etc/coracle/coracle.yaml"), text);
});
