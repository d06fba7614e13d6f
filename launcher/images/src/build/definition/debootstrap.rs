//! Runs debootstrap of Debian, Ubuntu and others for `Bootstrap: debootstrap`.
//!
//! The first half of its work unpacks on this host. The second half runs inside the unpacked root file system, where
//! device nodes exist already: a user namespace allows no mknod(2).
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::path::Path;

use coracle::report::{Kind, Refusal};

use super::inside::{self, Task};
use super::parse::{Stage, at};
use crate::build::conventions;
use crate::build::root::Root;
use crate::build::workshop::Workshop;

const PROGRAM: &str = "debootstrap";
/// Packages that Apptainer leaves out of the smallest Debian, and packages without a use in a container.
const EXCLUDED: &str = "--exclude=openssl,udev,debconf-i18n,e2fsprogs";

/// Makes the root file system in the directory `name` of the workshop.
pub fn make(file: &str, stage: &Stage, name: &str, workshop: &Workshop) -> Result<Root, Refusal> {
    inside::possible(workshop)?;
    let wanted = |key: &str, shown: &str| {
        let missing =
            || Refusal::new(Kind::Build, at(file, stage.line), format!("debootstrap needs {shown}: in the header"));
        checked(file, stage, key).and_then(|value| value.ok_or_else(missing))
    };
    let (suite, mirror) = (wanted("osversion", "OSVersion")?, wanted("mirrorurl", "MirrorURL")?);
    let mut include = String::from("apt");
    for package in
        checked(file, stage, "include")?.unwrap_or_default().split([' ', ',']).filter(|name| !name.is_empty())
    {
        include.push(',');
        include.push_str(package);
    }
    let Some(program) = find() else {
        return Err(Refusal::new(Kind::System, PROGRAM, "not found").hint("it is in the package debootstrap"));
    };
    let mut root = Root::create(&workshop.directory.join(name))?;
    let mut words: Vec<OsString> = vec![program, "--foreign".into(), "--variant=minbase".into(), EXCLUDED.into()];
    words.extend([format!("--include={include}").into(), suite.into(), root.path().into(), mirror.into()]);
    // In a container, debootstrap continues where device nodes cannot be made.
    let variables = vec![("container", "lxc".to_owned())];
    inside::run_outside(&Task { shown: format!("{file}: debootstrap"), words, variables }, workshop)?;
    conventions::furnish(&mut root)?;
    let words = vec!["/debootstrap/debootstrap".into(), "--second-stage".into()];
    let variables = vec![("container", "lxc".to_owned()), ("DEBIAN_FRONTEND", "noninteractive".to_owned())];
    let shown = format!("{file}: debootstrap, its second half");
    inside::run(&Task { shown, words, variables }, &root, workshop)?;
    Ok(root)
}

/// Header value that is safe as a word of a command: not an option.
fn checked(file: &str, stage: &Stage, key: &str) -> Result<Option<String>, Refusal> {
    let Some((line, value)) = stage.header.get(key) else { return Ok(None) };
    if value.starts_with('-') || (key != "include" && value.contains(char::is_whitespace)) {
        return Err(Refusal::new(Kind::Build, at(file, *line), format!("{key} cannot be {value:?}")));
    }
    Ok(Some(value.clone()).filter(|value| !value.is_empty()))
}

/// Path of the program. PATH of users need not have /usr/sbin.
fn find() -> Option<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(PROGRAM)).find(|file| Path::is_file(file)).map(Into::into)
}
