//! Order of the modules of each crate: a module uses only those before it. This list is the order's one definition.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

/// Sources of a crate, below the top of the repository, and its modules in their order.
const CRATES: &[(&str, &[&str])] = &[
    ("src", &["sys", "report", "image", "options", "request", "env", "mpi", "configless", "wire", "spank"]),
    ("plugin/src", &["slurm", "notes", "submit", "stepd", "hooks"]),
    (
        "launcher/src",
        &[
            "place",
            "config",
            "policy",
            "image",
            "store",
            "elf",
            "devices",
            "mpi",
            "env",
            "view",
            "plan",
            "children",
            "slurm",
            "apply",
            "container",
            "records",
            "step",
        ],
    ),
    ("launcher/verify/src", &["sandbox", "signature", "squashfs", "structure"]),
    ("launcher/orders/src", &["place"]),
    (
        "launcher/cli/src",
        &[
            "document",
            "arguments",
            "store",
            "images",
            "exec",
            "attach",
            "doctor",
            "explain",
            "config_check",
            "log",
            "verify",
            "dispatch",
            "manual",
        ],
    ),
    ("launcher/images/src", &["signals", "output", "sources", "build", "show", "sign"]),
];
/// Files that are not a module of the order: roots of crates, and programs, which use all of it.
const ROOTS: [&str; 2] = ["lib", "main"];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Modules that a source names as `crate::MODULE`, without those of comments.
fn used(text: &str) -> Vec<&str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap());
    code.flat_map(|line| line.split("crate::").skip(1))
        .map(|rest| {
            rest.split(|character: char| !character.is_ascii_alphanumeric() && character != '_').next().unwrap()
        })
        .collect()
}

/// Imports of `module` that are against the order.
fn against<'a>(order: &[&str], module: &str, text: &'a str) -> Vec<&'a str> {
    let place = |name: &str| order.iter().position(|known| *known == name);
    let own = place(module).unwrap_or_else(|| panic!("{module}: not in the order"));
    used(text).into_iter().filter(|name| place(name).is_none_or(|other| other > own)).collect()
}

#[test]
fn a_module_uses_only_those_before_it() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (below, order) in CRATES {
        let root = top.join(below);
        let mut paths = Vec::new();
        sources(&root, &mut paths);
        let mut modules = Vec::new();
        for path in &paths {
            let text = std::fs::read_to_string(path).unwrap();
            let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
            let module = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap();
            if ROOTS.contains(&module) {
                continue;
            }
            let wrong = against(order, module, &text);
            assert!(wrong.is_empty(), "{}: uses {wrong:?}, which stand behind {module} in the order", path.display());
            modules.push(module.to_owned());
        }
        let missing: Vec<_> = order.iter().filter(|name| !modules.iter().any(|module| module == *name)).collect();
        assert!(missing.is_empty(), "{below}: {missing:?} are in the order and not there");
    }
}

/// `make fuzz` runs each file of fuzz/targets, and cargo knows only those of the manifest.
#[test]
fn every_fuzz_target_is_in_the_manifest_and_in_the_list() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut targets = Vec::new();
    sources(&fuzz.join("targets"), &mut targets);
    let mut targets: Vec<_> = targets.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    targets.sort_unstable();
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let known = manifest.lines().filter_map(|line| line.strip_prefix("path = \"targets/")?.strip_suffix(".rs\""));
    assert_eq!(known.collect::<Vec<_>>(), targets);
    let list = std::fs::read_to_string(fuzz.join("README.md")).unwrap();
    let missing: Vec<_> =
        targets.iter().filter(|target| !list.lines().any(|row| row.ends_with(&format!("`{target}` |")))).collect();
    assert!(missing.is_empty(), "fuzz/README.md: {missing:?} are not in it");
}

#[test]
fn an_import_against_the_order_is_found() {
    let order = ["one", "two", "three"];
    assert_eq!(against(&order, "two", "use crate::one::A;\n// crate::three is not used\n"), [""; 0]);
    assert_eq!(against(&order, "two", "fn f() { crate::three::g() }"), ["three"]);
    assert_eq!(against(&order, "one", "use crate::none;"), ["none"]);
}
