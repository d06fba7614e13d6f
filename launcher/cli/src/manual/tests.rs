//! Tests the manual with the programs that read it: groff(1) and bash(1).
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use coracle::options::{Naming, OPTIONS};
use coracle_launcher::config::keys::{Key, SECTIONS, description};
use tempfile::TempDir;

use super::page::{more, sentence};
use super::*;

fn made() -> TempDir {
    let directory = TempDir::new().unwrap();
    write(directory.path()).unwrap();
    directory
}

/// Handles a missing program: skips the test on a developer's host, and fails where no test may be skipped.
fn skip(what: &str) {
    assert!(std::env::var_os("CORACLE_MUST_WORK").is_none(), "{what} is missing");
    eprintln!("skipped: {what} is missing");
}

fn rendered(page: &Path) -> Option<Output> {
    let done = Command::new("groff").args(["-man", "-Tutf8", "-ww", "-P-cbou", "-rLL=120n"]).arg(page).output();
    done.inspect_err(|_| skip("groff")).ok()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_page_has_every_option_with_its_texts() {
    let directory = made();
    let Some(page) = rendered(&directory.path().join(MAN7)) else { return };
    let page = words(&String::from_utf8(page.stdout).unwrap().replace(['‐', '−'], "-").replace('’', "'"));
    assert!(page.contains(coracle_launcher::config::PATH), "{page}");
    for spec in OPTIONS {
        let (flag, help) = (spec.flag(Naming::Container), sentence(spec.help.to_str().unwrap()));
        let more = more(spec).unwrap_or_default();
        for text in [flag.as_str(), &help, &more, spec.variable.map_or("", |name| name.to_str().unwrap())] {
            assert!(page.contains(text), "{flag}: {text:?} is not in {page}");
        }
    }
}

#[test]
fn groff_has_nothing_to_say_about_any_page() {
    let directory = made();
    let mut pages: Vec<_> =
        fs::read_dir(directory.path().join(MAN1)).unwrap().map(|page| page.unwrap().path()).collect();
    assert!(pages.iter().any(|page| page.ends_with("coracle-exec.1")), "{pages:?}");
    assert!(pages.iter().any(|page| page.ends_with("coracle-config-check.1")), "{pages:?}");
    pages.extend([MAN5, MAN7].map(|page| directory.path().join(page)));
    for page in pages {
        let Some(done) = rendered(&page) else { return };
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && said.is_empty(), "{}: {said}", page.display());
    }
}

