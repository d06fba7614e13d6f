//! Holds the scripts in an image. They are portable to old shells, and to Coracle's own reader of such scripts
//! (coracle_launcher::env::script).
#![forbid(unsafe_code)]

use coracle_launcher::image::oci::program_in;

use crate::sources::oci::Execution;

/// Files of every image.
pub const ALWAYS: [(&str, &str); 9] = [
    ("/.singularity.d/env/01-base.sh", "#!/bin/sh\n"),
    ("/.singularity.d/env/90-environment.sh", "#!/bin/sh\n# The image's own variables.\n"),
    ("/.singularity.d/env/99-base.sh", BASE),
    ("/.singularity.d/env/99-runtimevars.sh", RUNTIME),
    ("/.singularity.d/actions/exec", EXEC),
    ("/.singularity.d/actions/run", RUN),
    ("/.singularity.d/actions/shell", SHELL),
    ("/.singularity.d/actions/start", START),
    ("/.singularity.d/actions/test", TEST),
];

/// Directory in which runtimes put libraries of the host. Apptainer's own script sets the user's variables right after
/// this file.
const BASE: &str = r#"#!/bin/sh
# Libraries of the host come last.
LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/.singularity.d/libs"
export LD_LIBRARY_PATH
"#;

/// Apptainer's handling of APPTAINERENV_PREPEND_PATH, _APPEND_PATH and _PATH.
const RUNTIME: &str = r#"#!/bin/sh
# The user's own wishes for PATH.
PATH="${SING_USER_DEFINED_PREPEND_PATH:+$SING_USER_DEFINED_PREPEND_PATH:}${PATH}"
PATH="${PATH}${SING_USER_DEFINED_APPEND_PATH:+:$SING_USER_DEFINED_APPEND_PATH}"
PATH="${SING_USER_DEFINED_PATH:-$PATH}"
export PATH
unset SING_USER_DEFINED_PREPEND_PATH SING_USER_DEFINED_APPEND_PATH SING_USER_DEFINED_PATH
"#;

