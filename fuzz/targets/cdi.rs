//! Specifications of devices (CDI), in both of their forms.
#![no_main]

use std::path::Path;

use coracle_launcher::devices::cdi::{Spec, choose};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let granted = ["nvidia0", "nvidia1", "nvidia2", "nvidia-caps/nvidia-cap12", "nvidia-caps/nvidia-cap13"];
    let granted = granted.map(|node| Path::new("/dev").join(node));
    for name in ["/etc/cdi/nvidia.yaml", "/etc/cdi/nvidia.json"] {
        if let Ok(spec) = Spec::parse(Path::new(name), text) {
            let _ = choose(&[spec], &granted);
        }
    }
});