/// Completions of bash with the cursor behind the last of these words, split as readline splits them.
fn offered(before: &str, words: &[&str], directory: &TempDir) -> BTreeSet<String> {
    let line = words.join(" ").replace(" = ", "=").replace(" : ", ":");
    let script = format!(
        "{before}\nsource \"$0\"\nCOMP_WORDS=(\"$@\") COMP_CWORD=$(($# - 1)) COMP_LINE={line:?} COMP_POINT={point}\n\
         ask() {{ [[ $(complete -p \"$1\") =~ \\ -F\\ ([^ ]+) ]]; \"${{BASH_REMATCH[1]}}\" \"$1\" \"${{!#}}\" ''; }}\n\
         ask \"$@\"; (($? != 124)) || ask \"$@\"\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        point = line.len(),
    );
    let done = Command::new("bash")
        .args(["--noprofile", "--norc", "-c", &script])
        .arg(directory.path().join(SLURMS))
        .args(words)
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    // bash warns that it is not completing; the completions are the same.
    let said: Vec<_> = said.lines().filter(|line| !line.contains("compopt: not currently executing")).collect();
    assert!(said.is_empty(), "{words:?}: {said:?}");
    String::from_utf8(done.stdout).unwrap().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn bash_offers_every_option() {
    let directory = made();
    for command in ["srun", "sbatch", "salloc", "/usr/bin/srun"] {
        let command_line = [command, "-"];
        let before = if command.starts_with('/') { "complete -F _coracle_slurm /usr/bin/srun" } else { "" };
        let found = offered(before, &command_line, &directory);
        for spec in OPTIONS {
            let flag = spec.flag(Naming::Container);
            assert!(found.contains(&flag) || found.contains(&format!("{flag}=")), "{command} {flag}: {found:?}");
        }
    }
    assert_eq!(offered("", &["srun", "--container-sc"], &directory), set(&["--container-scope="]));
    assert_eq!(
        offered("", &["srun", "--container-w"], &directory).len(),
        3,
        "a directory, and with and without a size"
    );
}

#[test]
fn bash_offers_values() {
    let directory = made();
    for path in ["a.sif", "data/in", "data/out"] {
        let path = directory.path().join(path);
        if path.extension().is_some() { fs::write(path, "") } else { fs::create_dir_all(path) }.unwrap();
    }
    let cases: &[(&[&str], &[&str])] = &[
        (&["srun", "--container-scope", "="], &["script", "steps", "all"]),
        (&["srun", "--container-scope", "=", "s"], &["script", "steps"]),
        (&["srun", "--container-scope", "st"], &["steps"]),
        (&["srun", "--container-scope=st"], &["--container-scope=steps"]),
        (&["sbatch", "--container", "=", "a"], &["a.sif"]),
        (&["sbatch", "--container", "=", "n"], &["none"]),
        (&["srun", "--container-overlay", "=", "d"], &["data"]),
        (&["srun", "--container-overlay", "=", "a"], &[]),
        (&["srun", "--container-bind", "=", "da"], &["data"]),
        (&["srun", "--container-bind", "=", "data/in", ":", "/i", ":", "r"], &["ro", "rw"]),
        (&["srun", "--container-bind", "=", "data/in", ":", "/i,data/o"], &["/i,data/out/"]),
        (&["srun", "--container-bind=/a:data/i"], &["--container-bind=/a:data/in/"]),
        (&["srun", "--container-env", "=", "A,CARGO_PKG_NAM"], &["A,CARGO_PKG_NAME"]),
        (&["srun", "--container-clean-env", "s"], &[]),
        (&["srun", "--container-bind", "=", "/a", "./app", "d"], &[]),
    ];
    for (line, wanted) in cases {
        assert_eq!(offered("", line, &directory), set(wanted), "{line:?}");
    }
}

#[test]
fn the_completion_that_was_there_is_asked_first() {
    let directory = made();
    let theirs = "_srun() { COMPREPLY=($(compgen -W '--container=<path> --chdir=' -- \"$2\")); return 1; }\n\
                  complete -o filenames -F _srun srun";
    let found = offered(theirs, &["srun", "--c"], &directory);
    assert!(found.is_superset(&set(&["--chdir=", "--container=<path>", "--container-bind="])), "{found:?}");
    assert!(!found.contains("--container="), "{found:?}");
    assert_eq!(offered(theirs, &["srun", "--ch"], &directory), set(&["--chdir="]));
    let kept =
        format!("{theirs}\nsource \"$0\"\n[[ $(complete -p srun) == *'-o filenames -F _coracle_slurm srun' ]] || exit");
    assert_eq!(offered(&kept, &["srun", "--ch"], &directory), set(&["--chdir="]), "read twice, or its flags lost");
}

#[test]
fn slurms_own_completion_still_works() {
    let (loader, slurms) =
        ("/usr/share/bash-completion/bash_completion", "/usr/share/bash-completion/completions/srun");
    if ![loader, slurms].iter().all(|file| Path::new(file).exists()) {
        return skip("bash-completion, or Slurm's file for it");
    }
    let directory = made();
    // Loaded for the first of Slurm's commands that is completed, or at start before coracle's own completion.
    let first = format!("BASH_COMPLETION_COMPAT_DIR=/nowhere; source {loader}");
    let other = format!("{first}; source \"$0\"; _coracle_first squeue");
    let eager = format!("{first}; source {slurms}");
    for before in [first, other, eager] {
        let found = offered(&before, &["srun", "--co"], &directory);
        assert!(found.is_superset(&set(&["--container-bind=", "--compress"])), "{before}: {found:?}");
        assert_eq!(offered(&before, &["srun", "--open-mode", "=", "a"], &directory), set(&["append"]), "{before}");
    }
}

#[test]
fn every_page_of_a_command_has_an_example_and_every_page_that_is_named_exists() {
    let directory = made();
    let pages: Vec<_> = fs::read_dir(directory.path().join(MAN1)).unwrap().map(|page| page.unwrap().path()).collect();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        // Commands that only have subcommands, and those that systemd starts.
        let few = ["coracle-config.1", "coracle-sif-list.1", "coracle-sif-dump.1", "coracle-store-service.1"];
        let few = few.iter().any(|name| page.ends_with(name));
        assert!(few || text.contains("EXAMPLES"), "{}", page.display());
        let text = text.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "");
        for (at, _) in text.match_indices("(1)") {
            let name: String =
                text[..at].chars().rev().take_while(|letter| letter.is_alphanumeric() || *letter == '-').collect();
            let name: String = name.chars().rev().collect();
            let ours = name.starts_with("coracle");
            assert!(
                !ours || directory.path().join(MAN1).join(format!("{name}.1")).exists(),
                "{}: {name}",
                page.display()
            );
        }
    }
}

#[test]
fn the_page_of_the_settings_has_every_key_and_every_line_of_the_example() {
    let directory = made();
    let Some(page) = rendered(&directory.path().join(MAN5)) else { return };
    let page = words(&String::from_utf8(page.stdout).unwrap().replace(['‐', '−'], "-").replace(['’', '‘'], "'"));
    let plain = |text: &str| words(&text.replace('…', "...").replace('`', ""));
    fn has(page: &str, key: &Key, plain: &impl Fn(&str) -> String) {
        let text = format!("{} {}", key.name, plain(&description(key)));
        assert!(page.contains(&text), "{text:?} is not in {page}");
        for (word, meaning) in key.words() {
            let text = format!("{word} {}", plain(meaning));
            assert!(page.contains(&text), "{}: {text:?} is not in {page}", key.name);
        }
        key.keys().iter().for_each(|key| has(page, key, plain));
    }
    for section in SECTIONS {
        assert!(page.contains(&plain(section.text)), "{:?} is not in {page}", section.text);
        section.keys.iter().for_each(|key| has(&page, key, &plain));
    }
    let example = include_str!("../../../../slurm-conf-examples/coracle.yaml").replace('…', "...");
    for line in example.lines().filter(|line| !line.is_empty() && !line.starts_with("# ") && *line != "#") {
        assert!(page.contains(&words(line)), "{line:?} is not in {page}");
    }
}
