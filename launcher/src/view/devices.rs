//! Requests the mounts of device nodes and of the files of a GPU's driver.
#![forbid(unsafe_code)]

use std::path::Path;

use super::entries::Entries;
use super::{Entry, GPU_ENVIRONMENT, GPU_LIBRARIES, GPU_PROGRAMS, MountRequest, Origin, Presence, Source};
use crate::devices::{Devices, Driver, Node, PTS, STORES};
use coracle::request::Access;

/// Mounts for a /dev of the container's own, and for its content.
pub fn own_dev(devices: &Devices) -> Vec<MountRequest> {
    let top = Path::new("/dev");
    let mut entries = Entries::below(top);
    let mut requests = Vec::new();
    for directory in [PTS].iter().chain(STORES) {
        entries.add(directory.as_ref(), Entry::Directory);
        requests.push(MountRequest::node(*directory, Access::ReadWrite, Presence::IfThere, Origin::Device));
    }
    for (directory, _) in &devices.directories {
        entries.add(directory, Entry::Directory);
        requests.push(MountRequest::node(directory, Access::ReadWrite, Presence::IfThere, Origin::Device));
    }
    let (made, bound): (Vec<&Node>, _) = devices.nodes.iter().partition(|node| Devices::is_made(node));
    for node in made {
        entries.add(&node.path, |path| Entry::Device(path, node.major, node.minor));
    }
    for node in bound {
        entries.add(&node.path, |path| Entry::File(path, String::new()));
        requests.push(MountRequest::node(&node.path, Access::ReadWrite, Presence::IfThere, Origin::Device));
    }
    for (link, target) in &devices.links {
        entries.add(link, |path| Entry::Link(path, target.clone()));
    }
    let (source, presence) = (Source::Made(entries.into_made()), Presence::Required);
    requests.push(MountRequest {
        source,
        target: top.into(),
        access: Access::ReadOnly,
        presence,
        origin: Origin::Kernel,
    });
    requests
}

/// Mounts and entries for the files of a GPU's driver. Files of the image are neither changed nor executed.
pub fn driver_files(driver: &Driver, entries: &mut Entries<'_>) -> Vec<MountRequest> {
    let request = |source: &Path, target: &Path, presence| {
        let (source, target) = (Source::Node(source.to_owned()), target.to_owned());
        MountRequest { source, target, access: Access::ReadOnly, presence, origin: Origin::Driver }
    };
    let mut requests = Vec::new();
    let libraries = driver.libraries.iter();
    let libraries = libraries.map(|library| (&library.source, Path::new(GPU_LIBRARIES).join(&library.name)));
    let programs = driver.programs.iter();
    let programs = programs.filter_map(|file| Some((file, Path::new(GPU_PROGRAMS).join(file.file_name()?))));
    for (source, target) in libraries.chain(programs) {
        entries.add(&target, |path| Entry::File(path, String::new()));
        requests.push(request(source, &target, Presence::Required));
    }
    for library in &driver.libraries {
        for link in &library.links {
            let link = Path::new(GPU_LIBRARIES).join(link);
            entries.add(&link, |path| Entry::Link(path, library.name.clone().into()));
        }
    }
    let lines: String = driver.env.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    entries.add(GPU_ENVIRONMENT.as_ref(), |path| Entry::File(path, lines));
    requests.extend(driver.files.iter().map(|file| request(&file.source, &file.target, Presence::IfThere)));
    requests
}
