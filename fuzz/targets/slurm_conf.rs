//! slurm.conf and plugstack.conf with their includes. The two texts of an input are separated by a NUL.
#![no_main]

use std::fs;
use std::path::Path;

use coracle_launcher::slurm::conf::{Conf, lines, spank_lines};
use coracle_launcher::slurm::node::Node;

#[path = "../memory.rs"]
mod memory;

/// Directory of the files on the node.
const DIRECTORY: &str = "/etc/slurm";

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (conf, plugstack) = match bytes.iter().position(|byte| *byte == 0) {
        Some(nul) => (&bytes[..nul], &bytes[nul + 1..]),
        None => (bytes, bytes),
    };
    memory::with_directory(|root| {
        let directory = root.join(&DIRECTORY[1..]);
        fs::create_dir_all(&directory).expect("a directory can be made");
        fs::write(directory.join("slurm.conf"), conf).expect("a file can be written");
        fs::write(directory.join("plugstack.conf"), plugstack).expect("a file can be written");
        let (node, directory) = (Node::new(root), Path::new(DIRECTORY));
        let conf = Conf::read(&node, directory);
        assert!(conf.task_scripts.iter().chain(&conf.plugstack).all(|path| path.is_absolute()));
        assert!(lines(&node, directory, "slurm.conf").iter().all(|line| !line.contains(['\n', '#'])));
        for line in spank_lines(&node, &directory.join("plugstack.conf")) {
            assert!(line.arguments.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace)));
            let _ = line.found(&node, &conf.plugins);
        }
    });
});
