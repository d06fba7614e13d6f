//! Compares the evaluator with shells.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::env::{Pair, Rules};

const FILE: &str = "/.singularity.d/env/90-environment.sh";

fn pairs(list: &[(&str, &str)]) -> Vec<Pair> {
    list.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

/// Variables of the host in these tests, including `PATH`.
fn host() -> Vec<Pair> {
    pairs(&[("PATH", "/usr/bin:/bin"), ("HOST", "of host"), ("EMPTY", ""), ("STAR", "*"), ("HOME", "/home/alice")])
}

fn environment() -> Environment {
    Environment::start(&host(), &Rules { already_inside: true, ..Rules::default() })
}

fn evaluated(text: &str) -> Environment {
    let mut environment = environment();
    evaluate(FILE, text.as_bytes(), &mut environment).unwrap();
    environment
}

fn value(text: &str) -> Option<String> {
    evaluated(text).get("A").map(|variable| variable.value.to_str().unwrap().to_owned())
}

#[test]
fn all_scripts_of_an_image_have_one_limit() {
    let mut environment = environment();
    let script = format!("B={}\n{}", "x".repeat(60_000), "A=$B$B\n".repeat(40));
    let done = (0..100).take_while(|_| evaluate(FILE, script.as_bytes(), &mut environment).is_ok()).count();
    assert!((1..10).contains(&done), "{done} scripts");
    let error = evaluate(FILE, script.as_bytes(), &mut environment).unwrap_err();
    assert!(error.to_string().contains("the scripts up to this one have more than 16777216 bytes"), "{error}");
}

fn refused(text: &str) -> NotPlain {
    let mut environment = environment();
    let before = environment.clone();
    let error = evaluate(FILE, text.as_bytes(), &mut environment).unwrap_err();
    // The work counts even so.
    environment.work = before.work;
    assert_eq!(environment, before, "something of a script that is not plain was applied");
    error
}

/// Variables that `shell` exports after sourcing `text`, without those that it sets itself.
fn of_shell(shell: &[&str], text: &str) -> Vec<Pair> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("script.sh");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(shell[0])
        .args(&shell[1..])
        .args(["-c", ". \"$0\"; exec /usr/bin/env -0"])
        .arg(&file)
        .env_clear()
        .envs(host())
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut pairs: Vec<Pair> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let equals = entry.iter().position(|byte| *byte == b'=')?;
            let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            Some((owned(&entry[..equals]), owned(&entry[equals + 1..])))
        })
        .filter(|(name, _)| !matches!(name.as_bytes(), b"PWD" | b"OLDPWD" | b"SHLVL" | b"_"))
        .collect();
    pairs.sort();
    pairs
}

/// Shells that images have, as far as this machine has them.
fn shells() -> Vec<Vec<&'static str>> {
    let all = [vec!["/bin/sh"], vec!["/bin/bash"], vec!["/bin/busybox", "sh"], vec!["/usr/bin/busybox", "sh"]];
    all.into_iter().filter(|shell| std::path::Path::new(shell[0]).exists()).collect()
}

#[test]
fn plain_scripts_mean_what_they_mean_to_every_shell() {
    for text in [
        "",
        "#!/bin/sh\n# nothing\n\n",
        "export A=1",
        "export A=1 B=\"x y\" C='$A'; export D",
        "A=1; export A; A=2",
        "A=1",
        "A=1\nexport B=$A",
        "export HOST=image",
        "HOST=image",
        "export HOST=\"${HOST:-\"image\"}\" A=\"${UNSET:-\"a b\"}\"",
        "export A=${UNSET-x} || false\n",
        "export A=\"${EMPTY:-e}${EMPTY-f}${UNSET:+no}${HOST:+yes}${EMPTY+set}\"",
        ": \"${A:=1}\" ${B=2}; export A B",
        "unset HOST; HOST=1",
        "unset -v HOST EMPTY",
        "export A\nA=late",
        "export A; unset A; A=1\nexport B=",
        "export A='it'\\''s' B=a\\ b C=\"a\\\"b\\$c\\d\"",
        "export A=a\\\nb \\\n  B=2",
        "export A=\"two\nlines\"",
        "A=1 B=$A; export A B",
        "export A=1 B=x$A",
        "if [ -z \"$UNSET\" ]; then export A=1; else export A=2; fi",
        "if test -n \"${HOST}\" && [ \"$HOST\" = \"of host\" ]\nthen\nexport A=1\nelif true; then no such; fi",
        "if [ \"$HOST\" != x ]; then if ! false; then export A=deep; fi; fi",
        "[ -z \"$HOST\" ] && export A=1 || export A=2; [ ! -n \"\" ] && export B=3",
        "[ \"$EMPTY\" ] || [ ! = = ] || export A=1",
        "if false; then . /no/such $@; fi",
        "export A=\"$\" B=\"$/\" C=\"a#b\" D=a#b # comment",
        "export A=\"${UNSET:-\"a}b\"}\" B=\"${UNSET:-{x\\}}\" C=\"${UNSET:-\"x\"y\"z\"}\"",
        "export A=\"Z\u{fc}rich\"",
        "export PATH=/opt/x/bin:$PATH LD_LIBRARY_PATH=\"/opt/x/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\"",
    ] {
        let ours = evaluated(text).exported();
        for shell in shells() {
            assert_eq!(ours, of_shell(&shell, text), "{shell:?}: {text}");
        }
    }
}

