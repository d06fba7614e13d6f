//! Tests the grammar of definition files.
#![forbid(unsafe_code)]

use super::*;

fn parsed(text: &str) -> Result<Definition, Refusal> {
    Definition::parse("x.def", text, &[])
}

fn refused(text: &str) -> String {
    parsed(text).unwrap_err().line()
}

#[test]
fn a_definition_is_read_as_apptainer_reads_it() {
    let text = "# made by hand\nFROM: debian:12  # the stable one\nBootStrap: docker\nInclude: a \\\n b\n\n\
                %post -c /bin/bash\n  echo one # %no section\n%POST\necho two\n\
                %environment\nexport A=b\n%labels\nWho me\n%files\n# none\n\"a b\" /c\nd*\n%apprun one\nrun\n%appenv one\nenv\n";
    let definition = parsed(text).unwrap();
    let stage = &definition.stages[0];
    assert_eq!((stage.header("from"), stage.header("bootstrap")), (Some("debian:12"), Some("docker")));
    assert_eq!(stage.header("include"), Some("a b"));
    let post = stage.section("post").unwrap();
    assert_eq!((post.line, post.arguments.as_str()), (7, "-c /bin/bash"));
    assert_eq!(post.text, "  echo one # %no section\necho two\n");
    let list: Vec<_> =
        stage.files[0].list.iter().map(|line| (line.line, line.from.as_str(), line.to.as_deref())).collect();
    assert_eq!(list, [(17, "a b", Some("/c")), (18, "d*", None)]);
    assert_eq!((stage.apps.len(), stage.apps[0].sections.len()), (1, 2));
    assert_eq!(definition.text, text);
}

#[test]
fn each_stage_has_its_own_sections_and_values() {
    let text = "Bootstrap: scratch\nStage: one\n%arguments\nA=1\n%post\n{{ A }}\n\
                Bootstrap: scratch\nStage: two\n%arguments\nA=2\n%files from one\n/x\n%post\n{{ A }}\n";
    let definition = parsed(text).unwrap();
    let post: Vec<_> = definition.stages.iter().map(|stage| stage.section("post").unwrap().text.as_str()).collect();
    assert_eq!(post, ["1\n", "2\n"]);
    assert_eq!((definition.stages[1].line, definition.stages[1].files[0].line), (7, 11));
    assert_eq!(definition.stages[1].files[0].stage.as_deref(), Some("one"));
}

#[test]
fn scripts_have_an_interpreter() {
    let script =
        |arguments: &str, text: &str| Section { line: 1, arguments: arguments.into(), text: text.into() }.script();
    assert_eq!(script("", "echo\n"), "#!/bin/sh\n\necho\n");
    assert_eq!(script("-e # strict", "echo\n"), "#!/bin/sh -e\n\necho\n");
    assert_eq!(script("", "\n  #!/usr/bin/python3\nprint(1)\n"), "#!/usr/bin/python3\n\nprint(1)\n");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let head = "Bootstrap: scratch\n";
    for (text, wanted) in [
        ("From: x\n".into(), "x.def:1: the header has no line such as Bootstrap: docker [build]"),
        (String::new(), "x.def:1: the header has no line such as Bootstrap: docker [build]"),
        (format!("%post\ntrue\n{head}"), "x.def:1: the header has no line such as Bootstrap: docker [build]"),
        ("Bootstrap: yum\n".into(), "x.def:1: Bootstrap: yum is not done here: debootstrap, docker, "),
        ("Bootstrap: library\nFrom: x\n".into(), "x.def:1: Bootstrap: library is not done here"),
        ("Bootstrap: docker\n".into(), "x.def:1: Bootstrap: docker needs a line From: [build]"),
        (format!("{head}Colour: red\n"), "x.def:2: no header has \"colour\" here: bootstrap, from, "),
        (format!("{head}nothing\n"), "x.def:2: \"nothing\" is no line of a header"),
        (format!("{head}stage: a\nstage: b\n"), "x.def:3: stage is there twice [build]"),
        (format!("{head}stage: a\\\n"), "x.def:2: stage goes on with a \\"),
        (format!("{head}\n%posts\nx\n"), "x.def:3: there is no section %posts: %arguments, "),
        (format!("{head}%setup\ntouch /x\n"), "x.def:2: %setup runs commands on this machine"),
        (format!("{head}%pre\ntouch /x\n"), "x.def:2: %pre runs commands on this machine"),
        (format!("{head}%files from none\n/x\n"), "x.def:2: no stage before this one is called \"none\" [build]"),
        (format!("{head}%files form none\n/x\n"), "x.def:2: %files alone, or %files from STAGE"),
        (format!("{head}%files\na b c\n"), "x.def:3: \"a b c\" is more than two names"),
        (format!("{head}%files\n\"a b\n"), "x.def:3: a quotation mark is missing"),
        (format!("{head}%apprun\nx\n"), "x.def:2: %apprun is followed by the name of an app"),
        (format!("{head}%apprun ../x\nx\n"), "x.def:2: %apprun is followed by the name of an app"),
        (format!("{head}%post\n{{{{ X }}}}\n"), "x.def:3: {{ X }} has no value [build]"),
        (format!("{head}Fingerprints: ABC\n"), "x.def:2: Fingerprints: no signature"),
        (format!("{head}stage: a\n{head}stage: a\n"), "x.def:3: a second stage is called \"a\" [build]"),
    ] {
        let said = refused(&text);
        assert!(said.starts_with(&format!("coracle: {wanted}")), "{text:?}: {said}");
    }
}