/// Scripts that Singularity 2 starts; current runtimes have their own.
const EXEC: &str = r#"#!/bin/sh
for file in /.singularity.d/env/*.sh; do
	[ ! -f "$file" ] || . "$file"
done
exec "$@"
"#;
const RUN: &str = r#"#!/bin/sh
for file in /.singularity.d/env/*.sh; do
	[ ! -f "$file" ] || . "$file"
done
[ ! -x /.singularity.d/runscript ] || exec /.singularity.d/runscript "$@"
exec /bin/sh "$@"
"#;
const SHELL: &str = r#"#!/bin/sh
for file in /.singularity.d/env/*.sh; do
	[ ! -f "$file" ] || . "$file"
done
[ ! -x /bin/bash ] || exec /bin/bash --norc "$@"
exec /bin/sh "$@"
"#;
const START: &str = r#"#!/bin/sh
for file in /.singularity.d/env/*.sh; do
	[ ! -f "$file" ] || . "$file"
done
[ ! -x /.singularity.d/startscript ] || exec /.singularity.d/startscript "$@"
"#;
const TEST: &str = r#"#!/bin/sh
for file in /.singularity.d/env/*.sh; do
	[ ! -f "$file" ] || . "$file"
done
[ ! -x /.singularity.d/test ] || exec /.singularity.d/test "$@"
echo 'there is no test in this image' >&2
"#;

/// Variables of the selected app (SCIF, the Scientific Filesystem).
pub const APPS: &str = r#"#!/bin/sh
if [ -n "${SINGULARITY_APPNAME:-}" ]; then
	SCIF_APPS=/scif/apps
	SCIF_APPROOT="/scif/apps/$SINGULARITY_APPNAME"
	export SINGULARITY_APPNAME SCIF_APPS SCIF_APPROOT
	if [ ! -d "$SCIF_APPROOT" ]; then
		echo "no such app in this image: $SINGULARITY_APPNAME"
		exit 1
	fi
	PATH="$SCIF_APPROOT/bin:$SCIF_APPROOT:$PATH"
	LD_LIBRARY_PATH="$SCIF_APPROOT/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
	export PATH LD_LIBRARY_PATH
	. "$SCIF_APPROOT/scif/env/01-base.sh"
	if [ -f "$SCIF_APPROOT/scif/env/90-environment.sh" ]; then
		. "$SCIF_APPROOT/scif/env/90-environment.sh"
	fi
fi
"#;

/// Any `text` as one word of a shell. The shell that Apptainer reads variables with (github.com/mvdan/sh) would keep a
/// backslash between quotes, `'\''`.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r#"'"'"'"#))
}

/// Script that sets the variables of an OCI image: PATH always, others where the user has none of that name.
pub fn environment(list: &[String]) -> String {
    let mut text = String::from("#!/bin/sh\n");
    for variable in list {
        let (name, value) = match variable.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (variable.as_str(), None),
        };
        let mut letters = name.chars();
        let first = letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_');
        // A shell cannot set a variable of that name.
        if !first || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            continue;
        }
        text += &match value {
            None => format!("export {name}\n"),
            Some(value) if name == "PATH" => format!("{name}={}\nexport {name}\n", quoted(value)),
            Some(value) => {
                let value = quoted(value);
                format!("if [ -z \"${{{name}:-}}\" ]; then\n{name}={value}\nfi\nexport {name}\n")
            }
        };
    }
    text
}

/// Run script for the program that an OCI image names; arguments replace its Cmd. `None` if it names no program.
///
/// As in OCI runtimes, no word is evaluated a second time; Apptainer's own script does so unless SINGULARITY_NO_EVAL is
/// set. The program's path is made absolute: an OCI runtime starts in the image's WorkingDir, a job in its own working
/// directory.
pub fn runscript(config: &Execution) -> Option<String> {
    let words = |list: &[String]| list.iter().map(|word| format!("{} ", quoted(word))).collect::<String>();
    // A single empty word removes the entry point of a lower image, as in Docker.
    let mut entrypoint = config.entrypoint.clone().filter(|list| list.as_slice() != [""]).unwrap_or_default();
    let mut cmd = config.cmd.clone().unwrap_or_default();
    if let Some(program) = entrypoint.first_mut().or(cmd.first_mut()) {
        *program = program_in(config.working_dir.as_deref(), program);
    }
    let (entrypoint, cmd) = (words(&entrypoint), words(&cmd));
    if entrypoint.is_empty() && cmd.is_empty() {
        return None;
    }
    let mut text = String::from("#!/bin/sh\n# Of the image's Entrypoint and Cmd; arguments stand in for the second.\n");
    if !cmd.is_empty() {
        text += &format!("[ $# -gt 0 ] || set -- {}\n", cmd.trim_end());
    }
    text += &format!("exec {entrypoint}\"$@\"\n");
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_launcher::env::{Environment, Rules, script};
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    const NASTY: [&str; 9] = [
        "plain words",
        "it's",
        "\"double\"",
        "$HOME `id` $(id)",
        "back\\slash \\$ \\",
        "two\nlines\n",
        "} ${x} {{ }}",
        "",
        "* ? [a] ~ # ! ü",
    ];

    #[test]
    fn every_value_reaches_the_shell_and_our_own_reader_as_it_is() {
        let list: Vec<String> = NASTY.iter().enumerate().map(|(at, value)| format!("V{at}={value}")).collect();
        let text = environment(&list);
        let mut read = Environment::start(&[], &Rules::default());
        script::evaluate("x", text.as_bytes(), &mut read).unwrap();
        for (at, value) in NASTY.iter().enumerate() {
            let name = format!("V{at}");
            assert_eq!(read.get(&name).unwrap().value.as_bytes(), value.as_bytes(), "{name}");
            let shell = format!("{text}printf '%s.' \"${name}\"");
            let output = Command::new("/bin/sh").args(["-euc", &shell]).env_clear().output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{value}."), "{name}");
        }
    }

    #[test]
    fn a_users_value_counts_but_for_path() {
        let list = ["A=image", "PATH=/image", "1BAD=x", "BAD NAME=x", "NONE"].map(str::to_owned);
        let shell = format!("{}echo $A $PATH", environment(&list));
        let output =
            Command::new("/bin/sh").args(["-ec", &shell]).env("A", "user").env("PATH", "/user").output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "user /image\n");
    }

    #[test]
    fn arguments_stand_in_for_cmd_and_no_word_is_evaluated() {
        let run = |entrypoint: &[&str], cmd: &[&str], arguments: &[&str]| {
            let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
            let config = Execution { entrypoint: list(entrypoint), cmd: list(cmd), ..Execution::default() };
            let text = runscript(&config).unwrap();
            let output = Command::new("/bin/sh").args(["-c", &text, "run"]).args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(run(&["printf", "<%s>"], &["$HOME", "a'b"], &[]), "<$HOME><a'b>");
        assert_eq!(run(&["printf", "<%s>"], &["cmd"], &["`id`", "x y"]), "<`id`><x y>");
        assert_eq!(run(&[], &["printf", "<%s>", "c"], &[]), "<c>");
        assert_eq!(run(&[], &["cmd"], &["printf", "%s", "\"a\""]), "\"a\"");
        assert_eq!(run(&["printf", "<%s>"], &[], &["\n"]), "<\n>");
        assert!(runscript(&Execution::default()).is_none());
    }

    #[test]
    fn a_relative_program_starts_from_wherever_a_job_stands() {
        let text = |entrypoint: &[&str], cmd: &[&str]| {
            let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
            let working_dir = Some("/app".to_owned());
            let config =
                Execution { entrypoint: list(entrypoint), cmd: list(cmd), working_dir, ..Execution::default() };
            runscript(&config).unwrap()
        };
        let both = text(&["./start.sh", "./x"], &["./y"]);
        assert!(both.contains("exec '/app/start.sh' './x' \"$@\"") && both.contains("set -- './y'\n"), "{both}");
        let cmd = text(&[], &["bin/start"]);
        assert!(cmd.contains("set -- '/app/bin/start'\n") && cmd.contains("exec \"$@\""), "{cmd}");
        let name = text(&["start"], &[]);
        assert!(name.contains("exec 'start' \"$@\""), "{name}");
    }

    #[test]
    fn our_own_reader_needs_no_shell_for_what_is_in_every_image() {
        let mut read =
            Environment::start(&[("SING_USER_DEFINED_PREPEND_PATH".into(), "/mine".into())], &Rules::default());
        for (path, text) in ALWAYS.into_iter().filter(|(path, _)| path.contains("/env/")) {
            script::evaluate(path, text.as_bytes(), &mut read).unwrap();
        }
        script::evaluate("95-apps.sh", APPS.as_bytes(), &mut read).unwrap();
        assert_eq!(read.get("LD_LIBRARY_PATH").unwrap().value, "/.singularity.d/libs");
    }

    #[test]
    fn every_script_is_one() {
        for (path, text) in ALWAYS.into_iter().chain([("apps", APPS)]) {
            let output = Command::new("/bin/sh").args(["-nc", text]).output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{path}");
        }
    }
}
