//! Configuration of an OCI image, and the script that is made of it.
#![no_main]

use std::collections::BTreeMap;

use coracle_images::readers::{Image, oci_environment};
use coracle_launcher::env::{Environment, Rules, script};

/// Values that the variables of the image get where the user has none.
fn wanted(list: &[String]) -> BTreeMap<&str, &str> {
    let mut wanted = BTreeMap::new();
    for (name, value) in list.iter().filter_map(|variable| variable.split_once('=')) {
        if name == "PATH" || wanted.get(name).is_none_or(|known: &&str| known.is_empty()) {
            wanted.insert(name, value);
        }
    }
    wanted
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = (Image { config: bytes.to_vec(), digest: None, layers: Vec::new() }).config() else { return };
    let _ = config.processor();
    let list = config.config.env.unwrap_or_default();
    let mut environment = Environment::start(&[], &Rules { already_inside: true, ..Rules::default() });
    // No value leaves its quotation marks.
    if script::evaluate("10-docker2singularity.sh", oci_environment(&list).as_bytes(), &mut environment).is_ok() {
        let wanted = wanted(&list);
        for (name, value) in environment.exported() {
            let name = name.to_str().expect("a name of the image");
            assert_eq!(wanted.get(name).copied().unwrap_or_default(), value, "{name}");
        }
    }
});
