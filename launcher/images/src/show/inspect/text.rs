//! Formats the output of `coracle inspect` as text.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use coracle::report::{clean, plain};
use coracle_orders::Inspect;

use super::{About, Texts};

/// Scripts of every image of Apptainer; only --environment shows them.
const RUNTIMES: [&str; 5] = ["/01-base.sh", "/94-appsbase.sh", "/95-apps.sh", "/99-base.sh", "/99-runtimevars.sh"];

/// Requested parts, or all of them.
pub fn of(about: &About, given: &Inspect) -> String {
    let contents = &about.contents;
    let mut text = String::new();
    if given.labels {
        labels(&mut text, &contents.labels, "");
    }
    let asked = [
        (given.runscript, &contents.runscript),
        (given.deffile, &contents.definition),
        (given.helpfile, &contents.help),
        (given.test, &contents.test),
    ];
    for said in asked.iter().filter(|(asked, _)| *asked).filter_map(|(_, said)| said.as_ref()) {
        whole(&mut text, said);
    }
    if given.environment {
        for (path, script) in &contents.environment {
            let _ = writeln!(text, "=== {} ===", clean(path));
            whole(&mut text, script);
        }
    }
    if given.labels || given.environment || asked.iter().any(|(asked, _)| *asked) { text } else { all(about) }
}

fn all(about: &About) -> String {
    let contents = &about.contents;
    let mut text = String::new();
    let mut say = |name: &str, said: &str| {
        let _ = writeln!(text, "{:14}{}", format!("{name}:"), clean(said));
    };
    say("image", &about.image);
    say("type", &format!("{}, {} bytes", about.form, about.size));
    for (name, said) in [
        ("architecture", &about.architecture),
        ("created", &about.created),
        ("modified", &about.modified),
        ("id", &about.id),
    ] {
        if let Some(said) = said {
            say(name, said);
        }
    }
    for one in &about.partitions {
        let mut said = format!("{} {}", one.role, one.filesystem);
        if let (Some(compression), Some(block)) = (&one.compression, one.block_size) {
            let _ = write!(said, ", {compression}, blocks of {} KiB", block / 1024);
        }
        let _ = write!(said, ", {} bytes from {} on", one.size, one.offset);
        if let Some(id) = one.id {
            let _ = write!(said, ", object {id}");
        }
        say("partition", &said);
    }
    for one in &about.signatures {
        let by = match (&one.fingerprint, one.keys.is_empty()) {
            (Some(fingerprint), _) => fingerprint.clone(),
            (None, false) => one.keys.join(", "),
            (None, true) => "a key that it does not name".into(),
        };
        let of = match (one.group, one.object) {
            (Some(group), _) => format!("group {group}"),
            (_, Some(id)) => format!("object {id}"),
            _ => "nothing".into(),
        };
        say("signature", &format!("of {of} by {by} (not checked: coracle verify checks it)"));
    }
    if about.form == "sif" && about.signatures.is_empty() {
        say("signature", "none");
    }
    if !contents.apps.is_empty() {
        say("apps", &contents.apps.join(" "));
    }
    if !contents.labels.is_empty() {
        text.push_str("labels:\n");
        labels(&mut text, &contents.labels, "    ");
    }
    for (name, said) in [
        ("help", &contents.help),
        ("runscript", &contents.runscript),
        ("startscript", &contents.startscript),
        ("test", &contents.test),
    ] {
        if let Some(said) = said {
            section(&mut text, name, said);
        }
    }
    for (path, script) in
        contents.environment.iter().filter(|(path, _)| !RUNTIMES.iter().any(|one| path.ends_with(one)))
    {
        section(&mut text, &format!("environment, {}", clean(path)), script);
    }
    if let Some(definition) = &contents.definition {
        section(&mut text, "definition file", definition);
    }
    if let Some(oci) = &about.oci {
        let said = serde_json::to_string_pretty(oci).unwrap_or_default();
        section(&mut text, "configuration of the OCI image", &said);
    }
    for note in &about.notes {
        let _ = writeln!(text, "note:         {}", clean(note));
    }
    text
}

fn labels(text: &mut String, labels: &Texts, indent: &str) {
    for (name, value) in labels {
        let _ = writeln!(text, "{indent}{}", clean(&format!("{name}: {value}")));
    }
}

fn section(text: &mut String, name: &str, said: &str) {
    let _ = writeln!(text, "{name}:");
    for line in plain(said).trim_end().lines() {
        let _ = writeln!(text, "    {line}");
    }
}

fn whole(text: &mut String, said: &str) {
    text.push_str(&plain(said));
    if !text.ends_with('\n') {
        text.push('\n');
    }
}