#[test]
fn what_needs_a_shell_is_left_to_it_as_a_whole() {
    for (text, line) in [
        ("export A=1\nexport B=$(date)", 2),
        ("export A=1\nexport B=`date`", 2),
        ("export A=$((1+1))", 1),
        ("\n\n. /opt/setup.sh", 3),
        ("source /opt/setup.sh", 1),
        ("export A=1\ncase $A in 1) B=2;; esac", 2),
        ("for i in 1 2; do A=$i; done", 1),
        ("f() { :; }", 1),
        ("{ A=1; }", 1),
        ("(A=1)", 1),
        ("echo a | cat", 1),
        ("echo a > /tmp/x", 1),
        ("sleep 1 &", 1),
        ("export A=~/x", 1),
        ("export A=*", 1),
        ("export A=$STAR", 1),
        ("export A=$HOST", 1),
        ("export A={a,b}", 1),
        ("export A=[ab]", 1),
        ("A=1 true", 1),
        ("export -n HOST", 1),
        ("unset -f f", 1),
        ("readonly A=1", 1),
        ("set -a", 1),
        ("exit 0", 1),
        ("return", 1),
        ("eval A=1", 1),
        ("A+=1", 1),
        ("export A+=1", 1),
        ("[[ -n $A ]]", 1),
        ("[ -f /etc/passwd ] && export A=1", 1),
        ("[ -n $UNSET ]", 1),
        ("[ a == a ]", 1),
        ("[ a", 1),
        ("if [ -n x ]; then\nexport A=1", 2),
        ("if true; then fi", 1),
        ("fi", 1),
        ("export A=${HOST#of}", 1),
        ("export A=${#HOST}", 1),
        ("export A=${HOST:?}", 1),
        ("export A=${HOST/a/b}", 1),
        ("export A=\"${UNSET:-it's}\"", 1),
        ("export A=$'x'", 1),
        ("export A=\"$PWD\"", 1),
        ("export A=$RANDOM", 1),
        ("IFS=:", 1),
        ("export A=$1", 1),
        ("export A=\"$@\"", 1),
        ("export A=\"unterminated", 1),
        ("export A='unterminated", 1),
        ("export A=1\r\n", 1),
        ("export A=\u{fc}", 1),
        ("export A=\"x\0y\"", 1),
        ("export $HOST", 1),
        ("export 1A=1", 1),
        ("export", 1),
        ("unset", 1),
        ("A=1;;", 1),
        ("A=1 && ", 1),
        ("&& A=1", 1),
        ("cat <<E\nA=1\nE", 1),
        ("export A=$HO\\\nST", 1),
    ] {
        assert_eq!(refused(text).line, line, "{text:?}: {}", refused(text));
    }
    assert_eq!(refused("export A=1\n\texport B=$(date)\n").to_string(), "line 2 needs a shell: export B=$(date)");
    assert_eq!(refused("\nmodule load gcc").to_string(), "line 2 needs a shell: module");
}

#[test]
fn a_command_that_is_never_reached_may_be_anything() {
    assert_eq!(
        value("if test -n \"${UNSET:-}\"; then\n. \"/scif/$UNSET\" \"$@\"\nexit 1\nfi\nexport A=1").as_deref(),
        Some("1")
    );
    assert_eq!(value("true || . /x; export A=1").as_deref(), Some("1"));
}

#[test]
fn the_image_gets_its_word_but_not_the_hosts_origin() {
    let environment = evaluated("export HOST=\"${HOST:-\"image\"}\" A=\"${A:-\"image\"}\"");
    assert_eq!(environment.get("HOST").unwrap().origin, Origin::Host);
    assert_eq!(environment.get("A").unwrap().origin.to_string(), format!("image: {FILE}"));
}

