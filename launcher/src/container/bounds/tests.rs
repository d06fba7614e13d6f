//! Compares the bounds with an oracle that ignores paths: it walks through every directory, and compares inodes.
#![forbid(unsafe_code)]

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use crate::config::Config;
use crate::policy::{Facts, effective};
use nix::mount::MsFlags;

use super::*;

/// Number of paths that are decided, for a number of random rule sets.
const PATHS: usize = 100_000;
const CHOICES: usize = 100;

/// xorshift64*: the generated cases must be the same on every host.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % limit
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Directories with siblings whose names begin alike, and directories of the same names elsewhere.
const DIRECTORIES: &[&str] = &[
    "a/x/deep",
    "a/secret",
    "a2/x",
    "ab",
    "secret/in/deep",
    "secret/mnt",
    "secret2/in",
    "free/inner",
    "free/f",
    "m",
    "alias_a",
    "alias_in",
    "alias_m",
    "else",
    "deep/down/here",
];
/// Mount points of other file systems, with the directories in them.
const MEMORY: &[(&str, &[&str])] = &[("m", &["p/q", "secret/in"]), ("secret/mnt", &["r/s"])];
/// Source and target of bind mounts; true if recursive.
const ALIASES: &[(&str, &str, bool)] = &[
    ("a", "alias_a", false),
    ("secret/in", "alias_in", false),
    ("m/p", "alias_m", false),
    ("secret/mnt/r", "else", false),
    ("secret/in/deep", "free/inner", false),
    ("secret", "deep/down/here", true),
];
const LINKS: &[(&str, &str)] = &[
    ("a/link", "../secret"),
    ("free/link", "../a/x"),
    ("ab/link", "../alias_in/deep"),
    ("secret2/link", "../deep/down"),
    ("m/p/link", "../../a2"),
    ("a2/loop", "loop"),
];
const FILES: &[&str] =
    &["a/file", "a/x/deep/file", "secret/in/file", "secret/mnt/r/file", "m/p/q/file", "ab/file", "file"];

fn lay_out(base: &Path) -> nix::Result<()> {
    let none = None::<&str>;
    let make = |path: &Path| fs::create_dir_all(path).unwrap();
    nix::mount::mount(Some("tmpfs"), base, Some("tmpfs"), MsFlags::empty(), none)?;
    DIRECTORIES.iter().for_each(|directory| make(&base.join(directory)));
    for (place, directories) in MEMORY {
        nix::mount::mount(Some("tmpfs"), &base.join(place), Some("tmpfs"), MsFlags::empty(), none)?;
        directories.iter().for_each(|directory| make(&base.join(place).join(directory)));
    }
    FILES.iter().for_each(|file| fs::write(base.join(file), "").unwrap());
    LINKS.iter().for_each(|(link, target)| symlink(target, base.join(link)).unwrap());
    for (source, place, recursive) in ALIASES {
        let flags = if *recursive { MsFlags::MS_BIND | MsFlags::MS_REC } else { MsFlags::MS_BIND };
        nix::mount::mount(Some(&base.join(source)), &base.join(place), none, flags, none)?;
    }
    Ok(())
}

/// Inodes of all files that are visible at `path` and below it.
fn seen(path: &Path, known: &mut HashMap<PathBuf, BTreeSet<(u64, u64)>>) -> BTreeSet<(u64, u64)> {
    if let Some(seen) = known.get(path) {
        return seen.clone();
    }
    let found = fs::symlink_metadata(path).unwrap();
    let mut inodes = BTreeSet::from([(found.dev(), found.ino())]);
    if found.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            // The target of a link is not below it.
            if !entry.file_type().unwrap().is_symlink() {
                inodes.extend(seen(&entry.path(), known));
            }
        }
    }
    known.insert(path.to_owned(), inodes.clone());
    inodes
}

fn generate(dice: &mut Dice, base: &Path, names: &[String]) -> PathBuf {
    let mut path = match dice.below(3) {
        0 => base.to_owned(),
        _ => base.join(dice.of(DIRECTORIES)),
    };
    for _ in 0..dice.below(5) {
        match dice.below(8) {
            0 => path.push(".."),
            1 => path.push("."),
            2 => path.as_mut_os_string().push("//"),
            _ => path.push(dice.of(names)),
        }
    }
    path
}