#[test]
fn what_is_not_exported_is_known_to_later_files_and_to_the_shell() {
    let mut environment = evaluated("A='it'\\''s'; export LATE");
    evaluate("/b.sh", b"export B=\"$A\"; LATE=1", &mut environment).unwrap();
    assert_eq!(environment.get("B").unwrap().value, "it's");
    assert_eq!(environment.get("LATE").unwrap().value, "1");
    assert_eq!(environment.get("A"), None);

    let prelude = evaluated("A='it'\\''s'; export LATE").shell_prelude();
    let text = format!("{}export B=\"$A\"; LATE=1", String::from_utf8(prelude).unwrap());
    let after = of_shell(&["/bin/sh"], &text);
    assert_eq!(after, environment.exported());
}

/// Same as the last script of every Apptainer image.
#[test]
fn a_prompt_of_the_shells_own_is_none_of_the_environments() {
    let script = "if [ -z \"${PS1:-}\" ]; then\n    PS1=\"Inside> \"\nfi\nexport PS1";
    let ours = evaluated(script).exported();
    for shell in shells() {
        let prelude = String::from_utf8(environment().shell_prelude()).unwrap();
        assert_eq!(ours, of_shell(&shell, &(prelude + script)), "{shell:?}");
    }
    let mut with_prompt = environment();
    evaluate(FILE, b"export PS1=x", &mut with_prompt).unwrap();
    assert_eq!(with_prompt.shell_prelude(), b"");
}

#[test]
fn a_script_cannot_fill_the_memory_or_the_stack() {
    let doubling = format!("A=0123456789\n{}", "A=\"$A$A\"\n".repeat(64));
    assert!(refused(&doubling).line > 10, "{}", refused(&doubling));
    let long = format!("A={}\n{}", "x".repeat(100_000), "B=$A\n".repeat(1000));
    assert!(refused(&long).line > 100);
    refused(&format!("{}true{}", "if true; then ".repeat(100_000), "; fi".repeat(100_000)));
    refused(&format!("A={}", "${B:-".repeat(100_000)));
    refused(&"#".repeat(MAX_SCRIPT + 1));
}

/// Parts of plain scripts, and a few that are not plain.
fn word() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "x",
        "/opt",
        ":",
        "'a b'",
        "'$A'",
        "\"q $A\"",
        "$A",
        "${B}",
        "${C:-d}",
        "\"${C:-\"d e\"}\"",
        "\"${A-x}\"",
        "\"${A:+y$B}\"",
        "${D:=z}",
        "\"\\\"\\$\\n\\\\\"",
        "\\ ",
        "\\'",
        "\"\"",
        "''",
        "\"$HOST\"",
        "$EMPTY",
        "\"*?\"",
        "\"${UNSET:-{\\}}\"",
        "\\\n",
        "\"l1\nl2\"",
        "\"\u{e9}\"",
        "#",
        "=",
        "\"$STAR\"",
        "y",
        "_",
        "/z",
    ]);
    let odd = prop::sample::select(vec!["[", "*", "~", "{a,b}", "$STAR", "\\*"]);
    prop::collection::vec(prop_oneof![40 => piece, 1 => odd], 0..4).prop_map(|pieces| pieces.concat())
}

fn command() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["A", "B", "C", "D", "HOST", "EMPTY"]);
    let assignment = (name(), word()).prop_map(|(name, word)| format!("{name}={word}"));
    let simple = prop_oneof![
        4 => assignment,
        4 => (name(), word(), name()).prop_map(|(name, word, other)| format!("export {name}={word} {other}")),
        1 => name().prop_map(|name| format!("export {name}")),
        1 => (name(), name()).prop_map(|(name, other)| format!("unset {name} {other}")),
        1 => word().prop_map(|word| format!(": {word}")),
        1 => word().prop_map(|word| format!("test -n \"\"{word}")),
        1 => (word(), word()).prop_map(|(left, right)| format!("[ \"\"{left} = \"\"{right} ]")),
        1 => Just("# it's a \"comment".to_owned()),
        1 => Just("false".to_owned()),
    ];
    simple.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("if {a}\nthen {b}\nelse\n{c}\nfi")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}\n{b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} && {b}")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("! {a} ||\n{b}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_plain_is_what_the_shell_makes_of_it(commands in prop::collection::vec(command(), 1..6)) {
        let text = commands.join("\n");
        let mut environment = environment();
        if evaluate(FILE, text.as_bytes(), &mut environment).is_ok() {
            for shell in shells() {
                prop_assert_eq!(environment.exported(), of_shell(&shell, &text), "{:?}: {}", shell, text);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        pieces in prop::collection::vec(prop::sample::select(b"A=$${}{:-+\"'\\\n ;&|![]#ifthenfi export\0\xff(`".as_slice()), 0..60),
    ) {
        let mut environment = environment();
        let before = environment.clone();
        if evaluate(FILE, &pieces, &mut environment).is_err() {
            environment.work = before.work;
            prop_assert_eq!(environment, before);
        }
    }
}