/// Creates the whole tree below `base`, and compares.
fn compare(base: &Path) -> Result<(usize, [usize; 4]), String> {
    lay_out(base).map_err(|errno| errno.to_string())?;
    let parts = DIRECTORIES
        .iter()
        .flat_map(|directory| directory.split('/'))
        .chain(["link", "file", "p", "q", "r", "s", "loop"]);
    let names: Vec<String> = parts.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect();
    let places: Vec<&str> = DIRECTORIES
        .iter()
        .copied()
        .chain([
            "a",
            "a/x",
            "m/p",
            "m/secret",
            "secret",
            "secret/in",
            "deep",
            "secret/mnt/r",
            "free",
            "a/link",
            "file",
            "none",
        ])
        .collect();
    let (mut dice, mut known, mut decided, mut counts) = (Dice(0x5eed), HashMap::new(), 0, [0; 4]);
    let open = |directory: BorrowedFd<'_>, path: &Path| {
        Ok(sys::open_beneath(directory, path, OFlag::O_PATH).map_err(|error| error.errno()))
    };
    for _ in 0..CHOICES {
        let mut list =
            |most: usize| -> Vec<PathBuf> { (0..dice.below(most) + 1).map(|_| base.join(dice.of(&places))).collect() };
        let (allow, deny) = (list(3), list(2));
        let text = format!("version: 1\nbind_allow: {allow:?}\nbind_deny: {deny:?}\n");
        let config = Config::parse(Path::new("c.yaml"), &text).map_err(|error| format!("{error:?}"))?;
        let rules = effective(&config, &Facts::default());
        let bounds = Bounds::with(Box::new(open), &rules);
        let mut all = |list: &[PathBuf]| -> BTreeSet<(u64, u64)> {
            let real = list.iter().filter_map(|path| fs::canonicalize(path).ok());
            real.flat_map(|path| seen(&path, &mut known)).collect()
        };
        let (allowed, denied) = (all(&allow), all(&deny));
        let mut left = PATHS / CHOICES;
        while left > 0 {
            let path = generate(&mut dice, base, &names);
            let (Ok(real), Ok(source)) = (fs::canonicalize(&path), sys::open_untrusted(&path, OFlag::O_PATH)) else {
                continue;
            };
            if !real.starts_with(base) {
                continue;
            }
            left -= 1;
            decided += 1;
            let found = fs::metadata(&path).map_err(|cause| cause.to_string())?;
            let oracle = (allowed.contains(&(found.dev(), found.ino())), denied.is_disjoint(&seen(&real, &mut known)));
            let ours = (bounds.allow(source.as_fd(), "x").is_ok(), bounds.deny(source.as_fd(), "x").is_ok());
            if ours != oracle {
                let said = [bounds.allow(source.as_fd(), "x"), bounds.deny(source.as_fd(), "x")];
                return Err(format!("{path:?} ({real:?}) with {text}: {ours:?}, not {oracle:?}: {said:?}"));
            }
            counts[usize::from(ours.0) * 2 + usize::from(ours.1)] += 1;
        }
    }
    Ok((decided, counts))
}

/// Environment variable with the base directory, set in the process with its own mount namespace.
const INSIDE: &str = "CORACLE_BOUNDS_BASE";
const NAME: &str =
    "container::bounds::tests::a_hundred_thousand_paths_are_decided_as_by_somebody_who_looks_at_everything";

#[test]
fn a_hundred_thousand_paths_are_decided_as_by_somebody_who_looks_at_everything() {
    if let Some(base) = std::env::var_os(INSIDE) {
        let (decided, counts) = compare(Path::new(&base)).unwrap();
        assert_eq!(decided, PATHS);
        // The comparison is only meaningful if each kind of answer occurs often.
        assert!(counts.iter().all(|count| *count > PATHS / 100), "{counts:?}");
        println!("{decided} paths compared: {counts:?}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let own: &[&str] = if nix::unistd::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let done = Command::new("unshare")
        .args(own)
        .args(["--mount", "--propagation=private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, directory.path().canonicalize().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains(" paths compared: "), "{said}{errors}");
}

#[test]
fn the_mount_table_is_read_as_the_kernel_writes_it() {
    let line = br"36 25 0:32 /a\040b /mnt/x\134y rw,relatime shared:1 - tmpfs t rw";
    let found = super::mount(line).unwrap();
    assert_eq!((found.id, found.device.as_str()), (36, "0:32"));
    assert_eq!((found.root, found.point), ("/a b".into(), r"/mnt/x\y".into()));
    assert!(super::mount(b"36 25 0:32 /").is_none());
}
